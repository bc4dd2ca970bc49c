"""Pairwise transforms → one frame, solved jointly (pose graph)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stscale.alignment.pairs import PairList
from stscale.alignment.transform import Kind, Transform
from stscale.errors import InputError

TUKEY_EDGE = 0.5
"""A pair whose robust weight falls below this is called an outlier."""
PARAMETERS = {"rigid": 3, "similarity": 4, "affine": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """All slices in one frame.

    Attributes
    ----------
    transforms
        Slice → frame, one per slice; the reference's is the identity.
    residuals : (pairs,) float64
        Root mean square distance, over the source's extent, between where the pair and where the frame puts the
        source, in the units of the frame.
    weights : (pairs,) float64
        Robust weight of each pair, 1 where it agrees with the others.
    z : (slices,) float64
        Height of each slice, in the unit of the frame.
    unit
        Unit of the frame; `"µm"` when all sources tell it.
    notes
        What must be said, one line each.
    """

    transforms: tuple[Transform, ...]
    residuals: NDArray[np.float64]
    weights: NDArray[np.float64]
    z: NDArray[np.float64]
    unit: str
    notes: tuple[str, ...]


def solve_stack(
    pairs: PairList,
    transforms: Sequence[Transform],
    boxes: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    z: NDArray[np.float64] | None = None,
    units_known: bool = True,
    tolerance: float | None = None,
) -> Stack:
    """Find one transform T_i per slice with T_s ≈ T_t ∘ T_st for every pair, T_reference the identity.

    Minimises Σ_pairs w ρ(‖T_s(p) − T_t(T_st(p))‖² averaged over the corners p of the source's box), ρ the Cauchy
    loss (`scipy.optimize.least_squares`), from the chain along the heaviest pairs. Without a cycle (sequential,
    star) every term vanishes: the chain. With cycles the error is spread over them, and a pair that contradicts
    the others loses its weight and is named.

    Parameters
    ----------
    pairs
        Who was laid on whom.
    transforms
        T_st of each pair, source → target.
    boxes
        (slices, 2, 2) lower and upper corner of each slice in its own frame.
    weights
        (pairs,) trust in each pair, above 0; default 1.
    z
        (slices,) heights; default 0, 1, 2, …
    units_known
        Whether every source tells micrometres; else the frame has the reference's unit, which is said.
    tolerance
        Disagreement that halves a pair's pull, in units of the frame; default: a hundredth of the reference's
        diagonal.

    Raises
    ------
    InputError
        Numbers of transforms, boxes, weights or heights that do not fit.
    """
    count, listed = len(pairs.names), pairs.pairs
    box = np.asarray(boxes, np.float64)
    trust = np.ones(len(listed)) if weights is None else np.asarray(weights, np.float64)
    if len(transforms) != len(listed) or trust.shape != (len(listed),) or box.shape != (count, 2, 2):
        raise InputError(
            f"{len(listed)} pairs of {count} slices, but {len(transforms)} transforms, {len(trust)} weights and "
            f"boxes of shape {box.shape}"
        )
    if not (np.isfinite(trust).all() and (trust > 0).all()):
        raise InputError("weights of pairs must be finite and above 0")
    height = np.arange(count, dtype=np.float64) if z is None else np.asarray(z, np.float64)
    if height.shape != (count,) or not np.isfinite(height).all():
        raise InputError(f"{height.size} heights for {count} slices; expected one finite number each")
    corners = np.stack([box[:, [0, 0, 1, 1], 0], box[:, [0, 1, 0, 1], 1]], axis=2)  # (slices, 4, 2)
    poses = _chain(pairs, transforms, trust)
    diagonal = float(np.linalg.norm(box[pairs.reference, 1] - box[pairs.reference, 0]))
    limit = tolerance if tolerance is not None else 0.01 * diagonal
    if len(listed) >= count:
        poses = _joint(pairs, transforms, corners, trust, poses, limit)
    residuals = _gaps(pairs, transforms, corners, poses)
    robust = 1.0 / (1.0 + (residuals / limit) ** 2)
    notes = [
        f"the pair {pairs.names[source]!r}, {pairs.names[target]!r} contradicts the others by {gap:.4g} and was "
        f"given little weight ({weight:.2f})"
        for (source, target), gap, weight in zip(listed, residuals, robust, strict=True)
        if weight < TUKEY_EDGE
    ]
    if not units_known:
        notes.append("not every source tells micrometres: lengths are in the unit of the reference slice")
    return Stack(
        transforms=tuple(poses),
        residuals=residuals,
        weights=robust,
        z=height,
        unit="µm" if units_known else "unit of the reference",
        notes=tuple(notes),
    )


def _chain(pairs: PairList, transforms: Sequence[Transform], trust: NDArray[np.float64]) -> list[Transform]:
    """Compose along the tree of the most trusted pairs, from the reference outwards (Prim)."""
    poses: dict[int, Transform] = {pairs.reference: Transform.identity(_freest(transforms))}
    while len(poses) < len(pairs.names):
        ends = [(s in poses) != (t in poses) for s, t in pairs.pairs]
        edge = max((e for e in range(len(ends)) if ends[e]), key=lambda e: (trust[e], -e))
        source, target = pairs.pairs[edge]
        if target in poses:
            poses[source] = poses[target].compose(transforms[edge])
        else:
            poses[target] = poses[source].compose(transforms[edge].inverse())
    return [poses[number] for number in range(len(pairs.names))]


def _freest(transforms: Sequence[Transform]) -> Kind:
    kinds = [transform.kind for transform in transforms]
    return max(kinds, key=lambda kind: PARAMETERS[kind])


def _joint(
    pairs: PairList,
    transforms: Sequence[Transform],
    corners: NDArray[np.float64],
    trust: NDArray[np.float64],
    start: list[Transform],
    limit: float,
) -> list[Transform]:
    """Solve for small motions of every slice after its chained pose."""
    from scipy.optimize import least_squares

    kind = start[0].kind
    p = PARAMETERS[kind]
    free = [number for number in range(len(start)) if number != pairs.reference]
    middle = corners[pairs.reference].mean(axis=0)
    reach = max(float(np.abs(corners[pairs.reference] - middle).max()), 1e-300)

    def posed(theta: NDArray[np.float64]) -> list[Transform]:
        poses = list(start)
        for number, step in zip(free, theta.reshape(-1, p), strict=True):
            poses[number] = _motion(step, kind, middle, reach).compose(start[number])
        return poses

    def gaps(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sqrt(trust) * _gaps(pairs, transforms, corners, posed(theta)) / limit

    def parts(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        poses = posed(theta)
        return np.concatenate([part.ravel() for part in _differences(pairs, transforms, corners, poses)]) / limit

    # the Cauchy weight belongs to a pair as a whole, not to its corners' coordinates: reweight, then solve
    theta = np.zeros(p * len(free))
    for _ in range(50):
        pull = np.repeat(np.sqrt(trust / (1.0 + (gaps(theta) / np.sqrt(trust)) ** 2)), 8)
        after = least_squares(lambda t, w=pull: w * parts(t), theta).x
        moved = float(np.abs(after - theta).max())
        theta = after
        if moved < 1e-9:
            break
    return posed(theta)


def _motion(step: NDArray[np.float64], kind: Kind, middle: NDArray[np.float64], reach: float) -> Transform:
    """Return a small motion of the frame about its middle; shifts in units of `reach`."""
    full = np.zeros(6)
    full[: len(step)] = step
    angle = full[2]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = np.exp(full[3]) * turn + np.array([[full[4], full[5]], [full[5], -full[4]]])
    return Transform.from_parts(linear, middle - linear @ middle + reach * full[:2], kind)


def _differences(
    pairs: PairList, transforms: Sequence[Transform], corners: NDArray[np.float64], poses: Sequence[Transform]
) -> list[NDArray[np.float64]]:
    return [
        poses[source].apply(corners[source]) - poses[target].apply(between.apply(corners[source]))
        for (source, target), between in zip(pairs.pairs, transforms, strict=True)
    ]


def _gaps(
    pairs: PairList, transforms: Sequence[Transform], corners: NDArray[np.float64], poses: Sequence[Transform]
) -> NDArray[np.float64]:
    parts = _differences(pairs, transforms, corners, poses)
    return np.array([float(np.sqrt((part**2).sum(axis=1).mean())) for part in parts])


def heights(count: int, *, z: Sequence[float] | None = None, spacing: float | None = None) -> NDArray[np.float64]:
    """Return the slices' heights (count,): as listed, or multiples of a spacing (default 1).

    Raises
    ------
    InputError
        Both given, a list of another length, values that are not finite, a spacing that is not above 0.
    """
    if z is not None and spacing is not None:
        raise InputError("heights and a spacing were both given; give one of them")
    if z is not None:
        listed = np.asarray(z, np.float64)
        if listed.shape != (count,) or not np.isfinite(listed).all():
            raise InputError(f"{len(z)} heights for {count} slices; expected one finite number for each")
        return listed
    step = 1.0 if spacing is None else float(spacing)
    if not step > 0 or not np.isfinite(step):
        raise InputError(f"spacing = {spacing}; expected a length above 0")
    return step * np.arange(count, dtype=np.float64)
