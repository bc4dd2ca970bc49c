"""Prediction of spots from their surroundings: against the naive formula, and what it prefers on which tissue."""

import numpy as np
import pytest

from stscale.analysis import scale, windows
from stscale.analysis.scale import TRIED, Scale, Wider, spatial_scale
from stscale.config import Graph
from stscale.graphs import spatial_graph


def grid(n: int, seed: int = 0):
    """Points in the order of their first coordinate, and the graph of their neighbours."""
    xy = np.random.default_rng(seed).random((n, 2)) * np.sqrt(n)
    xy = xy[np.argsort(xy[:, 0])]
    return xy, spatial_graph(xy, np.array([0, n]), Graph())


def of(y, graph, used=2):
    return spatial_scale(lambda lo, hi: y[lo:hi], graph.indptr, graph.indices, used=used, seed=0)


def naive(y, graph) -> np.ndarray:
    n = len(y)
    mean = np.eye(n)
    for i in range(n):
        mean[i, graph.indices[graph.indptr[i] : graph.indptr[i + 1]]] = 1.0
    mean /= mean.sum(axis=1, keepdims=True)
    out, power = {}, np.eye(n)
    for r in range(1, TRIED[-1] + 1):
        power = power @ mean
        out[r] = np.sum((y - power @ y) ** 2) / (1 - np.trace(power) / n) ** 2
    return np.array([out[r] for r in TRIED])


def test_losses_are_those_of_the_formula(monkeypatch) -> None:
    monkeypatch.setattr(scale, "MOST_SIGNS", 4000)  # the trace is an estimate
    xy, graph = grid(300)
    y = np.stack([np.sin(xy[:, 0] / 3), np.cos(xy[:, 1] / 2)], axis=1) + np.random.default_rng(1).standard_normal(
        (300, 2)
    )
    found, expected = of(y, graph), naive(y, graph)
    np.testing.assert_allclose(list(found.losses.values()), expected / expected.min(), rtol=0.01)
    assert tuple(found.losses) == TRIED
    assert found.rounds == TRIED[expected.argmin()]
    assert found.gain == pytest.approx(expected[1] / expected[1:].min() - 1, abs=0.01)


def test_single_spots_need_few_rounds_and_mixed_cells_many() -> None:
    """Domains that differ in every spot, and domains that differ by how often two kinds of cells occur."""
    xy, graph = grid(4000)
    rng = np.random.default_rng(2)
    layer = (xy[:, 0] // 12).astype(int)
    levels = rng.standard_normal((layer.max() + 1, 5)) * 3
    told = of(levels[layer] + rng.standard_normal((4000, 5)), graph)
    assert told.rounds == 2
    assert told.wider(1.0) is None
    kind = rng.random(4000) < np.where(xy[:, 0] < xy[:, 0].mean(), 0.3, 0.7)
    mixed = of(np.where(kind[:, None], 2.0, -2.0) * np.ones(5) + 0.3 * rng.standard_normal((4000, 5)), graph)
    wide = mixed.wider(1.0)
    assert wide is not None
    assert wide.rounds == mixed.rounds > 2 * told.rounds
    assert wide.weight > 0.3


@pytest.mark.parametrize(
    ("used", "most", "expected"),
    [
        (2, 1.0, Wider(rounds=4, weight=0.5)),
        (2, 0.5, Wider(rounds=4, weight=0.25)),
        (1, 2.0, Wider(rounds=4, weight=2.0)),  # never more than the most
        (3, 1.0, None),  # spots show their domain
        (2, 0.03, None),  # too little to change anything
        (2, 0.0, None),
        (4, 1.0, None),  # the best already
        (8, 1.0, None),  # fewer would predict better: those are not put beside
        (0, 1.0, None),  # spots stay alone
    ],
)
def test_wider_averages_weigh_what_they_predict_better(used, most, expected) -> None:
    found = Scale(used=used, losses={1: 1.25, 2: 1.02, 3: 1.015, 4: 1.0, 8: 1.02}, rounds=4).wider(most)
    assert (found is None) == (expected is None)
    if expected is not None:
        assert (found.rounds, found.weight) == (expected.rounds, pytest.approx(expected.weight))


def test_rounds_used_are_compared_whatever_they_are() -> None:
    graph = grid(300)[1]
    y = np.random.default_rng(4).standard_normal((300, 2))
    assert set(of(y, graph, used=20).losses) == {*TRIED, 20}
    assert set(of(y, graph, used=0).losses) == set(TRIED)


def test_windows_of_a_large_run_tell_what_all_spots_tell(monkeypatch) -> None:
    xy, graph = grid(6000)
    y = np.sin(xy[:, :1] / 4) + np.random.default_rng(3).standard_normal((6000, 3))
    whole = of(y, graph)
    reads = []
    monkeypatch.setattr(windows, "WINDOW", 700)
    part = spatial_scale(lambda lo, hi: reads.append((lo, hi)) or y[lo:hi], graph.indptr, graph.indices, used=2, seed=0)
    assert reads == [(0, 700), (1766, 2466), (3533, 4233), (5300, 6000)]
    np.testing.assert_allclose(list(part.losses.values()), list(whole.losses.values()), atol=0.05)


@pytest.mark.parametrize("case", ["no neighbours", "nothing varies", "one spot"])
def test_where_nothing_is_predicted_nothing_is_advised(case) -> None:
    n = 1 if case == "one spot" else 50
    graph = grid(50)[1]
    indptr = graph.indptr if case == "nothing varies" else np.zeros(n + 1, np.int64)
    indices = graph.indices if case == "nothing varies" else np.zeros(0, np.int64)
    y = np.zeros((n, 2)) if case == "nothing varies" else np.random.default_rng(0).standard_normal((n, 2))
    found = spatial_scale(lambda lo, hi: y[lo:hi], indptr, indices, used=2, seed=0)
    assert found.rounds == 1
    assert set(found.losses.values()) == {1.0}
