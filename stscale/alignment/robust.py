"""A transform from pairs many of which are wrong: random minimal sets, then reweighted least squares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stscale.alignment.transform import Kind, Transform, checked_pairs, procrustes
from stscale.errors import InputError

TRIALS = 1024
JUDGES = 1000  # pairs that judge the minimal sets
TUKEY = 4.685  # 95 % efficient at the normal distribution, in units of the scale
CLEARLY = 0.8
"""A mirror image is clearly better when its scale is below this share of the other's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustFit:
    """What `robust_fit` found.

    Attributes
    ----------
    transform
        Source → target.
    scale
        Spread of the residuals of the trusted pairs, in the units of the target (1.48 × their median).
    residual
        Weighted mean residual of the inliers, in the same units.
    inlier_share
        Share of the weight with residuals below 4.685 scales.
    mirror_better
        Whether the best fit of the other orientation was clearly better.
    note
        One line when it was, else empty.
    """

    transform: Transform
    scale: float
    residual: float
    inlier_share: float
    mirror_better: bool
    note: str


def robust_fit(
    x: ArrayLike,
    y: ArrayLike,
    w: ArrayLike | None = None,
    *,
    kind: Kind = "rigid",
    rng: np.random.Generator,
    trust: float = 0.5,
    allow_mirror: bool = False,
    iterations: int = 30,
) -> RobustFit:
    """Fit a transform to pairs (m, 2) ↔ (m, 2) of weight (m,) that may be wrong in large part.

    Minimal sets of pairs are drawn by weight; the one whose residuals have the least weighted `trust`-quantile
    (least quantile of squares, Rousseeuw 1984) starts iteratively reweighted Procrustes with Tukey's biweight,
    its scale estimated from the same quantile at each turn. Both orientations are fitted: when the mirror image
    is clearly better that is reported, and it is returned only when allowed.

    Parameters
    ----------
    x, y, w
        Pairs and their weights ≥ 0.
    kind
        `"rigid"`, `"similarity"` or `"affine"`.
    rng
        Draws the minimal sets.
    trust
        Share of the weight that is assumed right, above 0 and at most 1.
    allow_mirror
        Let a clearly better mirror image win.
    iterations
        At most this many reweightings.

    Raises
    ------
    InputError
        Fewer than 3 distinct pairs with weight, all weights 0, points on a line for an affine fit.
    """
    if not 0 < trust <= 1:
        raise InputError(f"trust = {trust}; expected a share above 0 and at most 1")
    a, b, weight = checked_pairs(x, y, w, kind)
    distinct = min(len(np.unique(a, axis=0)), len(np.unique(b, axis=0)))
    if distinct < 3:
        raise InputError(f"{distinct} distinct pairs; a robust fit needs at least 3")
    flip = np.array([1.0, -1.0])
    fits = []
    for sign in (np.ones(2), flip):
        start = _best_set(a * sign, b, weight, kind, trust, rng)
        fits.append(_reweighted(a * sign, b, weight, start, kind, trust, iterations))
    (straight, scale), (mirrored, scale_mirror) = fits
    better = scale_mirror < CLEARLY * scale
    note = ""
    if better:
        note = f"a mirror image fits the pairs clearly better (spread {scale_mirror:.4g} against {scale:.4g}): " + (
            "it was taken" if allow_mirror else "the slice may lie face down; allow mirrors to accept it"
        )
    transform = straight
    if better and allow_mirror:
        transform, scale = mirrored.compose(Transform.from_parts(np.diag(flip), np.zeros(2))), scale_mirror
    residuals = np.linalg.norm(transform.apply(a) - b, axis=1)
    inlier = residuals <= TUKEY * scale
    share = float(weight[inlier].sum() / weight.sum())
    mean = float(np.average(residuals[inlier], weights=weight[inlier])) if inlier.any() else float("inf")
    return RobustFit(
        transform=transform, scale=scale, residual=mean, inlier_share=share, mirror_better=better, note=note
    )


