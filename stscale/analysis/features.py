"""What a clustering sees of the latents: centred, optionally of length 1, optionally fewer dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """Centre → rows to length 1 (optional) → principal components (optional), as fitted on a sample.

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
    """

    mean: NDArray[np.float64]
    l2_normalize: bool
    centre: NDArray[np.float64]
    basis: NDArray[np.float64] | None

    @staticmethod
    def fit(z: NDArray[np.floating], *, n_components: int, l2_normalize: bool) -> Reduction:
        """Fit on rows (n, d); `n_components` 0, or not below d, keeps all d dimensions unrotated."""
        d = z.shape[1]
        mean = np.asarray(np.mean(z, axis=0, dtype=np.float64))
        bare = Reduction(mean=mean, l2_normalize=l2_normalize, centre=np.zeros(d), basis=None)
        if not 0 < n_components < d:
            return bare
        rows = bare.apply(z)
        centre = rows.mean(axis=0)
        rows -= centre
        axes = np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :n_components]
        # an axis has no sign: fix it so that reruns and machines agree
        largest = np.abs(axes).argmax(axis=0)
        axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
        return Reduction(mean=mean, l2_normalize=l2_normalize, centre=centre, basis=np.ascontiguousarray(axes))

    def apply(self, z: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return rows (m, d) as (m, c) float64."""
        rows: NDArray[np.float64] = np.asarray(z, dtype=np.float64) - self.mean
        if self.l2_normalize:
            length = np.linalg.norm(rows, axis=1, keepdims=True)
            rows /= np.where(length > 0, length, 1.0)
        return rows if self.basis is None else (rows - self.centre) @ self.basis


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
