"""Minibatches of compact tiles with their exact halo."""

from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stscale.graphs.csr import Graph
from stscale.sampling.batch import Batch, Expander
from stscale.sampling.order import even_cuts, stratified_order


class TileSampler:
    """Random unions of runs of Hilbert-ordered spots, over all slices, with all neighbours up to `hops`.

    A tile's border is short, so the halo is small although no neighbour is left out; its rows are contiguous on
    disk.

    Parameters
    ----------
    graph
        Block-diagonal graph whose nodes follow the Hilbert order inside each slice.
    offsets
        (s + 1,) first node of each slice, and n.
    hops
        Layers L of the network.
    batch_size
        Seeds per batch (rounded to whole tiles).
    tile
        Spots per tile; the last tile of a slice may be smaller.
    seed
        With the epoch it fixes the composition of every batch.
    part
        (rank, ranks): which run of each batch's seeds is drawn.
    """

    def __init__(
        self,
        graph: Graph,
        offsets: NDArray[np.int64],
        *,
        hops: int,
        batch_size: int,
        tile: int,
        seed: int,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        starts = [np.arange(lo, hi, tile) for lo, hi in pairwise(offsets)]
        self.starts = np.concatenate(starts)
        self.tiles = tuple(len(s) for s in starts)
        self._graph, self._hops = graph, hops
        self.stops = np.append(self.starts[1:], offsets[-1])
        self._slice = np.repeat(np.arange(len(starts), dtype=np.int32), self.tiles)
        # shorter last tiles: all tiles may be more than batch_size // tile of them
        whole = batch_size >= offsets[-1]
        self._cuts = even_cuts(len(self.starts), len(self.starts) if whole else max(1, batch_size // tile))
        self._seed = seed
        self._part = part
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    @property
    def batches_per_epoch(self) -> int:
        """Batches in which every spot is a seed exactly once."""
        return len(self._cuts) - 1

    def batch(self, step: int) -> Batch:
        """Return the batch of a step counted from 0; any step can be asked at any time, so a resume just asks."""
        rank, count = self._part
        return self._expander.expand(np.array_split(self.seeds(step), count)[rank])

    def tile_of(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the tile of each node, (m,)."""
        return np.searchsorted(self.starts, nodes, side="right") - 1

    @cached_property
    def _expander(self) -> Expander:
        return Expander(self._graph, self._hops)

    def seeds(self, step: int) -> NDArray[np.int64]:
        """Return the global ids that are the seeds of a step over all ranks, tile by tile."""
        epoch, index = divmod(step, self.batches_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, stratified_order(self._slice, self._seed, epoch))
        tiles = self._epoch[1][self._cuts[index] : self._cuts[index + 1]]
        return np.concatenate([np.arange(self.starts[t], self.stops[t]) for t in tiles])
