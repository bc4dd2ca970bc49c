import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

from stscale.analysis import domains as module
from stscale.analysis.domains import cluster, cluster_per_slice
from stscale.analysis.estimate import choose, estimate_k
from stscale.analysis.features import Reduction
from stscale.analysis.leiden import merge
from stscale.analysis.smoothing import smooth_labels
from stscale.config import Domains
from stscale.errors import InputError
from stscale.graphs.neighbors import search

METHODS = ["gmm", "kmeans", "leiden"]


def blobs(seed, k, n=700, d=12, gap=4.0):
    rng = np.random.default_rng(seed)
    own = rng.choice(k, size=n, p=np.arange(k, 0, -1) / (k * (k + 1) / 2))
    centre = np.linalg.qr(rng.normal(size=(d, d)))[0][:k] * gap
    return (centre[own] + 0.5 * rng.normal(size=(n, d))).astype(np.float32), own


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("l2", [False, True])
def test_every_method_finds_blobs_largest_first(method, l2):
    z, own = blobs(0, 4)
    z.setflags(write=False)
    fit = cluster(z, Domains(method=method, k=4, n_init=6, n_components=6, l2_normalize=l2), seed=1)
    assert adjusted_rand_score(own, fit.labels) > 0.99
    assert fit.labels.dtype == np.int32
    assert fit.k == 4
    assert (np.diff(np.bincount(fit.labels)) <= 0).all()
    assert fit.curve is None


@pytest.mark.parametrize("method", METHODS)
def test_rerun_is_equal_and_predictor_survives_pickle_and_chunks(method, monkeypatch):
    z, _ = blobs(1, 3)
    config = Domains(method=method, k=3, n_init=4, max_fit=200)
    fit = cluster(z, config, seed=5)
    monkeypatch.setattr(module, "PREDICT_ROWS", 99)  # 700 = 7 × 99 + 7
    again = cluster(z, config, seed=5)
    np.testing.assert_array_equal(fit.labels, again.labels)
    loaded = pickle.loads(pickle.dumps(fit.predictor))
    np.testing.assert_array_equal(loaded.predict(z), fit.labels)
    with pytest.raises(InputError, match="latents"):
        loaded.predict(z[:, :3])


def test_numbering_does_not_depend_on_the_seed():
    z, _ = blobs(2, 5)
    first, second = (cluster(z, Domains(k=5, n_init=6), seed=s).labels for s in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_equal_sizes_are_ordered_by_first_coordinate():
    z = np.repeat(np.array([[5.0, 0], [-5, 0], [0, 9]]), 20, axis=0) + np.random.default_rng(0).normal(size=(60, 2))
    fit = cluster(z, Domains(method="kmeans", k=3), seed=0)
    assert [fit.labels[0], fit.labels[20], fit.labels[40]] == [2, 0, 1]


@pytest.mark.parametrize("k", [3, 5, 8])
def test_bic_finds_the_number_of_blobs(k):
    z, _ = blobs(k, k, n=900)
    curve = estimate_k(z, k_min=2, k_max=10, starts=5, seed=0)
    assert (curve.chosen, curve.rule) == (k, "minimum")
    np.testing.assert_array_equal(curve.k, np.arange(2, 11))
    free = curve.k * 12 + 78 + curve.k - 1
    np.testing.assert_allclose(curve.bic, -2 * curve.loglik + free * np.log(900))


def test_cluster_estimates_k_and_leiden_takes_the_resolution():
    z, own = blobs(3, 4)
    fit = cluster(z, Domains(method="kmeans", k_max=7, n_init=5), seed=0)
    assert fit.k == 4
    assert fit.curve is not None
    assert adjusted_rand_score(own, fit.labels) > 0.99
    coarse = cluster(z, Domains(method="leiden", resolution=0.05), seed=0)
    fine = cluster(z, Domains(method="leiden", resolution=5.0), seed=0)
    assert coarse.k == 4 < fine.k


def test_knee_where_the_curve_still_falls_and_cut_range_where_rows_run_out():
    k = np.arange(2, 8)
    assert choose(k, np.array([100.0, 60, 20, 15, 10, 5]), ceiling=7) == (4, "knee")
    assert choose(k, np.array([100.0, 60, 20, 30, 40, 50]), ceiling=7) == (4, "minimum")
    assert choose(k, np.arange(6.0), ceiling=7) == (2, "minimum")
    # one step up at the very end is no rise
    assert choose(k, np.array([100.0, 60, 20, 15, 5, 6]), ceiling=7) == (4, "knee")
    assert choose(k, np.array([100.0, 60, 20, 15, 18, 21]), ceiling=7) == (5, "minimum")
    assert choose(k[:4], np.array([100.0, 60, 10, 12]), ceiling=7) == (4, "minimum")  # there are no more distinct rows
    x = np.repeat(np.eye(4), 10, axis=0)
    assert estimate_k(x, k_min=2, k_max=9, starts=3, seed=0).k[-1] == 4
    with pytest.raises(InputError, match="distinct"):
        estimate_k(x, k_min=5, k_max=9, starts=3, seed=0)


@pytest.mark.parametrize("method", METHODS)
def test_more_domains_than_distinct_spots_are_refused(method):
    z = np.repeat(np.eye(5, dtype=np.float32), 200, axis=0)
    with pytest.raises(InputError, match=r"K = 6 .* 5 of them distinct"):
        cluster(z, Domains(method=method, k=6), seed=0)
    with pytest.raises(InputError, match="2 of 1000 latents are not finite"):
        cluster(np.where(np.arange(1000)[:, None] < 2, np.nan, z), Domains(method=method, k=2), seed=0)


def test_per_slice_fits_each_slice_in_any_order():
    z, own = blobs(4, 3, n=500)
    slices = np.repeat([7, 2, 5], [260, 150, 90])
    slices = np.random.default_rng(1).permutation(slices)
    found = cluster_per_slice(z, slices, Domains(k=3, n_init=3), seed=0)
    np.testing.assert_array_equal(found.slices, [2, 5, 7])
    for number, fit in zip(found.slices, found.fits, strict=True):
        rows = slices == number
        np.testing.assert_array_equal(found.labels[rows], fit.labels)
        assert adjusted_rand_score(own[rows], found.labels[rows]) > 0.98
    with pytest.raises(InputError, match="slice 5: K = 95"):
        cluster_per_slice(z, slices, Domains(k=95, n_init=1, method="kmeans"), seed=0)


def test_leiden_hits_k_between_and_below_the_natural_number():
    z, own = blobs(5, 4)
    two = cluster(z, Domains(method="leiden", k=2), seed=0)  # four separate pieces: merged
    assert two.k == 2
    assert np.unique(np.stack([own, two.labels]), axis=1).shape[1] == 4
    assert cluster(z, Domains(method="leiden", k=9), seed=0).k == 9


def test_merge_joins_what_is_most_connected():
    graph = np.zeros((6, 6))
    for a, b in [(0, 1), (2, 3), (4, 5), (1, 2)]:
        graph[a, b] = graph[b, a] = 1
    label = merge(sp.csr_matrix(graph), np.array([0, 0, 1, 1, 2, 2]), 2)
    np.testing.assert_array_equal(label, [0, 0, 0, 0, 1, 1])


def test_reduction_is_the_pca_and_has_a_fixed_sign():
    from sklearn.decomposition import PCA

    z = np.random.default_rng(6).normal(size=(90, 7)) * np.arange(1, 8) + 50
    reduced = Reduction.fit(z, n_components=3, l2_normalize=False).apply(z)
    expected = PCA(3, svd_solver="full").fit_transform(z)
    np.testing.assert_allclose(np.abs(reduced), np.abs(expected), atol=1e-8)
    flipped = Reduction.fit(z[::-1], n_components=3, l2_normalize=False).apply(z)
    np.testing.assert_allclose(reduced, flipped, atol=1e-8)
    unit = Reduction.fit(z, n_components=0, l2_normalize=True).apply(z)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1)


