"""What domains tell of the spots around them: against the naive formula, and which domains tell more."""

import numpy as np
import pytest

from stscale.analysis import windows
from stscale.analysis.told import Surroundings
from stscale.analysis.windows import mean_around
from stscale.config import Graph
from stscale.graphs import spatial_graph

N = 3000


def tissue(seed: int = 0):
    """Three stripes along the order of the spots, components that differ between them, and the graph."""
    rng = np.random.default_rng(seed)
    xy = rng.random((N, 2)) * np.sqrt(N)
    xy = xy[np.argsort(xy[:, 0])]
    stripe = np.minimum(3 * xy[:, 0] / xy[:, 0].max(), 2).astype(int)
    noise = np.array([[1.0, 0.5, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.3]])
    y = rng.normal(size=(3, 3))[stripe] + rng.normal(size=(N, 3)) @ noise
    return y, stripe, spatial_graph(xy, np.array([0, N]), Graph())


def of(y, graph) -> Surroundings:
    return Surroundings(lambda lo, hi: y[lo:hi], graph.indptr, graph.indices)


def test_it_is_the_formula():
    y, stripe, graph = tissue()
    near = [graph.indices[graph.indptr[i] : graph.indptr[i + 1]] for i in range(N)]
    untold = np.stack([y[i] - y[near[i]].mean(axis=0) for i in range(N)])
    units = np.linalg.inv(untold.T @ untold / N)
    mean = np.stack([y[stripe == c].mean(axis=0) for c in range(3)])
    left = np.stack([y[i] - mean[stripe[near[i]]].mean(axis=0) for i in range(N)])
    whole = y - y.mean(axis=0)
    size = [np.einsum("ij,jk,ik->", part, units, part) for part in (left, whole)]
    before = y.copy()
    assert of(y, graph).told(stripe) == pytest.approx(1 - size[0] / size[1], rel=1e-5)
    np.testing.assert_array_equal(y, before)


def test_true_domains_tell_most():
    y, stripe, graph = tissue()
    beside, rng = of(y, graph), np.random.default_rng(1)
    true = beside.told(stripe)
    shifted, merged = np.roll(stripe, N // 8), np.minimum(stripe, 1)
    noisy = np.where(rng.random(N) < 0.3, rng.integers(0, 3, N), stripe)
    for others in (shifted, merged, noisy):
        assert beside.told(others) < 0.95 * true
    assert abs(beside.told(rng.permutation(stripe))) < 0.01 * true
    assert beside.told(np.zeros(N, int)) == pytest.approx(0, abs=1e-12)


def test_units_of_the_components_do_not_matter():
    y, stripe, graph = tissue()
    mixed = 50 * y @ np.random.default_rng(2).normal(size=(3, 3)) - 7
    assert of(mixed, graph).told(stripe) == pytest.approx(of(y, graph).told(stripe), rel=1e-4)


def test_a_component_that_never_varies_tells_nothing_and_breaks_nothing():
    y, stripe, graph = tissue()
    wider = np.concatenate([y, np.full((N, 1), 4.0)], axis=1)
    assert of(wider, graph).told(stripe) == pytest.approx(of(y, graph).told(stripe), rel=1e-3)


def test_without_neighbours_components_or_differences_nothing_is_told():
    y, stripe, graph = tissue()
    alone = Surroundings(lambda lo, hi: y[lo:hi], np.zeros(N + 1, int), np.empty(0, int))
    assert alone.told(stripe) is None
    assert of(np.ones((N, 2)), graph).told(stripe) is None
    assert of(np.empty((N, 0)), graph).told(stripe) is None


def test_some_windows_stand_for_all_spots(monkeypatch):
    y, stripe, graph = tissue()
    whole = of(y, graph)
    np.testing.assert_array_equal(whole.rows, np.arange(N))
    monkeypatch.setattr(windows, "WINDOW", 500)
    part = of(y, graph)
    assert len(part.rows) == 2000
    assert part.told(stripe[part.rows]) == pytest.approx(whole.told(stripe), abs=0.03)


def test_the_mean_around_leaves_out_loops_and_other_windows():
    indptr, indices = np.array([0, 3, 4, 6]), np.array([0, 1, 2, 0, 2, 0])
    beside = mean_around(indptr, indices, 0, 2, itself=False).toarray()
    np.testing.assert_array_equal(beside, [[0, 1], [1, 0]])
    np.testing.assert_array_equal(mean_around(indptr, indices, 0, 2, itself=True).toarray(), np.full((2, 2), 0.5))
    np.testing.assert_array_equal(mean_around(indptr, indices, 2, 3, itself=False).toarray(), [[0.0]])
