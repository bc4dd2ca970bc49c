"""The options of each stage, one section per stage, each with its default and meaning."""

from dataclasses import dataclass
from typing import Literal

from stscale.errors import InputError
from stscale.options import Section, option


@dataclass(frozen=True, kw_only=True)
class Ingest(Section):
    """Slices as they come → slice stores."""

    tile: int = option(64, "spots per tile; a chunk is a whole number of tiles", low=1)
    chunk: int = option(8192, "rows written and read at a time", low=1)
    memory_mb: int = option(256, "memory for sorting the counts of one slice, MiB", low=16)

    def check(self) -> None:
        """Refuse chunks that cut a tile."""
        if self.chunk % self.tile:
            raise InputError(
                f"ingest.chunk = {self.chunk} is not a multiple of ingest.tile = {self.tile}; "
                f"use {max(1, self.chunk // self.tile) * self.tile}"
            )


@dataclass(frozen=True, kw_only=True)
class Preprocess(Section):
    """Counts → features.zarr."""

    genes: Literal["intersection", "union"] = option(
        "intersection", "genes of the vocabulary: shared by all slices, or of any slice (absent ones masked)"
    )
    n_hvg: int = option(5000, "highly variable genes kept (seurat_v3 ranks across slices)", low=1)
    hvg_span: float = option(0.3, "span of the loess of variance on mean", above=0.0, high=1.0)
    min_shared_genes: int = option(50, "fewer shared genes than this is an error", low=1)
    target_sum: float = option(1e4, "counts per spot after library-size normalisation", above=0.0)
    lognormalized: bool = option(False, "the input is already log-normalised; refused unless said")
    block: int = option(2_097_152, "stored counts that a worker reads at a time", low=1024)
    n_pcs: int = option(50, "principal components of the normalised genes", low=1)
    scale_genes: bool = option(True, "PCA of genes scaled to unit variance")
    center: Literal["all", "slice"] = option("slice", "PCA around each slice's own mean, or around the common one")


@dataclass(frozen=True, kw_only=True)
class Graph(Section):
    """Spatial graph of each slice; no edge joins two slices."""

    kind: Literal["knn", "radius", "delaunay"] = option("knn", "rule that joins spots")
    k: int = option(6, "neighbours of a spot (knn)", low=1)
    radius: float | None = option(None, "largest distance, in the units of the coordinates (radius)", above=0.0)
    max_length: float = option(3.0, "longest Delaunay edge, in median edge lengths", above=1.0)

    def check(self) -> None:
        """Refuse a radius graph without a radius, and a radius nobody reads."""
        if self.kind == "radius" and self.radius is None:
            raise InputError("graph.kind = 'radius' needs graph.radius, in the units of obsm['spatial']")
        if self.kind != "radius" and self.radius is not None:
            raise InputError(f"graph.radius = {self.radius} has no effect with graph.kind = {self.kind!r}")


@dataclass(frozen=True, kw_only=True)
class Sample(Section):
    """Minibatches."""

    kind: Literal["tile", "neighbor"] = option(
        "tile", "compact tiles with their exact halo, or random seeds with a fan-out per hop"
    )
    batch_size: int = option(2048, "seeds of a minibatch; n or more means full batch", low=2)
    tile: int = option(64, "seeds per tile", low=1)
    fan_out: tuple[int, ...] = option((10, 5), "neighbours drawn per hop (neighbor); -1 takes all", low=-1)


