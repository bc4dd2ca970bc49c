"""What a clustering sees: centred rows, parts weighted, optionally of length 1, optionally in fewer dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """Centre → weigh parts (optional) → rows to length 1 (optional) → principal components (optional), from a sample.

    Attributes
    ----------
    mean
        (d,) float64, subtracted first.
    l2_normalize
        Divide the centred rows by their length; a row at the mean stays zero.
    centre
        (d,) float64 mean of the rows so far, subtracted before the projection.
    basis
        (d, c) float64 principal axes, largest variance first, or None.
    scale
        (d,) float64, what the centred columns are multiplied by; None: 1.
    """

    mean: NDArray[np.float64]
    l2_normalize: bool
    centre: NDArray[np.float64]
    basis: NDArray[np.float64] | None
    scale: NDArray[np.float64] | None = None

    @staticmethod
    def fit(
        z: NDArray[np.floating], *, n_components: int, l2_normalize: bool, parts: Sequence[tuple[int, float]] = ()
    ) -> Reduction:
        """Fit on rows (n, d); `n_components` 0, or not below d, keeps all d dimensions unrotated.

        `parts` are the widths of groups of columns, in order, and the total variance that each group is brought to;
        with fewer than two of them the columns stay as they are.
        """
        d = z.shape[1]
        mean = np.asarray(np.mean(z, axis=0, dtype=np.float64))
        scale = _scale(z, mean, parts) if len(parts) > 1 else None
        bare = Reduction(mean=mean, l2_normalize=l2_normalize, centre=np.zeros(d), basis=None, scale=scale)
        if not 0 < n_components < d:
            return bare
        rows = bare.apply(z)
        centre = rows.mean(axis=0)
        rows -= centre
        axes = np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :n_components]
        # an axis has no sign: fix it so that reruns and machines agree
        largest = np.abs(axes).argmax(axis=0)
        axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
        basis = np.ascontiguousarray(axes)
        return Reduction(mean=mean, l2_normalize=l2_normalize, centre=centre, basis=basis, scale=scale)

    def apply(self, z: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return rows (m, d) as (m, c) float64."""
        rows: NDArray[np.float64] = np.asarray(z, dtype=np.float64) - self.mean
        if self.scale is not None:
            rows *= self.scale
        if self.l2_normalize:
            length = np.linalg.norm(rows, axis=1, keepdims=True)
            rows /= np.where(length > 0, length, 1.0)
        return rows if self.basis is None else (rows - self.centre) @ self.basis


def _scale(
    z: NDArray[np.floating], mean: NDArray[np.float64], parts: Sequence[tuple[int, float]]
) -> NDArray[np.float64]:
    """Return the factor of each column (d,) that gives every part its total variance; a constant part keeps 1."""
    total = np.mean((z - mean) ** 2, axis=0)
    ends = np.cumsum([width for width, _ in parts])
    out = np.ones(z.shape[1])
    for (width, variance), end in zip(parts, ends, strict=True):
        own = float(total[end - width : end].sum())
        if own > 0:
            out[end - width : end] = np.sqrt(variance / own)
    return out


def check_distinct(z: NDArray[np.floating], k: int) -> None:
    """Refuse more clusters than distinct rows.

    Raises
    ------
    InputError
        When the rows (n, d) hold fewer than k different ones.
    """
    seen, rows = 0, max(4 * k, 256)
    while seen < k:
        part = z[:rows]
        seen = len(np.unique(part, axis=0)) if k > 1 else min(len(part), 1)
        if seen < k and rows >= len(z):
            raise InputError(
                f"K = {k} domains asked of {len(z)} spots, {seen} of them distinct; expected K ≤ {seen}: lower K"
            )
        rows *= 8
