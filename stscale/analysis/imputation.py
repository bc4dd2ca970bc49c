"""Expression from latents: what the decoder of a network says of a gene, whether the slice measured it or not."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from stscale.slices.transform import Transform

if TYPE_CHECKING:
    from stscale.models import Spotscape
    from stscale.slices.features import FeatureStore


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loadings:
    """Principal component scores → log-normalised values of some genes, by x̂ = c + t W and the inverse transform.

    With scaled values y = (x − c) / σ and orthonormal axes V the scores are t = V y, the best reconstruction of rank p
    is ŷ = Vᵀ t, and x̂ = c + σ ŷ (Pearson 1901; Eckart and Young 1936).

    Attributes
    ----------
    weights
        W, (p, k) float64.
    centre
        c, (s, k) float64, of each slice of the run.
    transform
        To the values x that components are of.
    """

    weights: NDArray[np.float64]
    centre: NDArray[np.float64]
    transform: Transform

    @classmethod
    def build(cls, features: "FeatureStore", columns: NDArray[np.int64], center: Literal["all", "slice"]) -> "Loadings":
        """Read them for the genes `columns` (k,) of a feature store.

        Parameters
        ----------
        features
            Of the run.
        columns
            Of the genes kept.
        center
            As the components were computed. A gene that a slice lacks has the mean of the slices that have it.
        """
        inverse = features.pca_inverse()[columns]
        axes = features.pca_components()[:, columns].astype(np.float64)
        varies = inverse > 0
        weights = np.where(varies, axes / np.where(varies, inverse, 1.0) ** 2, 0.0)
        mean = np.tile(features.pca_mean()[columns], (features.n_slices, 1))
        if center == "slice":
            mean = np.where(features.mask()[:, columns], features.slice_mean()[:, columns], mean)
        return cls(weights=weights, centre=mean, transform=features.transform)

    def expression(self, scores: NDArray[np.floating], slice_: int) -> NDArray[np.float32]:
        """Return log-normalised values (m, k) float32, at least 0, of scores (m, p) in a slice of the run."""
        values = np.maximum(scores @ self.weights + self.centre[slice_], 0.0)
        return self.transform.normalised(values).astype(np.float32)


class Decoding:
    """Latents of a trained Spotscape → log-normalised expression of some genes.

    Parameters
    ----------
    method
        Trained, in evaluation mode.
    columns
        (k,) of the genes kept.
    loadings
        Of these genes, where the network reconstructs components; None where it reconstructs genes.
    scale
        What the components were multiplied by before they were reconstructed.
    """

    def __init__(
        self, method: "Spotscape", columns: NDArray[np.int64], loadings: Loadings | None, scale: float = 1.0
    ) -> None:
        self.method, self.columns, self.loadings, self.scale = method, columns, loadings, scale

    def __call__(self, z: NDArray[np.float32], slice_: int) -> NDArray[np.float32]:
        """Return the values (m, k) float32, at least 0, of latents (m, d) in a slice of the run."""
        import torch

        with torch.no_grad():
            device = next(self.method.parameters()).device
            out: torch.Tensor = self.method.decoder(torch.from_numpy(np.ascontiguousarray(z)).to(device))
            decoded = out.float().cpu().numpy()
        if self.loadings is None:
            return np.maximum(decoded[:, self.columns], 0.0).astype(np.float32)
        return self.loadings.expression(decoded / self.scale, slice_)
