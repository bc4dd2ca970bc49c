"""Transforms of the plane, and the weighted Procrustes fit that finds one from pairs of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stscale.errors import InputError

Kind = Literal["rigid", "similarity", "affine"]

KINDS: tuple[Kind, ...] = ("rigid", "similarity", "affine")

FLAT = 1e-9
"""Points whose second principal variance is below this share of the first lie on one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """x ↦ L x + t on the plane, held as one homogeneous matrix.

    Attributes
    ----------
    kind
        What was fitted: `"rigid"` (rotation and shift), `"similarity"` (and one scale), `"affine"`. The first two
        may hold a mirror image.
    matrix
        (3, 3) float64 [[L, t], [0, 1]], invertible.

    Raises
    ------
    InputError
        A matrix of another shape (volumes are aligned slice by slice), a singular one, or one that is not of
        its kind.
    """

    kind: Kind
    matrix: NDArray[np.float64]

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        if self.kind not in KINDS:
            raise InputError(f"transform kind is {self.kind!r}; expected one of {', '.join(KINDS)}")
        if matrix.shape != (3, 3):
            raise InputError(
                f"transform has a matrix of shape {matrix.shape}; expected (3, 3): only the plane is aligned, "
                "pass the first two coordinate columns"
            )
        if not np.isfinite(matrix).all() or not np.allclose(matrix[2], [0.0, 0.0, 1.0], atol=1e-12):
            raise InputError("transform matrix is not finite or its last row is not 0 0 1")
        s = np.linalg.svd(matrix[:2, :2], compute_uv=False)
        if s[1] <= 1e-12 * s[0] or s[0] == 0:
            raise InputError("transform is singular: it maps the plane onto a line or a point")
        odd = (self.kind != "affine" and s[0] - s[1] > 1e-6 * s[0]) or (self.kind == "rigid" and abs(s[0] - 1.0) > 1e-6)
        if odd:
            raise InputError(f"transform matrix has scales {s[0]:.6g} and {s[1]:.6g}: it is not {self.kind}")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def identity(cls, kind: Kind = "rigid") -> Transform:
        """Return the transform that changes nothing."""
        return cls(kind=kind, matrix=np.eye(3))

    @classmethod
    def from_parts(cls, linear: ArrayLike, shift: ArrayLike, kind: Kind = "rigid") -> Transform:
        """Return x ↦ L x + t from L (2, 2) and t (2,)."""
        matrix = np.eye(3)
        matrix[:2, :2], matrix[:2, 2] = np.asarray(linear), np.asarray(shift)
        return cls(kind=kind, matrix=matrix)

    @property
    def linear(self) -> NDArray[np.float64]:
        """L, (2, 2)."""
        return self.matrix[:2, :2]

    @property
    def shift(self) -> NDArray[np.float64]:
        """t, (2,), in the units of the target."""
        return self.matrix[:2, 2]

    @property
    def mirror(self) -> bool:
        """Whether orientation is reversed: det L < 0."""
        return bool(np.linalg.det(self.linear) < 0)

    @property
    def scale(self) -> float:
        """√|det L|: the factor of lengths, for an affine map their geometric mean."""
        return float(np.sqrt(abs(np.linalg.det(self.linear))))

    @property
    def rotation_degrees(self) -> float:
        """Angle of the rotation in the polar decomposition of L, −180 … 180; of a mirror image, after x ↦ (x, −y)."""
        u, _, vt = np.linalg.svd(self.linear @ np.diag([1.0, -1.0 if self.mirror else 1.0]))
        turn = u @ vt
        return float(np.degrees(np.arctan2(turn[1, 0], turn[0, 0])))

    def apply(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Map points (n, 2) → (n, 2) float64.

        Raises
        ------
        InputError
            Points of another shape.
        """
        points = np.asarray(xy, np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise InputError(f"points have shape {points.shape}; a transform of the plane expects (n, 2)")
        moved: NDArray[np.float64] = points @ self.linear.T + self.shift
        return moved

    def inverse(self) -> Transform:
        """Return the transform that undoes this one."""
        back = np.linalg.inv(self.linear)
        return Transform.from_parts(back, -back @ self.shift, self.kind)

    def compose(self, first: Transform) -> Transform:
        """Return x ↦ self(first(x)), of the freer of the two kinds."""
        kind = KINDS[max(KINDS.index(self.kind), KINDS.index(first.kind))]
        return Transform.from_parts(self.linear @ first.linear, self.linear @ first.shift + self.shift, kind)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; angle, scale and mirror stand there for the reader."""
        return {
            "kind": self.kind,
            "matrix": self.matrix.tolist(),
            "rotation_degrees": self.rotation_degrees,
            "scale": self.scale,
            "mirror": self.mirror,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Transform:
        """Read what `to_dict` wrote; kind and matrix count, the rest follows from them.

        Raises
        ------
        InputError
            When one of them is missing or unfit.
        """
        try:
            return cls(kind=values["kind"], matrix=np.array(values["matrix"], np.float64))
        except (KeyError, TypeError) as error:
            raise InputError(f"no transform in {sorted(values)!r}: expected kind and matrix") from error


def procrustes(
    x: ArrayLike, y: ArrayLike, w: ArrayLike | None = None, *, kind: Kind = "rigid", allow_mirror: bool = False
) -> Transform:
    """Fit the transform with the least Σ w_i ‖L x_i + t − y_i‖².

    Rigid and similarity by the singular value decomposition of the weighted cross-covariance (Umeyama 1991),
    with its determinant guard; affine by linear least squares.

    Parameters
    ----------
    x, y
        (m, 2) points of the source and their partners in the target.
    w
        (m,) weights ≥ 0; all 1 when not given.
    kind
        `"rigid"`, `"similarity"` or `"affine"`.
    allow_mirror
        Let the better orientation win; else the result keeps orientation, except an affine fit, which is
        refused when the pairs ask for a mirror image.

    Raises
    ------
    InputError
        Fewer than 2 distinct pairs with weight (affine: 3, not on one line), or shapes that do not fit.
    """
    a, b, weight = checked_pairs(x, y, w, kind)
    weight = weight / weight.sum()
    mean_a, mean_b = weight @ a, weight @ b
    ca, cb = a - mean_a, b - mean_b
    cross = cb.T @ (weight[:, None] * ca)  # (2, 2)
    if kind == "affine":
        linear = np.linalg.solve(ca.T @ (weight[:, None] * ca), cross.T).T
        if np.linalg.det(linear) < 0 and not allow_mirror:
            raise InputError("the best affine transform is a mirror image; allow mirrors, or check the pairs")
    else:
        u, s, vt = np.linalg.svd(cross)
        sign = np.array([1.0, 1.0 if allow_mirror else np.sign(np.linalg.det(u @ vt)) or 1.0])
        linear = (u * sign) @ vt
        if kind == "similarity":
            linear *= float(s @ sign) / float(weight @ (ca**2).sum(axis=1))
    return Transform.from_parts(linear, mean_b - linear @ mean_a, kind)


def checked_pairs(
    x: ArrayLike, y: ArrayLike, w: ArrayLike | None, kind: Kind
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the pairs with weight as float64, or say why no transform follows from them.

    Raises
    ------
    InputError
        See `procrustes`.
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    weight = np.ones(len(a)) if w is None else np.asarray(w, np.float64)
    if a.ndim != 2 or a.shape[1] != 2 or a.shape != b.shape or weight.shape != (len(a),):
        raise InputError(
            f"pairs have shapes {a.shape}, {b.shape}, weights {weight.shape}; expected (m, 2), (m, 2), (m,)"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all() and np.isfinite(weight).all()) or (weight < 0).any():
        raise InputError("pairs or weights are not finite, or a weight is negative")
    held = weight > 0
    if not held.any():
        raise InputError("all pairs have weight 0: nothing to fit a transform to")
    a, b, weight = a[held], b[held], weight[held]
    needed = 3 if kind == "affine" else 2
    for side, points in (("source", a), ("target", b)):
        distinct = len(np.unique(points, axis=0))
        if distinct < needed:
            raise InputError(f"{distinct} distinct {side} points in the pairs; {kind} needs at least {needed}")
    if kind == "affine":
        s = np.linalg.svd(a - a.mean(axis=0), compute_uv=False)
        if s[1] ** 2 <= FLAT * s[0] ** 2:
            raise InputError("the source points of the pairs lie on one line: no affine transform follows; use rigid")
    return a, b, weight
