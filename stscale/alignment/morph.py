"""A smooth displacement that brings the latents of two slices into register."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SCHEDULE = ((1, 16), (1, 8), (2, 8), (2, 4), (2, 2))
"""(degree of the polynomial, rounds of smoothing of the latents), coarse to fine."""
WINDOW = 19
"""Spots of a local linear fit: two rings of a hexagonal grid."""
REACH = 2.0
"""Spots further than this many pitches from the other slice see nothing of it."""
SHRINKAGE = 0.1
"""Of the residuals' covariance towards a multiple of the identity."""
SETTLED = 0.05
"""Pitches: a level whose last step is below has converged."""
INDEPENDENT = 0.16
"""Share of spots that are independent after one round of smoothing: the area of a spot over that of the smoother's
kernel, 4π σ² with σ² = 3/7 pitch² a round; it falls with the rounds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Morph:
    """What `morph` found.

    Attributes
    ----------
    xy
        (n, 2) moved source positions.
    whiten
        (d, d) L with L Lᵀ the inverse covariance of the residuals: (z_a − z_b) L has comparable, uncorrelated noise.
    offset
        (d,) median of z_source − z_target where the slices meet.
    seen
        Share of source spots that have target tissue under them.
    converged
        The last step of every level was below `SETTLED` pitches.
    """

    xy: Floats
    whiten: Floats
    offset: Floats
    seen: float
    converged: bool


def smoother(xy: Floats, k: int = 6) -> sp.csr_array:
    """Return the (n, n) matrix that replaces each row by the mean over its k nearest spots and itself."""
    from scipy.spatial import cKDTree

    k = min(k + 1, len(xy))
    near = cKDTree(xy).query(xy, k=k)[1].reshape(len(xy), k)
    ends = np.arange(0, near.size + 1, k)
    return sp.csr_array((np.full(near.size, 1 / k), near.ravel(), ends), shape=(len(xy), len(xy)))


def smoothed(operator: sp.csr_array, z: Floats, rounds: int) -> Floats:
    """Apply a smoother some rounds."""
    for _ in range(rounds):
        z = operator @ z
    return z


def morph(
    source_xy: Floats,
    target_xy: Floats,
    source_z: Floats,
    target_z: Floats,
    *,
    pitch: float,
    trusted: float = np.inf,
    schedule: tuple[tuple[int, int], ...] = SCHEDULE,
    iterations: int = 20,
) -> Morph:
    """Move the source so that its latents agree with the target's underneath.

    Minimises Σ w_i r_iᵀ C⁻¹ r_i with r_i = z_a(x_i) − z_b(T x_i) − median, T a polynomial of the position, by
    Gauss-Newton on local linear fits of the smoothed target latents. Positions are smoothed as the latents are: at
    the border a mean of neighbours tells of a place further in, and comparing it with the border itself would pull.
    C is the covariance of the residuals, so that channels count by what they agree on; w = 1/(1 + s/median(s)) of
    s = rᵀC⁻¹r takes down what finds no counterpart.

    The rigid positions are a good guess, and what the slices do not agree on is as smooth as a displacement: without a
    prior, slices that overlap in part are stretched over each other. So (t / n) Σ |T x_i − x_i|² / (`trusted` pitch)²
    over all n source spots is added, t the terms of the polynomial, and the sum above counts `INDEPENDENT` / rounds
    (smoothed spots are not independent) times the squared share of source spots that meet the target.

    Parameters
    ----------
    source_xy, target_xy
        (n, 2), (m, 2) positions, roughly in one frame.
    source_z, target_z
        (n, d), (m, d) latents.
    pitch
        Distance of neighbouring spots, the unit of all lengths here.
    trusted
        Pitches by which the given positions are expected to be off; infinite leaves the displacement free.
    schedule
        See `SCHEDULE`.
    iterations
        Gauss-Newton steps per level at most.

    References
    ----------
    Lucas and Kanade (IJCAI 1981); Baker and Matthews, "Lucas-Kanade 20 years on", IJCV 56 (2004).
    """
    from scipy.spatial import cKDTree

    smooth_a, smooth_b = smoother(source_xy), smoother(target_xy)
    centre, reach = source_xy.mean(axis=0), 2 * float(source_xy.std()) or 1.0
    d, before, settled = source_z.shape[1], -1, True
    offset, whiten, seen, moves = np.zeros(d), np.eye(d), 0.0, _Moves(centre=centre, reach=reach)
    for degree, rounds in schedule:
        if rounds != before:
            before = rounds
            a, x = smoothed(smooth_a, source_z, rounds), smoothed(smooth_a, source_xy, rounds)
            b, y = smoothed(smooth_b, target_z, rounds), smoothed(smooth_b, target_xy, rounds)
            tree, fit = cKDTree(y), _local_fit(y)
            value, slope = fit[0] @ b, np.stack([fit[1] @ b, fit[2] @ b], axis=1)  # (m, d), (m, 2, d)
        at, basis, last = moves.apply(x), moves.basis(x, degree), np.inf
        for _ in range(iterations):
            distance, j = tree.query(at)
            met = distance < REACH * pitch
            seen = float(met.mean())
            if met.sum() < 4 * basis.shape[1]:
                return Morph(xy=source_xy.copy(), whiten=np.eye(d), offset=np.zeros(d), seen=seen, converged=False)
            r = a - value[j] - np.einsum("na,nad->nd", at - y[j], slope[j])
            offset = np.median(r[met], axis=0)
            whiten = _whitening(r[met] - offset)
            trust = (len(x) / basis.shape[1]) * (trusted * pitch) ** 2 * seen**2 * INDEPENDENT / rounds
            step = _gauss_newton((r - offset) @ whiten, slope[j] @ whiten, met, basis, moved=at - x, trust=trust)
            moves.add(degree, step)
            now = moves.apply(x)
            last, at = float(np.abs(now - at).max()), now
            if last < SETTLED * pitch:
                break
        settled = settled and last < SETTLED * pitch
    return Morph(xy=moves.apply(source_xy), whiten=whiten, offset=offset, seen=seen, converged=settled)


class _Moves:
    """A displacement as a sum of polynomials of the source position."""

    def __init__(self, *, centre: Floats, reach: float) -> None:
        self.centre, self.reach = centre, reach
        self.coefficients: dict[int, Floats] = {}

    def basis(self, xy: Floats, degree: int) -> Floats:
        """Monomials of the scaled coordinates up to a total degree, (n, terms)."""
        x = (xy - self.centre) / self.reach
        return np.stack([x[:, 0] ** (t - j) * x[:, 1] ** j for t in range(degree + 1) for j in range(t + 1)], axis=1)

    def add(self, degree: int, step: Floats) -> None:
        """Add (terms, 2) to the coefficients of this degree."""
        self.coefficients[degree] = self.coefficients.get(degree, 0.0) + step

    def apply(self, xy: Floats) -> Floats:
        """Move (n, 2) points."""
        moves = [self.basis(xy, degree) @ step for degree, step in self.coefficients.items()]
        return xy + np.sum(moves, axis=0) if moves else xy.copy()


def _gauss_newton(
    r: Floats, slope: Floats, met: NDArray[np.bool_], basis: Floats, *, moved: Floats, trust: float
) -> Floats:
    """Return the step of the coefficients, (terms, 2), from whitened residuals (n, d) and slopes (n, 2, d).

    `trust` is what the residuals count against the squared displacement so far, `moved` (n, 2).
    """
    s = np.einsum("nd,nd->n", r, r)
    w = met / (1 + s / max(float(np.median(s[met])), 1e-300))
    terms = basis.shape[1]
    normal, right = np.empty((2, terms, 2, terms)), np.empty((2, terms))
    for p in range(2):
        right[p] = basis.T @ (w * np.einsum("nd,nd->n", slope[:, p], r))
        for q in range(2):
            h = w * np.einsum("nd,nd->n", slope[:, p], slope[:, q])
            normal[p, :, q] = basis.T @ (h[:, None] * basis)
        normal[p, :, p] += basis.T @ basis / trust
        right[p] -= basis.T @ moved[:, p] / trust
    whole = normal.reshape(2 * terms, 2 * terms)
    # where the latents are flat nothing is known of the displacement: the ridge leaves it as it is
    whole = whole + 1e-9 * max(float(np.trace(whole)), 1e-300) * np.eye(2 * terms)
    solved = np.linalg.solve(whole, right.ravel())
    return np.stack([solved[:terms], solved[terms:]], axis=1)


def _whitening(r: Floats) -> Floats:
    d = r.shape[1]
    covariance = np.atleast_2d(r.T @ r / max(len(r), 1))
    level = float(np.trace(covariance)) / d or 1.0
    whiten: Floats = np.linalg.cholesky(np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(d)))
    return whiten


def _local_fit(xy: Floats) -> list[sp.csr_array]:
    """Matrices (n, n) that give value and two slopes of the weighted linear fit around every spot."""
    from scipy.spatial import cKDTree

    n, k = len(xy), min(WINDOW, len(xy))
    distance, near = cKDTree(xy).query(xy, k=k)
    distance, near = distance.reshape(n, k), near.reshape(n, k)
    reach = np.maximum(distance[:, -1:], np.finfo(np.float64).tiny)
    w = np.exp(-0.5 * (1.5 * distance / reach) ** 2)
    x = np.concatenate([np.ones((n, k, 1)), (xy[near] - xy[:, None]) / reach[:, :, None]], axis=2)
    normal = np.einsum("nka,nk,nkb->nab", x, w, x) + 1e-6 * np.eye(3)
    weights = np.linalg.solve(normal, np.swapaxes(x * w[:, :, None], 1, 2))  # (n, 3, k)
    weights[:, 1:] /= reach[:, :, None]
    ends = np.arange(0, n * k + 1, k)
    return [sp.csr_array((weights[:, c].ravel(), near.ravel(), ends), shape=(n, n)) for c in range(3)]
