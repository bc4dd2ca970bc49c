"""Samplers: which spots meet in a minibatch. They know integers only, no features and no disk."""

from stscale.sampling.batch import Batch, Expander
from stscale.sampling.sampler import Sampler, make_sampler
from stscale.sampling.tile import TileSampler

__all__ = ["Batch", "Expander", "Sampler", "TileSampler", "make_sampler"]
