"""The options of each method and of the graphs that two-view methods read, one section each."""

from dataclasses import dataclass
from typing import Literal

from stscale.errors import InputError
from stscale.options import Section, option


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

    rounds: int = option(
        2, "rounds of averaging each spot with its neighbours; also of the components beside latents", low=1
    )
