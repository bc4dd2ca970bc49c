"""Local alignment: move the source until its channels agree with the target's where it lies (Gauss-Newton)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stscale.alignment.field import Field
from stscale.alignment.transform import Kind, Transform

HALVINGS = 4
DAMPING = 1e-4
OVERLAP_POWER = 0.35
CHANCE_PAIRS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A transform and how well the channels agree under it.

    Attributes
    ----------
    transform
        Source → target.
    score
        oᵃ (g − g₀) / (1 − g₀): o the overlap, a = `OVERLAP_POWER`, g the agreement and g₀ that of pairs of spots
        drawn at random. 1 is full overlap without any residual, 0 is chance. The small power lets the right place
        with part of the tissue win over a wrong one with all of it, and not over nothing but a corner.
    agreement
        Mean of 1 − ρ over the covered spots of both slices; ρ = r²/(r² + s²) of the residual r (Geman and McClure).
    overlap
        Covered share of the slice that is covered more.
    coverage
        Shares of source and target covered by the other.
    residual
        Median of r over the covered spots, in units of the channels' total standard deviation.
    """

    transform: Transform
    score: float
    agreement: float
    overlap: float
    coverage: tuple[float, float]
    residual: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Spots whose channels are looked for in the other slice's field; (m, 2) and (m, c)."""

    xy: NDArray[np.float64]
    values: NDArray[np.float64]


def side_of(field: Field, *, most: int, rng: np.random.Generator) -> Side:
    """Take at most `most` of a field's points that count."""
    rows = np.flatnonzero(field.inner)
    if len(rows) > most:
        rows = np.sort(rng.choice(rows, most, replace=False))
    return Side(xy=field.xy[rows], values=field.value[rows])


def chance_agreement(source: Side, target: Side, s2: float, rng: np.random.Generator) -> float:
    """Agreement of spots paired at random."""
    i = rng.integers(len(source.xy), size=CHANCE_PAIRS)
    j = rng.integers(len(target.xy), size=CHANCE_PAIRS)
    r2 = ((source.values[i] - target.values[j]) ** 2).sum(axis=1)
    return float((s2 / (r2 + s2)).mean())


def judge(
    source: Side, target: Side, fields: tuple[Field, Field], transform: Transform, *, s2: float, chance: float
) -> Fit:
    """Measure how well the channels agree under a transform; see `Fit`."""
    forward, backward = _both(source, target, fields, transform)
    r2 = np.concatenate([forward.r2, backward.r2])
    shares = (float(forward.covered.mean()), float(backward.covered.mean()))
    agreement = float((s2 / (r2 + s2)).mean()) if len(r2) else 0.0
    overlap = max(shares)
    return Fit(
        transform=transform,
        score=overlap**OVERLAP_POWER * (agreement - chance) / max(1.0 - chance, 1e-12),
        agreement=agreement,
        overlap=overlap,
        coverage=shares,
        residual=float(np.sqrt(np.median(r2))) if len(r2) else float("inf"),
    )


def polish(
    source: Side,
    target: Side,
    fields: tuple[Field, Field],
    start: Transform,
    *,
    s2: float,
    kind: Kind,
    iterations: int = 20,
    least: float = 0.7,
) -> Transform:
    """Minimise Σ ρ(‖z_s(x) + b − z_t(T x)‖) + Σ ρ(‖z_t(y) − b' − z_s(T⁻¹ y)‖) over T.

    Iteratively reweighted Gauss-Newton. Both directions count, so that neither slice's noise pulls T towards
    itself; b and b' are the means of the residuals over the overlap, so that a constant offset between the
    slices moves nothing. A step must lower the loss of the spots that are covered before and after it (what
    enters and leaves the overlap decides nothing), else it is halved; the iteration ends when no step does or
    the step is below a thousandth of the spacing.

    Parameters
    ----------
    source, target
        Spots that are compared.
    fields
        Fields of source and target.
    start
        Where to begin.
    s2
        s² of ρ, the squared residual that counts half.
    kind
        Parameters that move: rotation and shift, and scale, and shear.
    iterations
        At most this many steps.
    least
        Steps that leave less than this share of the starting overlap are refused, so that it cannot shrink to
        where everything agrees.
    """
    centre = source.xy.mean(axis=0)
    reach = float(np.sqrt(((source.xy - centre) ** 2).sum(axis=1).mean()))
    transform = Transform(kind=kind, matrix=start.matrix)
    now = _both(source, target, fields, transform)
    floor = least * sum(int(part.covered.sum()) for part in now)
    for _ in range(iterations):
        step = _step(source, target, now, transform, s2, kind, reach)
        if step is None:
            break
        for _ in range(HALVINGS):
            trial = _moved(transform, step, kind, centre, reach)
            then = _both(source, target, fields, trial)
            if sum(int(part.covered.sum()) for part in then) >= floor and _gain(now, then, s2) > 0:
                transform, now = trial, then
                break
            step = step / 2
        else:
            break
        if float(np.abs(step).max()) * reach < 1e-3 * fields[1].ring:
            break
    return transform


