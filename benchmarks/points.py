"""Random tissue without genes: points, their graph and random features, for benchmarks of training alone."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stscale.graphs import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Spots of several slices, each in Hilbert order, joined to their six nearest.

    Attributes
    ----------
    graph
        Of all slices, block-diagonal.
    offsets
        (s + 1,) int64 first spot of each slice, and n.
    group
        (n,) int32 slice of each spot.
    """

    graph: "Graph"
    offsets: NDArray[np.int64]
    group: NDArray[np.int32]


def points(n: int, slices: int, rng: np.random.Generator) -> Points:
    """Draw n points evenly over the unit square of each slice, slices as equal in size as n allows."""
    from stscale.config import Graph as Config
    from stscale.graphs import spatial_graph
    from stscale.slices.hilbert import hilbert_order

    offsets = np.linspace(0, n, slices + 1).round().astype(np.int64)
    xy = rng.random((n, 2))
    for lo, hi in pairwise(offsets):
        xy[lo:hi] = xy[lo:hi][hilbert_order(xy[lo:hi])]
    group = np.repeat(np.arange(slices, dtype=np.int32), np.diff(offsets))
    return Points(graph=spatial_graph(xy, offsets, Config()), offsets=offsets, group=group)
