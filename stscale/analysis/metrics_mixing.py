"""How well slices mix in the latent while domains stay apart (LISI, kBET, batch ASW, graph connectivity).

All read one checked `Neighbors` object over the spots themselves (`search(z, z, k, exclude_self=True)`).
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from stscale.analysis.labels import labelled, paired
from stscale.analysis.metrics_spatial import SILHOUETTE_SPOTS, silhouette_widths
from stscale.errors import InputError
from stscale.graphs.neighbors import Neighbors

PERPLEXITY = 30.0
LISI_NEIGHBORS = 90
"""Neighbours LISI is meant to see: three times the perplexity."""

LISI_TOLERANCE = 1e-5
LISI_STEPS = 60
ROWS = 8192
"""Spots handled at once."""

KBET_LEVEL = 0.05

REACH = 4.5
"""Spot distances within which smoothed latents of a slice share their noise: two averages, two convolutions."""

FEW_MORE = 80
"""Neighbours to ask for beyond those wanted: a hexagonal grid has 72 spots within `REACH`."""


def reach(xy: NDArray[np.floating], slice_: ArrayLike) -> NDArray[np.float64]:
    """Return `REACH` times the median distance of a slice's spots to their nearest one, for each spot, (n,) float64.

    To be measured on all spots: a sample lies further apart. 0 for a slice of one spot, and for spots without a slice.
    """
    from scipy.spatial import cKDTree

    _, codes = labelled(slice_)
    found = np.zeros(len(codes))
    for s in range(int(codes.max()) + 1):
        rows = np.flatnonzero(codes == s)
        if len(rows) > 1:
            found[rows] = REACH * np.median(cKDTree(xy[rows]).query(xy[rows], 2)[0][:, 1])
    return found


def elsewhere(
    neighbors: Neighbors,
    xy: NDArray[np.floating],
    slice_: ArrayLike,
    within: NDArray[np.floating],
    *,
    k: int = LISI_NEIGHBORS,
) -> Neighbors:
    """Leave out neighbours that are close in the tissue too.

    A latent that was averaged over a spot's surroundings has the surroundings' noise: the nearest latents of any spot
    are then next to it, whether slices mix or not, and LISI is near 1 in a tissue without any batch effect. What is
    left says how spots that share a place in no slice mix.

    Parameters
    ----------
    neighbors
        (n, m), the spot itself left out; m = k + `FEW_MORE`.
    xy
        (n, 2|3) coordinates, each slice in its own frame.
    slice_
        (n,) slice of each spot.
    within
        (n,) distance up to which a spot of the own slice is close (`reach`).
    k
        Neighbours kept, at most m; a spot that has fewer takes the nearest of those left out.

    Returns
    -------
    Neighbors
        (n, k).
    """
    _, codes = labelled(slice_)
    k = min(k, neighbors.index.shape[1])
    index, distance = np.empty((len(codes), k), np.int64), np.empty((len(codes), k), np.float32)
    for lo in range(0, len(codes), ROWS):
        near = neighbors.index[lo : lo + ROWS]
        own = codes[near] == codes[lo : lo + ROWS, None]
        step = np.linalg.norm(xy[near] - xy[lo : lo + ROWS, None], axis=2)
        close = own & (step <= within[lo : lo + ROWS, None])
        first = np.sort(np.argsort(close, axis=1, kind="stable")[:, :k], axis=1)  # nearest first again
        index[lo : lo + ROWS] = np.take_along_axis(near, first, axis=1)
        distance[lo : lo + ROWS] = np.take_along_axis(neighbors.distance[lo : lo + ROWS], first, axis=1)
    return Neighbors(index=index, distance=distance)


def lisi(neighbors: Neighbors, labels: ArrayLike, *, perplexity: float = PERPLEXITY) -> NDArray[np.float64]:
    """Local inverse Simpson index: the effective number of labels among a spot's neighbours.

    1 / Σ_label (Σ_{j of label} p_ij)², p_ij ∝ exp(−β_i δ_ij), β_i such that the entropy of p_i is
    log(perplexity) (Korsunsky et al. 2019). As in the published code δ is the distance itself, not its square.

    Parameters
    ----------
    neighbors
        (n, k) with the spot itself left out; k = 90 for perplexity 30.
    labels
        (n,). Unlabelled neighbours are left out of the sums; unlabelled spots get NaN.
    perplexity
        Effective number of neighbours, below k.

    Returns
    -------
    NDArray
        (n,) float64, 1 … number of labels.
    """
    mask, codes = _codes(neighbors, labels)
    k = neighbors.index.shape[1]
    if not 1 <= perplexity < k:
        raise InputError(f"perplexity {perplexity} with {k} neighbours; expected 1 ≤ perplexity < {k}, best {k} / 3")
    count = int(codes.max()) + 1
    out = np.full(len(codes), np.nan)
    for lo in range(0, len(codes), ROWS):
        part = slice(lo, min(lo + ROWS, len(codes)))
        p = _kernel(neighbors.distance[part].astype(np.float64), perplexity)
        near = codes[neighbors.index[part]]
        p = np.where(near >= 0, p, 0.0)
        key = np.arange(len(p))[:, None] * count + np.maximum(near, 0)
        share = np.bincount(key.ravel(), weights=p.ravel(), minlength=len(p) * count).reshape(-1, count)
        total, simpson = share.sum(axis=1), np.sum(share**2, axis=1)
        out[part] = np.where(total > 0, total**2 / np.where(simpson > 0, simpson, 1.0), np.nan)
    out[~mask] = np.nan
    return out


def ilisi(neighbors: Neighbors, slice_: ArrayLike, *, perplexity: float = PERPLEXITY, scaled: bool = False) -> float:
    """Median LISI of the slices: B when B slices mix evenly, 1 when apart.

    Parameters
    ----------
    neighbors, perplexity
        As in `lisi`.
    slice_
        (n,) slice (or any batch) of each spot.
    scaled
        (median − 1) / (B − 1) in [0, 1], larger is better mixed; NaN for one slice.
    """
    median, count = _median_lisi(neighbors, slice_, perplexity)
    if not scaled:
        return median
    return (median - 1.0) / (count - 1.0) if count > 1 else float("nan")


def clisi(neighbors: Neighbors, labels: ArrayLike, *, perplexity: float = PERPLEXITY, scaled: bool = False) -> float:
    """Median LISI of labels or domains: 1 when they lie apart.

    `scaled` gives (L − median) / (L − 1) in [0, 1], larger is better separated; NaN for one label. Otherwise
    as `ilisi`.
    """
    median, count = _median_lisi(neighbors, labels, perplexity)
    if not scaled:
        return median
    return (count - median) / (count - 1.0) if count > 1 else float("nan")


def kbet(neighbors: Neighbors, slice_: ArrayLike, *, level: float = KBET_LEVEL) -> float:
    """Share of spots whose neighbours' slices fit the overall shares by a χ² test (kBET acceptance rate).

    Parameters
    ----------
    neighbors
        (n, k), the spot itself left out.
    slice_
        (n,) slice of each spot; those without one are left out. At least two slices.
    level
        Of the test: a neighbourhood with p above it is accepted.
    """
    from scipy.stats import chi2

    mask, codes = _codes(neighbors, slice_)
    size = np.bincount(codes[mask])
    if len(size) < 2:
        raise InputError("kBET compares slices, found one; expected two or more")
    accepted = 0
    for lo in range(0, len(codes), ROWS):
        rows = np.flatnonzero(mask[lo : lo + ROWS]) + lo
        near = codes[neighbors.index[rows]]
        key = np.arange(len(rows))[:, None] * len(size) + near
        seen = np.bincount(key[near >= 0], minlength=len(rows) * len(size)).reshape(-1, len(size))
        expected = seen.sum(axis=1, keepdims=True) * (size / size.sum())
        statistic = np.sum((seen - expected) ** 2 / np.where(expected > 0, expected, 1.0), axis=1)
        accepted += int((chi2.sf(statistic, df=len(size) - 1) > level).sum())
    return accepted / int(mask.sum())


def batch_asw(
    z: NDArray[np.floating],
    slice_: ArrayLike,
    domains: ArrayLike,
    *,
    sample: int = SILHOUETTE_SPOTS,
    seed: int = 0,
) -> float:
    """Mean over domains of the mean 1 − |silhouette of the slices| inside the domain (scIB); 1 is mixed.

    Parameters
    ----------
    z
        (n, d) latents.
    slice_, domains
        (n,) each; spots without either are left out, and domains that lie in one slice.
    sample, seed
        At most `sample` spots of a domain, drawn by `seed`.

    Returns
    -------
    float
        In [0, 1]; NaN when every domain lies in one slice.
    """
    (mask_s, batch), (mask_d, domain) = labelled(slice_), labelled(domains)
    if not len(batch) == len(domain) == len(z):
        raise InputError(f"{len(z)} latents, {len(batch)} slice numbers, {len(domain)} domains; expected the same")
    rng = np.random.default_rng(seed)
    means = []
    for number in range(int(domain.max(initial=-1)) + 1):
        rows = np.flatnonzero(mask_s & mask_d & (domain == number))
        if len(rows) > sample:
            rows = np.sort(rng.choice(rows, size=sample, replace=False))
        widths = silhouette_widths(z[rows], batch[rows]) if len(rows) else None
        if widths is not None:
            means.append(float(np.mean(1.0 - np.abs(widths))))
    return float(np.mean(means)) if means else float("nan")


def graph_connectivity(neighbors: Neighbors, labels: ArrayLike) -> float:
    """Mean over labels of the share of its spots in its largest connected piece of the neighbour graph (scIB).

    Parameters
    ----------
    neighbors
        (n, k); an edge counts in both directions.
    labels
        (n,) labels or domains; unlabelled spots are left out with their edges.
    """
    from scipy.sparse.csgraph import connected_components

    mask, codes = _codes(neighbors, labels)
    n, k = neighbors.index.shape
    row = np.repeat(np.arange(n), k)
    column = neighbors.index.ravel()
    inside = mask[row] & (codes[row] == codes[column])
    graph = sp.csr_matrix((np.ones(int(inside.sum()), np.int8), (row[inside], column[inside])), shape=(n, n))
    piece = connected_components(graph, directed=False)[1][mask]
    # no edge joins two labels, so a piece belongs to one
    _, first, size = np.unique(piece, return_index=True, return_counts=True)
    largest = np.zeros(int(codes.max()) + 1)
    np.maximum.at(largest, codes[mask][first], size)
    return float(np.mean(largest / np.bincount(codes[mask])))


def _codes(neighbors: Neighbors, labels: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Mask and codes of labels that belong to the neighbours."""
    mask, codes = labelled(labels)
    n = len(neighbors.index)
    if len(codes) != n or (n and int(neighbors.index.max()) >= n):
        raise InputError(f"neighbours of {n} spots and {len(codes)} labels; expected neighbours among the same spots")
    if not mask.any():
        raise InputError(f"none of {n} spots is labelled")
    return mask, codes


