"""Neighbours and others among the seeds of each step."""

import numpy as np
import torch
from numpy.typing import NDArray

from stscale.graphs.csr import Graph
from stscale.losses import PairTensors, draw_pairs
from stscale.models.edges import on_device
from stscale.sampling import Sampler


class PairDraw:
    """The weighted pairs of a step, a function of (seed, step) alone (`losses.draw_pairs`).

    Parameters
    ----------
    graph
        Spatial graph, without self-loops.
    sampler
        Whose seeds meet.
    group
        (n,) slice of each spot.
    draws
        Partners drawn per seed.
    seed
        With the step it fixes them.
    part
        (rank, ranks): the pairs' first spots are the rank's own seeds.
    """

    def __init__(
        self,
        graph: Graph,
        sampler: Sampler,
        group: NDArray[np.int32],
        *,
        draws: int,
        seed: int,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self._graph, self._sampler, self._group = graph, sampler, group
        self._draws, self._seed, self._part = draws, seed, part
        self._tiles = np.asarray(sampler.tiles, dtype=np.int64)
        sizes = np.bincount(group).astype(np.int64)
        self._edges = len(graph.indices)
        self._others = int((sizes * (sizes - 1)).sum()) - self._edges

    def rarely_across(self) -> NDArray[np.int64]:
        """Return the slices of which batches hold fewer than two tiles as a rule.

        Pairs across the tiles of such a slice are met too rarely to be weighed.
        """
        drawn = self._tiles / self._sampler.batches_per_epoch
        return np.flatnonzero((drawn < 2) & (self._tiles > drawn))

    def at(self, step: int, device: torch.device) -> PairTensors:
        """Draw the pairs of a step counted from 0."""
        rank, count = self._part
        seeds = self._sampler.seeds(step)
        parts = np.array_split(np.arange(len(seeds)), count)
        first = sum(len(p) for p in parts[:rank])
        own = (first, first + len(parts[rank]))
        pairs = draw_pairs(
            seeds,
            self._graph.rows(seeds[slice(*own)]),
            self._group[seeds].astype(np.int64),
            self._sampler.tile_of(seeds),
            self._tiles,
            draws=self._draws,
            rng=np.random.default_rng([self._seed, step, 3]),
            own=own,
        )
        return PairTensors(
            edges=on_device(pairs.edges, device),
            edge_weight=on_device(pairs.edge_weight.astype(np.float32), device),
            others=on_device(pairs.others, device),
            other_weight=on_device(pairs.other_weight.astype(np.float32), device),
            all_edges=self._edges,
            all_others=self._others,
        )
