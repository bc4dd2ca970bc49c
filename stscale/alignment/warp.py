"""A smooth displacement on top of a transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from stscale.alignment.field import Field
from stscale.alignment.transform import Transform
from stscale.errors import InputError

LEAST_AREA = 0.1
"""Smallest local change of area a warp may have; at 0 it folds."""
STIFFER = 4.0
TRIES = 8
ROUNDS = 15
GRID = 40  # points along the longer side where folding is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Warp:
    """u ↦ u + w(u): a thin-plate spline w through control points, smoothed; u in the target's frame.

    Attributes
    ----------
    points, moves : (c, 2) float64
        Control points and the displacement asked of each.
    smoothing
        λ of the spline; grown until nothing folds.
    size
        Length that the points are divided by before the spline is fitted.
    bending
        ∫‖∇²w‖² over the control points' box, in squared target units per squared target units.
    largest
        Largest displacement of a control point, in target units.
    least_area
        Least determinant of the Jacobian of u + w(u) on a grid over the points; above 0: nothing folds.
    notes
        What must be said, one line each.
    """

    points: NDArray[np.float64]
    moves: NDArray[np.float64]
    smoothing: float
    size: float
    bending: float
    largest: float
    least_area: float
    notes: tuple[str, ...]

    def apply(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Displace positions (n, 2) of the target's frame."""
        at = np.asarray(xy, np.float64)
        return at + _spline(self.points, self.moves, self.smoothing, self.size)(at / self.size)


def thin_plate(points: ArrayLike, moves: ArrayLike, *, stiffness: float = 3.0) -> Warp:
    """Fit a thin-plate spline to displacements of control points; O(c³) once, O(n·c) to apply.

    Minimises Σ ‖w(p_i) − m_i‖² + λ ∫‖∇²w‖² (Wahba 1990; `scipy.interpolate.RBFInterpolator`) on points scaled to
    unit size, λ = stiffness · 10⁻³ · c. When the result folds, λ is quadrupled until it does not.

    Parameters
    ----------
    points, moves
        (c, 2) control points, not on one line, and their displacements.
    stiffness
        See above; 0 passes through every point.

    Raises
    ------
    InputError
        Shapes that do not fit, fewer than 4 points, points on one line; displacements that fold at any stiffness.
    """
    at, move = np.asarray(points, np.float64), np.asarray(moves, np.float64)
    if at.ndim != 2 or at.shape[1] != 2 or at.shape != move.shape:
        raise InputError(f"control points and moves have shapes {at.shape} and {move.shape}; expected (c, 2) both")
    if not (np.isfinite(at).all() and np.isfinite(move).all()):
        raise InputError("control points or their moves are not finite")
    at, first = np.unique(at, axis=0, return_index=True)
    move = move[first]
    spread = np.linalg.svd(at - at.mean(axis=0), compute_uv=False) if len(at) >= 4 else np.zeros(2)
    if len(at) < 4 or spread[1] <= 1e-6 * spread[0]:
        raise InputError(f"{len(at)} control points, too few or on one line; a warp needs 4 that are not")
    size = float(np.ptp(at, axis=0).max())
    smoothing = stiffness * 1e-3 * len(at)
    notes: tuple[str, ...] = ()
    for turn in range(TRIES):
        least, bending = _shape(at, move, smoothing, size)
        if least > LEAST_AREA:
            largest = float(np.linalg.norm(_spline(at, move, smoothing, size)(at / size), axis=1).max())
            return Warp(
                points=at,
                moves=move,
                smoothing=smoothing,
                size=size,
                bending=bending,
                largest=largest,
                least_area=least,
                notes=notes,
            )
        notes = (f"the warp folded and was made {STIFFER ** (turn + 1):.0f} × stiffer",)
        smoothing = max(smoothing, 1e-4 * len(at)) * STIFFER
    raise InputError("the displacements fold the tissue at any stiffness; align without a warp")


