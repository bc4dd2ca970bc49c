import numpy as np
import pytest

from stscale.analysis import edge_consistency, spatial_coherence
from stscale.errors import InputError
from stscale.graphs.build import knn_graph
from stscale.graphs.csr import from_pairs

# 0 - 1 - 2 - 3 in a row, and 0 - 3 closes the ring
RING = from_pairs(4, np.array([0, 1, 2, 3]), np.array([1, 2, 3, 0]))


def test_edge_consistency_by_hand():
    assert edge_consistency(RING, ["a", "a", "b", "b"]) == 0.5
    assert edge_consistency(RING, ["a", "b", "a", "b"]) == 0.0
    assert edge_consistency(RING, np.array(["a", "a", None, "b"], object)) == 0.5  # edges 0-1 and 0-3
    assert np.isnan(edge_consistency(RING, np.array(["a", None, "b", None], object)))
    with pytest.raises(InputError, match="3 labels"):
        edge_consistency(RING, ["a", "b", "c"])


def test_spatial_coherence_by_hand():
    # a a b b: shares aa 1/4, bb 1/4, ab 1/2; a b a b: all edges join a and b, entropy 0;
    # of the 6 ways to place two a's on a ring 4 are neighbours
    rng = np.random.default_rng(0)
    h = -(0.5 * np.log(0.25) + 0.5 * np.log(0.5))
    mean, sd = 4 / 6 * h, h * np.sqrt(4 / 6 * 2 / 6)
    found = spatial_coherence(RING, ["a", "b", "a", "b"], rng=rng, permutations=4000)
    assert found == pytest.approx(mean / sd, rel=0.05)
    assert spatial_coherence(RING, ["a", "a", "b", "b"], rng=rng, permutations=4000) == pytest.approx(
        (mean - h) / sd, rel=0.05
    )


def test_spatial_coherence_of_halves_and_of_chance():
    rng = np.random.default_rng(1)
    xy = rng.random((600, 2))
    graph = knn_graph(xy, 6)
    halves = xy[:, 0] > 0.5
    assert spatial_coherence(graph, halves, rng=rng) > 20
    assert abs(spatial_coherence(graph, rng.permutation(halves), rng=rng)) < 4
    assert np.isnan(spatial_coherence(graph, np.ones(600), rng=rng))
    with pytest.raises(InputError, match="at least 2"):
        spatial_coherence(graph, halves, rng=rng, permutations=1)
