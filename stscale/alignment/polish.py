"""Local alignment: move the source until its channels agree with the target's where it lies (Gauss-Newton)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stscale.alignment.field import Field
from stscale.alignment.transform import Kind, Transform

HALVINGS = 4
DAMPING = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A transform and how well the channels agree under it.

    Attributes
    ----------
    transform
        Source → target.
    score
        Mean over the spots of both slices of (½ − ρ) where covered by the other slice, and 0 elsewhere, divided by
        its best value ½; ρ = r²/(r² + s²) of the residual r (Geman and McClure). 1 is full overlap without any
        residual; below 0 the overlap disagrees.
    agreement
        Mean of 1 − ρ over the covered spots.
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
    """Take at most `most` of a field's points."""
    m = len(field.xy)
    rows = np.arange(m) if m <= most else np.sort(rng.choice(m, most, replace=False))
    return Side(xy=field.xy[rows], values=field.value[rows])


def judge(source: Side, target: Side, fields: tuple[Field, Field], transform: Transform, s2: float) -> Fit:
    """Measure how well the channels agree under a transform; see `Fit`."""
    forward = _residuals(source, fields[1], transform)
    backward = _residuals(target, fields[0], transform.inverse())
    r2 = np.concatenate([forward.r2, backward.r2])
    shares = (float(forward.covered.mean()), float(backward.covered.mean()))
    if not len(r2):
        return Fit(transform=transform, score=0.0, agreement=0.0, overlap=0.0, coverage=(0.0, 0.0), residual=np.inf)
    rho = r2 / (r2 + s2)
    gains = [float((0.5 - part.r2 / (part.r2 + s2)).sum()) / len(part.covered) for part in (forward, backward)]
    return Fit(
        transform=transform,
        score=float(sum(gains)),
        agreement=float(1.0 - rho.mean()),
        overlap=max(shares),
        coverage=shares,
        residual=float(np.sqrt(np.median(r2))),
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
    min_overlap: float = 0.1,
) -> Fit:
    """Minimise Σ ρ(‖z_s(x) + b − z_t(T x)‖) + Σ ρ(‖z_t(y) − b' − z_s(T⁻¹ y)‖) over T.

    Iteratively reweighted Gauss-Newton. Both directions count, so that neither slice's noise pulls T towards
    itself; b and b' are the robust means of the residuals over the overlap, so that a constant offset between the
    slices moves nothing. A step that lowers the score (see `Fit`, which pays for overlap) is halved, and the
    iteration ends when no step raises it or the step is below a thousandth of the spacing.

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
    min_overlap
        Steps to a smaller overlap are refused.
    """
    transform = Transform(kind=kind, matrix=start.matrix)
    best = judge(source, target, fields, transform, s2)
    reach = float(np.sqrt(((source.xy - source.xy.mean(axis=0)) ** 2).sum(axis=1).mean()))
    for _ in range(iterations):
        step = _step(source, target, fields, best.transform, s2, kind, reach)
        if step is None:
            break
        improved = False
        for halving in range(HALVINGS):
            moved = _moved(best.transform, step * 0.5**halving, kind, source.xy.mean(axis=0), reach)
            trial = judge(source, target, fields, moved, s2)
            if trial.score > best.score and trial.overlap >= min_overlap:
                best, improved = trial, True
                break
        if not improved or float(np.abs(step).max()) * reach < 1e-3 * fields[1].ring:
            break
    return best


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
        r = r - np.median(r, axis=0)
    return _Residuals(covered=covered, r=r, r2=np.einsum("ic,ic->i", r, r), slope=slope)


def _generators(xy: NDArray[np.float64], kind: Kind, centre: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """∂(Tx)/∂θ before L is applied, (m, 2, p): shifts, rotation, scale, two shears; all of unit length at `reach`."""
    u = (xy - centre) / reach
    one, zero = np.ones(len(u)), np.zeros(len(u))
    columns = [(one, zero), (zero, one), (-u[:, 1], u[:, 0]), (u[:, 0], u[:, 1]), (u[:, 0], -u[:, 1]), (u[:, 1], u[:, 0])]
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


def _step(
    source: Side,
    target: Side,
    fields: tuple[Field, Field],
    transform: Transform,
    s2: float,
    kind: Kind,
    reach: float,
) -> NDArray[np.float64] | None:
    """Solve the weighted normal equations of both directions; None without enough overlap to solve them."""
    centre = source.xy.mean(axis=0)
    forward, backward = _residuals(source, fields[1], transform), _residuals(target, fields[0], transform.inverse())
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
    solved: NDArray[np.float64] = np.linalg.solve(normal, right)
    return np.clip(solved, -0.2, 0.2)
