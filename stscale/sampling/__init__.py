"""Samplers: which spots meet in a minibatch. They know integers only, no features and no disk."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stscale.config import Sample
from stscale.errors import InputError
from stscale.graphs.csr import Graph
from stscale.sampling.batch import Batch, Expander
from stscale.sampling.tile import TileSampler

__all__ = ["Batch", "Expander", "Sampler", "TileSampler", "make_sampler"]


class Sampler(Protocol):
    """What the training loop asks: the batch of any step, a function of (seed, step) alone."""

    @property
    def batches_per_epoch(self) -> int:
        """Batches in which every spot is a seed exactly once."""

    def batch(self, step: int) -> Batch:
        """Return the batch of a step counted from 0."""


def make_sampler(
    graph: Graph, offsets: NDArray[np.int64], config: Sample, *, hops: int, seed: int, part: tuple[int, int] = (0, 1)
) -> Sampler:
    """Build the configured sampler.

    Parameters
    ----------
    graph
        Symmetric graph without self-loops.
    offsets
        (s + 1,) first node of each slice, and n.
    config
        Kind and sizes.
    hops
        Layers of the network.
    seed
        With the step it fixes a batch.
    part
        (rank, ranks): each batch is split evenly, and the rank-th run of its seeds drawn.

    Raises
    ------
    InputError
        When the fan-outs do not match the layers, or a batch has fewer seeds than two per rank.
    """
    size = min(config.batch_size, graph.n)
    if size < 2 * part[1]:
        raise InputError(f"a batch of {size} seeds cannot be shared by {part[1]} ranks; raise sample.batch_size")
    if config.kind == "tile":
        # a full batch is every tile at once
        return TileSampler(
            graph, offsets, hops=hops, batch_size=size, tile=min(config.tile, size), seed=seed, part=part
        )
    if len(config.fan_out) != hops:
        raise InputError(f"sample.fan_out = {list(config.fan_out)} needs one number per layer: {hops}")
    from stscale.sampling.neighbor import NeighborSampler

    return NeighborSampler(graph, offsets, fan_out=config.fan_out, batch_size=size, seed=seed, part=part)
