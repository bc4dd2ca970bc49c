"""What the training loop asks of a sampler, and how one is made from options."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from stscale.config import Sample
from stscale.errors import InputError
from stscale.graphs.csr import Graph
from stscale.sampling.batch import Batch
from stscale.sampling.tile import TileSampler

if TYPE_CHECKING:
    from stscale.sampling.neighbor import NeighborSampler


class Sampler(Protocol):
    """The batch of any step, a function of (seed, step) alone."""

    @property
    def batches_per_epoch(self) -> int:
        """Batches in which every spot is a seed exactly once."""

    @property
    def tiles(self) -> tuple[int, ...]:
        """Tiles in each slice: seeds come in whole tiles."""

    def tile_of(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the tile of each node, (m,)."""

    def seeds(self, step: int) -> NDArray[np.int64]:
        """Return the global ids that are the seeds of a step over all ranks."""

    def batch(self, step: int) -> Batch:
        """Return the batch of a step counted from 0."""


def make_sampler(
    graphs: Graph | Sequence[Graph],
    offsets: NDArray[np.int64],
    config: Sample,
    *,
    hops: int,
    seed: int,
    part: tuple[int, int] = (0, 1),
    fan_outs: Sequence[tuple[int, ...]] | None = None,
) -> Sampler:
    """Build the configured sampler.

    Parameters
    ----------
    graphs
        One symmetric graph without self-loops, or several of the same nodes.
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
    fan_outs
        Of several graphs, the neighbours drawn per hop, for each graph; one graph has that of `config`.

    Raises
    ------
    InputError
        When the fan-outs do not match the layers, or a batch has fewer seeds than two per rank.
    """
    several = (graphs,) if isinstance(graphs, Graph) else tuple(graphs)
    n = several[0].n
    if min(config.batch_size, n) < 2 * part[1]:
        raise InputError(
            f"a batch of {min(config.batch_size, n)} seeds cannot be shared by {part[1]} ranks; raise sample.batch_size"
        )
    order = _order(several[0], offsets, config, hops, seed, part)
    if not fan_outs:
        if config.kind == "neighbor" and len(config.fan_out) != hops:
            raise InputError(f"sample.fan_out = {list(config.fan_out)} needs one number per layer: {hops}")
        return order
    from stscale.sampling.views import ViewSampler

    return ViewSampler(order, several, hops=hops, fan_outs=fan_outs, seed=seed, part=part)


def _order(
    graph: Graph, offsets: NDArray[np.int64], config: Sample, hops: int, seed: int, part: tuple[int, int]
) -> "TileSampler | NeighborSampler":
    size = min(config.batch_size, graph.n)
    if config.kind == "tile":
        # a full batch is every tile at once
        return TileSampler(
            graph, offsets, hops=hops, batch_size=size, tile=min(config.tile, size), seed=seed, part=part
        )
    from stscale.sampling.neighbor import NeighborSampler

    return NeighborSampler(graph, offsets, fan_out=config.fan_out, batch_size=size, seed=seed, part=part)
