"""Prototypical contrast: a spot belongs to the centre of its cluster, at several granularities."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


def prototype_contrast(z: Tensor, centroids: Sequence[Tensor], assigned: Sequence[Tensor], tau: float) -> Tensor:
    """Return the mean over granularities of the cross-entropy of softmax(cos(ẑ, centroid) / τ).

    Parameters
    ----------
    z
        (b, d) latents; L2-normalised here.
    centroids
        For each granularity t (k_t, d) centres; L2-normalised here.
    assigned
        For each granularity (b,) int64 own cluster of each latent.
    tau
        Temperature τ.

    Returns
    -------
    Tensor
        Scalar.

    References
    ----------
    Spotscape (arXiv 2506.15698), prototypical contrastive learning.
    """
    unit = normalize(z, dim=1)
    each = [cross_entropy(unit @ normalize(c, dim=1).T / tau, a) for c, a in zip(centroids, assigned, strict=True)]
    return torch.stack(each).mean()


def granularity_sizes(clusters: int, granularities: Sequence[float]) -> list[int]:
    """Return the clusters per granularity: max(previous + 1, ceil(K t))."""
    sizes: list[int] = []
    for t in granularities:
        wanted = -int(-clusters * t // 1)
        sizes.append(max(sizes[-1] + 1, wanted) if sizes else wanted)
    return sizes