def naive_smooth(labels, indptr, indices):
    out = []
    for i, own in enumerate(labels):
        near = [labels[j] for j in indices[indptr[i] : indptr[i + 1]] if j != i and labels[j] >= 0]
        count = {c: ([*near, own]).count(c) for c in {*near, own}}
        best = max(count.values())
        out.append(own if own < 0 or count[own] == best else min(c for c in count if count[c] == best))
    return out


@pytest.mark.parametrize("rows", [65536, 7])
def test_smoothing_equals_the_loop(rows, monkeypatch):
    monkeypatch.setattr("stscale.analysis.smoothing.ROWS", rows)
    rng = np.random.default_rng(7)
    graph = sp.random(60, 60, density=0.12, random_state=8, format="csr")
    graph = sp.csr_matrix(graph + graph.T + sp.eye(60))
    labels = rng.integers(-1, 4, 60)
    expected = naive_smooth(labels, graph.indptr, graph.indices)
    assert (np.array(expected) != labels).any()
    np.testing.assert_array_equal(smooth_labels(labels, graph.indptr, graph.indices), expected)
    twice = naive_smooth(np.array(expected), graph.indptr, graph.indices)
    np.testing.assert_array_equal(smooth_labels(labels, graph.indptr, graph.indices, 2), twice)
    np.testing.assert_array_equal(smooth_labels(labels, graph.indptr, graph.indices, 0), labels)


def test_smoothing_by_hand_and_bad_graph():
    # 0 – 1 – 2 – 3: the lone 5 at spot 1 is outvoted, the tie at spot 0 keeps its own label
    indptr, indices = np.array([0, 1, 3, 5, 6]), np.array([1, 0, 2, 1, 3, 2])
    np.testing.assert_array_equal(smooth_labels(np.array([2, 5, 2, -1]), indptr, indices), [2, 2, 2, -1])
    with pytest.raises(InputError, match="4 spots"):
        smooth_labels(np.zeros(3, int), indptr, indices)
    with pytest.raises(InputError, match="-2"):
        smooth_labels(np.array([2, 5, 2, -2]), indptr, indices)


def test_merge_weighs_edges_against_degrees():
    # communities 1 and 2 share most edges, but 1 is large: joining 0 and 2 gains modularity, joining 1 does not
    weight = np.array([[4.0, 2, 3], [2, 400, 4], [3, 4, 4]])
    label = merge(sp.csr_matrix(weight), np.array([0, 1, 2]), 2)
    np.testing.assert_array_equal(label, [0, 1, 0])


def test_leiden_keeps_the_communities_of_the_fitted_spots():
    z = np.random.default_rng(9).normal(size=(400, 3))  # no clusters: voting would move border spots
    for limit in (400, 300):
        fit = cluster(z, Domains(method="leiden", max_fit=limit), seed=0)
        base, label = fit.predictor.assigner.base, fit.predictor.assigner.label
        x = fit.predictor.reduction.apply(z).astype(np.float32)
        row = search(base, x, 1)
        fitted = row.distance[:, 0] == 0
        assert fitted.sum() == limit
        np.testing.assert_array_equal(fit.labels[fitted], fit.predictor.order[label[row.index[fitted, 0]]])
        assert (fit.labels != fit.predict(z)).any()