def _median_lisi(neighbors: Neighbors, labels: ArrayLike, perplexity: float) -> tuple[float, int]:
    """Median over labelled spots, and the number of labels."""
    values = lisi(neighbors, labels, perplexity=perplexity)
    return float(np.nanmedian(values)), len(np.unique(paired(labels, labels)[0]))


def _kernel(distance: NDArray[np.float64], perplexity: float) -> NDArray[np.float64]:
    """Weights (rows, k) exp(−β d), normalised, with entropy log(perplexity) by bisection on log β."""
    # shift and scale leave the family of weights as it is and put β = 1 near the answer
    delta = distance - distance.min(axis=1, keepdims=True)
    mean = delta.mean(axis=1, keepdims=True)
    delta /= np.where(mean > 0, mean, 1.0)
    p = np.full_like(delta, 1.0 / delta.shape[1])
    low, high = np.full(len(delta), -20.0), np.full(len(delta), 20.0)
    active = np.arange(len(delta))
    for _ in range(LISI_STEPS):
        if len(active) == 0:
            break
        middle = 0.5 * (low[active] + high[active])
        scaled = np.exp(middle)[:, None] * delta[active]
        weight = np.exp(-scaled)
        total = weight.sum(axis=1)
        entropy = np.log(total) + np.einsum("ij,ij->i", scaled, weight) / total
        p[active] = weight / total[:, None]
        excess = entropy - np.log(perplexity)
        low[active] = np.where(excess > 0, middle, low[active])
        high[active] = np.where(excess > 0, high[active], middle)
        active = active[np.abs(excess) > LISI_TOLERANCE]
    return p