def fit_warp(fields: tuple[Field, Field], transform: Transform, *, points: int = 100, stiffness: float = 3.0) -> Warp:
    """Fit the displacement that is left after a transform, from the channels of both slices.

    Around each control point (cells of the covered source spots) the displacement of least squares between the
    channels is solved for: m = (Σ G Gᵀ + ridge)⁻¹ Σ G r over the spots of the cell, G the target's slope and r
    the residual (Lucas and Kanade 1981), in `ROUNDS` rounds, each on top of the spline of the last.

    Parameters
    ----------
    fields
        Of source and target.
    transform
        Source → target.
    points
        Largest number of control points.
    stiffness
        See `thin_plate`.

    Raises
    ------
    InputError
        When the overlap is too small for four control points.
    """
    source, target = fields
    start = transform.apply(source.xy[source.inner])
    values = source.value[source.inner]
    covered = target.read(start)[0]
    start, values = start[covered], values[covered]
    if len(start) < 4:
        raise InputError(f"{len(start)} spots overlap; a warp needs more")
    side = float(np.sqrt(np.prod(np.ptp(start, axis=0)) / points))
    cell = np.floor((start - start.min(axis=0)) / max(side, target.ring)).astype(np.int64)
    _, place, count = np.unique(cell, axis=0, return_inverse=True, return_counts=True)
    place = place.ravel()
    centres = np.stack([np.bincount(place, column) for column in start.T], axis=1) / count[:, None]
    held = count >= np.median(count) / 3
    moves = np.zeros_like(centres)
    warp = thin_plate(centres[held], moves[held], stiffness=stiffness)
    for _ in range(ROUNDS):
        moved = warp.apply(start)
        step = _local_steps(target, moved, values, place, len(count))
        at = centres[held]
        moves = warp.apply(at) - at + np.clip(step[held], -2 * target.ring, 2 * target.ring)
        warp = thin_plate(at, moves, stiffness=stiffness)
    return warp


def _local_steps(
    target: Field, at: NDArray[np.float64], values: NDArray[np.float64], place: NDArray[np.int64], cells: int
) -> NDArray[np.float64]:
    """Displacement of least squares of each cell and its 8 neighbours' worth of ridge, (cells, 2)."""
    covered, value, slope = target.read(at)
    r = values[covered] - value
    r -= np.median(r, axis=0)
    own = place[covered]
    products = np.einsum("iac,ibc->iab", slope, slope).reshape(-1, 4)
    normal = np.stack([np.bincount(own, column, cells) for column in products.T], axis=1).reshape(-1, 2, 2)
    pulls = np.einsum("iac,ic->ia", slope, r)
    right = np.stack([np.bincount(own, column, cells) for column in pulls.T], axis=1)
    # cells inside a domain know nothing: the ridge, a tenth of a typical cell's information, leaves them to the spline
    ridge = float(np.median(np.trace(normal, axis1=1, axis2=2)[np.bincount(own, minlength=cells) > 0])) / 10
    solved = np.linalg.solve(normal + max(ridge, 1e-12) * np.eye(2), right[..., None])[..., 0]
    return np.asarray(solved, np.float64)


def _spline(points: NDArray[np.float64], moves: NDArray[np.float64], smoothing: float, size: float) -> Any:
    from scipy.interpolate import RBFInterpolator

    return RBFInterpolator(points / size, moves, kernel="thin_plate_spline", smoothing=smoothing)


def _shape(
    points: NDArray[np.float64], moves: NDArray[np.float64], smoothing: float, size: float
) -> tuple[float, float]:
    """Least local area of u + w(u) and the bending energy, by differences on a grid where points are near."""
    spline = _spline(points, moves, smoothing, size)
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    h = float(span.max()) / (GRID - 1)
    axes = [low[a] + h * np.arange(int(np.ceil(span[a] / h)) + 1) for a in range(2)]
    at = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    w = spline(at.reshape(-1, 2) / size).reshape(at.shape)
    first = [np.gradient(w, h, axis=a) for a in range(2)]
    area = (1 + first[0][..., 0]) * (1 + first[1][..., 1]) - first[0][..., 1] * first[1][..., 0]
    near = cKDTree(points).query(at)[0] <= 2 * float(np.sqrt(np.prod(span) / len(points)) + h)
    second = [[np.gradient(first[a], h, axis=b) for b in range(2)] for a in range(2)]
    bending = float(sum((part[near] ** 2).sum() for row in second for part in row) * h**2)
    return float(area[near].min()), bending
