"""Domains of the latents and the metrics that judge them."""

from stscale.analysis.domains import DomainFit, Predictor, SliceDomains, cluster, cluster_per_slice
from stscale.analysis.estimate import Curve, estimate_k
from stscale.analysis.labels import labelled
from stscale.analysis.metrics import (
    ari,
    boundary,
    boundary_accuracy,
    clustering_accuracy,
    completeness,
    homogeneity,
    nmi,
    score,
)
from stscale.analysis.metrics_alignment import (
    TransformError,
    best_source,
    coverage,
    edge_consistency,
    ltari,
    mapping_accuracy,
    score_pair,
    spatial_coherence,
    transform_error,
)
from stscale.analysis.metrics_mixing import batch_asw, clisi, graph_connectivity, ilisi, kbet, lisi
from stscale.analysis.metrics_spatial import chaos, pas, silhouette
from stscale.analysis.metrics_unsupervised import score_unsupervised
from stscale.analysis.mixture import TiedMixture, fit_mixture
from stscale.analysis.smoothing import smooth_labels

__all__ = [
    "Curve",
    "DomainFit",
    "Predictor",
    "SliceDomains",
    "TiedMixture",
    "TransformError",
    "ari",
    "batch_asw",
    "best_source",
    "boundary",
    "boundary_accuracy",
    "chaos",
    "clisi",
    "cluster",
    "cluster_per_slice",
    "clustering_accuracy",
    "completeness",
    "coverage",
    "edge_consistency",
    "estimate_k",
    "fit_mixture",
    "graph_connectivity",
    "homogeneity",
    "ilisi",
    "kbet",
    "labelled",
    "lisi",
    "ltari",
    "mapping_accuracy",
    "nmi",
    "pas",
    "score",
    "score_pair",
    "score_unsupervised",
    "silhouette",
    "smooth_labels",
    "spatial_coherence",
    "transform_error",
]
