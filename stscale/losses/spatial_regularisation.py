"""Spatial regularisation: neighbours in tissue are similar, others are not."""

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from stscale.losses.pair_tensors import PairTensors
from stscale.losses.precision import full
from stscale.losses.spatial_pairs import SpatialPairs


def spatial_regularisation(
    z: Tensor, pairs: SpatialPairs | PairTensors, *, spots: int, base: Tensor | None = None
) -> Tensor:
    """Return −(1/n) (Σ_edges w log σ(cos) + Σ_non-edges w log(1 − σ(cos))).

    With all pairs of a slice and weights 1 it is stMFG's term; with the weights of `draw_pairs` it is that in
    expectation. Of the two sums the non-edges' is about n/k times the larger: the value grows with the slices'
    size.

    Parameters
    ----------
    z
        (b, d) latents of the pairs' first spots; rows are L2-normalised here.
    pairs
        Edges and non-edges with weights; first row: rows of `z`, second: rows of `base`.
    spots
        Spots n of all slices, also where only some are in the batch: the weights stand for the rest. With several
        ranks the values add up (`ranks.total`).
    base
        (m, d) latents of the second spots; default `z`. With several ranks the union (`ranks.gathered`).

    Returns
    -------
    Tensor
        Scalar.

    References
    ----------
    stMFG (arXiv 2512.16188), spatial regularisation.
    """
    with torch.autocast(z.device.type, enabled=False):
        a = normalize(full(z), dim=1)
        b = a if base is None else normalize(full(base), dim=1)
        value = a.new_zeros(())
        # log σ(c) = −softplus(−c), log(1 − σ(c)) = −softplus(c)
        for sign, ends, weight in ((-1, pairs.edges, pairs.edge_weight), (1, pairs.others, pairs.other_weight)):
            i, j = torch.as_tensor(ends, device=a.device)
            cosine = (a.index_select(0, i) * b.index_select(0, j)).sum(dim=1)
            value = value + softplus(sign * cosine) @ torch.as_tensor(weight).to(a)
        return value / spots
