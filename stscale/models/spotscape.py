"""Spotscape: a siamese graph autoencoder with telescope, prototype and scale-matching terms."""

import torch
from torch import Tensor, nn

from stscale import ranks
from stscale.config import Spotscape as SpotscapeConfig
from stscale.graphs.neighbors import kmeans
from stscale.losses import (
    Grams,
    gram_value,
    grams,
    granularity_sizes,
    masked_mse,
    prototype_contrast,
    scale_matching,
    telescope_block,
    telescope_global,
)
from stscale.models.edges import Hop, stacked
from stscale.models.layers import ConvBlock, Decoder, drop_features
from stscale.models.memory import LatentRing
from stscale.models.method import Method, Minibatch

# Weight of a new batch in the running Grams.
RUNNING = 0.1


class Spotscape(Method):
    """Two graph convolutions shared by two augmented views, and a decoder.

    Parameters
    ----------
    n_features
        Width g of the input.
    n_slices
        Slices; prototypes and scale matching need at least two.
    clusters
        Expected domains K: the coarsest granularity of the prototypes.
    config
        Widths, drops, forms and weights.
    seed
        Of the prototypes' k-means.

    References
    ----------
    Spotscape, ICML 2025, arXiv 2506.15698. Deviations that are on by default and off in the preset "paper":
    PCA input, linear latent and decoder, a reconstruction target smoothed over neighbours, latents centred over
    the batch before every cosine, scale matching averaged over the pairs of slices.
    """

    running_g: Tensor
    running_d: Tensor
    running_c: Tensor
    n_layers = 2

    def __init__(self, n_features: int, n_slices: int, clusters: int, config: SpotscapeConfig, seed: int) -> None:
        super().__init__()
        c = config
        relu = c.activation == "relu"
        self.config = c
        self.n_slices = n_slices
        self.seed = seed
        self.weights = {
            "telescope": c.w_telescope,
            "reconstruction": c.w_reconstruction,
            "prototypes": c.w_prototypes if n_slices > 1 else 0.0,
            "scale": c.w_scale if n_slices > 1 else 0.0,
        }
        momentum = c.norm_momentum
        self.convolutions = nn.ModuleList(
            [
                ConvBlock(n_features, c.hidden, normalize=True, activate=True, momentum=momentum),
                ConvBlock(c.hidden, c.latent, normalize=relu, activate=relu, momentum=momentum),
            ]
        )
        self.decoder: nn.Module = nn.Linear(c.latent, n_features)
        if c.decoder == "mlp":
            self.decoder = Decoder(c.latent, c.hidden, n_features, momentum=momentum)
        for name in ("running_g", "running_d", "running_c"):
            self.register_buffer(name, torch.zeros(c.latent, c.latent))
        self.sizes = granularity_sizes(clusters, c.granularities)
        for t, size in enumerate(self.sizes):
            self.register_buffer(f"centroids_{t}", torch.zeros(size, c.latent))
        self.register_buffer("centroids_step", torch.tensor(-1))
        self.reservoir = LatentRing(c.reservoir if self.weights["prototypes"] else 0, c.latent)
        self.bank = LatentRing(c.bank if self.weights["scale"] else 0, c.latent)

    def layer(self, i: int, h: Tensor, edges: Hop) -> Tensor:
        """Map features of the source nodes to the targets, convolution i over the spatial graph."""
        return self.convolutions[i](h, edges[0])

    def views(self, batch: Minibatch) -> Tensor:
        """Embed the seeds under two fresh augmentations in one pass, (2 · b, d): first view, then second."""
        c = self.config
        salts = torch.randint(1 << 62, (2,), generator=batch.generator, device=batch.generator.device).tolist()
        x = torch.cat([drop_features(batch.x, c.drop_feature, batch.generator) for _ in salts])
        # with one salt for all layers a view is one thinned graph: later layers' edges are the first layer's first ones
        step = int(c.drop_edge_per == "layer")
        thinned = [[e.dropped(c.drop_edge, salt + i * step) for i, (e,) in enumerate(batch.edges)] for salt in salts]
        return self(x, tuple((stacked(pair),) for pair in zip(*thinned, strict=True)))

    def terms(self, batch: Minibatch) -> dict[str, Tensor]:
        """Return the active terms of this step, over the seeds of all ranks."""
        both = self.views(batch)
        decoded = self._decoded(both) if self.weights["reconstruction"] else None
        # the terms stay in float32 whatever the precision of the network
        with torch.autocast(both.device.type, enabled=False):
            return self._terms(batch, both.float(), None if decoded is None else decoded.float())

    def _decoded(self, both: Tensor) -> Tensor:
        out: Tensor = self.decoder(both, 2) if isinstance(self.decoder, Decoder) else self.decoder(both)
        return out

    def _terms(self, batch: Minibatch, both: Tensor, decoded: Tensor | None) -> dict[str, Tensor]:
        out = {}
        b = batch.n_seeds
        if decoded is not None:
            views = [masked_mse(batch.target, x_hat, batch.mask) for x_hat in torch.split(decoded, b)]
            entries = batch.target.numel() if batch.mask is None else int(batch.mask.sum())
            out["reconstruction"] = ranks.mean(torch.stack(views).mean(), entries)
        if self.config.center:
            both = both - ranks.mean(both.mean(dim=0), b)
        z, z_prime = torch.split(both, b)
        if self.weights["telescope"]:
            out["telescope"] = self._telescope(z, z_prime, batch.step)
        if not (self.weights["scale"] or self.weights["prototypes"]):
            return out
        union, group = ranks.gathered(z_prime), ranks.gathered(batch.group)
        if self.weights["scale"]:
            out["scale"] = self._scale(z, batch, union, group)
        if self.weights["prototypes"]:
            self.reservoir.push(union, group)
            # with a short warm-up the first batches may hold fewer latents than there are prototypes
            if batch.progress >= self.config.warmup and len(self.reservoir) >= self.sizes[-1]:
                out["prototypes"] = self._prototypes(z, z_prime, batch.step)
        return out

    def _telescope(self, z: Tensor, z_prime: Tensor, step: int) -> Tensor:
        if self.config.telescope == "block":
            return telescope_block(ranks.gathered(z), ranks.gathered(z_prime))
        part, rows = grams(z, z_prime), len(z)
        own = Grams(g=ranks.mean(part.g, rows), d=ranks.mean(part.d, rows), c=ranks.mean(part.c, rows))
        if self.config.scope == "batch":
            return gram_value(own)
        # copies: the backward pass needs them as they were, and the buffers move on below
        running = Grams(g=self.running_g.clone(), d=self.running_d.clone(), c=self.running_c.clone())
        value = telescope_global(own, running)
        rate = max(RUNNING, 1 / (step + 1))  # a plain mean of the first batches, then a moving one
        with torch.no_grad():
            for kept, new in zip((self.running_g, self.running_d, self.running_c), (own.g, own.d, own.c), strict=True):
                kept.lerp_(new, rate)
        return value

    def _scale(self, z: Tensor, batch: Minibatch, union: Tensor, group: Tensor) -> Tensor:
        every = self.config.scale_every
        # counted over the union, so that it does not matter how the seeds are shared
        first = (batch.step - ranks.before(z)) % every
        z, own = z[first::every], batch.group[first::every]
        base, base_group = union, group
        if self.config.bank:
            held, held_group = self.bank.filled()
            # the batch itself stays among the candidates: its gradient reaches both views
            base, base_group = torch.cat([union, held]), torch.cat([group, held_group])
        counts = ranks.total(torch.bincount(own, minlength=self.n_slices))
        value = ranks.total(
            scale_matching(z, own, base, base_group, k=self.config.scale_k, pairs=self.config.pairs, counts=counts)
        )
        self.bank.push(union, group)
        if self.config.pair_mean and self.config.pairs == "all":
            value = value / (self.n_slices * (self.n_slices - 1))
        return value

    def _prototypes(self, z: Tensor, z_prime: Tensor, step: int) -> Tensor:
        last = int(self.get_buffer("centroids_step"))
        if last < 0 or step - last >= self.config.refresh:
            self._refresh(first=last < 0)
            self.get_buffer("centroids_step").fill_(step)
        centroids = [self.get_buffer(f"centroids_{t}") for t in range(len(self.sizes))]
        with torch.no_grad():
            assigned = [torch.cdist(z_prime, c).argmin(dim=1) for c in centroids]
        return ranks.mean(prototype_contrast(z, centroids, assigned, self.config.tau), len(z))

    def _refresh(self, *, first: bool) -> None:
        latents = self.reservoir.filled()[0].cpu().numpy()  # the same on every rank
        for t, size in enumerate(self.sizes):
            held = self.get_buffer(f"centroids_{t}")
            init = None if first else held.cpu().numpy()
            found = kmeans(
                latents, size, iterations=20, seed=self.seed + t, init=init, device=held.device.type
            ).centroids
            held.copy_(torch.from_numpy(found))