@dataclass(frozen=True, kw_only=True)
class Spotscape(Section):
    """The Spotscape network and its four terms."""

    input: Literal["pca", "genes"] = option("pca", "what the network sees and reconstructs")
    smooth: int = option(0, "rounds of neighbourhood averaging of the input before the network", low=0)
    hidden: int = option(256, "width of the hidden layer", low=1)
    latent: int = option(64, "width d of the embedding", low=2)
    activation: Literal["linear", "relu"] = option("linear", "of the latent layer (the paper: relu after BatchNorm)")
    center: bool = option(True, "subtract the batch mean of the latents before every cosine")
    norm_momentum: float = option(0.1, "BatchNorm momentum; statistics are measured anew before inference", above=0.0)
    decoder: Literal["linear", "mlp"] = option("linear", "latents → reconstruction")
    target_smooth: int = option(2, "rounds of neighbourhood averaging of what is reconstructed (pca)", low=0)
    drop_edge: float = option(0.2, "share of edges dropped in a view", low=0.0, high=0.95)
    drop_edge_per: Literal["layer", "view"] = option("layer", "edges are dropped anew in every layer, or once per view")
    drop_feature: float = option(0.1, "share of input columns dropped in a view", low=0.0, high=0.95)
    telescope: Literal["gram", "block"] = option("gram", "linear-cost form, or the quadratic reference")
    scope: Literal["batch", "global"] = option("batch", "telescope over the batch, or over running Grams of all spots")
    pairs: Literal["all", "pooled"] = option(
        "all", "scale matching per ordered pair of slices, or own against the rest"
    )
    pair_mean: bool = option(True, "divide scale matching by the number of ordered pairs; the paper sums over them")
    scale_k: int = option(5, "similarities averaged in scale matching", low=1)
    scale_every: int = option(4, "one in this many seeds is matched, another one every step", low=1)
    bank: int = option(0, "recent latents kept for scale matching; 0 uses the batch's own seeds", low=0)
    tau: float = option(0.75, "temperature of the prototypes", above=0.0)
    granularities: tuple[float, ...] = option((1.0, 1.5, 2.0), "prototypes, in multiples of the domains", above=0.0)
    clusters: int | None = option(None, "expected domains of the prototypes; default: domains.k, else 10", low=2)
    warmup: float = option(0.5, "share of training before the prototypes join", low=0.0, high=1.0)
    refresh: int = option(50, "steps between two k-means of the prototypes", low=1)
    reservoir: int = option(16384, "latents kept for that k-means", low=64)
    w_telescope: float = option(1.0, "weight of the similarity telescope", low=0.0)
    w_reconstruction: float = option(1.0, "weight of the reconstruction", low=0.0)
    w_prototypes: float = option(0.01, "weight of the prototypes (several slices only)", low=0.0)
    w_scale: float = option(0.9, "weight of similarity-scale matching (several slices only)", low=0.0)

    def check(self) -> None:
        """Refuse a network without any term to train it, and a reference that has no global form."""
        if self.telescope == "block" and self.scope == "global":
            raise InputError("spotscape.telescope = 'block' has no global scope; use telescope = 'gram'")
        if not any((self.w_telescope, self.w_reconstruction, self.w_prototypes, self.w_scale)):
            raise InputError("all weights of [spotscape] are 0: nothing would train")


@dataclass(frozen=True, kw_only=True)
class Views(Section):
    """The two graphs of mhal and stmfg; no edge joins two slices."""

    spatial_k: int = option(12, "neighbours of a spot in the spatial graph", low=1)
    radius: float | None = option(
        None, "largest distance in the spatial graph, in the units of the coordinates; replaces spatial_k", above=0.0
    )
    feature_k: int = option(14, "neighbours of a spot by cosine of its principal components", low=1)
    spatial_fan_out: tuple[int, ...] = option((20, 10), "spatial neighbours drawn per hop; -1 takes all", low=-1)
    feature_fan_out: tuple[int, ...] = option((7, 5), "neighbours by features drawn per hop; -1 takes all", low=-1)


