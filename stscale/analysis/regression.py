"""Expression from latents by ridge regression on the slices that measured it.

For the genes that a set of slices measured, with latents F (centred in each slice, each column of unit variance) and
log-normalised values X (centred in each slice):

    W = (FᵀF + λ n I)⁻¹ FᵀX,   then one slope per gene, so that W F has the size that fits X best

The penalty cannot be chosen on these slices: their latents saw the gene itself, in the spot and its neighbours, and a
small λ reads it back out of weak directions, where a slice that did not measure it has none of it. λ = 1 weighs a
direction of average variance half and weak ones hardly.

Source: Hoerl and Kennard, Technometrics 12 (1970), 55-67.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

PENALTY = 1.0
"""λ, in variances of a latent column."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Readout:
    """Latents → log-normalised values of k genes.

    Attributes
    ----------
    weights
        (d, k) float64.
    latent_centre
        (s, d) float64, mean latent of each slice.
    centre
        (s, k) float64, mean of each gene in each slice; where it lacks one, over the slices that have it.
    """

    weights: Floats
    latent_centre: Floats
    centre: Floats

    def __call__(self, z: NDArray[np.float32], slice_: int) -> NDArray[np.float32]:
        """Return the values (m, k) float32, at least 0, of latents (m, d) in a slice of the run."""
        found = (z - self.latent_centre[slice_]) @ self.weights + self.centre[slice_]
        return np.maximum(found, 0.0).astype(np.float32)


class Moments:
    """Sums of latents and values of each slice, collected in one pass.

    Parameters
    ----------
    slices, d, k
        Slices, width of the latents, genes.
    """

    def __init__(self, slices: int, d: int, k: int) -> None:
        self.n = np.zeros(slices)
        self.f, self.x = np.zeros((slices, d)), np.zeros((slices, k))
        self.ff, self.fx = np.zeros((slices, d, d)), np.zeros((slices, d, k))

    def add(self, slice_: int, z: NDArray[np.float32], values: sparse.csr_matrix) -> None:
        """Add rows: latents (m, d) and values (m, k). The same order of calls gives the same bits."""
        f, x = z.astype(np.float64), values.astype(np.float64)
        self.n[slice_] += len(f)
        self.f[slice_] += f.sum(axis=0)
        self.x[slice_] += np.asarray(x.sum(axis=0)).ravel()
        self.ff[slice_] += f.T @ f
        self.fx[slice_] += np.asarray((x.T @ f).T)

    def fit(self, mask: NDArray[np.bool_], *, penalty: float = PENALTY) -> Readout:
        """Regress each gene on the slices that have it.

        Parameters
        ----------
        mask
            (s, k): whether the slice has the gene; at least one has each.
        penalty
            λ.
        """
        n = np.maximum(self.n, 1.0)[:, None]
        latent, own = self.f / n, self.x / n
        weight = mask * n
        everywhere = (own * weight).sum(axis=0) / weight.sum(axis=0)
        ff = self.ff - self.f[:, :, None] * latent[:, None, :]
        fx = self.fx - self.f[:, :, None] * own[:, None, :]
        weights = np.zeros(fx.shape[1:])
        # genes that the same slices have are regressed together
        patterns, which = np.unique(mask, axis=1, return_inverse=True)
        for number, have in enumerate(patterns.T):
            genes = which.ravel() == number
            weights[:, genes] = _ridge(
                float(self.n[have].sum()), ff[have].sum(axis=0), fx[have][:, :, genes].sum(axis=0), penalty
            )
        return Readout(weights=weights, latent_centre=latent, centre=np.where(mask, own, everywhere))


def _ridge(n: float, ff: Floats, fx: Floats, penalty: float) -> Floats:
    """Return the weights (d, k) on latents as they are."""
    variance = np.diag(ff) / n
    # a column that does not vary says nothing
    size = np.where(variance > 1e-12 * variance.max(), np.sqrt(np.maximum(variance, 1e-300)), np.inf)
    ff, fx = ff / np.outer(size, size), fx / size[:, None]
    w = np.linalg.solve(ff + penalty * n * np.eye(len(ff)), fx)
    fitted = np.sum(w * (ff @ w), axis=0)
    slope = np.divide(np.sum(w * fx, axis=0), fitted, out=np.zeros_like(fitted), where=fitted > 0)
    return np.asarray(w * slope / size[:, None])
