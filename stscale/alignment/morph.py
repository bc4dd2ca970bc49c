"""A smooth displacement that brings the latents of two slices into register."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from stscale.alignment.field import EDGE

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SCHEDULE = ((1, 16), (1, 8), (2, 8), (2, 4), (2, 2))
"""(degree of the polynomial, rounds of smoothing of the latents), coarse to fine."""
WINDOW = 19
"""Spots of a local linear fit: two rings of a hexagonal grid."""
REACH = 2.0
"""Spots further than this many pitches from the other slice see nothing of it."""
SHRINKAGE = 0.1
"""Of the residuals' covariance towards a multiple of the identity."""
UNDOINGS = 4
"""Rounds of fixed-point iteration by which a displacement is undone, from the last step's; it moves a few per cent."""
SQUARES = 7
"""Along the longer side of the chequerboard: larger than what is smoothed, and both colours see all of the tissue."""
FURTHEST = 4.0
"""Spreads of the source from its middle, each way, that an undone displacement stays within."""
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
    reliability
        Share of the displacement found that was kept, see `morph`; NaN when the slices do not meet.
    converged
        The last step of every level was below `SETTLED` pitches.
    """

    xy: Floats
    whiten: Floats
    offset: Floats
    seen: float
    reliability: float
    converged: bool


def smoother(xy: Floats, k: int = 6) -> sp.csr_array:
    """Return the (n, n) matrix that replaces each row by the mean over its k nearest spots and itself."""
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

    Minimises ½ Σ w_i r_iᵀ C⁻¹ r_i with r_i = z_a(x_i) − z_b(T x_i) − median over source spots and
    r_j = z_a(T⁻¹ y_j) − z_b(y_j) − median over target spots, T a polynomial of the position, by Gauss-Newton on local
    linear fits of the smoothed latents. Noise in the slice that is read draws the other one together: one direction
    alone shrinks what it moves, the two together cancel that. Positions are smoothed as the latents are: at
    the border a mean of neighbours tells of a place further in, and comparing it with the border itself would pull.
    C is the covariance of the residuals, so that channels count by what they agree on; w = 1/(1 + s/median(s)) of
    s = rᵀC⁻¹r takes down what finds no counterpart.

    The rigid positions are a good guess, and what the slices do not agree on is as smooth as a displacement: without a
    prior, slices that overlap in part are stretched over each other. So (t / n) Σ |T x_i − x_i|² / (`trusted` pitch)²
    over all n source spots is added, t the terms of the polynomial, and the sum above counts `INDEPENDENT` / rounds
    (smoothed spots are not independent) times the squared share of source spots that meet the target. Spots on the edge
    count on neither side: an embedding averages over neighbours, so at the edge it describes tissue further in.

    What the latents of two slices do not agree on can pass for a displacement. The same is therefore fitted to either
    colour of a chequerboard over the tissue, and of the displacement that all spots gave, the share stays that the two
    agree on: the reliability 2c/(1 + c), c = 2⟨w₁, w₂⟩/(|w₁|² + |w₂|²) (Spearman and Brown's formula for halves).

    A free displacement (`trusted` infinite) is for tissue that was torn, which has no inverse: then source spots alone
    are compared, edges too, and all of what was found is kept.

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
    Brown, "Some experimental results in the correlation of mental abilities", Br. J. Psychol. 3 (1910). Lucas and
    Kanade (IJCAI 1981); Baker and Matthews, "Lucas-Kanade 20 years on", IJCV 56 (2004).
    """
    smooth_a, smooth_b = smoother(source_xy), smoother(target_xy)
    centre, reach = source_xy.mean(axis=0), 2 * float(source_xy.std()) or 1.0
    parts = [(np.ones(len(source_xy), bool), np.ones(len(target_xy), bool))]
    parts += _halves(source_xy, target_xy) if np.isfinite(trusted) else []
    runs = [_Run(part=part, moves=_Moves(centre=centre, reach=reach)) for part in parts]
    before = -1
    for degree, rounds in schedule:
        if rounds != before:
            before = rounds
            source = _Level.build(smooth_a, source_xy, source_z, rounds)
            target = _Level.build(smooth_b, target_xy, target_z, rounds)
        for run in runs:
            run.settle(source, target, degree, pitch, trusted**2 * INDEPENDENT / rounds, iterations)
        if runs[0].lost:
            d = source_z.shape[1]
            nothing = {"whiten": np.eye(d), "offset": np.zeros(d)}
            return Morph(xy=source_xy.copy(), seen=runs[0].seen, reliability=np.nan, converged=False, **nothing)
    whole, *halves = (run.moves.apply(source_xy) - source_xy for run in runs)
    # slices too small to be halved keep what there is
    told = bool(halves) and not any(run.lost for run in runs)
    reliability = _reliability(*halves) if told else 1.0
    return Morph(
        xy=source_xy + reliability * whole,
        whiten=runs[0].whiten,
        offset=runs[0].offset,
        seen=runs[0].seen,
        reliability=reliability,
        converged=runs[0].settled,
    )


