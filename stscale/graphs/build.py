"""Builders of graphs: one rule each, per slice, joined without an edge between slices."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stscale.config import Graph as GraphConfig
from stscale.config import Views
from stscale.errors import InputError
from stscale.graphs.csr import Graph, block_diagonal, from_pairs


def knn_graph(xy: NDArray[np.float64], k: int) -> Graph:
    """Join each spot to its k nearest spots (exact, k-d tree), then make it symmetric.

    Parameters
    ----------
    xy
        (n, 2 or 3) coordinates of one slice.
    k
        Neighbours; n - 1 are taken when the slice is smaller.
    """
    from scipy.spatial import cKDTree

    n = len(xy)
    k = min(k, n - 1)
    if k < 1:
        return from_pairs(n, np.empty(0, np.int64), np.empty(0, np.int64))
    # one more than asked: the spot itself comes back, not always first where spots share a position
    _, near = cKDTree(xy).query(xy, k=k + 1)
    itself = near == np.arange(n)[:, None]
    itself[~itself.any(axis=1), -1] = True
    return from_pairs(n, np.repeat(np.arange(n), k), near[~itself])


def radius_graph(xy: NDArray[np.float64], radius: float) -> Graph:
    """Join all spots at most `radius` apart.

    Raises
    ------
    InputError
        When the radius would join more than 500 spots to the average spot, or none at all.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(xy)
    expected = tree.count_neighbors(tree, radius) / len(xy) - 1
    if expected > 500:
        raise InputError(
            f"graph.radius = {radius} joins {expected:.0f} spots to the average spot; "
            "at most 500 are supported: lower it, it is in the units of obsm['spatial']"
        )
    if expected == 0 and len(xy) > 1:
        raise InputError(f"graph.radius = {radius} joins no spots; it is in the units of obsm['spatial']")
    pairs = tree.query_pairs(radius, output_type="ndarray")
    return from_pairs(len(xy), pairs[:, 0], pairs[:, 1])


def delaunay_graph(xy: NDArray[np.float64], max_length: float) -> Graph:
    """Join the Delaunay neighbours, leaving out edges longer than `max_length` median edges.

    Raises
    ------
    InputError
        When the spots lie on one line (or are fewer than the dimension needs).
    """
    from scipy.spatial import Delaunay, QhullError

    try:
        simplices = Delaunay(xy).simplices
    except (QhullError, ValueError) as error:
        raise InputError(
            f"no Delaunay triangulation of {len(xy)} spots (too few, or on one line); use graph.kind = 'knn'"
        ) from error
    corner = range(simplices.shape[1])
    pairs = np.vstack([simplices[:, [a, b]] for a in corner for b in corner if a < b])
    length = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)
    near = length <= max_length * np.median(length)
    return from_pairs(len(xy), pairs[near, 0], pairs[near, 1])


def feature_graph(x: NDArray[np.float32], k: int, *, seed: int = 0) -> Graph:
    """Join each spot of one slice to its k most similar spots by cosine of features (FAISS), symmetric.

    Parameters
    ----------
    x
        (n, d) float32 features of one slice.
    k
        Neighbours; n - 1 are taken when the slice is smaller.
    seed
        Of the inverted-file index that FAISS trains for large slices.
    """
    from stscale.graphs.neighbors import search

    n = len(x)
    k = min(k, n - 1)
    if k < 1:
        return from_pairs(n, np.empty(0, np.int64), np.empty(0, np.int64))
    near = search(x, x, k, metric="cosine", exclude_self=True, seed=seed).index
    return from_pairs(n, np.repeat(np.arange(n), k), near.ravel())


SPATIAL: dict[str, Callable[[NDArray[np.float64], GraphConfig], Graph]] = {
    "knn": lambda xy, config: knn_graph(xy, config.k),
    "radius": lambda xy, config: radius_graph(xy, config.radius or 0.0),
    "delaunay": lambda xy, config: delaunay_graph(xy, config.max_length),
}


def slice_graph(read: Callable[[int, int], NDArray[np.float64]], config: GraphConfig, rows: tuple[int, int]) -> Graph:
    """Build the spatial graph of one slice whose coordinates are read here, where it is built.

    Parameters
    ----------
    read
        Coordinates (hi - lo, 2 or 3) of the rows `lo` to `hi`.
    config
        Rule and its parameters.
    rows
        First row of the slice, and of the next one.
    """
    return SPATIAL[config.kind](read(*rows), config)


def view_graphs(
    xy: Callable[[int, int], NDArray[np.float64]],
    features: Callable[[int, int], NDArray[np.float32]],
    config: Views,
    seed: int,
    rows: tuple[int, int],
) -> tuple[Graph, Graph]:
    """Build the spatial and the feature graph of one slice, whose data are read here, where they are built.

    Parameters
    ----------
    xy, features
        Coordinates (hi - lo, 2 or 3) and features (hi - lo, d) of the rows `lo` to `hi`.
    config
        Neighbours of each.
    seed
        Of the index that FAISS trains for large slices.
    rows
        First row of the slice, and of the next one.
    """
    place = xy(*rows)
    spatial = knn_graph(place, config.spatial_k) if config.radius is None else radius_graph(place, config.radius)
    return spatial, feature_graph(features(*rows), config.feature_k, seed=seed)


def spatial_graph(xy: NDArray[np.float64], offsets: NDArray[np.int64], config: GraphConfig) -> Graph:
    """Build the spatial graph of every slice and join them block-diagonally.

    Parameters
    ----------
    xy
        (n, 2 or 3) coordinates, slice after slice.
    offsets
        (s + 1,) first row of each slice, and n.
    config
        Rule and its parameters.
    """
    rule = SPATIAL[config.kind]
    return block_diagonal([rule(xy[lo:hi], config) for lo, hi in pairwise(offsets)])
