"""Pairs of a batch on the device of its latents."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTensors:
    """`SpatialPairs` as tensors of one device, and how many pairs there are in all.

    Attributes
    ----------
    edges, others
        (2, e) and (2, q) int64; row 0: position among the rank's own seeds, row 1: among all seeds of the batch.
    edge_weight, other_weight
        (e,) and (q,) float32.
    all_edges, all_others
        Ordered pairs of one slice that are edges and that are none, over all slices.
    """

    edges: Tensor
    edge_weight: Tensor
    others: Tensor
    other_weight: Tensor
    all_edges: int
    all_others: int
