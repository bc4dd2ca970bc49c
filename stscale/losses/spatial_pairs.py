"""Which pairs of a batch stand for the edges and the non-edges of all slices, and with which weights."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpatialPairs:
    """Ordered pairs (i, j) of a batch, each with the number of pairs of the whole data that it stands for.

    Attributes
    ----------
    edges
        (2, e) int64; row 0: position among the rank's own seeds, row 1: position among all seeds of the batch.
    edge_weight
        (e,) float64.
    others
        (2, q) int64, pairs of one slice that are no edges, i ≠ j.
    other_weight
        (q,) float64.
    """

    edges: NDArray[np.int64]
    edge_weight: NDArray[np.float64]
    others: NDArray[np.int64]
    other_weight: NDArray[np.float64]


def pair_weight(
    unit_i: NDArray[np.int64], unit_j: NDArray[np.int64], drawn: NDArray[np.int64], total: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return one over the probability that both ends of a pair of one slice are in a batch.

    Parameters
    ----------
    unit_i, unit_j
        (q,) sampling unit (tile, or the spot itself) of both ends.
    drawn, total
        (q,) or scalar, units of the pair's slice in the batch, and in all.
    """
    raise NotImplementedError


def draw_pairs(
    seeds: NDArray[np.int64],
    rows: tuple[NDArray[np.int64], NDArray[np.int32]],
    group: NDArray[np.int64],
    unit: NDArray[np.int64],
    total: NDArray[np.int64],
    *,
    draws: int,
    rng: np.random.Generator,
    own: tuple[int, int] | None = None,
) -> SpatialPairs:
    """Find the edges among the seeds of a batch and draw non-edges among them, with weights.

    Parameters
    ----------
    seeds
        (b,) distinct global ids of the seeds of all ranks.
    rows
        (lengths, neighbours) of the own seeds in the spatial graph: `graph.rows(seeds[first:stop])`.
    group
        (b,) slice of each seed.
    unit
        (b,) what was drawn: the tile of each seed (`np.searchsorted(sampler.starts, seeds, "right") - 1`), or the
        seed itself where spots are drawn one by one.
    total
        (s,) units (tiles, or spots) of each slice.
    draws
        Partners drawn per seed.
    rng
        Where they come from.
    own
        (first, stop) of the seeds that are this rank's; default all.
    """
    raise NotImplementedError