@dataclass(frozen=True, kw_only=True)
class Mhal(Section):
    """The MHAL network and its terms."""

    without: tuple[Literal["pcl", "psa", "saf", "zinb", "gw"], ...] = option(
        (), "parts left out: prototypes, view alignment, attention fusion, counts, structure of the assignment"
    )
    components: int = option(20, "leading principal components that the network reads; 0 takes all", low=0)
    standardize: bool = option(True, "bring each component, averaged over each graph, to variance 1")
    hidden: int = option(128, "width of the shared convolution", low=1)
    latent: int = option(64, "width d of the embedding", low=2)
    heads: int = option(4, "attention heads of the fusion; they divide the latent width", low=1)
    skip: bool = option(True, "add the views' weighted sum to the fused latents; the paper has the MLP alone")
    norm_momentum: float = option(0.1, "BatchNorm momentum; statistics are measured anew before inference", above=0.0)
    prototypes: int = option(30, "prototypes p, fewer on tiny data; an assignment merges them to domains.k", low=2)
    epsilon: float = option(0.05, "entropy of the balanced targets, in units of a cosine", above=0.0)
    sinkhorn: int = option(50, "Sinkhorn rounds of the targets, at most", low=1)
    tau: float = option(0.1, "temperature of the predictions", above=0.0)
    beta_graph: float = option(0.9, "what a step keeps of the prototype graph", low=0.0, high=1.0)
    beta_mass: float = option(0.99, "what a step keeps of the prototypes' masses", low=0.0, high=1.0)
    alpha: float = option(0.7, "weight of the structure in the assignment, against the cosines", low=0.0, high=1.0)
    decoder: int = option(128, "hidden width of the decoder of counts", low=1)
    genes: int = option(256, "genes whose counts a step reconstructs, others every step; 0 takes all", low=0)
    phi: float = option(
        0.5, "share of alignment and counts in the loss; the prototypes have the rest", low=0.0, high=1.0
    )
    w_psa: float = option(0.3, "weight of the alignment of the views, within its share", low=0.0)
    w_zinb: float = option(30.0, "weight of the counts, within their share; a mean over genes is small", low=0.0)
    w_fused: float = option(1.0, "weight of the fused latents' prediction among the prototypes' terms", low=0.0)
    w_scale: float = option(0.0, "weight of similarity-scale matching (several slices only)", low=0.0)
    scale_k: int = option(5, "similarities averaged in scale matching", low=1)
    scale_every: int = option(4, "one in this many seeds is matched against the others, another one every step", low=2)

    def check(self) -> None:
        """Refuse repeated parts, heads that do not divide, and a network without any term to train it."""
        if len(set(self.without)) < len(self.without):
            raise InputError(f"mhal.without = {list(self.without)} names a part twice")
        if self.latent % self.heads:
            raise InputError(f"mhal.heads = {self.heads} does not divide mhal.latent = {self.latent}")
        trains = {"pcl": self.phi < 1, "psa": self.phi * self.w_psa > 0, "zinb": self.phi * self.w_zinb > 0}
        if not any(on and name not in self.without for name, on in trains.items()):
            raise InputError("no term of [mhal] is left: nothing would train")


@dataclass(frozen=True, kw_only=True)
class Stmfg(Section):
    """The stMFG network and its terms."""

    components: int = option(20, "leading principal components that are read; 0: all", low=0)
    standardize: bool = option(True, "bring each component of each view to variance 1 first")
    layers: int = option(2, "convolutions of each view", low=2)
    hidden: int = option(128, "width of all layers but the last", low=1)
    latent: int = option(64, "width d of the embedding", low=2)
    activation: Literal["linear", "relu"] = option("linear", "of the last layer; all others have relu")
    fusion: Literal["layer", "late"] = option("layer", "the views meet after every layer, or after the last one only")
    slope: float = option(0.01, "of the attention's LeakyReLU below 0", low=0.0, high=1.0)
    center: bool = option(False, "subtract the batch mean of the latents before every cosine")
    decoder: int = option(128, "width of the decoder's hidden layer", low=1)
    genes: int = option(512, "genes whose counts are reconstructed in a step, drawn anew each time; 0: all", low=0)
    norm_momentum: float = option(0.1, "BatchNorm momentum of the decoder", above=0.0)
    temperature: float = option(0.5, "of the contrast between the views", above=0.0)
    nce_every: int = option(4, "one in this many seeds is contrasted with all seeds, another one every step", low=1)
    draws: int = option(10, "partners drawn per seed for the spots that are no neighbours", low=1)
    regularise: Literal["mean", "sum"] = option(
        "mean", "neighbours and others each averaged over their pairs, or summed over all pairs per spot (the paper)"
    )
    scale_k: int = option(5, "similarities averaged in scale matching", low=1)
    scale_every: int = option(4, "one in this many seeds is matched, another one every step", low=1)
    alpha: float = option(1.0, "weight of the contrast between the views", low=0.0)
    gamma: float = option(0.1, "weight of the spatial regularisation", low=0.0)
    w_scale: float = option(0.1, "weight of similarity-scale matching (several slices only)", low=0.0)
    without: tuple[Literal["zinb", "nce", "reg"], ...] = option((), "terms left out, for an ablation: zinb, nce, reg")

    def check(self) -> None:
        """Refuse a network without any term to train it."""
        if {*self.without} == {"zinb", "nce", "reg"}:
            raise InputError("stmfg.without leaves out zinb, nce and reg: nothing would train; keep one of them")


