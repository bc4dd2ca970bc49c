import builtins
import pickle

import numpy as np
import pytest

from stscale.errors import InputError, StscaleError
from stscale.graphs import neighbors as nb
from stscale.graphs.neighbors import backend, kmeans, search


def brute(base, query, metric):
    b, q = base.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        return np.linalg.norm(q[:, None] - b[None], axis=2)
    if metric == "cosine":
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        return 1 - q @ b.T
    return -(q @ b.T)


def blobs(rng, n, k, d, spread=0.3):
    centres = rng.normal(size=(k, d)) * 3
    own = rng.integers(0, k, n)
    return (centres[own] + spread * rng.normal(size=(n, d))).astype(np.float32), own


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_flat_equals_brute_force(metric):
    rng = np.random.default_rng(0)
    base, query = rng.normal(size=(61, 5)).astype(np.float32), rng.normal(size=(37, 5)).astype(np.float32)
    base.setflags(write=False)
    query.setflags(write=False)
    found = search(base, query, 7, metric=metric)
    expected = brute(base, query, metric)
    order = np.argsort(expected, axis=1)[:, :7]
    np.testing.assert_array_equal(found.index, order)
    np.testing.assert_allclose(found.distance, np.take_along_axis(expected, order, 1), atol=1e-6)
    assert found.index.dtype == np.int64
    assert found.distance.dtype == np.float32
    assert (np.diff(found.distance, axis=1) >= 0).all()


def test_ties_on_a_grid_have_the_right_distances_and_ascending_index():
    grid = np.stack(np.meshgrid(np.arange(7), np.arange(6)), axis=-1).reshape(-1, 2).astype(np.float32)
    grid += 100_000  # far from the origin: the expansion of squares would cancel in float32
    found = search(grid, grid, 6, exclude_self=True)
    expected = brute(grid, grid, "l2")
    np.fill_diagonal(expected, np.inf)
    np.testing.assert_array_equal(found.distance, np.sort(expected, axis=1)[:, :6].astype(np.float32))
    same = np.diff(found.distance, axis=1) == 0
    assert same.any()
    assert (np.diff(found.index, axis=1)[same] > 0).all()


def test_exclude_self_with_duplicates_never_returns_self():
    x = np.zeros((9, 3), np.float32)
    found = search(x, x, 8, exclude_self=True)
    np.testing.assert_array_equal(found.index, [[j for j in range(9) if j != i] for i in range(9)])
    assert (found.distance == 0).all()
    assert not (search(x, x, 3, exclude_self=True).index == np.arange(9)[:, None]).any()


def test_distances_do_not_depend_on_the_block(monkeypatch):
    x = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    whole = search(x, x, 5)
    monkeypatch.setattr(nb, "BLOCK", 5 * 4 * 7)  # 7 rows a block: the last has one row
    parts = search(x, x, 5)
    np.testing.assert_array_equal(whole.index, parts.index)
    np.testing.assert_array_equal(whole.distance, parts.distance)


def test_ivf_recall_seed_and_auto(monkeypatch):
    x, _ = blobs(np.random.default_rng(2), 6000, 12, 16)
    query = x[::7]
    exact = search(x, query, 15, index="flat")
    first = search(x, query, 15, index="ivf", seed=3)
    recall = np.mean([len(np.intersect1d(a, b)) for a, b in zip(exact.index, first.index, strict=True)]) / 15
    assert recall >= 0.95
    again = search(x, query, 15, index="ivf", seed=3)
    np.testing.assert_array_equal(first.index, again.index)
    np.testing.assert_array_equal(first.distance, again.distance)
    one = search(x, query, 15, index="ivf", nprobe=1, seed=3)
    np.testing.assert_array_equal(search(x, query, 15, nprobe=1, seed=3).index, exact.index)
    monkeypatch.setattr(nb, "FLAT_PAIRS", len(x) * len(query) - 1)
    np.testing.assert_array_equal(search(x, query, 15, nprobe=1, seed=3).index, one.index)
    assert (one.index != exact.index).any()


def test_ivf_answers_when_the_probed_lists_are_too_short():
    x, _ = blobs(np.random.default_rng(3), 100, 5, 4)
    found = search(x, x, 60, index="ivf", nprobe=1)
    np.testing.assert_allclose(found.distance, np.sort(brute(x, x, "l2"), 1)[:, :60], atol=1e-5)


