"""The one interface the training loop knows."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stscale.losses import PairTensors
from stscale.models.edges import Hop


@dataclass(frozen=True, slots=True, kw_only=True)
class Minibatch:
    """What a method sees of one training step; labels are not among it.

    Attributes
    ----------
    x
        (m, g) input of the seeds and their halo, seeds first.
    target
        (b, g) what the seeds' reconstruction is compared with: features, or raw counts.
    library
        (b,) counts of each seed over the vocabulary; None where the target is no counts.
    edges
        Edges of each layer, first layer first; of each graph, the spatial one first.
    group
        (b,) int64 slice of each seed.
    tile
        (b,) int64 tile of each seed: seeds come in whole tiles, and given how many tiles of a slice a batch holds,
        every set of as many is equally likely.
    tiles
        (s,) int64 tiles in each slice.
    mask
        (b, g) bool, genes measured in the seed's slice; None when all are.
    step
        Training step from 0.
    progress
        Share of training done before this step, in [0, 1).
    generator
        Source of this step's randomness, a function of (seed, step) alone: a resumed run draws the same.
    pairs
        Neighbours and others among the seeds of all ranks, weighted; None where the method wants none.
    """

    x: Tensor
    target: Tensor
    library: Tensor | None
    edges: tuple[Hop, ...]
    group: Tensor
    tile: Tensor
    tiles: Tensor
    mask: Tensor | None
    step: int
    progress: float
    generator: torch.Generator
    pairs: PairTensors | None = None

    @property
    def n_seeds(self) -> int:
        """Number of seeds b."""
        return len(self.group)


class Method(nn.Module, ABC):
    """A network that embeds spots, and the weighted terms that train it.

    The same `layer` serves the sampled step and the exact layer-wise embedding: that is why it is cut per hop.
    State that training carries between steps (banks, centroids, running Grams) lives in buffers, so that a
    checkpoint of the module is whole.
    """

    n_layers: int
    weights: dict[str, float]

    @abstractmethod
    def layer(self, i: int, h: Tensor, edges: Hop) -> Tensor:
        """Map features (cols, d_i) to (rows, d_{i+1}); the rows are the first of the columns."""

    def fuse(self, h: Tensor) -> Tensor:
        """Turn the last layer's output (rows, d_L) into latents (rows, d)."""
        return h

    @abstractmethod
    def terms(self, batch: Minibatch) -> dict[str, Tensor]:
        """Return the unweighted terms of this step, named as in `weights`; a term not yet active is absent."""

    def forward(self, x: Tensor, edges: tuple[Hop, ...]) -> Tensor:
        """Embed the seeds: (m, g) → (b, d)."""
        for i, e in enumerate(edges):
            x = self.layer(i, x, e)
        return self.fuse(x)
