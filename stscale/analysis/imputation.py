"""Expression from latents: what the decoder of a network says of a gene, whether the slice measured it or not."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

ROWS = 8192
"""Spots whose values are read at once."""

if TYPE_CHECKING:
    from stscale.models import Spotscape
    from stscale.slices.features import FeatureStore


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loadings:
    """Principal component scores → log-normalised values of some genes, v̂ = r (c + t W).

    With scaled values y = (x − c) / σ and orthonormal axes V the scores are t = V y, the best reconstruction of rank p
    is ŷ = Vᵀ t, and x̂ = c + σ ŷ (Pearson 1901; Eckart and Young 1936).

    Attributes
    ----------
    weights
        W, (p, k) float64.
    centre
        c, (s, k) float64, of each slice of the run: the values that scores of 0 stand for, wherever it was moved.
    ratio
        r, (s, k) float64: mean log-normalised value of a gene in a slice over its mean transformed value there, or over
        all slices where it has none. Both are 0 together and nearly proportional; the inverse of the transform would
        take the mean of few counts far too low (Jensen).
    """

    weights: NDArray[np.float64]
    centre: NDArray[np.float64]
    ratio: NDArray[np.float64]

    @classmethod
    def build(
        cls, features: "FeatureStore", columns: NDArray[np.int64], center: Literal["kinds", "slice", "all"]
    ) -> "Loadings":
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
        sums = np.zeros((2, features.n_slices, len(columns)))
        gain = features.gain()[:, columns]
        for i, (start, stop) in enumerate(pairwise(features.offsets().tolist())):
            for lo in range(start, stop, ROWS):
                values = features.normalised(lo, min(lo + ROWS, stop))[:, columns]
                for total, part in zip(sums, (values, features.transform.rows(values, gain, i)), strict=True):
                    total[i] += np.asarray(part.sum(axis=0)).ravel()
        log, own = sums
        joint = _ratio(log.sum(axis=0), own.sum(axis=0), np.ones(len(columns)))
        ratio = _ratio(log, own, np.tile(joint, (features.n_slices, 1)))
        inverse = features.pca_inverse()[columns]
        axes = features.pca_components()[:, columns].astype(np.float64)
        varies = inverse > 0
        weights = np.where(varies, axes / np.where(varies, inverse, 1.0) ** 2, 0.0)
        mean = np.tile(features.pca_mean()[columns], (features.n_slices, 1))
        if center != "all":
            mean = np.where(features.mask()[:, columns], features.slice_mean()[:, columns], mean)
        return cls(weights=weights, centre=mean - features.kinds().move @ weights, ratio=ratio)

    def expression(self, scores: NDArray[np.floating], slice_: int) -> NDArray[np.float32]:
        """Return log-normalised values (m, k) float32, at least 0, of scores (m, p) in a slice of the run."""
        return np.maximum((scores @ self.weights + self.centre[slice_]) * self.ratio[slice_], 0.0).astype(np.float32)


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


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64], without: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=without.copy(), where=below > 0)
