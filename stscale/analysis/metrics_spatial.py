"""How compact domains lie in space (CHAOS, PAS) and in the latent (silhouette). No labels needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from stscale.analysis.labels import labelled
from stscale.errors import InputError
from stscale.graphs.neighbors import drop_self

SILHOUETTE_SPOTS = 10_000
"""Spots a silhouette is computed on, drawn by the seed; the distances are made in row blocks."""


def chaos(
    xy: NDArray[np.floating],
    domains: ArrayLike,
    slice_: NDArray[np.integer] | None = None,
    *,
    rows: NDArray[np.integer] | None = None,
) -> float:
    """Mean distance to the nearest spot of the own domain; smaller is more continuous.

    (1/n) Σ_domains Σ_{i in domain} min_{j ≠ i in domain} ‖x_i − x_j‖ on coordinates standardised per slice
    (mean 0, sd 1 on each axis). A domain of one spot contributes 0.

    Parameters
    ----------
    xy
        (n, 2|3) coordinates.
    domains
        (n,); spots without one are left out.
    slice_
        (n,) slice numbers. The slices' values are averaged, weighted by their spots.
    rows
        Spots that the mean is over; their nearest spots are sought among all. Default: all.

    Raises
    ------
    InputError
        As `pas`: lengths that differ, coordinates that are not finite, no spot with a domain.
    """
    total, n = 0.0, 0
    for points, codes, asked in _slices(xy, domains, slice_, rows):
        spread = points.std(axis=0)
        scaled = (points - points.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        order = np.argsort(codes, kind="stable")
        for own in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
            wanted = own[asked[own]]
            if len(own) > 1 and len(wanted):
                total += float(cKDTree(scaled[own]).query(scaled[wanted], k=2)[0][:, 1].sum())
        n += int(asked.sum())
    return total / n


def pas(
    xy: NDArray[np.floating],
    domains: ArrayLike,
    slice_: NDArray[np.integer] | None = None,
    *,
    k: int = 10,
    rows: NDArray[np.integer] | None = None,
) -> float:
    """Share of abnormal spots: more than half of the k nearest spots lie in another domain.

    Parameters
    ----------
    xy, domains, slice_
        As in `chaos`; neighbours are sought inside the slice, among spots with a domain.
    k
        Neighbours; a slice of k spots or fewer uses all others.
    rows
        Spots that the share is of; their neighbours are sought among all. Default: all.
    """
    abnormal, n = 0, 0
    for points, codes, asked in _slices(xy, domains, slice_, rows):
        near, wanted = min(k, len(points) - 1), np.flatnonzero(asked)
        if near > 0 and len(wanted):
            index = drop_self(cKDTree(points).query(points[wanted], k=near + 1)[1].astype(np.int64), wanted)
            abnormal += int(((codes[index] != codes[wanted, None]).sum(axis=1) > near / 2).sum())
        n += len(wanted)
    return abnormal / n


def silhouette(z: NDArray[np.floating], domains: ArrayLike, *, sample: int = SILHOUETTE_SPOTS, seed: int = 0) -> float:
    """Mean silhouette width of the domains in the latent, in [−1, 1]; NaN with fewer than two domains.

    Parameters
    ----------
    z
        (n, d) latents.
    domains
        (n,); spots without one are left out.
    sample
        At most this many spots, drawn by `seed`; exact when there are no more.
    seed
        Of the sample.
    """
    mask, codes = labelled(domains)
    if len(codes) != len(z):
        raise InputError(f"{len(z)} latents and {len(codes)} domains; expected the same spots")
    rows = np.flatnonzero(mask)
    if len(rows) > sample:
        rows = np.sort(np.random.default_rng(seed).choice(rows, size=sample, replace=False))
    widths = silhouette_widths(z[rows], codes[rows])
    return float(widths.mean()) if widths is not None else float("nan")


def silhouette_widths(z: NDArray[np.floating], codes: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Return the silhouette width (n,) of every row, or None unless 2 ≤ number of groups < n."""
    groups = len(np.unique(codes))
    if not 2 <= groups < len(codes):
        return None
    from sklearn.metrics import silhouette_samples

    # centred: the distances come from |a|² − 2ab + |b|², which cancels far from the origin
    rows = np.asarray(z, np.float64) - np.mean(z, axis=0, dtype=np.float64)
    return np.asarray(silhouette_samples(rows, codes), np.float64)


def _slices(
    xy: NDArray[np.floating],
    domains: ArrayLike,
    slice_: NDArray[np.integer] | None,
    asked: NDArray[np.integer] | None = None,
) -> list[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]]:
    """Coordinates and codes of the spots that have a domain, and which are asked for, slice by slice."""
    mask, codes = labelled(domains)
    points = np.asarray(xy, np.float64)
    if points.ndim != 2 or len(points) != len(codes):
        raise InputError(f"coordinates have shape {points.shape}, expected ({len(codes)}, 2) for the domains")
    number = np.zeros(len(codes), np.int64) if slice_ is None else np.asarray(slice_)
    if len(number) != len(codes):
        raise InputError(f"{len(codes)} domains and {len(number)} slice numbers; expected the same spots")
    rows = np.flatnonzero(mask)
    if len(rows) == 0:
        raise InputError(f"none of {len(codes)} spots has a domain")
    if not np.isfinite(points[rows]).all():
        raise InputError("coordinates are not all finite; drop those spots")
    rows = rows[np.argsort(number[rows], kind="stable")]
    wanted = np.ones(len(codes), dtype=bool)
    if asked is not None:
        wanted = np.isin(np.arange(len(codes)), asked)
        if not wanted[rows].any():
            raise InputError("none of the spots asked for has a domain")
    parts = np.split(rows, np.flatnonzero(np.diff(number[rows])) + 1)
    return [(points[part], codes[part], wanted[part]) for part in parts]