@dataclass(frozen=True, kw_only=True)
class Smooth(Section):
    """Principal components averaged over the spatial graph; nothing is trained."""

    rounds: int = option(2, "rounds of averaging each spot with its neighbours", low=1)


@dataclass(frozen=True, kw_only=True)
class Train(Section):
    """The training loop."""

    steps: int | None = option(
        None, "optimiser steps; default: 300, mhal 60; the budget does not grow with the number of spots", low=1
    )
    epochs: int | None = option(None, "passes over all spots; replaces steps", low=1)
    lr: float = option(1e-3, "learning rate of Adam", above=0.0)
    weight_decay: float = option(1e-4, "weight decay of Adam", low=0.0)
    average: float = option(
        0.0, "last share of training whose weights are averaged; 0 keeps the last", low=0.0, high=1.0
    )
    checkpoint_every: int = option(100, "steps between checkpoints", low=1)
    log_every: int = option(10, "steps between lines in events.jsonl", low=1)
    precision: Literal["float32", "tf32", "bf16"] = option(
        "float32", "of the network's products; tf32 (GPU) also in the terms, bf16 leaves the terms in float32"
    )
    prefetch: int = option(2, "batches prepared ahead by a thread; 0 prepares them in the loop", low=0)


@dataclass(frozen=True, kw_only=True)
class Domains(Section):
    """Latents → domains."""

    method: Literal["gmm", "kmeans", "leiden", "assignment"] = option(
        "gmm", "Gaussian mixture, k-means or Leiden of the latents, or the method's own assignment (mhal)"
    )
    k: int | None = option(None, "number of domains; estimated by BIC when not given", low=1)
    k_min: int = option(2, "smallest K tried by the estimate", low=1)
    k_max: int = option(15, "largest K tried by the estimate", low=1)
    covariance: Literal["tied", "shrunk"] = option(
        "shrunk", "of the mixture: one for all domains, or each domain's own shrunk towards it"
    )
    shrink: float = option(1.5, "weight of the common covariance, in mean domain sizes", above=0.0)
    n_init: int = option(60, "starts of the mixture and of k-means; the best likelihood is kept", low=1)
    n_components: int = option(
        20, "principal components of the latents given to the mixture; 0 takes the latents", low=0
    )
    l2_normalize: bool = option(False, "scale centred latents to length 1 first")
    smoothed: float = option(
        1.0, "variance, in that of the latents, of smoothed components clustered beside them; 0: latents alone", low=0.0
    )
    moves: int = option(8, "split-and-merge moves from the best start of the mixture (shrunk) at most", low=0)
    max_fit: int = option(100_000, "spots the fit sees; the rest is predicted", low=10)
    resolution: float = option(1.0, "of Leiden, when K is not given", above=0.0)
    per_slice: bool = option(False, "fit each slice alone instead of all jointly")
    spatial: float = option(
        0.0,
        "weight of the spatial neighbours' domains against a spot's own likelihood, nats (gmm, joint fits)",
        low=0.0,
    )
    smooth_rounds: int = option(0, "rounds of majority vote over spatial neighbours", low=0)

    def check(self) -> None:
        """Refuse an empty range of K."""
        if self.k_min > self.k_max:
            raise InputError(f"domains.k_min = {self.k_min} is above domains.k_max = {self.k_max}")


