"""Super-spots: compact, connected groups of spots, few enough for dense transport."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from stscale.errors import InputError
from stscale.graphs.csr import Graph
from stscale.slices.hilbert import hilbert_order


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anchors:
    """Groups of spots of one slice; m anchors of n spots.

    Attributes
    ----------
    owner
        (n,) int64, anchor of each spot.
    xy
        (m, 2) mean position.
    z
        (m, d) mean latent.
    mass
        (m,) share of the spots, sum 1.
    """

    owner: NDArray[np.int64]
    xy: NDArray[np.float64]
    z: NDArray[np.float64]
    mass: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.mass)


def make_anchors(xy: NDArray[np.float64], z: NDArray[np.floating], graph: Graph, *, most: int = 400) -> Anchors:
    """Cut a slice into at most `most` groups.

    Seeds are the middle spots of equal runs of the Hilbert order; every spot joins the seed nearest along the graph
    (edges as long as they are in space), so groups are connected. Spots of a piece of tissue that holds no seed join
    the seed nearest in space. O(E log n).

    Parameters
    ----------
    xy
        (n, 2) positions.
    z
        (n, d) latents.
    graph
        Spatial graph of the n spots.
    most
        Largest number of groups; as many as spots when there are fewer.

    Raises
    ------
    InputError
        Sizes that differ, or `most` below 1.
    """
    from scipy.sparse.csgraph import dijkstra
    from scipy.spatial import cKDTree

    n = len(xy)
    if not n == len(z) == graph.n or n == 0 or most < 1:
        raise InputError(
            f"{n} positions, {len(z)} latents, a graph of {graph.n} spots, at most {most} anchors; "
            "expected equal numbers and at least one anchor"
        )
    runs = np.array_split(hilbert_order(xy), min(most, n))
    seeds = np.array([run[np.argmin(((xy[run] - xy[run].mean(axis=0)) ** 2).sum(axis=1))] for run in runs])
    row = np.repeat(np.arange(n), graph.degree())
    length = np.linalg.norm(xy[row] - xy[graph.indices], axis=1)
    # spots that share a position are joined at no cost, which a sparse matrix would read as no edge
    length = np.maximum(length, np.finfo(np.float64).tiny)
    distances = sp.csr_array((length, graph.indices, graph.indptr), shape=(n, n))
    reached, _, source = dijkstra(distances, indices=seeds, min_only=True, return_predecessors=True)
    place = np.full(n, -1, np.int64)
    place[seeds] = np.arange(len(seeds))
    found = np.isfinite(reached)
    owner = np.empty(n, np.int64)
    owner[found] = place[source[found]]
    if not found.all():
        owner[~found] = cKDTree(xy[seeds]).query(xy[~found])[1]
    count = np.bincount(owner, minlength=len(seeds)).astype(np.float64)
    group = sp.csr_array((1 / count[owner], (owner, np.arange(n))), shape=(len(seeds), n))
    return Anchors(owner=owner, xy=group @ xy, z=group @ np.asarray(z, np.float64), mass=count / n)
