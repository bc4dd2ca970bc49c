"""Minibatches whose seeds reach their neighbours in several graphs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError
from stscale.graphs.csr import Graph
from stscale.sampling.batch import Batch, Expander
from stscale.sampling.neighbor import NeighborSampler
from stscale.sampling.tile import TileSampler


class ViewSampler:
    """Seeds in the order of another sampler, with neighbours drawn in each graph.

    Compact tiles share their spatial neighbours, so those may all be taken; neighbours by features are scattered
    over the slice, and a fan-out keeps a batch small.

    Parameters
    ----------
    order
        Which spots are seeds of a step.
    graphs
        Graphs of the same nodes.
    hops
        Layers of the network.
    fan_outs
        For each graph the neighbours drawn per hop; -1 takes all, and more numbers than hops are not read.
    seed
        With the step it fixes the neighbours.
    part
        (rank, ranks): which run of each batch's seeds is drawn.

    Raises
    ------
    InputError
        When a graph has fewer fan-outs than the network has layers.
    """

    def __init__(
        self,
        order: TileSampler | NeighborSampler,
        graphs: Sequence[Graph],
        *,
        hops: int,
        fan_outs: Sequence[tuple[int, ...]],
        seed: int,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        for fan_out in fan_outs:
            if len(fan_out) < hops:
                raise InputError(f"a fan-out of {list(fan_out)} needs one number per hop: {hops}")
        self._order = order
        self._expander = Expander(graphs, hops, [fan_out[:hops] for fan_out in fan_outs])
        self._seed = seed
        self._part = part

    @property
    def batches_per_epoch(self) -> int:
        """Batches in which every spot is a seed exactly once."""
        return self._order.batches_per_epoch

    @property
    def tiles(self) -> tuple[int, ...]:
        """Tiles in each slice."""
        return self._order.tiles

    def tile_of(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the tile of each node, (m,)."""
        return self._order.tile_of(nodes)

    def seeds(self, step: int) -> NDArray[np.int64]:
        """Return the global ids that are the seeds of a step over all ranks."""
        return self._order.seeds(step)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step counted from 0; any step can be asked at any time."""
        rank, count = self._part
        seeds = np.array_split(self._order.seeds(step), count)[rank]
        return self._expander.expand(seeds, np.random.default_rng([self._seed, step, 2, rank]))
