"""Similarity-scale matching over the seeds of a batch, as a term of the two-view methods."""

import torch
from torch import Tensor

from stscale import ranks
from stscale.losses import scale_matching
from stscale.models.method import Minibatch


def matched_scales(z: Tensor, z_prime: Tensor, batch: Minibatch, *, k: int, every: int) -> Tensor:
    """Return scale matching averaged over the ordered pairs of slices, over the seeds of all ranks.

    Parameters
    ----------
    z, z_prime
        (b, d) two views of the rank's own seeds: queries, and candidates.
    batch
        Of these seeds; of two slices or more.
    k
        Similarities averaged.
    every
        One in this many seeds is matched, another one every step.
    """
    slices = len(batch.tiles)
    # counted over the union, so that it does not matter how the seeds are shared
    own = slice((batch.step - ranks.before(z)) % every, None, every)
    group = batch.group[own]
    counts = ranks.total(torch.bincount(group, minlength=slices))
    value = scale_matching(z[own], group, ranks.gathered(z_prime), ranks.gathered(batch.group), k=k, counts=counts)
    return ranks.total(value) / (slices * (slices - 1))
