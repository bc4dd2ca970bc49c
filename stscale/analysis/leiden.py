"""Leiden communities of the nearest-neighbour graph of latents (graspologic-native, MIT)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from stscale.errors import InputError
from stscale.graphs.neighbors import search

NEIGHBORS = 15
"""Neighbours that join the graph, and that vote for a spot outside of it."""

STEPS = 24
"""Resolutions tried by the bisection."""

RESOLUTIONS = (1e-3, 1e2)
"""Range of the bisection; resolution multiplies the expected weight in the modularity."""

ITERATIONS = 3
"""Leiden cycles per resolution, each from the partition of the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """Labels a new row by the majority of its nearest labelled rows.

    Attributes
    ----------
    base
        (n, c) float32 rows of the fit.
    label
        (n,) int64 their labels.
    """

    base: NDArray[np.float32]
    label: NDArray[np.int64]

    def predict(self, x: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return labels (m,) int64 of rows (m, c); of tied labels the smaller wins."""
        near = search(self.base, np.asarray(x, np.float32), min(NEIGHBORS, len(self.base))).index
        k = int(self.label.max()) + 1
        key = np.arange(len(near))[:, None] * k + self.label[near]
        count = np.bincount(key.ravel(), minlength=len(near) * k).reshape(len(near), k)
        return np.argmax(count, axis=1)


def fit_leiden(x: NDArray[np.floating], *, k: int | None, resolution: float, seed: int) -> Votes:
    """Find communities of the unweighted symmetric graph of nearest neighbours.

    Parameters
    ----------
    x
        (n, c) rows.
    k
        Number of communities wanted: the resolution is bisected on a logarithmic scale. Where no resolution
        gives exactly k, the partition with the fewest communities above k is merged pair by pair, always the
        pair whose merging costs least modularity. None uses `resolution`.
    resolution
        Of the modularity, when k is None.
    seed
        Of Leiden.

    Returns
    -------
    Votes
        With the k (or found) communities 0, 1, … as labels of the rows.

    Raises
    ------
    InputError
        When no resolution gives as many as k communities.
    """
    base = np.ascontiguousarray(x, dtype=np.float32)
    graph = neighbor_graph(base, seed=seed)
    if k is None:
        label = _leiden(graph, resolution, seed)
    else:
        label = _searched(graph, k, seed)
        if label.max() + 1 < k:
            raise InputError(f"Leiden finds at most {label.max() + 1} communities, K = {k} asked: lower K")
        label = merge(graph, label, k)
    return Votes(base=base, label=label)


def neighbor_graph(x: NDArray[np.float32], *, seed: int = 0) -> sp.csr_matrix:
    """Join every row with its nearest `NEIGHBORS` rows; symmetric (n, n) csr of ones, no self-loops."""
    n = len(x)
    k = min(NEIGHBORS, n - 1)
    if k == 0:
        return sp.csr_matrix((n, n), dtype=np.float64)
    near = search(x, x, k, exclude_self=True, seed=seed).index
    directed = sp.csr_matrix((np.ones(n * k), near.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    graph = sp.csr_matrix(directed.maximum(directed.T))
    graph.sort_indices()
    return graph


def merge(graph: sp.csr_matrix, label: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Join communities, least loss of modularity first, until k are left.

    Parameters
    ----------
    graph
        (n, n) symmetric weights.
    label
        (n,) communities 0, 1, …
    k
        Communities to keep; fewer than that are returned as they are.

    Returns
    -------
    NDArray
        (n,) int64 labels 0, 1, …
    """
    count = int(label.max()) + 1
    member = sp.csr_matrix((np.ones(len(label)), (np.arange(len(label)), label)), shape=(len(label), count))
    weight = np.asarray((member.T @ graph @ member).todense(), dtype=np.float64)  # (c, c), small
    total = max(weight.sum(), 1.0)
    to = np.arange(count)
    alive = list(range(count))
    while len(alive) > k:
        part = weight[np.ix_(alive, alive)]
        degree = part.sum(axis=1)
        gain = part / total - np.outer(degree, degree) / total**2
        np.fill_diagonal(gain, -np.inf)
        a, b = sorted(alive[i] for i in np.unravel_index(int(np.argmax(gain)), gain.shape))
        weight[a] += weight[b]
        weight[:, a] += weight[:, b]
        to[to == b] = a
        alive.remove(b)
    return np.unique(to[label], return_inverse=True)[1].astype(np.int64)


def _searched(graph: sp.csr_matrix, k: int, seed: int) -> NDArray[np.int64]:
    """Bisect the resolution for k communities; failing that, the fewest above k (or the most there are)."""
    low, high = (float(np.log(r)) for r in RESOLUTIONS)
    best = _leiden(graph, RESOLUTIONS[1], seed)
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        label = _leiden(graph, float(np.exp(middle)), seed)
        found = int(label.max()) + 1
        if found == k:
            return label
        if found > k:
            high = middle
            best = label if found <= best.max() + 1 else best
        else:
            low = middle
    return best


def _leiden(graph: sp.csr_matrix, resolution: float, seed: int) -> NDArray[np.int64]:
    """Communities (n,) 0, 1, … of a symmetric csr graph at one resolution."""
    from graspologic_native import leiden_csr

    n = graph.shape[0]
    if graph.nnz == 0:
        return np.arange(n)
    community = leiden_csr(
        graph.indptr.astype(np.int64),
        graph.indices.astype(np.int32),
        graph.data.astype(np.float64),
        n,
        resolution=resolution,
        iterations=ITERATIONS,
        seed=seed,
    )[1]
    label = np.fromiter((community[i] for i in range(n)), dtype=np.int64, count=n)
    return np.unique(label, return_inverse=True)[1].astype(np.int64)
