"""Gaussian mixture whose covariances are shrunk towards their common one.

A tied covariance makes every domain equally wide: a domain wider than the others (white matter in cortex) is
then split. Covariances of their own overfit small domains. Between the two,

    Σ_c = (W_c + a Σ) / (N_c + a),   Σ = (1/n) Σ_c W_c,   a = shrink · n / K,

with W_c the within-component scatter and N_c the mass of component c: the mode of an inverse-Wishart prior
centred on the common covariance Σ, which is estimated from the same data (empirical Bayes). `shrink` → ∞ is the
tied mixture, 0 the unrestricted one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stscale.analysis.mixture import RIDGE, em, start_assignments
from stscale.analysis.split_merge import improved
from stscale.errors import InputError
from stscale.threads import one_blas_thread, spread_over_threads

Floats = NDArray[np.float64]

TIED_ITERATIONS = 8
"""Steps with one common covariance that every start makes first."""

SHORT_ITERATIONS = 25

START_ROWS = 4_000
"""Rows that the starts see at most: more starts on fewer rows find better optima than the reverse."""

BLOCK = 1024
"""Rows whose densities are computed at once: a block of them stays in the cache."""

MIDDLE_ROWS = 20_000
"""Rows that the best starts are taken to convergence on; more rows only finish the best of all."""

TRIAL_ITERATIONS = 15
LAST_ITERATIONS = 50
LAST_TOLERANCE = 1e-5
POLISHED = 4
POLISH_ITERATIONS = 200
TOLERANCE = 1e-6
"""Polishing ends when the penalised log-likelihood of a spot grows by less than this per step (nats)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrunkMixture:
    """A fitted mixture Σ_c w_c N(μ_c, Σ_c).

    Attributes
    ----------
    weights
        (K,) float64, sum 1.
    means
        (K, d) float64.
    factors
        (K, d, d) float64, lower Cholesky factors of the covariances.
    objective
        Mean log-likelihood of a row less the penalty (a/2n) Σ_c [tr(Σ_c⁻¹ Σ) + log det Σ_c], nats.
    converged
        Whether the tolerance was reached.
    """

    weights: Floats
    means: Floats
    factors: Floats
    objective: float
    converged: bool

    def log_density(self, x: NDArray[np.floating]) -> Floats:
        """Return log w_c N(x; μ_c, Σ_c), (m, K), for rows (m, d), without the constant d/2 log 2π."""
        density = _Density(self)
        rows = [density(np.asarray(x[lo : lo + BLOCK], dtype=np.float64)) for lo in range(0, len(x), BLOCK)]
        return np.concatenate(rows) if rows else np.empty((0, len(self.weights)))

    def predict(self, x: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the component (m,) int64 of highest posterior for rows (m, d)."""
        return np.argmax(self.log_density(x), axis=1)


class _Density:
    """Log densities of blocks of rows, all components in one product."""

    def __init__(self, mixture: ShrunkMixture) -> None:
        k, d = mixture.means.shape
        whiten = np.linalg.inv(mixture.factors)  # (K, d, d)
        self._whiten = whiten.reshape(k * d, d).T
        self._shift = np.einsum("kij,kj->ki", whiten, mixture.means).ravel()
        half_log_det = np.log(np.diagonal(mixture.factors, axis1=1, axis2=2)).sum(axis=1)
        self._constant = np.log(mixture.weights) - half_log_det
        self._shape = (-1, k, d)

    def __call__(self, rows: Floats) -> Floats:
        white = rows @ self._whiten
        white -= self._shift
        white = white.reshape(self._shape)
        return np.asarray(self._constant - 0.5 * np.einsum("mkd,mkd->mk", white, white))


@one_blas_thread()
def fit_shrunk(
    x: NDArray[np.floating], k: int, *, shrink: float, starts: int, seed: int, moves: int = 0
) -> ShrunkMixture:
    """Fit by many starts: tied steps, short runs, then the best to convergence; the best objective is kept.

    Parameters
    ----------
    x
        (n, d) rows.
    k
        Components, at most n.
    shrink
        Weight of the common covariance in mean component sizes.
    starts
        Number of starts.
    seed
        Of all starts.
    moves
        Split-and-merge moves made from the best start at most (`split_merge.improved`).

    Returns
    -------
    ShrunkMixture
        The best fit in which every component is the likeliest of at least one row (where there is one).
    """
    n, _d = x.shape
    if not 1 <= k <= n:
        raise InputError(f"a mixture of {k} components asked of {n} rows; expected 1 to {n}: lower k")
    centre = np.mean(x, axis=0, dtype=np.float64)
    rows = np.asarray(x, dtype=np.float64) - centre
    ridge = RIDGE * max(float(np.mean(rows**2)), 1e-12)
    # the many starts run on part of the rows, the best go on with all of them
    part = rows
    if n > START_ROWS:
        part = rows[np.sort(np.random.default_rng(seed).choice(n, START_ROWS, replace=False))]
    trial = _Fit(part, k, prior=shrink * len(part) / k, ridge=ridge)
    columns = np.ascontiguousarray(part.T)

    def begun(assignment: NDArray[np.int64]) -> ShrunkMixture:
        one_hot = np.zeros((k, len(part)))
        one_hot[assignment, np.arange(len(part))] = 1.0
        tied = em(columns, one_hot, ridge=ridge, iterations=TIED_ITERATIONS, tolerance=0.0)
        factor = np.linalg.cholesky(tied.covariance)
        begin = ShrunkMixture(
            weights=tied.weights,
            means=tied.means,
            factors=np.repeat(factor[None], k, axis=0),
            objective=-np.inf,
            converged=False,
        )
        return trial.climb(begin, SHORT_ITERATIONS, 1e-4)

    short = spread_over_threads(begun, start_assignments(part, k, starts=starts, seed=seed))
    best = sorted(short, key=lambda found: -found.objective)[: max(4, starts // 5)]
    middle = rows
    if n > MIDDLE_ROWS:
        middle = rows[np.sort(np.random.default_rng(seed + 1).choice(n, MIDDLE_ROWS, replace=False))]
    fit = _Fit(middle, k, prior=shrink * len(middle) / k, ridge=ridge)
    # a few steps on more rows tell which of them are worth going on with
    fits = spread_over_threads(lambda b: fit.climb(b, TRIAL_ITERATIONS, 1e-4), best)
    best = sorted(fits, key=lambda found: -found.objective)[:POLISHED]
    fits = spread_over_threads(lambda b: fit.climb(b, POLISH_ITERATIONS, TOLERANCE), best)
    fits.sort(key=lambda found: -found.objective)
    full = [found for found in fits if len(np.unique(found.predict(middle))) == k]
    chosen = improved((full or fits)[0], trial, fit, rounds=moves, polish=POLISH_ITERATIONS)
    if n > MIDDLE_ROWS:
        last = _Fit(rows, k, prior=shrink * n / k, ridge=ridge)
        chosen = last.climb(chosen, LAST_ITERATIONS, LAST_TOLERANCE)
    return replace(chosen, means=chosen.means + centre)


class _Fit:
    """EM steps on centred rows (n, d)."""

    def __init__(self, rows: Floats, k: int, *, prior: float, ridge: float) -> None:
        self.rows = rows
        self.k = k
        self.prior = prior
        self.ridge = ridge * np.eye(rows.shape[1])

    def climb(self, start: ShrunkMixture, iterations: int, tolerance: float) -> ShrunkMixture:
        """Make at most `iterations` steps; stop when the objective grows by less than `tolerance`."""
        current, previous = start, -np.inf
        scored = start
        for _ in range(iterations):
            loglik, moments = self._expect(current)
            # the penalty of the parameters that gave this likelihood needs the common covariance of this step
            weights, means, factors, common = self._maximise(*moments)
            objective = loglik - self._penalty(current.factors, common)
            scored = replace(current, objective=objective, converged=abs(objective - previous) < tolerance)
            if scored.converged:
                break
            previous = objective
            current = replace(current, weights=weights, means=means, factors=factors)
        return scored

    def _expect(self, current: ShrunkMixture) -> tuple[float, tuple[Floats, Floats, Floats]]:
        """Mean log-likelihood, and mass (K,), sums (K, d) and products (K, d, d) of the components, in one pass."""
        n, d = self.rows.shape
        density = _Density(current)
        mass, sums, products = np.zeros(self.k), np.zeros((self.k, d)), np.zeros((self.k * d, d))
        loglik = 0.0
        for lo in range(0, n, BLOCK):
            rows = self.rows[lo : lo + BLOCK]
            score = density(rows)
            top = score.max(axis=1, keepdims=True)
            np.exp(score - top, out=score)
            total = score.sum(axis=1, keepdims=True)
            loglik += float((np.log(total) + top).sum())
            score /= total
            mass += score.sum(axis=0)
            sums += score.T @ rows
            products += (score[:, :, None] * rows[:, None, :]).reshape(len(rows), -1).T @ rows
        return loglik / n, (mass, sums, products.reshape(self.k, d, d))

    def _maximise(self, mass: Floats, sums: Floats, products: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        mass = mass + 10 * np.finfo(np.float64).eps  # an empty component keeps finite means
        means = sums / mass[:, None]
        scatter = products - mass[:, None, None] * means[:, :, None] * means[:, None, :]
        common = scatter.sum(axis=0) / len(self.rows)
        own = (scatter + self.prior * common) / (mass + self.prior)[:, None, None] + self.ridge
        return mass / mass.sum(), means, np.linalg.cholesky(own), common

    def _penalty(self, factors: Floats, common: Floats) -> float:
        total = 0.0
        root = np.linalg.cholesky(common + self.ridge)
        for factor in factors:
            half = np.linalg.inv(factor) @ root
            total += float(np.sum(half**2) + 2.0 * np.log(np.diag(factor)).sum())
        return 0.5 * self.prior / len(self.rows) * total
