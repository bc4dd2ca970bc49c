"""The untrained floor as a method: principal components averaged over each spot and its neighbours."""

import torch
from torch import Tensor

from stscale.config import Smooth as SmoothConfig
from stscale.models.edges import Edges, Hop
from stscale.models.method import Method, Minibatch


class Smooth(Method):
    """h_i ← (h_i + Σ_{j ∈ N(i)} h_j) / (1 + |N(i)|), once per round; it has no parameters.

    Every spot and neighbour counts the same, whatever the graph's own weights are.

    Parameters
    ----------
    config
        The number of rounds.
    """

    def __init__(self, config: SmoothConfig) -> None:
        super().__init__()
        self.n_layers = config.rounds
        self.weights = {}

    def layer(self, i: int, h: Tensor, edges: Hop) -> Tensor:
        """Average features (cols, p) over each of the first spots and its neighbours, (rows, p)."""
        pattern = edges[0].pattern
        length = torch.diff(pattern.indptr)
        share = (1.0 / length).to(h.dtype).repeat_interleave(length)
        return Edges(pattern=pattern, weight=share) @ h

    def terms(self, batch: Minibatch) -> dict[str, Tensor]:
        """Return no term: there is nothing to train."""
        return {}
