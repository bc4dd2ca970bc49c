import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from stscale.analysis.metrics_alignment import (
    best_source,
    coverage,
    ltari,
    mapping_accuracy,
    transform_error,
)
from stscale.analysis.metrics_spatial import chaos, pas, silhouette
from stscale.analysis.metrics_unsupervised import score_unsupervised
from stscale.errors import InputError


def naive_chaos(xy, labels):
    z = (xy - xy.mean(0)) / xy.std(0)
    d = np.linalg.norm(z[:, None] - z[None], axis=2)
    np.fill_diagonal(d, np.inf)
    d[labels[:, None] != labels[None]] = np.inf
    nearest = d.min(1)
    return nearest[np.isfinite(nearest)].sum() / len(xy)


def naive_pas(xy, labels, k=10):
    d = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    np.fill_diagonal(d, np.inf)
    near = np.argsort(d, axis=1)[:, :k]
    return np.mean((labels[near] != labels[:, None]).sum(1) > 5)


def test_vectors(vectors):
    v = vectors("metrics")
    assert chaos(v["xy"], v["labels"]) == pytest.approx(float(v["chaos"]), abs=1e-10)
    assert pas(v["xy"], v["labels"]) == pytest.approx(float(v["pas"]), abs=1e-10)
    labels = v["source_labels"], v["target_labels"]
    assert ltari(v["plan"], *labels) == pytest.approx(float(v["ltari"]), abs=1e-10)
    assert coverage(v["plan"]) == pytest.approx(float(v["coverage"]), abs=1e-10)
    assert mapping_accuracy(v["plan"], *labels) == pytest.approx(float(v["mapping_accuracy"]), abs=1e-10)


def test_chaos_and_pas_of_slices_are_weighted_by_spots():
    rng = np.random.default_rng(0)
    sizes = {9: 80, 1: 45, 4: 61}
    number = rng.permutation(np.repeat(list(sizes), list(sizes.values())))
    xy = rng.normal(size=(len(number), 2)) * [1, 30] + number[:, None]  # slices overlap: mixing them would show
    labels = rng.integers(0, 4, len(number))
    labels[np.flatnonzero(number == 4)[0]] = 77  # a domain of one spot
    missing = rng.random(len(number)) < 0.1
    named = np.where(missing, "", labels.astype(str))
    parts = [(n, np.flatnonzero((number == n) & ~missing)) for n in sizes]
    total = (~missing).sum()
    expected_chaos = sum(len(r) * naive_chaos(xy[r], labels[r]) for _, r in parts) / total
    expected_pas = sum(len(r) * naive_pas(xy[r], labels[r]) for _, r in parts) / total
    assert chaos(xy, named, number) == pytest.approx(expected_chaos, abs=1e-12)
    assert pas(xy, named, number) == pytest.approx(expected_pas, abs=1e-12)


def test_spatial_edge_cases():
    line = np.stack([np.arange(5.0), np.zeros(5)], axis=1)
    assert chaos(line, np.zeros(5)) == pytest.approx(1 / np.arange(5).std())
    assert pas(line, [0, 0, 0, 0, 1]) == 0.2
    assert pas(line[:1], [0]) == 0.0
    assert pas(np.zeros((20, 2)), np.arange(20)) == 1.0  # duplicates: nobody is his own neighbour
    with pytest.raises(InputError, match="none of 5"):
        chaos(line, np.full(5, -1))
    with pytest.raises(InputError, match="shape"):
        pas(line, [0, 1])


def test_silhouette_is_sklearn_and_samples():
    rng = np.random.default_rng(1)
    own = rng.integers(0, 3, 200)
    z = np.eye(3)[own] * 2 + rng.normal(size=(200, 3))
    assert silhouette(z, own) == pytest.approx(silhouette_score(z, own), abs=1e-9)
    text = np.where(own == 2, "", own.astype(str))
    assert silhouette(z, text) == pytest.approx(silhouette_score(z[own < 2], own[own < 2]), abs=1e-9)
    sampled = silhouette(z, own, sample=100, seed=3)
    assert sampled == silhouette(z, own, sample=100, seed=3) != silhouette(z, own, sample=100, seed=4)
    assert abs(sampled - silhouette(z, own)) < 0.1
    assert np.isnan(silhouette(z, np.zeros(200)))


