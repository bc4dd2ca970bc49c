"""Principal axes, and the scores of slices that do not capture all genes alike.

Rows t (g,) of a slice, brought to the height they have in all slices, are taken as t = Vᵀz + ε, with orthonormal axes V
(p, g) and noise ε of variance τ² / w_j in gene j: a gene of which the slice captures r times as much as all do has r
times the counts there and tells w = r times as much; one it lacks tells nothing, w = 0. The scores are what one expects
of z given the row,

    z = (I + N) (V W Vᵀ + N)⁻¹ V W t,   N = τ² / (variance of spots along the axis)

with I + N so that they are Vt where w = 1. Genes that a slice hardly captures would bring their noise otherwise,
enlarged by what brings them to the common height.

Source: weighted least squares with a normal prior, e.g. Bishop, Pattern Recognition and Machine Learning (2006), 3.3;
Tipping and Bishop, Probabilistic principal component analysis, J. R. Stat. Soc. B 61 (1999), 611-622.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

RIDGE = 1e-9
"""Added to the diagonal of V W Vᵀ + N: axes of genes that a slice lacks have nothing else where τ² is 0."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Components:
    """Principal axes of centred rows.

    Attributes
    ----------
    axes
        (p, g) float64, orthonormal rows times `inverse`, largest variance first; the loading of largest magnitude
        before that is positive.
    variance
        (p,) float64, variance along each axis of what the axes are of, averages or spots: the sum of squares over their
        number less 1, or less s when centred per slice.
    noise
        (p,) float64, N: share of noise in the variance of a spot along each axis, in [0, 1].
    mean
        (g,) float64, mean of each gene over the rows of the slices that have it.
    slice_mean
        (s, g) float64, each slice's own mean; 0 where it lacks the gene.
    centre
        (s, g) float64, what is subtracted from the rows of each slice.
    inverse
        (g,) float64, what each gene was multiplied by before the axes were found: 1, or 1 / its standard deviation (0
        for a constant gene), times its weight. It is part of `axes`; ``axes / inverse`` has orthonormal rows.
    precision
        (s, g) float64, w: what a slice tells of a gene, in that of all slices; 0 where it lacks the gene.
    notes
        What the user should know, one sentence each.
    """

    axes: NDArray[np.float64]
    variance: NDArray[np.float64]
    noise: NDArray[np.float64]
    mean: NDArray[np.float64]
    slice_mean: NDArray[np.float64]
    centre: NDArray[np.float64]
    inverse: NDArray[np.float64]
    precision: NDArray[np.float64]
    notes: tuple[str, ...]

    def scores(self, rows: sparse.csr_matrix, which: NDArray[np.integer]) -> NDArray[np.float32]:
        """Coordinates of rows along the axes.

        Parameters
        ----------
        rows : (m, g) csr_matrix
            Transformed values, brought to the height of all slices.
        which : (m,) int
            Slice of each row.

        Returns
        -------
        (m, p) float32
        """
        out = np.empty((rows.shape[0], len(self.axes)), dtype=np.float32)
        for i in np.unique(which):
            own = which == i
            axes = self.slice_axes(int(i))
            out[own] = (rows if own.all() else rows[own]).astype(np.float64) @ axes.T - self.centre[i] @ axes.T
        return out

    def apart(self) -> NDArray[np.float64]:
        """Return where each slice's own mean lies around the common one, (s, p), as far as the genes it has tell."""
        told = np.where(self.precision > 0, self.slice_mean - self.mean, 0.0)
        return np.stack([row @ self.slice_axes(i).T for i, row in enumerate(told)])

    def slice_axes(self, i: int) -> NDArray[np.float64]:
        """Return what maps centred rows of slice `i` to their scores, (p, g): `axes` where it captures all alike."""
        weight = self.precision[i]
        if (weight == 1.0).all():
            return self.axes
        unit = orthonormal(self.axes, self.inverse)
        noise = np.diag(self.noise)
        one = np.eye(len(self.axes))
        inner = (unit * weight) @ unit.T + noise + RIDGE * one
        return np.asarray((one + noise) @ np.linalg.solve(inner, self.axes * weight))


def orthonormal(axes: NDArray[np.float64], inverse: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``axes / inverse``, (p, g), 0 for constant genes: orthonormal rows, see `Components`."""
    varies = inverse > 0
    return np.where(varies, axes / np.where(varies, inverse, 1.0), 0.0)
