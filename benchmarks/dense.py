"""Spotscape with its two quadratic terms as published: every similarity of every pair of spots, in one matrix."""

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from stscale.models import Spotscape

if TYPE_CHECKING:
    from torch import Tensor

    from stscale.models import Minibatch

OVERRIDDEN = ("_telescope", "_scale")


def dense_telescope(m: "Tensor") -> "Tensor":
    """Return (1/n²)‖M − Mᵀ‖²_F of the (n, n) similarities M = Ẑ Ẑ'ᵀ, as it is written."""
    return ((m - m.T) ** 2).mean()


def dense_scale_matching(m: "Tensor", group: "Tensor", k: int) -> "Tensor":
    """Return scale matching over all ordered pairs of slices from the (n, n) similarities.

    For each slice the other columns are set to −∞ and the k largest of every row are taken: one search per slice,
    where one per pair of slices would find the same.

    Parameters
    ----------
    m
        (n, n) similarities of first views (rows) to second views (columns).
    group
        (n,) int64 slice of each spot.
    k
        Similarities averaged; all of a slice where it has fewer spots.

    Returns
    -------
    Tensor
        Scalar, summed over the pairs; 0 for one slice.
    """
    present, sizes = torch.unique(group, return_counts=True)
    means = []
    for slice_, size in zip(present, sizes.tolist(), strict=True):
        masked = m.masked_fill((group != slice_)[None, :], -torch.inf)
        means.append(masked.topk(min(k, size), dim=1).values.mean(dim=1))
    table = torch.stack(means, dim=1)  # (n, s)
    terms = [((table[group == c][:, [i]] - table[group == c]) ** 2).mean(dim=0).sum() for i, c in enumerate(present)]
    return torch.stack(terms).sum()


class DenseSpotscape(Spotscape):
    """stscale's network and views, full batch, with dense telescope and dense scale matching.

    Kind to the published form: both terms share one matrix, and nothing of a step's is kept for the next.
    """

    _similarity: "Tensor | None" = None

    def _telescope(self, z: "Tensor", z_prime: "Tensor", step: int) -> "Tensor":
        self._similarity = normalize(z, dim=1) @ normalize(z_prime, dim=1).T
        return dense_telescope(self._similarity)

    def _scale(self, z: "Tensor", batch: "Minibatch", union: "Tensor", group: "Tensor") -> "Tensor":
        m, self._similarity = self._similarity, None
        if m is None:
            m = normalize(z, dim=1) @ normalize(union, dim=1).T
        value = dense_scale_matching(m, batch.group, self.config.scale_k)
        return value / (self.n_slices * (self.n_slices - 1)) if self.config.pair_mean else value


for _name in OVERRIDDEN:
    if not hasattr(Spotscape, _name):
        # else the class would silently measure stscale's own form
        raise AttributeError(f"Spotscape has no {_name}: benchmarks.dense must follow its change")