def test_zero_rows_have_cosine_zero():
    base = np.array([[0, 0], [1, 0], [-1, 0]], np.float32)
    found = search(base, base[1:2], 3, metric="cosine")
    np.testing.assert_array_equal(found.index, [[1, 0, 2]])
    np.testing.assert_allclose(found.distance, [[0, 1, 2]], atol=1e-6)


def test_bad_input_is_refused():
    x = np.ones((4, 2), np.float32)
    with pytest.raises(InputError, match="k = 5"):
        search(x, x, 5)
    with pytest.raises(InputError, match="k = 4"):
        search(x, x, 4, exclude_self=True)
    with pytest.raises(InputError, match="columns"):
        search(x, np.ones((4, 3)), 1)
    with pytest.raises(InputError, match="base rows"):
        search(x, x[:2], 1, exclude_self=True)
    with pytest.raises(InputError, match="1 rows that are not finite"):
        search(x, np.array([[np.nan, 1]]), 1)
    with pytest.raises(InputError, match="k = 5 clusters"):
        kmeans(x, 5)
    assert search(x, x[:0], 2).index.shape == (0, 2)


def test_kmeans_finds_blobs_and_repeats():
    x, own = blobs(np.random.default_rng(4), 900, 4, 6)
    found = kmeans(x, 4, restarts=5, seed=7)
    assert len(np.unique(np.stack([own, found.assignment]), axis=1).T) == 4
    residual = x - found.centroids[found.assignment]
    assert found.inertia == pytest.approx(float(np.sum(residual.astype(np.float64) ** 2)), rel=1e-5)
    for c in range(4):
        np.testing.assert_allclose(found.centroids[c], x[found.assignment == c].mean(0), atol=1e-4)
    again = kmeans(x, 4, restarts=5, seed=7)
    np.testing.assert_array_equal(found.centroids, again.centroids)
    assert pickle.loads(pickle.dumps(again)).inertia == found.inertia


def test_kmeans_warm_start_keeps_numbering_and_sample_is_bounded():
    x, _ = blobs(np.random.default_rng(5), 800, 3, 5)
    cold = kmeans(x, 3, restarts=5, seed=1)
    init = cold.centroids[[2, 0, 1]]
    warm = kmeans(x, 3, iterations=1, restarts=4, seed=99, init=init)
    np.testing.assert_allclose(warm.centroids, init, atol=1e-4)
    sampled = kmeans(x, 3, seed=1, init=init, max_points=90)
    assert len(sampled.assignment) == 800
    assert 0 < np.abs(sampled.centroids - init).max() < 0.5
    with pytest.raises(InputError, match="init"):
        kmeans(x, 3, init=init[:2])


def test_spherical_kmeans_ignores_length():
    rng = np.random.default_rng(6)
    direction = np.repeat(np.eye(3), 50, axis=0) + 0.05 * rng.normal(size=(150, 3))
    found = kmeans(direction * rng.uniform(0.1, 30, (150, 1)), 3, restarts=5, spherical=True)
    assert all(len(np.unique(found.assignment[i : i + 50])) == 1 for i in (0, 50, 100))
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-5)
    cos = np.sum(direction / np.linalg.norm(direction, axis=1, keepdims=True) * found.centroids[found.assignment], 1)
    assert found.inertia == pytest.approx(np.sum(1 - cos), abs=1e-4)


def test_a_build_that_cannot_start_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def broken(name, *rest, **more):
        if name == "faiss":
            raise RuntimeError("libcudart.so not found")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(StscaleError, match=r"libcudart.*stscale\[cpu\]"):
        search(np.ones((2, 2)), np.ones((2, 2)), 1)


def test_backend_of_the_cpu_is_cpu_and_cuda_falls_back():
    assert backend("cpu") == "cpu"
    x = np.random.default_rng(7).normal(size=(20, 3)).astype(np.float32)
    np.testing.assert_array_equal(search(x, x, 3, device="cuda").index, search(x, x, 3).index)


def test_drop_self_takes_the_last_where_self_is_absent():
    index = np.array([[1, 0, 2], [0, 2, 3], [2, 1, 0]])
    np.testing.assert_array_equal(nb.drop_self(index), [[1, 2], [0, 2], [1, 0]])


def test_a_far_common_offset_does_not_change_the_neighbours(monkeypatch):
    import faiss

    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 1)  # expand squares, as large searches do
    x = np.random.default_rng(8).normal(size=(300, 64)).astype(np.float32)
    far = x + np.float32(2000.0)
    expected = np.sort(brute(far, far, "l2"), axis=1)[:, :5]
    np.testing.assert_allclose(search(far, far, 5).distance, expected, atol=1e-4)