def _halves(source_xy: Floats, target_xy: Floats) -> list[tuple[Flags, Flags]]:
    """Cut both slices by one chequerboard; for either colour, which source and target spots it holds."""
    side = float(np.ptp(np.concatenate([source_xy, target_xy]), axis=0).max()) / SQUARES
    dark = [np.floor(xy / side).sum(axis=1) % 2 == 1 for xy in (source_xy, target_xy)]
    return [(dark[0], dark[1]), (~dark[0], ~dark[1])]


def _reliability(first: Floats, second: Floats) -> float:
    """Share of the mean square of a displacement that two halves of the data agree on, 0 … 1 (Spearman-Brown)."""
    square = float((first**2).sum() + (second**2).sum())
    common = 2 * float((first * second).sum()) / square if square > 0 else 0.0
    return 2 * common / (1 + common) if common > 0 else 0.0


@dataclass(slots=True, kw_only=True, eq=False)
class _Run:
    """One displacement under way, from all spots or from the part that counts."""

    part: tuple[Flags, Flags]
    moves: _Moves
    offset: Floats = field(default_factory=lambda: np.zeros(0))
    whiten: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    seen: float = 0.0
    settled: bool = True
    lost: bool = False

    def settle(
        self, source: _Level, target: _Level, degree: int, pitch: float, trusted: float, iterations: int
    ) -> None:
        """Take Gauss-Newton steps at one level until the last one is small.

        `trusted` is what a residual counts against a squared displacement in pitches.
        """
        basis, moves, last = self.moves.basis(source.xy, degree), self.moves, np.inf
        at, back = moves.apply(source.xy), moves.undo(target.xy, target.xy)
        for _ in range(iterations):
            there, here = target.read(at, REACH * pitch), source.read(back, REACH * pitch)
            self.seen = float(there.met.mean())
            if np.isfinite(trusted):
                there.met[~source.inner | ~target.inner[there.spot] | ~self.part[0]] = False
                here.met[~target.inner | ~source.inner[here.spot] | ~self.part[1]] = False
                here.met[np.linalg.norm(moves.apply(back) - target.xy, axis=1) > pitch] = False
            else:  # what was torn has no inverse
                here.met[:] = False
            self.lost = self.lost or there.met.sum() + here.met.sum() < 8 * basis.shape[1]
            if self.lost:
                return
            r = np.concatenate([source.value - there.value, here.value - target.value])
            met, slope = np.concatenate([there.met, here.met]), np.concatenate([there.slope, here.slope])
            self.offset = np.median(r[met], axis=0)
            self.whiten = _whitening(r[met] - self.offset)
            step = _gauss_newton(
                (r - self.offset) @ self.whiten,
                slope @ self.whiten,
                met,
                np.concatenate([basis, moves.basis(back, degree)]),
                moved=at - source.xy,
                trust=(len(at) / basis.shape[1]) * trusted * pitch**2 * self.seen**2,
            )
            moves.add(degree, step)
            now = moves.apply(source.xy)
            back = moves.undo(target.xy, back)
            last, at = float(np.abs(now - at).max()), now
            if last < SETTLED * pitch:
                break
        self.settled = self.settled and last < SETTLED * pitch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Reading:
    spot: NDArray[np.int64]  # (q,) the nearest
    met: Flags  # (q,)
    value: Floats  # (q, d)
    slope: Floats  # (q, 2, d)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Level:
    """One slice after some rounds of smoothing, as local linear fits around its smoothed positions."""

    xy: Floats  # (n, 2)
    value: Floats  # (n, d)
    slope: Floats  # (n, 2, d)
    tree: cKDTree
    inner: Flags  # (n,) not on the edge, see `Field.fit`

    @classmethod
    def build(cls, smooth: sp.csr_array, xy: Floats, z: Floats, rounds: int) -> _Level:
        inner = _inner(xy)
        z, xy = smoothed(smooth, z, rounds), smoothed(smooth, xy, rounds)
        fit = _local_fit(xy)
        slope = np.stack([fit[1] @ z, fit[2] @ z], axis=1)
        return cls(xy=xy, value=fit[0] @ z, slope=slope, tree=cKDTree(xy), inner=inner)

    def read(self, at: Floats, reach: float) -> _Reading:
        """Return the fit around the spot nearest to each position (q, 2)."""
        distance, j = self.tree.query(at)
        slope = self.slope[j]
        value = self.value[j] + np.einsum("na,nad->nd", at - self.xy[j], slope)
        return _Reading(spot=j, met=distance < reach, value=value, slope=slope)


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

    def undo(self, xy: Floats, guess: Floats) -> Floats:
        """Return the points (n, 2) that `apply` moves to `xy`, by fixed-point iteration from a guess."""
        low, high = self.centre - FURTHEST * self.reach, self.centre + FURTHEST * self.reach
        for _ in range(UNDOINGS):
            # a displacement that folds has no inverse: kept in bounds, such points are seen not to have come back
            guess = np.clip(xy - (self.apply(guess) - guess), low, high)
        return guess


