"""Gaussian mixture with one full covariance shared by all components ("tied", mclust's EEE), by EM.

The log density of component c at x is linear in x but for a term that is the same for all components, and the
shared covariance only needs Σ x xᵀ, which never changes. An iteration is therefore two products of (n, d) with
(d, K) and one softmax, about 3 ms for 14 000 × 20 and K = 7, so that many starts are affordable. They are
needed: the likelihood has many local optima.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import logsumexp

from stscale.errors import InputError
from stscale.threads import one_blas_thread, spread_over_threads

Floats = NDArray[np.float64]

SHORT_ITERATIONS = 25
"""Iterations given to every start before the best are polished."""

POLISH_ITERATIONS = 500
POLISH_TOLERANCE = 1e-6
"""Polishing ends when the mean log-likelihood of a spot grows by less than this per iteration (nats)."""

RIDGE = 1e-6
"""Added to the covariance's diagonal, as a share of the mean variance of the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TiedMixture:
    """A fitted mixture Σ_c w_c N(μ_c, Σ).

    Attributes
    ----------
    weights
        (K,) float64, sum 1.
    means
        (K, d) float64.
    covariance
        (d, d) float64, shared.
    loglik
        Log-likelihood of the fitted rows under the parameters that the last M step started from (nats, total).
    n
        Number of rows fitted.
    iterations, converged
        EM steps made, and whether the tolerance was reached.
    """

    weights: Floats
    means: Floats
    covariance: Floats
    loglik: float
    n: int
    iterations: int
    converged: bool

    @property
    def bic(self) -> float:
        """−2 log L + (K·d + d(d+1)/2 + K − 1) log n; smaller is better."""
        k, d = self.means.shape
        free = k * d + d * (d + 1) // 2 + k - 1
        return float(-2.0 * self.loglik + free * np.log(self.n))

    def log_density(self, x: NDArray[np.floating]) -> Floats:
        """Return log w_c N(x; μ_c, Σ), (m, K), for rows (m, d), up to a constant of each row."""
        slope, offset = _discriminant(self.weights, self.means, self.covariance)[:2]
        return np.asarray(np.asarray(x, np.float64) @ slope.T + offset)

    def log_likelihood(self, x: NDArray[np.floating]) -> Floats:
        """Return log Σ_c w_c N(x; μ_c, Σ), (m,) nats, for rows (m, d)."""
        factor = np.linalg.cholesky(self.covariance)
        centre = self.weights @ self.means  # the products below would cancel far from the origin
        means = solve_triangular(factor, (self.means - centre).T, lower=True).T
        white = solve_triangular(factor, (np.asarray(x, np.float64) - centre).T, lower=True).T
        score = white @ means.T + (np.log(self.weights) - 0.5 * np.sum(means**2, axis=1))
        constant = 0.5 * x.shape[1] * np.log(2 * np.pi) + np.log(np.diag(factor)).sum()
        return np.asarray(logsumexp(score, axis=1) - 0.5 * np.sum(white**2, axis=1) - constant)

    def predict(self, x: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the component (m,) int64 of highest posterior for rows (m, d)."""
        return np.argmax(self.log_density(x), axis=1)


@one_blas_thread()
def fit_mixture(x: NDArray[np.floating], k: int, *, starts: int, seed: int, polish: int = 0) -> TiedMixture:
    """Fit by many starts: short runs of all, then the best to convergence; the best likelihood is kept.

    Starts alternate between k-means of the rows, k-means of the rows whitened by their total covariance, and
    k random rows (whitened nearest), each from its own seed.

    Parameters
    ----------
    x
        (n, d) rows.
    k
        Components, at most n.
    starts
        Number of starts.
    seed
        Of all starts.
    polish
        Starts taken to convergence; 0 takes a fifth of them, at least 3.

    Returns
    -------
    TiedMixture
        The best fit in which every component is the likeliest of at least one row (where there is one).
    """
    n, _d = x.shape
    if not 1 <= k <= n:
        raise InputError(f"a mixture of {k} components asked of {n} rows; expected 1 to {n}: lower k")
    centre = np.mean(x, axis=0, dtype=np.float64)
    xt = np.ascontiguousarray((x - centre).T, dtype=np.float64)  # (d, n): reductions over K run along rows
    ridge = RIDGE * max(float(np.mean(xt**2)), 1e-12)
    assignments = start_assignments(xt.T, k, starts=starts, seed=seed)
    scatter = xt @ xt.T

    def begun(assignment: NDArray[np.int64]) -> TiedMixture:
        first = _one_hot(assignment, k)
        return em(xt, first, ridge=ridge, iterations=SHORT_ITERATIONS, tolerance=0.0, scatter=scatter)

    def ended(fit: TiedMixture) -> TiedMixture:
        return em(xt, fit, ridge=ridge, iterations=POLISH_ITERATIONS, tolerance=POLISH_TOLERANCE, scatter=scatter)

    short = spread_over_threads(begun, assignments)
    best = sorted(short, key=lambda fit: -fit.loglik)[: polish or max(3, starts // 5)]
    fits = spread_over_threads(ended, best)
    fits.sort(key=lambda fit: -fit.loglik)
    full = [fit for fit in fits if len(np.unique(fit.predict(xt.T))) == k]
    chosen = (full or fits)[0]
    return TiedMixture(
        weights=chosen.weights,
        means=chosen.means + centre,
        covariance=chosen.covariance,
        loglik=chosen.loglik,
        n=n,
        iterations=chosen.iterations,
        converged=chosen.converged,
    )


def start_assignments(rows: Floats, k: int, *, starts: int, seed: int) -> list[NDArray[np.int64]]:
    """Return hard assignments (n,) of centred rows (n, d) to begin from, one per start.

    They alternate between k-means of the rows, k-means of the rows whitened by their total covariance, and
    k random rows (whitened nearest), each from its own seed.
    """
    n, d = rows.shape
    ridge = RIDGE * max(float(np.mean(rows**2)), 1e-12)
    # the spectrum floor only shapes the starts, never the model
    values, vectors = np.linalg.eigh(rows.T @ rows / n + ridge * np.eye(d))
    white = np.ascontiguousarray((rows @ (vectors / np.sqrt(values))).astype(np.float32))
    plain = np.ascontiguousarray(rows, dtype=np.float32)
    seeds = np.random.default_rng(seed).integers(0, 2**31 - 1, size=max(1, starts))
    return [_start(i, plain, white, k, int(s)) for i, s in enumerate(seeds)]


def em(
    xt: Floats,
    start: Floats | TiedMixture,
    *,
    ridge: float,
    iterations: int,
    tolerance: float,
    scatter: Floats | None = None,
) -> TiedMixture:
    """Run EM from responsibilities or from a mixture.

    Parameters
    ----------
    xt
        (d, n) float64 columns, best centred.
    start
        Responsibilities (K, n), columns summing to 1, or a mixture to go on from.
    ridge
        Added to the diagonal of the covariance after every M step.
    iterations, tolerance
        At most this many E + M steps; stop when the mean log-likelihood grows by less than `tolerance`.
    scatter
        (d, d) `xt @ xt.T` when at hand.

    Returns
    -------
    TiedMixture
        Its `loglik` is that of its own parameters (one E step more than M steps).
    """
    d, n = xt.shape
    if scatter is None:
        scatter = xt @ xt.T
    if isinstance(start, TiedMixture):
        weights, means, covariance = start.weights, start.means, start.covariance
    else:
        weights, means, covariance = _maximise(xt, start, scatter, ridge)
    done, converged, previous = 0, False, -np.inf
    while True:
        slope, offset, log_norm, quadratic = _discriminant(weights, means, covariance, scatter)
        score = slope @ xt  # (K, n)
        score += offset[:, None]
        top = score.max(axis=0)
        score -= top
        np.exp(score, out=score)
        total = score.sum(axis=0)
        loglik = float(np.log(total).sum() + top.sum()) - 0.5 * (quadratic + n * (d * np.log(2 * np.pi) + log_norm))
        converged = bool((loglik - previous) / n < tolerance)
        if converged or done == iterations:
            break
        previous = loglik
        score /= total
        weights, means, covariance = _maximise(xt, score, scatter, ridge)
        done += 1
    return TiedMixture(
        weights=weights, means=means, covariance=covariance, loglik=loglik, n=n, iterations=done, converged=converged
    )


def _maximise(xt: Floats, resp: Floats, scatter: Floats, ridge: float) -> tuple[Floats, Floats, Floats]:
    """M step from responsibilities (K, n): weights (K,), means (K, d), covariance (d, d)."""
    mass = resp.sum(axis=1) + 10 * np.finfo(np.float64).eps  # an empty component keeps finite means
    means = (resp @ xt.T) / mass[:, None]
    covariance = (scatter - (mass * means.T) @ means) / mass.sum()
    covariance.flat[:: len(covariance) + 1] += ridge
    return mass / mass.sum(), means, covariance


def _discriminant(
    weights: Floats, means: Floats, covariance: Floats, scatter: Floats | None = None
) -> tuple[Floats, Floats, float, float]:
    """Split the log densities into slope (K, d), offset (K,), log det Σ and, given the scatter, Σ_i xᵢᵀΣ⁻¹xᵢ."""
    factor = cho_factor(covariance, lower=True)
    slope = np.asarray(cho_solve(factor, means.T).T)
    offset = np.log(weights) - 0.5 * np.einsum("kd,kd->k", slope, means)
    log_det = 2.0 * float(np.log(np.diag(factor[0])).sum())
    quadratic = float(np.trace(cho_solve(factor, scatter))) if scatter is not None else 0.0
    return slope, offset, log_det, quadratic


def _start(number: int, plain: NDArray[np.float32], white: NDArray[np.float32], k: int, seed: int) -> NDArray[np.int64]:
    """Give the hard assignment (n,) that start `number` begins with."""
    from stscale.graphs.neighbors import kmeans, search

    kind = number % 3
    if kind < 2:
        return kmeans(plain if kind == 0 else white, k, iterations=10, seed=seed, max_points=20_000 * k).assignment
    rows = np.random.default_rng(seed).choice(len(white), size=k, replace=False)
    return search(white[rows], white, 1, index="flat").index[:, 0]


def _one_hot(assignment: NDArray[np.int64], k: int) -> Floats:
    """Responsibilities (K, n) of a hard assignment."""
    resp = np.zeros((k, len(assignment)))
    resp[assignment, np.arange(len(assignment))] = 1.0
    return resp
