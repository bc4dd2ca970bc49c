"""stMFG: a spatial and a feature view that meet after every layer."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from stscale import ranks
from stscale.config import Stmfg as StmfgConfig
from stscale.losses import info_nce, spatial_regularisation, zinb
from stscale.models.attention_fusion import AttentionFusion
from stscale.models.edges import Hop
from stscale.models.layers import ConvBlock, MeasuredNorm
from stscale.models.matching import matched_scales
from stscale.models.method import Method, Minibatch
from stscale.models.zinb_decoder import ZinbDecoder, drawn_genes


class Stmfg(Method):
    """Two graph convolutional encoders fused by attention, and a decoder to counts.

    The input is averaged over each graph beforehand, so the first convolution of L is pointwise and the network has
    L − 1 hops: hop i completes layer i and convolves for layer i + 1. The last hop's output is [Z_s ‖ Z_f], which
    `fuse` makes one.

    Parameters
    ----------
    width
        Columns of the input, both views together: [Â_s X ‖ Â_f X].
    genes
        Counts reconstructed.
    n_slices, spots
        Their numbers; scale matching needs at least two slices.
    config
        Widths, forms and weights.

    References
    ----------
    stMFG, arXiv 2512.16188. Deviations: principal components as input, minibatches, counts of a part of the genes
    per step; by default the spatial regularisation averages neighbours and others (`regularise="sum"` is the paper's).
    """

    def __init__(self, width: int, genes: int, n_slices: int, spots: int, config: StmfgConfig) -> None:
        super().__init__()
        c = config
        self.config, self.spots = c, spots
        self.n_layers = c.layers - 1
        self.weights = {
            "zinb": 0.0 if "zinb" in c.without else 1.0,
            "nce": 0.0 if "nce" in c.without else c.alpha,
            "reg": 0.0 if "reg" in c.without else c.gamma,
            "scale": c.w_scale if n_slices > 1 else 0.0,
        }
        self.components = min(c.components or width // 2, width // 2)
        self.norm = MeasuredNorm(2 * self.components, momentum=c.norm_momentum) if c.standardize else None
        widths = [self.components, *[c.hidden] * (c.layers - 1), c.latent]
        self.first = nn.ModuleList([nn.Linear(widths[0], widths[1]) for _ in range(2)])
        self.convolutions = nn.ModuleList()
        for i in range(1, c.layers):
            activate = i < c.layers - 1 or c.activation == "relu"
            self.convolutions.append(_pair(widths[i], widths[i + 1], activate=activate))
        fused = widths[1:] if c.fusion == "layer" else widths[-1:]
        self.attention = nn.ModuleList([AttentionFusion(d, slope=c.slope) for d in fused])
        self.decoder: ZinbDecoder | None = None
        if self.weights["zinb"]:
            self.decoder = ZinbDecoder(c.latent, c.decoder, genes, momentum=c.norm_momentum)

    def layer(self, i: int, h: Tensor, edges: Hop) -> Tensor:
        """Map the views of the source nodes to those of the targets.

        (cols, 2p) for the first hop, else (cols, d_i), or (cols, 2 · d_i) with late fusion → (rows, 2 · latent) for the
        last hop, else (rows, d_{i+1}), or (rows, 2 · d_{i+1}) with late fusion.
        """
        each = self.config.fusion == "layer"
        if i == 0:
            h = torch.cat([half[:, : self.components] for half in h.chunk(2, dim=1)], dim=1)
            if self.norm is not None:
                h = self.norm(h, 1, edges[0].seeds)
            halves = h.chunk(2, dim=1)
            h = torch.cat([first(half).relu() for first, half in zip(self.first, halves, strict=True)], dim=1)
            h = self.attention[0](h) if each else h
        sources = (h, h) if each else h.chunk(2, dim=1)
        pair = self.convolutions[i]
        views = [conv(x, e) for conv, x, e in zip(pair, sources, edges, strict=True)]  # type: ignore[call-overload]
        both = torch.cat(views, dim=1)
        return self.attention[i + 1](both) if each and i < self.n_layers - 1 else both

    def fuse(self, h: Tensor) -> Tensor:
        """Turn [Z_s ‖ Z_f] (rows, 2 · latent) into latents (rows, latent)."""
        z: Tensor = self.attention[-1](h)
        return z

    def terms(self, batch: Minibatch) -> dict[str, Tensor]:
        """Return the terms of this step, over the seeds of all ranks."""
        h = batch.x
        for i, edges in enumerate(batch.edges):
            h = self.layer(i, h, edges)
        z = self.fuse(h)
        zinb_value = self._zinb(z, batch)
        # the other terms stay in float32 whatever the precision of the network
        with torch.autocast(z.device.type, enabled=False):
            z_s, z_f = (self._centred(view, batch) for view in h.float().chunk(2, dim=1))
            return zinb_value | self._similarities(z_s, z_f, self._centred(z.float(), batch), batch)

    def _centred(self, z: Tensor, batch: Minibatch) -> Tensor:
        return z - ranks.mean(z.mean(dim=0), batch.n_seeds) if self.config.center else z

    def _zinb(self, z: Tensor, batch: Minibatch) -> dict[str, Tensor]:
        if self.decoder is None:
            return {}
        if batch.library is None:
            raise TypeError("the counts' library sizes are missing from the batch")
        if batch.step == 0:
            self.decoder.start(batch.target, batch.library, batch.mask)
        genes = drawn_genes(batch.target.shape[1], self.config.genes, batch.generator)
        columns = slice(None) if genes is None else genes
        mask = None if batch.mask is None else batch.mask[:, columns]
        target = batch.target[:, columns]
        logits, log_mean, log_theta = self.decoder(z, batch.library, genes)
        value = zinb(target, logits, log_mean, log_theta, mask)
        entries = target.numel() if mask is None else int(mask.sum())
        return {"zinb": ranks.mean(value, entries)}

    def _similarities(self, z_s: Tensor, z_f: Tensor, z: Tensor, batch: Minibatch) -> dict[str, Tensor]:
        c, out = self.config, {}
        if self.weights["nce"]:
            out["nce"] = self._contrast(z_s, z_f, batch.step)
        if self.weights["reg"]:
            out["reg"] = self._regularisation(z, batch)
        if self.weights["scale"]:
            out["scale"] = matched_scales(z_s, z_f, batch, k=c.scale_k, every=c.scale_every)
        return out

    def _contrast(self, z_s: Tensor, z_f: Tensor, step: int) -> Tensor:
        every, first = self.config.nce_every, ranks.before(z_s)
        # counted over the union, so that it does not matter how the seeds are shared
        own = torch.arange((step - first) % every, len(z_s), every, device=z_s.device)
        all_s, all_f = ranks.gathered(z_s), ranks.gathered(z_f)
        others = torch.ones(len(all_s), dtype=torch.bool, device=z_s.device)
        others[first + own] = False
        order = torch.cat([first + own, others.nonzero().ravel()])  # anchors are the first candidates
        value = info_nce(z_s[own], z_f[own], self.config.temperature, base_s=all_s[order], base_f=all_f[order])
        return ranks.mean(value, len(own))

    def _regularisation(self, z: Tensor, batch: Minibatch) -> Tensor:
        pairs, spots = batch.pairs, self.spots
        if pairs is None:
            raise TypeError("the pairs of the spatial regularisation are missing from the batch")
        if self.config.regularise == "mean":
            edge_weight = pairs.edge_weight / max(1, pairs.all_edges)
            other_weight = pairs.other_weight / max(1, pairs.all_others)
            pairs, spots = replace(pairs, edge_weight=edge_weight, other_weight=other_weight), 1
        return ranks.total(spatial_regularisation(z, pairs, spots=spots, base=ranks.gathered(z)))


def _pair(d_in: int, d_out: int, *, activate: bool) -> nn.ModuleList:
    blocks = (ConvBlock(d_in, d_out, normalize=False, activate=activate, momentum=0.0) for _ in range(2))
    return nn.ModuleList(blocks)