@dataclass(frozen=True, slots=True, kw_only=True)
class _Residuals:
    covered: NDArray[np.bool_]  # (m,)
    r: NDArray[np.float64]  # (v, c), the offset taken out
    r2: NDArray[np.float64]  # (v,)
    slope: NDArray[np.float64]  # (v, 2, c)


def _residuals(side: Side, field: Field, transform: Transform) -> _Residuals:
    covered, value, slope = field.read(transform.apply(side.xy))
    r = side.values[covered] - value
    if len(r):
        r -= np.median(r, axis=0)
    return _Residuals(covered=covered, r=r, r2=np.einsum("ic,ic->i", r, r), slope=slope)


def _generators(xy: NDArray[np.float64], kind: Kind, centre: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """∂(Tx)/∂θ before L is applied, (m, 2, p): shifts, rotation, scale, two shears; all of unit length at `reach`."""
    u = (xy - centre) / reach
    one, zero = np.ones(len(u)), np.zeros(len(u))
    columns = [
        (one, zero),
        (zero, one),
        (-u[:, 1], u[:, 0]),
        (u[:, 0], u[:, 1]),
        (u[:, 0], -u[:, 1]),
        (u[:, 1], u[:, 0]),
    ]
    p = {"rigid": 3, "similarity": 4, "affine": 6}[kind]
    return np.stack([np.stack(column, axis=1) for column in columns[:p]], axis=2) * reach


def _moved(
    transform: Transform, step: NDArray[np.float64], kind: Kind, centre: NDArray[np.float64], reach: float
) -> Transform:
    """T ∘ (the small motion `step` of the source)."""
    full = np.zeros(6)
    full[: len(step)] = step
    grow = np.exp(full[3])
    angle = full[2]
    small = grow * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    small = small + np.array([[full[4], full[5]], [full[5], -full[4]]])
    motion = Transform.from_parts(small, centre + reach * full[:2] - small @ centre, kind)
    return transform.compose(motion)


def _both(
    source: Side, target: Side, fields: tuple[Field, Field], transform: Transform
) -> tuple[_Residuals, _Residuals]:
    return _residuals(source, fields[1], transform), _residuals(target, fields[0], transform.inverse())


def _gain(before: tuple[_Residuals, _Residuals], after: tuple[_Residuals, _Residuals], s2: float) -> float:
    """Loss that a step saves on the spots covered before and after it."""
    total = 0.0
    for old, new in zip(before, after, strict=True):
        r_old, r_new = old.r2[new.covered[old.covered]], new.r2[old.covered[new.covered]]
        total += float((r_old / (r_old + s2)).sum() - (r_new / (r_new + s2)).sum()) / len(old.covered)
    return total


def _step(
    source: Side,
    target: Side,
    now: tuple[_Residuals, _Residuals],
    transform: Transform,
    s2: float,
    kind: Kind,
    reach: float,
) -> NDArray[np.float64] | None:
    """Solve the weighted normal equations of both directions; None without enough overlap to solve them."""
    centre = source.xy.mean(axis=0)
    forward, backward = now
    # forward: r(θ) = z_s(x) − z_t(T m_θ x); backward: u = m_θ⁻¹ T⁻¹ y moves against the generators
    at_source = _generators(source.xy[forward.covered], kind, centre, reach)
    through = np.einsum("ab,ibp->iap", transform.linear, at_source)
    back = _generators(transform.inverse().apply(target.xy[backward.covered]), kind, centre, reach)
    p = at_source.shape[2]
    normal, right = np.zeros((p, p)), np.zeros(p)
    for part, motion in ((forward, -through), (backward, back)):
        if len(part.r) <= p:
            continue
        jacobian = np.einsum("iac,iap->icp", part.slope, motion)  # (v, c, p)
        weight = (s2 / (s2 + part.r2)) ** 2
        weight = weight / max(1, len(part.covered))
        total = weight.sum()
        # the offset b is solved for along with θ: centring both sides takes it out
        jacobian = jacobian - np.einsum("i,icp->cp", weight, jacobian) / total
        r = part.r - weight @ part.r / total
        flat, scaled = jacobian.reshape(-1, p), (jacobian * weight[:, None, None]).reshape(-1, p)
        normal += flat.T @ scaled
        right -= scaled.T @ r.ravel()
    if not np.isfinite(normal).all() or np.trace(normal) <= 0:
        return None
    normal += DAMPING * np.trace(normal) / p * np.eye(p)
    solved = np.asarray(np.linalg.solve(normal, right), np.float64)
    return np.clip(solved, -0.2, 0.2)
