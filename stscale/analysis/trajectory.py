"""Diffusion pseudotime from a root domain, and the abstracted graph of domains (PAGA).

Both are computed here from their formulas. scanpy's PAGA needs igraph, which is GPL; its pseudotime keeps eigenvalues
in float32 and gives those above 0.9994 no weight, as if they were of separate parts: along a long path, or of many
spots, these are the ones that order them.

Sources: Haghverdi et al., Nature Methods 13 (2016), 845-848 (diffusion pseudotime); Wolf et al., Genome Biology 20
(2019), 59 (PAGA).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.errors import InputError
from stscale.graphs.neighbors import search

NEIGHBORS = 15
"""Nearest latents that are joined."""

COMPONENTS = 10
"""Diffusion components that pseudotime reads."""

INTERPOLATED = 5
"""Nearest spots with a pseudotime that give a spot outside of the subsample its own."""

MOST = 50_000
"""Spots beyond which a subsample is computed and the rest interpolated."""

ROWS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trajectory:
    """What `trajectory` found.

    Attributes
    ----------
    pseudotime
        (n,) float64 in [0, 1]; NaN for a spot that no path of neighbours joins to the root.
    connectivity
        (K, K) float64, symmetric, in [0, 1]: edges between two domains over those expected by chance, at most 1.
    root
        Row of the spot where pseudotime starts.
    fitted
        Spots that pseudotime was computed on.
    notes
        What the user should know, one sentence each.
    """

    pseudotime: NDArray[np.float64]
    connectivity: NDArray[np.float64]
    root: int
    fitted: int
    notes: tuple[str, ...]


def trajectory(
    z: NDArray[np.float32], domain: NDArray[np.integer], root: int, *, seed: int, most: int = MOST
) -> Trajectory:
    """Order spots by diffusion from a root domain.

    Parameters
    ----------
    z
        (n, d) float32 latents; may be mapped from disk.
    domain
        (n,) domain of each, from 0.
    root
        The domain where it starts.
    seed
        Of the subsample, and of the eigenvectors' start.
    most
        Spots it is computed on; the rest is interpolated from the nearest of these.

    Raises
    ------
    InputError
        If there are fewer than 10 spots, or none of the root domain.
    """
    n, k = len(z), int(domain.max()) + 1 if len(domain) else 0
    if n < 10:
        raise InputError(f"{n} spots have latents; a trajectory needs at least 10")
    if not (domain == root).any():
        raise InputError(f"no spot is in the root domain {root}; the domains are {', '.join(map(str, range(k)))}")
    rows = _subsample(domain, root, most, np.random.default_rng(seed))
    base, own = np.ascontiguousarray(z[rows]), np.asarray(domain)[rows]
    near = search(base, base, min(NEIGHBORS, len(base) - 1), exclude_self=True, seed=seed)
    start, time = _pseudotime(near.index, near.distance, own == root, seed)
    notes = []
    unreached = np.isnan(time)
    if unreached.any():
        notes.append(f"{unreached.mean():.1%} of the spots are joined to the root by no path of neighbours")
    found = np.full(n, np.nan)
    found[rows] = time
    rest = np.setdiff1d(np.arange(n), rows)
    for lo in range(0, len(rest), ROWS):
        part = rest[lo : lo + ROWS]
        found[part] = _interpolated(base, time, z[part])
    return Trajectory(
        pseudotime=found,
        connectivity=paga(near.index, own, k),
        root=int(rows[start]),
        fitted=len(rows),
        notes=tuple(notes),
    )


def paga(index: NDArray[np.int64], domain: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """Return the connectivity of domains in a graph of nearest neighbours.

    With e_ij edges from or to, e_i edges that start in domain i and n_i spots in it, c_ij = min(1, e_ij / ε_ij) where
    ε_ij = (e_i n_j + e_j n_i) / (n − 1) is expected of edges whose ends are drawn at random.

    Parameters
    ----------
    index
        (n, m) neighbours of each spot.
    domain
        (n,) its domain.
    k
        Number of domains.

    Returns
    -------
    (k, k) float64
        Symmetric, 0 on the diagonal.
    """
    n, m = index.shape
    pairs = np.repeat(domain, m).astype(np.int64) * k + domain[index.ravel()]
    edges = np.bincount(pairs, minlength=k * k).reshape(k, k).astype(np.float64)
    size, out = np.bincount(domain, minlength=k).astype(np.float64), edges.sum(axis=1)
    expected = (np.outer(out, size) + np.outer(size, out)) / max(n - 1, 1)
    between = edges + edges.T
    found = np.minimum(np.divide(between, expected, out=np.zeros_like(between), where=expected > 0), 1.0)
    np.fill_diagonal(found, 0.0)
    return found


def affinities(index: NDArray[np.int64], distance: NDArray[np.floating]) -> sparse.csr_matrix:
    """Return the symmetric graph exp(−d²_ij / σ_i σ_j), σ_i the distance of i's last neighbour.

    Source: Zelnik-Manor and Perona, NIPS 2004 (local scaling).
    """
    n, m = index.shape
    sigma = np.maximum(distance[:, -1].astype(np.float64), 1e-12)
    weight = np.exp(-(distance.astype(np.float64) ** 2) / (sigma[:, None] * sigma[index]))
    graph = sparse.csr_matrix((weight.ravel(), index.ravel(), np.arange(0, n * m + 1, m)), shape=(n, n))
    return sparse.csr_matrix(graph.maximum(graph.T))


def diffusion(graph: sparse.csr_matrix, count: int, seed: int) -> NDArray[np.float64]:
    """Return coordinates (n, count) float64 whose Euclidean distance is the diffusion pseudotime between two spots.

    With W = Q⁻¹ A Q⁻¹, Q the degrees of A (density taken out, Coifman and Lafon 2006), T = D⁻¹ W the random walk and
    λ_l, ψ_l its eigenpairs but the first, the coordinates are ψ_l λ_l / (1 − λ_l): all numbers of steps summed.

    Parameters
    ----------
    graph
        (n, n) affinities A, symmetric and connected.
    count
        Eigenpairs, at most n − 2.
    seed
        Of the iteration's start.
    """
    from scipy.sparse.linalg import eigsh

    n = graph.shape[0]
    density = sparse.diags_array(1.0 / np.asarray(graph.sum(axis=1)).ravel())
    walk = density @ graph @ density
    root = 1.0 / np.sqrt(np.asarray(walk.sum(axis=1)).ravel())
    symmetric = sparse.csr_matrix(sparse.diags_array(root) @ walk @ sparse.diags_array(root))
    start = np.random.default_rng(seed).standard_normal(n)
    values, vectors = eigsh(symmetric, k=count + 1, which="LA", v0=start, ncv=min(n, max(4 * count, 60)))
    order = np.argsort(-values)
    values, vectors = values[order], vectors[:, order]
    # the first eigenvector is the square root of the stationary state: dividing by it gives those of T
    psi = vectors[:, 1:] / vectors[:, :1]
    return np.asarray(psi * (values[1:] / np.maximum(1.0 - values[1:], 1e-12)))


def _pseudotime(
    index: NDArray[np.int64], distance: NDArray[np.float32], in_root: NDArray[np.bool_], seed: int
) -> tuple[int, NDArray[np.float64]]:
    """Return the row of the root and the pseudotime of every row, NaN where it cannot be reached."""
    graph = affinities(index, distance)
    parts = sparse.csgraph.connected_components(graph, directed=False)[1]
    # of the parts that hold spots of the root domain, the one that holds most
    part = int(np.bincount(parts[in_root]).argmax())
    mine = np.flatnonzero(parts == part)
    time = np.full(len(index), np.nan)
    if len(mine) < 10:
        time[mine] = 0.0
        return int(mine[in_root[mine]][0]), time
    coordinates = diffusion(graph[mine][:, mine], min(COMPONENTS, len(mine) - 2), seed)
    start = _tip(coordinates, in_root[mine])
    away = np.linalg.norm(coordinates - coordinates[start], axis=1)
    time[mine] = away / max(float(away.max()), 1e-300)
    return int(mine[start]), time


def _tip(coordinates: NDArray[np.float64], in_root: NDArray[np.bool_]) -> int:
    """Return the spot of the root domain that lies farthest from all others: the process starts at an end."""
    others = ~in_root if not in_root.all() else in_root
    mine = np.flatnonzero(in_root)
    away = np.sum((coordinates[mine] - coordinates[others].mean(axis=0)) ** 2, axis=1)
    return int(mine[away.argmax()])


def _subsample(domain: NDArray[np.integer], root: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    n = len(domain)
    if n <= most:
        return np.arange(n)
    drawn = rng.choice(n, size=most, replace=False)
    if not (domain[drawn] == root).any():  # a root of a few spots may have been missed
        drawn[0] = rng.choice(np.flatnonzero(domain == root))
    return np.unique(drawn)


def _interpolated(base: NDArray[np.float32], time: NDArray[np.float64], z: NDArray[np.float32]) -> NDArray[np.float64]:
    """Average the pseudotime of the nearest rows that have one, by inverse distance."""
    known = np.isfinite(time)
    near = search(base[known], z, min(INTERPOLATED, int(known.sum())))
    weight = 1.0 / np.maximum(near.distance.astype(np.float64), 1e-9)
    return np.asarray((weight * time[known][near.index]).sum(axis=1) / weight.sum(axis=1))
