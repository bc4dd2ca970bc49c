"""MHAL: two graph views aligned at the level of spots, prototypes and structure."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from stscale import ranks
from stscale.config import Mhal as MhalConfig
from stscale.losses import (
    next_graph,
    next_marginal,
    scale_matching,
    swapped_prediction,
    swapped_targets,
    view_mse,
    zinb,
)
from stscale.models.edges import Hop
from stscale.models.layers import ConvBlock, MeasuredMean
from stscale.models.method import Method, Minibatch
from stscale.models.token_attention import TokenAttention, WeightedFusion
from stscale.models.zinb_decoder import ZinbDecoder, drawn_genes


class Mhal(Method):
    """A convolution shared by both graphs, one per graph, and attention that fuses the views.

    Layer 0 ends the shared convolution, whose averaging is in the input [Â₁X ‖ Â₂X], and makes
    [Z1 ‖ Z2] = [norm(Â₁H1W1) ‖ norm(Â₂H2W2)]. Layer 1 lets the views of each spot attend to each other and convolves
    their mean along A_f = ηÂ₂ + (1 − η)Â₁, where η is the attention paid to the feature view, averaged over the spots:
    [Z1ᵃ ‖ Z2ᵃ ‖ Z_f], which `fuse` turns into Z3. Without "saf" there is one layer, and Z3 is made of Z1 and Z2.

    Parameters
    ----------
    n_features
        Width 2 · p of the input, both halves together.
    n_genes
        Genes g whose counts are reconstructed.
    n_slices
        Slices; scale matching needs at least two.
    prototypes
        Prototypes p.
    config
        Widths, parts, forms and weights.

    References
    ----------
    MHAL, CVPR 2026. Assumptions of ours, each an option: targets from raw counts with the library as offset, on a
    part of the genes in each step; latents of both views batch-normalised, which also centres them before
    every cosine; the fused latents predict the mean of the views' targets (`w_fused`): without, nothing would tie Z3
    to the prototypes that it is assigned to; Z3 keeps the weighted sum of its parts (`skip`); more prototypes than
    domains (`prototypes`), which an assignment merges; similarity-scale matching for several slices.
    """

    graph: Tensor
    mass: Tensor

    def __init__(self, n_features: int, n_genes: int, n_slices: int, prototypes: int, config: MhalConfig) -> None:
        super().__init__()
        c = config
        self.config = c
        self.n_slices = n_slices
        self.saf = "saf" not in c.without
        self.n_layers = 2 if self.saf else 1
        kept = {name: name not in c.without for name in ("pcl", "psa", "zinb")}
        self.weights = {
            "psa": c.phi * c.w_psa * kept["psa"],
            "zinb": c.phi * c.w_zinb * kept["zinb"],
            "pcl": (1 - c.phi) * kept["pcl"],
            "scale": c.w_scale if n_slices > 1 else 0.0,
        }
        d = c.latent
        self.components = min(n_features // 2, c.components or n_features)
        self.shared = nn.Linear(self.components, c.hidden)
        self.convolutions = nn.ModuleList(
            [ConvBlock(c.hidden, d, normalize=True, activate=False, momentum=c.norm_momentum) for _ in range(2)]
        )
        if self.saf:
            self.attention = TokenAttention(d, c.heads)
            self.eta = MeasuredMean(0.5, c.norm_momentum)
            self.fused = nn.Linear(d, d)
        self.fusion = WeightedFusion(d, 3 if self.saf else 2, skip=c.skip)
        if self.weights["zinb"]:
            self.decoder = ZinbDecoder(d, c.decoder, n_genes, momentum=c.norm_momentum)
        if self.weights["pcl"]:
            self.prototypes = nn.Parameter(normalize(torch.randn(prototypes, d), dim=1))
            self.register_buffer("graph", torch.eye(prototypes))
            self.register_buffer("mass", torch.full((prototypes,), 1 / prototypes))

    def layer(self, i: int, h: Tensor, edges: Hop) -> Tensor:
        """Layer 0: (cols, 2p) → [Z1 ‖ Z2] (rows, 2d). Layer 1: → [Z1ᵃ ‖ Z2ᵃ ‖ Z_f] (rows, 3d)."""
        first, second = h.chunk(2, dim=1)
        if i == 0:
            halves = zip(self.convolutions, (first, second), edges, strict=True)
            kept = slice(self.components)
            return torch.cat([conv(self.shared(x[:, kept]).relu(), e) for conv, x, e in halves], dim=1)
        spatial, feature = edges
        rows = spatial.pattern.rows
        first, second, attention = self.attention(first, second)
        # a column of the attention: what the views pay to the second one
        eta = self.eta(attention[:rows, :, 1].mean(dim=1))
        mean = self.fused((first + second) / 2)
        z_f = eta * (feature @ mean) + (1 - eta) * (spatial @ mean)
        return torch.cat([first[:rows], second[:rows], z_f], dim=1)

    def fuse(self, h: Tensor) -> Tensor:
        """Fuse the views (rows, 3d; 2d without "saf") to Z3 (rows, d)."""
        out: Tensor = self.fusion(h)
        return out

    def terms(self, batch: Minibatch) -> dict[str, Tensor]:
        """Return the active terms of this step, over the seeds of all ranks."""
        b = batch.n_seeds
        views = self.layer(0, batch.x, batch.edges[0])
        z3 = self.fuse(self.layer(1, views, batch.edges[1]) if self.saf else views)
        z1, z2 = views[:b].chunk(2, dim=1)
        decoded = self._decoded(z3, batch) if self.weights["zinb"] else None
        # the terms stay in float32 whatever the precision of the network
        with torch.autocast(z3.device.type, enabled=False):
            z1, z2, z3 = z1.float(), z2.float(), z3.float()
            out = {}
            if self.weights["psa"]:
                out["psa"] = ranks.mean(view_mse(z1, z2), b)
            if decoded is not None:
                out["zinb"] = _over_ranks(zinb(*decoded), decoded[0], decoded[4])
            if self.weights["pcl"]:
                out["pcl"] = self._pcl(z1, z2, z3)
            if self.weights["scale"]:
                out["scale"] = self._scale(z3, batch)
        return out

    def _decoded(self, z3: Tensor, batch: Minibatch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Return counts, logits, log means, log θ and mask of this step's genes."""
        if batch.library is None:
            raise ValueError("the counts of a batch come with its library sizes")
        if batch.step == 0:
            self.decoder.start(batch.target, batch.library, batch.mask)
        genes = drawn_genes(batch.target.shape[1], self.config.genes, batch.generator)
        target, mask = batch.target, batch.mask
        if genes is not None:
            target, mask = target[:, genes], None if mask is None else mask[:, genes]
        return (target, *self.decoder(z3, batch.library, genes), mask)

    def _pcl(self, z1: Tensor, z2: Tensor, z3: Tensor) -> Tensor:
        """Return the swapped prediction of both views, and the fused latents' prediction of their mean target."""
        c = self.config
        s = normalize(self.prototypes, dim=1)
        r1, r2, r3 = (normalize(z, dim=1) @ s.T for z in (z1, z2, z3))
        with torch.no_grad():
            scores = torch.stack([ranks.gathered(r1), ranks.gathered(r2)])  # (2, B, p)
            nu = None if "gw" in c.without else self.mass
            found = swapped_targets(scores, nu, epsilon=c.epsilon, max_iterations=c.sinkhorn)
            first = ranks.before(r1)
            q1, q2 = found.q[:, first : first + len(r1)]
            if "gw" not in c.without:
                p = torch.softmax(scores / c.tau, dim=-1).flatten(0, 1)  # (2B, p)
                self.graph.copy_(next_graph(self.graph, p.T @ p, c.beta_graph))
                self.mass.copy_(next_marginal(self.mass, p.sum(dim=0), c.beta_mass))
        value = swapped_prediction(r1, r2, q1, q2, c.tau)
        if c.w_fused:
            target = (q1 + q2) / 2
            value = value + c.w_fused * swapped_prediction(r3, r3, target, target, c.tau)
        return ranks.mean(value, len(r1))

    def _scale(self, z: Tensor, batch: Minibatch) -> Tensor:
        every = self.config.scale_every
        # no spot is among its own candidates; places are counted over the union, however the seeds are shared
        places = ranks.before(z) + torch.arange(len(z), device=z.device)
        matched = (places - batch.step) % every == 0
        union, group = ranks.gathered(z), ranks.gathered(batch.group)
        others = (torch.arange(len(union), device=z.device) - batch.step) % every > 0
        own = batch.group[matched]
        counts = ranks.total(torch.bincount(own, minlength=self.n_slices))
        value = scale_matching(z[matched], own, union[others], group[others], k=self.config.scale_k, counts=counts)
        return ranks.total(value) / (self.n_slices * (self.n_slices - 1))


def _over_ranks(mean: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Average a mean over measured entries over ranks; a rank may measure none."""
    return ranks.mean(mean, values.numel() if mask is None else float(mask.sum()))
