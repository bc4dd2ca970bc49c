"""Latents → zero-inflated negative binomial of raw counts."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from stscale import ranks
from stscale.models.layers import MeasuredNorm

LIMIT = 30.0
"""Bound of log rates and log dispersions: a library of 10¹² still has a mean within float32."""

START_LOG_THETA = (-3.0, 5.0)
"""Range of the first log θ, from moments of one batch."""

START_DROPOUT = -3.0
"""First logit of π: nearly all zeros are taken as counts."""


class ZinbDecoder(nn.Module):
    """MLP d → hidden with BatchNorm and ReLU, then a head for π and one for the rate; one dispersion per gene.

    log μ_ig = log(library_i) + rate_ig: a spot's depth is an offset, what is learned is its share per gene.

    Parameters
    ----------
    d, hidden, genes
        Widths.
    momentum
        BatchNorm momentum.

    References
    ----------
    The heads are those of Eraslan et al., "Single-cell RNA-seq denoising using a deep count autoencoder" (Nature
    Communications 2019), in logits and logarithms; one θ per gene as Lopez et al. (Nature Methods 2018).
    """

    def __init__(self, d: int, hidden: int, genes: int, *, momentum: float = 0.1) -> None:
        super().__init__()
        self.inner = nn.Linear(d, hidden)
        self.norm = MeasuredNorm(hidden, momentum=momentum)
        self.dropout = nn.Linear(hidden, genes)
        self.rate = nn.Linear(hidden, genes)
        self.log_theta = nn.Parameter(torch.zeros(genes))
        with torch.no_grad():
            self.rate.bias.fill_(-math.log(genes))
            self.dropout.bias.fill_(START_DROPOUT)

    @torch.no_grad()
    def start(self, counts: Tensor, library: Tensor, mask: Tensor | None = None) -> None:
        """Set the first rates and dispersions by moments of one batch, over all ranks; before the first step.

        Genes differ by e⁸ in their means: from a common start that would be most of what a short training learns.

        Parameters
        ----------
        counts
            (b, g) raw counts.
        library
            (b,) counts of each spot.
        mask
            (b, g) bool, genes measured; None: all.
        """
        measured = torch.ones_like(counts) if mask is None else mask.to(counts)
        offered = ranks.total(library @ measured)  # (g,)
        rate = (ranks.total((counts * measured).sum(dim=0)) + 0.5) / offered.clamp(min=1)
        mean = library[:, None] * rate * measured
        excess = ranks.total((((counts * measured) - mean).square_() - mean).sum(dim=0))
        theta = ranks.total(mean.square().sum(dim=0)) / excess.clamp(min=1e-6)
        self.rate.bias.copy_(rate.log())
        self.log_theta.copy_(theta.clamp(min=1e-6).log().clamp(*START_LOG_THETA))

    def forward(self, z: Tensor, library: Tensor, genes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Decode latents.

        Parameters
        ----------
        z
            (b, d) latents.
        library
            (b,) counts of each spot over the vocabulary, above 0.
        genes
            (m,) int64 columns to decode; None: all g.

        Returns
        -------
        tuple of Tensor
            Logits of π (b, m), log μ (b, m) and log θ (m,), as `losses.zinb` takes them.
        """
        h = self.norm(self.inner(z)).relu()
        logits = linear(h, *_rows(self.dropout, genes))
        rate = linear(h, *_rows(self.rate, genes)).clamp(-LIMIT, LIMIT)
        log_theta = self.log_theta if genes is None else self.log_theta[genes]
        return logits, rate + library.log()[:, None], log_theta.clamp(-LIMIT, LIMIT)


def _rows(head: nn.Linear, genes: Tensor | None) -> tuple[Tensor, Tensor]:
    return (head.weight, head.bias) if genes is None else (head.weight[genes], head.bias[genes])


def drawn_genes(total: int, share: int, generator: torch.Generator) -> Tensor | None:
    """Draw the genes of one step, (share,) int64 ascending; None for all, where `share` is 0 or `total` or more.

    The mean over a random part of the genes has the expectation of the mean over all of them, and the decoder's
    cost falls with the part.
    """
    if not 0 < share < total:
        return None
    return torch.randperm(total, generator=generator, device=generator.device)[:share].sort().values