@dataclass(frozen=True, kw_only=True)
class Align(Section):
    """Slices → one frame."""

    pairs: str = option("sequential", "slices aligned to each other: sequential, star, all, or a TOML or CSV file")
    reference: str | None = option(None, "slice whose frame is kept; default: the first (star: also the centre)")
    kind: Literal["rigid", "similarity", "affine"] = option("rigid", "transform of a slice")
    allow_mirror: bool = option(False, "accept a mirror image where it fits clearly better; else it is only reported")
    center: Literal["joint", "slice"] = option("joint", "subtract one mean from the latents, or each slice's own")
    channels: int = option(10, "principal components of the latents that are compared", low=1)
    k: int = option(10, "candidates of a spot in the other slice", low=1)
    anchors: int = option(5000, "spots of a slice that are matched for the first guess, at most", low=20)
    rotations: int = option(72, "angles tried over the circle", low=4)
    starts: int = option(12, "coarse solutions that are polished", low=1)
    min_overlap: float = option(
        0.15, "smallest share of the smaller slice, edges left out, that must be covered", above=0.0, high=1.0
    )
    max_points: int = option(20_000, "spots of a slice that the last polish reads", low=100)
    warp: bool = option(False, "after the transform, a smooth non-rigid displacement")
    warp_points: int = option(100, "control points of the warp, at most", low=10)
    warp_stiffness: float = option(3.0, "smoothing of the warp; 0 passes through every control point", low=0.0)
    refine: bool = option(True, "transport refinement to correspondences; else they are the matches alone")
    refine_anchors: int = option(300, "groups of spots of the anchors' plan; 0 leaves it out", low=0, high=1000)
    refine_k: int = option(16, "candidate targets of a spot", low=1)
    refine_space: float = option(1.0, "weight of the squared distance, in spacings of the spots", low=0.0)
    refine_latent: float = option(1.0, "weight of the squared difference of the latents, in their median", low=0.0)
    refine_epsilon: float = option(0.1, "entropy of the plan, in units of the cost", above=0.0)
    refine_trusted: float = option(
        0.7, "spacings by which the transform is expected to be off; inf leaves the displacement free", above=0.0
    )
    refine_tau: float = option(5.0, "price of leaving mass unmatched, in units of the cost", above=0.0)
    z: tuple[float, ...] | None = option(None, "height of each slice along z, in the unit of the frame")
    spacing: float | None = option(None, "distance of neighbouring slices along z, in the unit of the frame", above=0.0)

    def check(self) -> None:
        """Refuse heights told twice, anchors too few to make a shape, and a refinement by nothing."""
        if self.z is not None and self.spacing is not None:
            raise InputError("align.z and align.spacing are both given; give one of them")
        if 0 < self.refine_anchors < 20:
            raise InputError(f"align.refine_anchors = {self.refine_anchors}: must be 0 or at least 20")
        if not self.refine_space + self.refine_latent > 0:
            raise InputError("align.refine_space and align.refine_latent are both 0; nothing would tell spots apart")


@dataclass(frozen=True, kw_only=True)
class Output(Section):
    """integrated.zarr."""

    counts: bool = option(False, "X holds the raw counts of the common genes, for tools that expect them")


@dataclass(frozen=True, kw_only=True)
class Report(Section):
    """quality.json and report.html: what takes a few seconds."""

    umap: bool = option(True, "draw the latents as a UMAP; else as their first two principal components")
    markers: bool = option(True, "look for marker genes of each domain")
    quality: bool = option(True, "judge the embedding without labels, beside the untrained floor (quality.json)")


@dataclass(frozen=True, kw_only=True)
class Simulate(Section):
    """Tissues with known domains, batch effects and transforms."""

    kind: Literal["layers", "patches", "mixed"] = option("mixed", "geometry of the domains")
    domains: int = option(7, "number of domains", low=2, high=26)
    batch_effect: float = option(0.3, "sd of the log gene-wise effect of a slice", low=0.0)
    library: float = option(600.0, "median counts of a spot", above=0.0)
    library_sd: float = option(0.4, "log sd of the counts of a spot", low=0.0)
    dispersion: float = option(10.0, "theta of the negative binomial; larger is closer to Poisson", above=0.0)
    marker_fraction: float = option(0.15, "share of genes that mark a domain", low=0.0, high=1.0)
    marker_lfc: float = option(1.0, "natural-log fold change of a marker", low=0.0)
    gradient: float = option(0.15, "sd of the natural-log slope of a gene that changes inside domains", low=0.0)
    rotation: float = option(180.0, "largest rotation of a slice, degrees", low=0.0, high=180.0)
    shift: float = option(0.2, "largest shift of a slice, in tissue extents", low=0.0)
    scale: float = option(0.0, "largest log scale of a slice", low=0.0)
    warp: float = option(0.0, "amplitude of a smooth warp, in tissue extents", low=0.0, high=0.2)
    overlap: float = option(1.0, "share of the tissue that adjacent slices share", above=0.0, high=1.0)
    empty_fraction: float = option(0.0, "share of spots without a count", low=0.0, high=0.5)
    pitch_um: float = option(100.0, "distance between spots, µm", above=0.0)
