"""Graphs of spots: the type, the builders, the neighbour search."""

from stscale.graphs.build import (
    delaunay_graph,
    feature_graph,
    knn_graph,
    radius_graph,
    slice_graph,
    spatial_graph,
    view_graphs,
)
from stscale.graphs.csr import Graph, block_diagonal, from_pairs, load, with_edges

__all__ = [
    "Graph",
    "block_diagonal",
    "delaunay_graph",
    "feature_graph",
    "from_pairs",
    "knn_graph",
    "load",
    "radius_graph",
    "slice_graph",
    "spatial_graph",
    "view_graphs",
    "with_edges",
]
