"""The options of each stage, one section per stage, each with its default and meaning."""

from dataclasses import dataclass
from typing import Literal

from stscale.errors import InputError
from stscale.options import Section, option

ACROSS = 3
"""What `integrate --align` sets graph.across to."""


@dataclass(frozen=True, kw_only=True)
class Ingest(Section):
    """Slices as they come → slice stores."""

    tile: int = option(64, "spots per tile; a chunk is a whole number of tiles", low=1)
    chunk: int = option(8192, "rows written and read at a time", low=1)
    memory_mb: int = option(256, "memory for sorting the counts of one input, MiB", low=16)
    layer: str = option("X", "matrix of an AnnData that is read: X, one of its layers, or raw")
    coordinates: str = option(
        "spatial", "where an AnnData has its coordinates: a key of obsm, or columns of obs as x,y"
    )
    split: str | None = option(None, "obs column whose values are slices of their own; unset: an input is one slice")
    recover: bool = option(
        True, "counts that were divided by a size of each spot, or logarithms of such, become counts again"
    )

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
    lognormalized: bool = option(False, "logarithms are used as they are given; refused unless said")
    fractional: bool = option(
        False, "amounts that are no integers, as corrected counts, are used as if they were counts; refused unless said"
    )
    block: int = option(2_097_152, "stored counts that a worker reads at a time", low=1024)
    n_pcs: int = option(50, "principal components of the normalised genes", low=1)
    transform: Literal["sqrt", "log"] = option(
        "sqrt", "PCA of √x + √(x + 1) at the mean library (Freeman and Tukey), or of log-normalised values"
    )
    gain: Literal["auto", "slice", "poisson", "all"] = option(
        "auto",
        "values of a gene in a slice that captures it better or worse at the height of all slices as Poisson counts "
        "have it where slices capture genes unlike each other, else by the root of its share; always by the root; "
        "always as Poisson counts have it; as they are",
    )
    scale_genes: bool = option(True, "PCA of genes scaled to unit variance")
    rare: Literal["auto", "less", "alike"] = option(
        "auto",
        "genes that few spots have a count of (sqrt, scaled) weigh less where most genes are such; always; never",
    )
    axes: Literal["surroundings", "spots"] = option(
        "surroundings", "principal axes of each spot averaged with those around it, or of single spots"
    )
    coherence: float = option(
        0.25, "power of a gene's spatial autocorrelation in its weight (axes of surroundings); 0: all alike", low=0.0
    )
    center: Literal["kinds", "slice", "all"] = option(
        "kinds",
        "scores around each slice's own mean, moved to the kinds of tissue it shares with others where that is worth "
        "it; always around its own mean; around the common one",
    )


@dataclass(frozen=True, kw_only=True)
class Graph(Section):
    """Spatial graph of each slice; with `across`, aligned slices are joined to those beside them."""

    kind: Literal["knn", "radius", "delaunay"] = option("knn", "rule that joins spots")
    k: int = option(6, "neighbours of a spot (knn)", low=1)
    radius: float | None = option(None, "largest distance, in the units of the coordinates (radius)", above=0.0)
    max_length: float = option(3.0, "longest Delaunay edge, in median edge lengths", above=1.0)
    across: int = option(
        0, f"spots of each aligned slice of [align] pairs that a spot is joined to; 0: none, --align: {ACROSS}", low=0
    )

    @property
    def file(self) -> str:
        """Name of the graph in the run folder that embedding and domains read."""
        return "joined.npz" if self.across else "graph.npz"

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
        3.0, "variance, in that of the latents, of smoothed components clustered beside them; 0: latents alone", low=0.0
    )
    wider: float = option(
        1.0,
        "most variance, in that of smoothed components, of components averaged over wider surroundings beside them, "
        "where these predict spots better; 0: none",
        low=0.0,
    )
    moves: int = option(8, "split-and-merge moves from the best start of the mixture (shrunk) at most", low=0)
    max_fit: int = option(100_000, "spots the fit sees; the rest is predicted", low=10)
    resolution: float = option(1.0, "of Leiden, when K is not given", above=0.0)
    per_slice: bool = option(False, "fit each slice alone instead of all jointly")
    spatial: float = option(
        6.0,
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
