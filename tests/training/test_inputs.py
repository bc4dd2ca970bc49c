"""Rows that the network reads: unpacked, smoothed, gathered."""

import importlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from stscale.errors import InputError
from stscale.graphs.build import knn_graph
from stscale.graphs.csr import Graph
from stscale.training.inputs import DenseInputs, SparseInputs, pca_inputs, propagated, smoothed, smoothed_targets
from stscale.training.standard import Standard

N, P = 83, 6


@pytest.fixture(autouse=True, params=[37, 8192])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("stscale.training.inputs"), "ROWS", request.param)


class Pca:
    """Stands in for a feature store with components."""

    n, p = N, P

    def __init__(self) -> None:
        self.scores = np.random.default_rng(0).normal(size=(N, P)).astype(np.float32) * np.arange(P, 0, -1)

    def pca_variance(self) -> np.ndarray:
        return self.scores.var(axis=0)

    def pca(self, lo: int, hi: int) -> np.ndarray:
        return self.scores[lo:hi]


class Genes:
    """Stands in for a feature store with genes; rows 40 to 44 are empty."""

    n, g = N, 9

    def __init__(self, *, empty: bool = False) -> None:
        rng = np.random.default_rng(1)
        self.dense = rng.random((N, 9)).astype(np.float32) * (rng.random((N, 9)) < 0.4) * (not empty)
        self.dense[40:45] = 0

    def normalised(self, lo: int, hi: int) -> csr_matrix:
        return csr_matrix(self.dense[lo:hi])


@pytest.fixture(scope="module")
def graph() -> Graph:
    return knn_graph(np.random.default_rng(2).random((N, 2)), 4)


def mean_with_neighbours(graph: Graph, x: np.ndarray) -> np.ndarray:
    rows = [graph.indices[graph.indptr[i] : graph.indptr[i + 1]] for i in range(graph.n)]
    return np.stack([x[[i, *near]].mean(axis=0) for i, near in enumerate(rows)])


def test_components_get_mean_variance_one(graph: Graph, tmp_path: Path) -> None:
    features = Pca()
    out = pca_inputs(cast("Any", features), graph, tmp_path, smooth=0)
    assert (out.n, out.width) == (N, P)
    assert out.array.var(axis=0).mean() == pytest.approx(1, rel=1e-5)
    ratio = out.array / features.scores
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)


@pytest.mark.parametrize("rounds", [1, 2])
def test_smoothed_components_are_means_with_neighbours(graph: Graph, tmp_path: Path, rounds: int) -> None:
    features = cast("Any", Pca())
    expected = np.array(pca_inputs(features, graph, tmp_path / "plain", smooth=0).array, dtype=np.float64)
    for _ in range(rounds):
        expected = mean_with_neighbours(graph, expected)
    out = pca_inputs(features, graph, tmp_path / "smooth", smooth=rounds)
    np.testing.assert_allclose(out.array, expected, rtol=1e-5, atol=1e-6)


def test_smoothing_leaves_its_input_alone(graph: Graph, tmp_path: Path) -> None:
    x = DenseInputs(tmp_path / "x.f32", N, 2)
    x.array[:] = np.random.default_rng(3).normal(size=(N, 2))
    before = np.array(x.array)
    out = smoothed(x, graph, tmp_path / "y.f32")
    assert np.array_equal(x.array, before)
    np.testing.assert_allclose(out.array, mean_with_neighbours(graph, before), rtol=1e-5, atol=1e-6)


def test_targets_are_smoothed_and_have_mean_square_one(graph: Graph, tmp_path: Path) -> None:
    x = DenseInputs(tmp_path / "x.f32", N, 3)
    x.array[:] = np.random.default_rng(3).normal(size=(N, 3)) * 5
    before = np.array(x.array)
    out = smoothed_targets(x, graph, tmp_path, rounds=2)
    assert np.array_equal(x.array, before)
    expected = mean_with_neighbours(graph, mean_with_neighbours(graph, before))
    np.testing.assert_allclose(out.array, expected / np.sqrt((expected**2).mean()), rtol=1e-4, atol=1e-5)


def test_dense_rows_come_in_the_order_asked_and_survive_reopening(tmp_path: Path) -> None:
    x = DenseInputs(tmp_path / "x.f32", N, 2)
    x.array[:] = np.arange(2 * N).reshape(N, 2)
    ids = np.array([5, 80, 5, 0])
    assert x.rows(ids).tolist() == [[10, 11], [160, 161], [10, 11], [0, 1]]
    x.array.flush()
    assert DenseInputs(tmp_path / "x.f32", N, 2).rows(ids).tolist() == x.rows(ids).tolist()


def test_sparse_rows_in_shuffled_order_equal_the_dense(tmp_path: Path) -> None:
    genes = Genes()
    inputs = SparseInputs(cast("Any", genes), tmp_path / "genes")
    assert (inputs.n, inputs.width) == (N, 9)
    ids = np.random.default_rng(4).permutation(N)
    ids = np.concatenate([ids, [42, 42, 7, 7]])
    out = inputs.rows(ids)
    assert out.dtype == np.float32
    assert np.array_equal(out, genes.dense[ids])
    assert inputs.rows(np.empty(0, np.int64)).shape == (0, 9)
    assert not inputs.rows(np.array([41])).any()


def test_genes_without_a_count_anywhere(tmp_path: Path) -> None:
    inputs = SparseInputs(cast("Any", Genes(empty=True)), tmp_path / "genes")
    assert np.array_equal(inputs.rows(np.array([3, 1])), np.zeros((2, 9), np.float32))


def test_propagated_inputs_are_the_first_convolution_over_each_graph(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    graphs = [knn_graph(rng.random((N, 2)), k) for k in (3, 9)]
    inputs = DenseInputs(tmp_path / "x.f32", N, 4)
    inputs.write(0, rng.normal(size=(N, 4)).astype(np.float32))
    found = propagated(inputs, graphs, tmp_path / "ax.f32")
    assert found.width == 8
    for v, graph in enumerate(graphs):
        a = np.eye(N)
        a[np.repeat(np.arange(N), graph.degree()), graph.indices] = 1
        scale = 1 / np.sqrt(a.sum(axis=1))
        expected = scale[:, None] * (a @ (scale[:, None] * inputs.array))
        np.testing.assert_allclose(found.array[:, 4 * v : 4 * v + 4], expected, rtol=1e-5, atol=1e-6)


def test_columns_are_brought_to_variance_one_and_new_rows_to_the_same_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stscale.training.standard.ROWS", 17)
    rng = np.random.default_rng(0)
    given = rng.normal(size=(60, 4)) * [1, 10, 100, 0] + 30
    x = DenseInputs(tmp_path / "x", 60, 4)
    x.array[:] = given
    standard = Standard.measure(x)
    standard.save(tmp_path / "standard.npz")
    standard.apply(x)
    expected = (given - given.mean(axis=0)) / np.where(given.std(axis=0) > 0, given.std(axis=0), 1)
    np.testing.assert_allclose(x.array, expected, atol=2e-4)
    new = DenseInputs(tmp_path / "new", 5, 4)
    new.array[:] = given[7:12]
    Standard.load(tmp_path / "standard.npz").apply(new)
    np.testing.assert_array_equal(new.array, x.array[7:12])


@pytest.mark.parametrize(("content", "said"), [(None, "is missing"), (b"PK broken", "is damaged"), (b"", "is damaged")])
def test_a_lost_scale_is_told(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "standard.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"{said}.*--fresh"):
        Standard.load(path)
