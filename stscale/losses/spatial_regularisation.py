"""Spatial regularisation: neighbours in tissue are similar, others are not."""

from torch import Tensor

from stscale.losses.spatial_pairs import SpatialPairs


def spatial_regularisation(z: Tensor, pairs: SpatialPairs, *, spots: int, base: Tensor | None = None) -> Tensor:
    """Return −(1/n) (Σ_edges w log σ(cos) + Σ_non-edges w log(1 − σ(cos))).

    With all pairs of a slice and weights 1 it is stMFG's term; with drawn pairs and weights of one over their
    expected number it is that in expectation (`draw_pairs`).

    Parameters
    ----------
    z
        (b, d) latents of the pairs' first spots; rows are L2-normalised here.
    pairs
        Edges and non-edges with weights; first row: rows of `z`, second: rows of `base`.
    spots
        Spots n of all slices: the sum is over them, the value their mean. With several ranks the values add up
        (`ranks.total`).
    base
        (m, d) latents of the second spots; default `z`. With several ranks the union (`ranks.gathered`).

    Returns
    -------
    Tensor
        Scalar.
    """
    raise NotImplementedError
