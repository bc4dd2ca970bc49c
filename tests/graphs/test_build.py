"""Graph builders, against brute force over all pairs."""

from itertools import pairwise

import numpy as np
import pytest

from stscale.config import Graph as GraphConfig
from stscale.errors import InputError
from stscale.graphs.build import delaunay_graph, feature_graph, knn_graph, radius_graph, spatial_graph
from stscale.graphs.csr import Graph


def dense(graph: Graph) -> np.ndarray:
    out = np.zeros((graph.n, graph.n), bool)
    out[np.repeat(np.arange(graph.n), graph.degree()), graph.indices] = True
    return out


def distances(xy: np.ndarray) -> np.ndarray:
    return np.linalg.norm(xy[:, None] - xy[None], axis=2)


def nearest(score: np.ndarray, k: int) -> np.ndarray:
    """The symmetric closure of each row's k smallest, by a loop."""
    out = np.zeros(score.shape, bool)
    for i, row in enumerate(score):
        others = [j for j in np.argsort(row, kind="stable") if j != i]
        out[i, others[:k]] = True
    return out | out.T


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("k", [1, 6])
def test_knn_equals_brute_force(d: int, k: int) -> None:
    xy = np.random.default_rng(k).random((80, d))
    graph = knn_graph(xy, k)
    graph.validate()
    assert np.array_equal(dense(graph), nearest(distances(xy), k))


@pytest.mark.parametrize("k", [6, 7, 100])
def test_knn_of_a_small_slice_joins_all(k: int) -> None:
    graph = knn_graph(np.random.default_rng(0).random((7, 2)), k)
    assert np.array_equal(dense(graph), ~np.eye(7, dtype=bool))


@pytest.mark.parametrize("n", [0, 1])
def test_knn_of_a_lone_spot_has_no_edge(n: int) -> None:
    graph = knn_graph(np.zeros((n, 2)), 6)
    assert (graph.n, graph.n_edges) == (n, 0)


def test_knn_joins_two_spots_at_one_place() -> None:
    xy = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 0.0], [5.1, 0.0], [9.0, 9.0]])
    graph = knn_graph(xy, 1)
    graph.validate()
    expected = np.zeros((5, 5), bool)
    for i, j in [(0, 2), (1, 3), (3, 4)]:
        expected[i, j] = expected[j, i] = True
    assert np.array_equal(dense(graph), expected)


def test_knn_of_many_spots_at_one_place_gives_each_its_k_and_no_loop() -> None:
    # more duplicates than k + 1: the spot itself may not be among those found
    xy = np.vstack([np.zeros((12, 2)), [[10.0, 0.0], [10.0, 1.0], [10.0, 2.0]]])
    graph = knn_graph(xy, 2)
    graph.validate()
    assert (graph.degree() >= 2).all()
    assert not dense(graph)[:12, 12:].any()
    assert dense(graph)[12:, 12:].sum() == 6


def test_radius_equals_brute_force() -> None:
    xy = np.random.default_rng(1).random((60, 2))
    graph = radius_graph(xy, 0.2)
    graph.validate()
    assert np.array_equal(dense(graph), (distances(xy) <= 0.2) & ~np.eye(60, dtype=bool))


def test_radius_that_joins_nobody_or_everybody_is_refused() -> None:
    xy = np.random.default_rng(1).random((600, 2))
    with pytest.raises(InputError, match="joins no spots"):
        radius_graph(xy, 1e-9)
    with pytest.raises(InputError, match="at most 500"):
        radius_graph(xy, 10.0)


def test_delaunay_of_a_hand_drawn_kite() -> None:
    # the short diagonal 1-3 is Delaunay, the long one 0-2 is not
    graph = delaunay_graph(np.array([[0.0, 0.0], [2.0, 0.9], [4.0, 0.0], [2.0, -1.1]]), 10.0)
    expected = ~np.eye(4, dtype=bool)
    expected[0, 2] = expected[2, 0] = False
    assert np.array_equal(dense(graph), expected)


def test_delaunay_edges_have_an_empty_circle_and_long_ones_are_left_out() -> None:
    xy = np.random.default_rng(2).random((40, 2))
    whole = delaunay_graph(xy, 1e9)
    whole.validate()
    d = distances(xy)
    # Gabriel edges (nobody within the circle over the edge) are all Delaunay
    for i in range(40):
        for j in range(i):
            centre = (xy[i] + xy[j]) / 2
            inside = np.linalg.norm(xy - centre, axis=1) < d[i, j] / 2 - 1e-12
            if not inside.any():
                assert dense(whole)[i, j]
    # Euler: fewer than 3n edges
    assert whole.n_edges // 2 <= 3 * 40 - 6
    cut = delaunay_graph(xy, 1.5)
    kept = d[dense(cut)]
    left_out = d[dense(whole) & ~dense(cut)]
    assert len(left_out)
    assert kept.max() < left_out.min()
    assert not (dense(cut) & ~dense(whole)).any()


@pytest.mark.parametrize("xy", [np.zeros((2, 2)), np.arange(12.0).reshape(6, 2)])
def test_delaunay_of_a_line_is_refused(xy: np.ndarray) -> None:
    with pytest.raises(InputError, match="Delaunay"):
        delaunay_graph(xy, 3.0)


@pytest.mark.parametrize(
    "config", [GraphConfig(k=5), GraphConfig(kind="radius", radius=0.4), GraphConfig(kind="delaunay")]
)
def test_no_edge_joins_slices_that_lie_on_each_other(config: GraphConfig) -> None:
    rng = np.random.default_rng(3)
    offsets = np.array([0, 11, 40, 60])
    xy = rng.random((60, 2))
    xy[11:22] = xy[:11]  # the second slice holds the first one's places
    graph = spatial_graph(xy, offsets, config)
    graph.validate()
    group = np.repeat(np.arange(3), np.diff(offsets))
    row = np.repeat(np.arange(60), graph.degree())
    assert (group[row] == group[graph.indices]).all()
    for lo, hi in pairwise(offsets):
        alone = spatial_graph(xy[lo:hi], np.array([0, hi - lo]), config)
        assert alone.n_edges > 0
        assert np.array_equal(dense(graph)[lo:hi, lo:hi], dense(alone))


@pytest.mark.parametrize("k", [1, 4])
def test_feature_graph_equals_brute_force_cosine(k: int) -> None:
    x = np.random.default_rng(4).normal(size=(70, 9)).astype(np.float32) * np.arange(1, 71, dtype=np.float32)[:, None]
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    graph = feature_graph(x, k)
    graph.validate()
    assert np.array_equal(dense(graph), nearest(-unit @ unit.T, k))


def test_feature_graph_of_small_slices() -> None:
    x = np.random.default_rng(4).normal(size=(4, 3)).astype(np.float32)
    assert np.array_equal(dense(feature_graph(x, 10)), ~np.eye(4, dtype=bool))
    assert feature_graph(x[:1], 10).indptr.tolist() == [0, 0]
