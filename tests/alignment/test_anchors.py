"""Super-spots: a partition into connected groups with the right means."""

import numpy as np
import pytest
from made_tissue import grid
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from stscale.alignment import make_anchors
from stscale.errors import InputError
from stscale.graphs import Graph, knn_graph


def pieces(graph: Graph, members: np.ndarray) -> int:
    part = graph.subgraph(members)
    return connected_components(csr_array((np.ones(part.n_edges), part.indices, part.indptr), shape=(part.n,) * 2))[0]


@pytest.mark.parametrize("most", [1, 7, 60])
def test_groups_are_connected_compact_and_cover_the_slice(most: int) -> None:
    xy = grid(25) * 50
    z = np.random.default_rng(0).normal(size=(len(xy), 3)).astype(np.float32)
    graph = knn_graph(xy, 6)
    found = make_anchors(xy, z, graph, most=most)
    assert len(found) == most
    assert set(found.owner) == set(range(most))
    assert found.mass.sum() == pytest.approx(1)
    assert found.mass.max() <= 4 / most
    for i in range(most):
        members = np.flatnonzero(found.owner == i)
        assert pieces(graph, members) == 1
        np.testing.assert_allclose(found.xy[i], xy[members].mean(axis=0))
        np.testing.assert_allclose(found.z[i], z[members].mean(axis=0), rtol=1e-6, atol=1e-9)
        assert np.linalg.norm(xy[members] - found.xy[i], axis=1).max() < 2.5 * 50 * np.sqrt(len(xy) / most)


def test_a_gap_is_not_bridged() -> None:
    left, right = grid(20, width=10), grid(20, width=10) + np.array([14.0, 0.0])
    xy = np.vstack([left, right])
    found = make_anchors(xy, np.zeros((len(xy), 2)), knn_graph(xy, 6), most=20)
    assert not set(found.owner[: len(left)]) & set(found.owner[len(left) :])


def test_a_piece_without_a_seed_joins_the_nearest() -> None:
    xy = np.vstack([grid(20), [[100.0, 0.0], [101.0, 0.0]]])
    found = make_anchors(xy, np.zeros((len(xy), 2)), knn_graph(xy, 1), most=3)
    assert (found.owner >= 0).all()
    assert found.owner[-1] == found.owner[-2]


def test_fewer_spots_than_anchors_and_spots_in_one_place() -> None:
    xy = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    found = make_anchors(xy, np.eye(4), knn_graph(xy, 2), most=10)
    assert len(found) == 4
    assert sorted(found.owner) == [0, 1, 2, 3]


def test_bad_input() -> None:
    xy = grid(5)
    with pytest.raises(InputError, match="equal numbers"):
        make_anchors(xy, np.zeros((3, 2)), knn_graph(xy, 6))
    with pytest.raises(InputError, match="at most 0 anchors"):
        make_anchors(xy, np.zeros((25, 2)), knn_graph(xy, 6), most=0)