def test_plan_scores_by_hand_sparse_and_dense():
    import scipy.sparse as sp

    plan = np.array([[0.5, 0.2, 0, 0.0], [0.1, 0.2, 0, 0.3], [0, 0.0, 0, 0.1]])
    for form in (plan, sp.csr_matrix(plan), sp.csc_array(plan), sp.coo_matrix(plan)):
        np.testing.assert_array_equal(best_source(form), [0, 0, -1, 1])
        assert coverage(form) == 0.75
    source, target = ["a", "b", None], ["a", "b", "b", "b"]
    assert mapping_accuracy(sp.csr_matrix(plan), source, target) == pytest.approx((0.5 + 0.2 + 0.3) / 1.3)
    assert ltari(np.eye(4)[[2, 0, 3, 1]], [1, 2, 3, 4], [2, 4, 1, 3]) == 1.0
    with pytest.raises(InputError, match="negative"):
        coverage(-plan)
    with pytest.raises(InputError, match=r"plan is \(3, 4\)"):
        ltari(plan, target, source)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 12.5, 179.0])
def test_transform_error_in_the_plane(angle):
    def turn(degrees):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        return np.array([[c, -s], [s, c]])

    found = transform_error(turn(30), np.zeros(2), 1.7 * turn(30 - angle), np.array([3.0, 4.0]))
    assert found.degrees == pytest.approx(angle, abs=1e-9)
    assert found.distance == pytest.approx(5.0)
    # a rotation about the points' own centre moves them by its chord, wherever the origin is
    xy = np.array([[101.0, 0], [99.0, 0]])
    centre = np.array([100.0, 0])
    moved = transform_error(np.eye(2), np.zeros(2), turn(angle), centre - turn(angle) @ centre, xy=xy)
    assert moved.distance == pytest.approx(2 * np.sin(np.radians(angle) / 2), abs=1e-9)


def test_transform_error_in_space_and_mirror():
    from scipy.spatial.transform import Rotation

    a, b = Rotation.random(2, random_state=0)
    error = transform_error(a.as_matrix(), np.zeros(3), b.as_matrix(), np.zeros(3))
    assert error.degrees == pytest.approx(np.degrees((a.inv() * b).magnitude()))
    assert transform_error(np.eye(2), np.zeros(2), np.diag([1.0, -1]), np.zeros(2)).degrees == np.inf
    with pytest.raises(InputError, match="singular"):
        transform_error(np.eye(2), np.zeros(2), np.zeros((2, 2)), np.zeros(2))


def test_unsupervised_scores_rank_good_above_bad():
    rng = np.random.default_rng(2)
    xy = rng.uniform(size=(600, 2))
    slices = rng.permutation(np.repeat([3, 0, 7], [300, 180, 120]))
    own = (xy[:, 0] * 3).astype(int)
    z = np.eye(3)[own] * 5 + 0.3 * rng.normal(size=(600, 3))
    good = score_unsupervised(z, slices, own, xy)
    shifted = z + 4 * slices[:, None]
    bad = score_unsupervised(shifted, slices, rng.permutation(own), xy)
    assert set(good) == set(bad)
    for name in ("silhouette", "clisi", "graph_connectivity", "ilisi", "ilisi_elsewhere", "kbet", "batch_asw"):
        assert good[name] > bad[name], name
    for name in ("chaos", "pas"):
        assert good[name] < bad[name], name
    one = score_unsupervised(z, np.zeros(600, int), own, xy)
    assert set(good) - set(one) == {"ilisi", "ilisi_elsewhere", "kbet", "batch_asw"}
    assert one["clisi"] > 0.99