def _best_set(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    weight: NDArray[np.float64],
    kind: Kind,
    trust: float,
    rng: np.random.Generator,
) -> Transform:
    """Return the transform of the minimal set with the least weighted quantile of residuals."""
    m, p = len(a), 3 if kind == "affine" else 2
    chance = weight / weight.sum()
    sets = rng.choice(m, size=(TRIALS, p), p=chance)
    judges = rng.choice(m, size=min(m, JUDGES), replace=True, p=chance)
    best, least = procrustes(a, b, weight, kind=kind, allow_mirror=True), np.inf
    if best.mirror:
        best = procrustes(a, b, weight, kind="similarity" if kind != "rigid" else "rigid")
    linear, shift, held = _solve_sets(a[sets], b[sets], kind)
    for lo in range(0, len(linear), 128):
        part = slice(lo, lo + 128)
        gap = np.einsum("tab,jb->tja", linear[part], a[judges]) + shift[part, None] - b[judges]
        cost = np.quantile(np.einsum("tja,tja->tj", gap, gap), trust, axis=1)
        cost[~held[part]] = np.inf
        place = int(np.argmin(cost))
        if cost[place] < least:
            least = float(cost[place])
            best = Transform.from_parts(linear[lo + place], shift[lo + place], kind)
    return best


def _solve_sets(
    a: NDArray[np.float64], b: NDArray[np.float64], kind: Kind
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Solve minimal sets (t, p, 2) exactly: L (t, 2, 2), t (t, 2), and which sets had a proper solution."""
    u, v = a[:, 1:] - a[:, :1], b[:, 1:] - b[:, :1]
    if kind == "affine":
        area = u[:, 0, 0] * u[:, 1, 1] - u[:, 0, 1] * u[:, 1, 0]
        safe = np.abs(area) > 1e-9 * np.maximum((u**2).sum(axis=(1, 2)), 1e-300)
        u = np.where(safe[:, None, None], u, np.eye(2))
        linear = np.swapaxes(np.linalg.solve(u, v), 1, 2)
        size = np.linalg.det(linear)
        held = safe & (size > 1e-6)
    else:
        # complex numbers: v = q u with q the turn and scale
        p, q = u[:, 0, 0] + 1j * u[:, 0, 1], v[:, 0, 0] + 1j * v[:, 0, 1]
        held = (np.abs(p) > 0) & (np.abs(q) > 0)
        turn = np.where(held, q, 1.0) / np.where(held, p, 1.0)
        if kind == "rigid":
            turn = turn / np.abs(turn)
        linear = np.stack([np.stack([turn.real, -turn.imag], 1), np.stack([turn.imag, turn.real], 1)], 1)
    shift = b.mean(axis=1) - np.einsum("tab,tb->ta", linear, a.mean(axis=1))
    return linear, shift, held


def _reweighted(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    weight: NDArray[np.float64],
    start: Transform,
    kind: Kind,
    trust: float,
    iterations: int,
) -> tuple[Transform, float]:
    """Polish by Tukey's biweight; return the transform and the scale of its trusted residuals."""
    transform, size = start, float(np.ptp(b, axis=0).max())
    scale = _scale(transform, a, b, weight, trust, size)
    for _ in range(iterations):
        ratio = np.linalg.norm(transform.apply(a) - b, axis=1) / (TUKEY * scale)
        robust = weight * np.where(ratio < 1, (1 - ratio**2) ** 2, 0.0)
        try:
            after = procrustes(a, b, robust, kind=kind)
        except InputError:  # the inliers alone are degenerate: what the pairs gave so far stands
            break
        new = _scale(after, a, b, weight, trust, size)
        if new >= scale * (1 - 1e-6):
            if new <= scale:
                transform, scale = after, new
            break
        transform, scale = after, new
    return transform, scale


def _scale(
    transform: Transform,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    weight: NDArray[np.float64],
    trust: float,
    size: float,
) -> float:
    residuals = np.linalg.norm(transform.apply(a) - b, axis=1)
    order = np.argsort(residuals)
    held = np.cumsum(weight[order])
    at = residuals[order][np.searchsorted(held, trust * held[-1])]
    return max(1.4826 * float(at), 1e-9 * size)
