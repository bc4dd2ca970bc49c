"""Two views of the same spots become one, each channel of each spot by its own weights."""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu


class AttentionFusion(nn.Module):
    """Z = m_s ∘ Z_s + m_f ∘ Z_f with M = softmax(LeakyReLU([Z_s ‖ Z_f] W)) over the two views.

    Parameters
    ----------
    d
        Width of each view; W is (2d, 2d).
    slope
        Of LeakyReLU below 0.

    References
    ----------
    stMFG (arXiv 2512.16188), cross-view attention.
    """

    def __init__(self, d: int, *, slope: float) -> None:
        super().__init__()
        self.score = nn.Linear(2 * d, 2 * d, bias=False)
        self.slope = slope

    def weights(self, both: Tensor) -> Tensor:
        """Return M (b, 2, d) of [Z_s ‖ Z_f] (b, 2d): positive, and 1 over the two views."""
        score = leaky_relu(self.score(both), self.slope)
        return torch.softmax(score.view(len(both), 2, -1), dim=1)

    def forward(self, both: Tensor) -> Tensor:
        """Fuse [Z_s ‖ Z_f] (b, 2d) into Z (b, d)."""
        return (self.weights(both) * both.view(len(both), 2, -1)).sum(dim=1)
