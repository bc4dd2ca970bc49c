"""Attention over the two views of each spot, and the fusion of what comes of it."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, normalize


class TokenAttention(nn.Module):
    """Multi-head self-attention over each node's own two tokens, its latents in the two views.

    A_h = softmax(Q_h K_hᵀ / √d_h), 2 × 2 per node and head; tokens + [A_1 V_1 ‖ A_2 V_2 ‖ …] W. Nothing is shared
    between nodes: O(n d²).

    Parameters
    ----------
    d
        Width of a token.
    heads
        Heads; they divide d.
    """

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inner = nn.Linear(d, 3 * d)
        self.outer = nn.Linear(d, d)

    def forward(self, z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Let the views of each node attend to each other.

        Parameters
        ----------
        z1, z2
            (m, d) latents of the two views.

        Returns
        -------
        tuple of Tensor
            Enhanced Z1ᵃ and Z2ᵃ (m, d), and the attention (m, 2, 2), mean over heads: row a what view a pays to
            each view.
        """
        tokens = torch.stack([z1, z2], dim=1)  # (m, 2, d)
        m, _, d = tokens.shape
        query, key, value = self.inner(tokens).view(m, 2, 3, self.heads, -1).unbind(dim=2)  # (m, 2, h, d/h)
        # products by element: as matrices of two rows they are several times slower
        to_both = [(query * key[:, b : b + 1]).sum(dim=-1) for b in range(2)]  # (m, 2, h) each
        attention = torch.softmax(torch.stack(to_both, dim=-1) / math.sqrt(d / self.heads), dim=-1)  # (m, 2, h, 2)
        mixed = sum(attention[..., b : b + 1] * value[:, b : b + 1] for b in range(2))  # (m, 2, h, d/h)
        enhanced = tokens + self.outer(torch.as_tensor(mixed).reshape(m, 2, d))
        return enhanced[:, 0], enhanced[:, 1], attention.mean(dim=2)


class WeightedFusion(nn.Module):
    """Z = MLP([m_1 Z_1 ‖ m_2 Z_2 ‖ …]) + Σ m_t Z_t, m = ℓ2(softmax(LeakyReLU([Z_1 ‖ Z_2 ‖ …] W))), m per node and part.

    The sum is ours: through the MLP alone a short training keeps the few directions that its terms ask for first.

    Parameters
    ----------
    d
        Width of a part, and of the result.
    parts
        How many.
    skip
        Whether the weighted sum is added.
    """

    def __init__(self, d: int, parts: int, *, skip: bool) -> None:
        super().__init__()
        self.d, self.skip = d, skip
        self.score = nn.Linear(parts * d, parts)
        self.mlp = nn.Sequential(nn.Linear(parts * d, 2 * d), nn.ReLU(), nn.Linear(2 * d, d))

    def forward(self, h: Tensor) -> Tensor:
        """Fuse the parts (m, parts · d), side by side, to (m, d)."""
        weight = normalize(torch.softmax(leaky_relu(self.score(h)), dim=1), dim=1)  # (m, parts)
        weighted = h * weight.repeat_interleave(self.d, dim=1)
        fused: Tensor = self.mlp(weighted)
        return fused + weighted.view(len(h), -1, self.d).sum(dim=1) if self.skip else fused
