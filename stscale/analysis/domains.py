"""Spatial domains: cluster latents, number the clusters canonically, predict the rest of the spots.

Fits see latents and nothing else: labels never enter here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stscale.analysis.beside import Beside
from stscale.analysis.estimate import Curve, estimate_k
from stscale.analysis.features import Reduction, check_distinct
from stscale.analysis.leiden import Votes, fit_leiden
from stscale.analysis.mixture import TiedMixture, fit_mixture
from stscale.analysis.potts import spatial_responsibilities
from stscale.analysis.shrunk import ShrunkMixture, fit_shrunk
from stscale.config import Domains
from stscale.errors import InputError

PREDICT_ROWS = 65_536
"""Rows labelled at once."""

CURVE_STARTS = 10
"""Starts of each mixture on the curve over K (fewer when `n_init` is smaller)."""


Rows = NDArray[np.floating] | Beside
"""What is clustered: latents alone, or beside other columns."""


class Assigner(Protocol):
    """Gives each row (m, c) of the reduced latents a raw cluster number."""

    def predict(self, x: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return (m,) int64."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Centroids:
    """Nearest of K centroids (K, c)."""

    centroids: NDArray[np.float64]

    def predict(self, x: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the nearest centroid (m,) int64 of rows (m, c)."""
        score = np.asarray(x, np.float64) @ self.centroids.T - 0.5 * np.sum(self.centroids**2, axis=1)
        return np.argmax(score, axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """Latents → domain numbers; can be pickled.

    Attributes
    ----------
    reduction
        What the assigner sees of the latents.
    assigner
        Mixture, centroids or voting neighbours.
    order
        Canonical number of each raw cluster.
    """

    reduction: Reduction
    assigner: Assigner
    order: NDArray[np.int32]

    def predict(self, z: Rows) -> NDArray[np.int32]:
        """Return the domain (m,) int32 of rows (m, d), chunk by chunk."""
        z = _rows(z)
        if z.shape[1] != len(self.reduction.mean):
            raise InputError(f"latents have shape {z.shape}, expected (spots, {len(self.reduction.mean)})")
        out = np.empty(len(z), np.int32)
        for lo in range(0, len(z), PREDICT_ROWS):
            part = slice(lo, lo + PREDICT_ROWS)
            out[part] = self.order[self.assigner.predict(self.reduction.apply(z[part]))]
        return out

    def log_density(self, z: Rows) -> NDArray[np.float32]:
        """Return log w_c p(z | c) of rows (m, d) in each raw component of a mixture, (m, K) float32."""
        z = _rows(z)
        mixture = self.assigner
        if not isinstance(mixture, TiedMixture | ShrunkMixture):
            raise InputError("only a mixture has a likelihood to weigh against neighbours; use domains.method = 'gmm'")
        score = np.empty((len(z), len(mixture.means)), np.float32)
        for lo, hi in _chunks(len(z)):
            score[lo:hi] = mixture.log_density(self.reduction.apply(z[lo:hi]))
        return score


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFit:
    """Domains of the spots and how to label more.

    Attributes
    ----------
    labels
        (n,) int32, 0 … K−1: the largest domain is 0 (ties: smaller first coordinate of the centre).
    k
        Number of domains. Equals the K asked for unless a component of the mixture is nobody's likeliest.
    method
        `"gmm"`, `"kmeans"` or `"leiden"`.
    predictor
        Labels further latents of the same model. Leiden's fitted spots keep their own community in `labels`,
        where the predictor would let their neighbours vote.
    curve
        The criterion over K when K was estimated, else None.
    """

    labels: NDArray[np.int32]
    k: int
    method: str
    predictor: Predictor
    curve: Curve | None

    def predict(self, z: Rows) -> NDArray[np.int32]:
        """Label rows (m, d) → (m,) int32."""
        return self.predictor.predict(z)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceDomains:
    """Domains fitted slice by slice: number c of one slice has nothing to do with number c of another.

    Attributes
    ----------
    labels
        (n,) int32, 0 … K−1 inside each slice.
    slices
        (s,) the slice numbers, ascending.
    fits
        One `DomainFit` per slice, in the order of `slices`.
    """

    labels: NDArray[np.int32]
    slices: NDArray[np.int64]
    fits: tuple[DomainFit, ...]


def cluster(z: Rows, config: Domains, *, seed: int) -> DomainFit:
    """Cluster latents into spatial domains.

    The mixture sees at most `n_components` principal components, k-means and Leiden all dimensions; with
    `l2_normalize` all see the centred rows at length 1. More than `max_fit` spots are subsampled for the fit.

    Parameters
    ----------
    z
        (n, d) latents, alone or beside other columns (`Beside`).
    config
        Method, K (None: estimated by `estimate_k`; for Leiden: left to the resolution) and limits.
        `per_slice` and `smooth_rounds` are the caller's: `cluster_per_slice`, `smooth_labels`.
    seed
        Of the subsample and the starts.

    Raises
    ------
    InputError
        Latents that are not finite or no matrix; K above the number of distinct spots.
    """
    z = _rows(z)
    _check(z)
    rng = np.random.default_rng(seed)
    rows = None
    if len(z) > config.max_fit:
        rows = np.sort(rng.choice(len(z), size=config.max_fit, replace=False))
    sample = z[slice(None) if rows is None else rows]
    fit_seed, curve_seed = (int(s) for s in rng.integers(0, 2**31 - 1, size=2))
    components = config.n_components if config.method == "gmm" else 0
    parts = list(zip(z.widths, z.variances, strict=True))
    reduction = Reduction.fit(sample, n_components=components, l2_normalize=config.l2_normalize, parts=parts)
    x = reduction.apply(sample)
    curve, k = None, config.k
    if k is None and config.method != "leiden":
        curve = _curve(x, config, curve_seed)
        k = curve.chosen
    if k is not None:
        check_distinct(x, k)
    assigner = _assigner(x, k, config, fit_seed)
    count = _count(assigner)
    raw = np.empty(len(z), np.int64)
    for lo, hi in _chunks(len(z)):
        raw[lo:hi] = assigner.predict(reduction.apply(z[lo:hi]))
    if isinstance(assigner, Votes):
        raw[slice(None) if rows is None else rows] = assigner.label
    order, kept = _canonical(raw, _first_coordinate(assigner, x, count), count)
    return DomainFit(
        labels=order[raw],
        k=kept,
        method=config.method,
        predictor=Predictor(reduction=reduction, assigner=assigner, order=order),
        curve=curve,
    )


def beside_neighbors(
    fit: DomainFit,
    z: Rows,
    indptr: NDArray[np.integer],
    indices: NDArray[np.integer],
    *,
    strength: float,
) -> DomainFit:
    """Let the spatial neighbours have a say in each spot's domain (`spatial_responsibilities`).

    Parameters
    ----------
    fit
        Of a mixture; its components stay as they are.
    z
        (n, d) the rows it was fitted on.
    indptr, indices
        (n + 1,) and (E,) the spatial graph in CSR form.
    strength
        β, see `spatial_responsibilities`.

    Returns
    -------
    DomainFit
        Numbered anew by size; K falls when a component keeps no spot. Further latents are labelled without
        neighbours, as before.

    Raises
    ------
    InputError
        When the fit is no mixture, or the graph is of another number of spots.
    """
    predictor = fit.predictor
    mixture = predictor.assigner
    if not isinstance(mixture, TiedMixture | ShrunkMixture):
        raise InputError(f"domains by {fit.method} have no likelihood to weigh against neighbours; use method = 'gmm'")
    if len(indptr) != len(z) + 1:
        raise InputError(f"graph has {len(indptr) - 1} spots and there are {len(z)} latents; expected the same number")
    raw = spatial_responsibilities(predictor.log_density(z), indptr, indices, strength=strength).argmax(axis=1)
    order, kept = _canonical(raw, mixture.means[:, 0], len(mixture.means))
    return replace(fit, labels=order[raw], k=kept, predictor=replace(predictor, order=order))


def cluster_per_slice(z: Rows, slice_: NDArray[np.integer], config: Domains, *, seed: int) -> SliceDomains:
    """Cluster each slice alone.

    Parameters
    ----------
    z
        As in `cluster`.
    slice_
        (n,) slice number of each spot, in any order.
    config, seed
        As in `cluster`; every slice gets the same seed.

    Raises
    ------
    InputError
        As `cluster`, naming the slice.
    """
    if len(slice_) != len(z):
        raise InputError(f"{len(z)} latents but {len(slice_)} slice numbers; expected one per spot")
    z = _rows(z)
    labels = np.empty(len(z), np.int32)
    slices = np.unique(slice_).astype(np.int64)
    fits = []
    for number in slices:
        rows = np.flatnonzero(slice_ == number)
        try:
            fit = cluster(z.take(rows), config, seed=seed)
        except InputError as error:
            raise InputError(f"slice {number}: {error}") from error
        labels[rows] = fit.labels
        fits.append(fit)
    return SliceDomains(labels=labels, slices=slices, fits=tuple(fits))


def _rows(z: Rows) -> Beside:
    rows = z if isinstance(z, Beside) else Beside((z,), (1.0,))
    if any(part.ndim != 2 for part in rows.parts):
        raise InputError(f"latents have shape {rows.parts[0].shape}, expected (spots, dimensions)")
    return rows


def _check(z: Beside) -> None:
    """Refuse what is not a finite matrix with rows."""
    if 0 in z.shape:
        raise InputError(f"latents have shape {z.shape}, expected (spots, dimensions), neither empty")
    bad = 0
    for lo, hi in _chunks(len(z)):
        bad += int((~np.isfinite(z[lo:hi])).any(axis=1).sum())
    if bad:
        raise InputError(f"{bad} of {len(z)} latents are not finite; expected numbers: retrain or drop them")


def _curve(x: NDArray[np.float64], config: Domains, seed: int) -> Curve:
    """Estimate K in the space the mixture sees, also for k-means."""
    if config.method != "gmm":
        x = Reduction.fit(x, n_components=config.n_components, l2_normalize=False).apply(x)
    return estimate_k(x, k_min=config.k_min, k_max=config.k_max, starts=min(config.n_init, CURVE_STARTS), seed=seed)


def _assigner(x: NDArray[np.float64], k: int | None, config: Domains, seed: int) -> Assigner:
    """Fit the configured method on the sample."""
    if config.method == "leiden" or k is None:
        return fit_leiden(x, k=k, resolution=config.resolution, seed=seed)
    if config.method == "gmm":
        if config.covariance == "shrunk":
            return fit_shrunk(x, k, shrink=config.shrink, starts=config.n_init, seed=seed, moves=config.moves)
        return fit_mixture(x, k, starts=config.n_init, seed=seed)
    from stscale.graphs.neighbors import kmeans

    found = kmeans(x, k, iterations=100, restarts=config.n_init, seed=seed, max_points=max(len(x), k))
    return Centroids(centroids=found.centroids.astype(np.float64))


def _count(assigner: Assigner) -> int:
    """Raw clusters of an assigner."""
    if isinstance(assigner, Votes):
        return int(assigner.label.max()) + 1
    centres: NDArray[np.float64] = getattr(assigner, "centroids" if isinstance(assigner, Centroids) else "means")
    return len(centres)


def _first_coordinate(assigner: Assigner, x: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """First coordinate of the mean of each raw cluster's fitted rows (0 where it has none)."""
    own = assigner.label if isinstance(assigner, Votes) else assigner.predict(x)
    size = np.bincount(own, minlength=count)
    return np.bincount(own, weights=x[:, 0], minlength=count) / np.maximum(size, 1)


def _canonical(raw: NDArray[np.int64], first: NDArray[np.float64], count: int) -> tuple[NDArray[np.int32], int]:
    """Rank the raw clusters by decreasing size, then first coordinate; and how many have a spot."""
    size = np.bincount(raw, minlength=count)
    order = np.empty(count, np.int32)
    order[np.lexsort((first, -size))] = np.arange(count)
    return order, int((size > 0).sum())


def _chunks(n: int) -> Iterator[tuple[int, int]]:
    """Row ranges of at most `PREDICT_ROWS`."""
    for lo in range(0, n, PREDICT_ROWS):
        yield lo, min(lo + PREDICT_ROWS, n)