def _gauss_newton(r: Floats, slope: Floats, met: Flags, basis: Floats, *, moved: Floats, trust: float) -> Floats:
    """Return the step of the coefficients, (terms, 2), from whitened residuals (q, d) and slopes (q, 2, d).

    The first n of the q rows are source spots, the others target spots; two directions tell of one displacement, so
    each counts half. `trust` is what the residuals count against the squared displacement so far, `moved` (n, 2).
    """
    s = np.einsum("nd,nd->n", r, r)
    w = met / (2 + 2 * s / max(float(np.median(s[met])), 1e-300))
    terms, own = basis.shape[1], basis[: len(moved)]
    normal, right = np.empty((2, terms, 2, terms)), np.empty((2, terms))
    for p in range(2):
        right[p] = basis.T @ (w * np.einsum("nd,nd->n", slope[:, p], r))
        for q in range(2):
            h = w * np.einsum("nd,nd->n", slope[:, p], slope[:, q])
            normal[p, :, q] = basis.T @ (h[:, None] * basis)
        normal[p, :, p] += own.T @ own / trust
        right[p] -= own.T @ moved[:, p] / trust
    whole = normal.reshape(2 * terms, 2 * terms)
    # where the latents are flat nothing is known of the displacement: the ridge leaves it as it is
    whole = whole + 1e-9 * max(float(np.trace(whole)), 1e-300) * np.eye(2 * terms)
    solved = np.linalg.solve(whole, right.ravel())
    return np.stack([solved[:terms], solved[terms:]], axis=1)


def _inner(xy: Floats) -> Flags:
    """Say which spots have neighbours all around; all of them where tissue is mostly edge."""
    distance, near = cKDTree(xy).query(xy, k=min(WINDOW, len(xy)))
    ring = float(np.median(distance[:, min(6, distance.shape[1] - 1)]))
    inner = np.linalg.norm(xy[near].mean(axis=1) - xy, axis=1) < EDGE * ring
    return inner if inner.mean() >= 0.5 else np.ones(len(xy), bool)


def _whitening(r: Floats) -> Floats:
    d = r.shape[1]
    covariance = np.atleast_2d(r.T @ r / max(len(r), 1))
    level = float(np.trace(covariance)) / d or 1.0
    whiten: Floats = np.linalg.cholesky(np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(d)))
    return whiten


def _local_fit(xy: Floats) -> list[sp.csr_array]:
    """Matrices (n, n) that give value and two slopes of the weighted linear fit around every spot."""
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
