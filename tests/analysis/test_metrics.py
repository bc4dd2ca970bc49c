import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from stscale.analysis import metrics as m
from stscale.analysis.labels import labelled
from stscale.errors import InputError

LABEL_METRICS = [m.ari, m.nmi, m.clustering_accuracy, m.homogeneity, m.completeness]


@pytest.mark.parametrize(
    "labels",
    [
        np.array([2.0, np.nan, 5.0, 2.0]),
        np.array(["b", None, "a", "b"], dtype=object),
        np.array(["b", np.nan, "a", "b"]),
        np.array(["b", "", "a", "b"]),
        np.array([4, -1, 0, 4]),
        pd.Series(["b", pd.NA, "a", "b"], dtype="string"),
        pd.Categorical(["b", None, "a", "b"]),
        ["b", "", "a", "b"],
    ],
)
def test_labelled_knows_every_way_to_be_missing(labels):
    mask, codes = labelled(labels)
    np.testing.assert_array_equal(mask, [True, False, True, True])
    np.testing.assert_array_equal(codes, [0, -1, 1, 0])


def test_missing_first_does_not_shift_codes():
    np.testing.assert_array_equal(labelled(np.array(["", "x", "y", "nan", "x"]))[1], [-1, 0, 1, -1, 0])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=60),
)
def test_agreement_metrics_equal_sklearn(pairs):
    a, b = np.array(pairs).T
    # names instead of codes, and sklearn gets a list short enough not to warn about many classes
    name = np.array(list("uvwxyz"))
    assert m.ari(name[a], b) == pytest.approx(sk.adjusted_rand_score(a, b), abs=1e-12)
    assert m.nmi(name[a], b) == pytest.approx(sk.normalized_mutual_info_score(a, b), abs=1e-9)
    assert m.homogeneity(name[a], b) == pytest.approx(sk.homogeneity_score(a, b), abs=1e-9)
    assert m.completeness(name[a], b) == pytest.approx(sk.completeness_score(a, b), abs=1e-9)


def test_renamed_labels_score_one_and_missing_are_skipped():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 200)
    renamed = rng.permutation(5)[labels]
    for metric in LABEL_METRICS:
        assert metric(labels, renamed) == pytest.approx(1.0)
    known = rng.random(200) < 0.7
    text = np.where(known, labels.astype(str), "")
    noisy = np.where(rng.random(200) < 0.3, 0, labels)
    for metric in LABEL_METRICS:
        assert metric(text, noisy) == pytest.approx(metric(labels[known], noisy[known]))
        assert metric(text, noisy) < 0.99
    found = m.score(text, noisy)
    assert found["labelled"] == known.sum()
    assert found["ari"] == m.ari(text, noisy)
    assert "boundary_accuracy" not in found


def test_clustering_accuracy_equals_all_permutations():
    from itertools import permutations

    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 3, 40), rng.integers(0, 5, 40)
    best = max(np.mean(np.array(p)[b] == a) for p in permutations(range(5)))
    assert m.clustering_accuracy(a, b) == pytest.approx(best)


def test_boundary_of_a_strip():
    # 0-1-2-3-4-5 in a row, labels A A B B ? B: only spots 1 and 2 touch another label
    labels = np.array(["A", "A", "B", "B", "", "B"])
    indptr = np.array([0, 1, 3, 5, 7, 9, 10])
    indices = np.array([1, 0, 2, 1, 3, 2, 4, 3, 5, 4])
    np.testing.assert_array_equal(m.boundary(labels, indptr, indices), [0, 1, 1, 0, 0, 0])
    assert m.boundary_accuracy(labels, np.array([0, 0, 0, 1, 1, 1]), indptr, indices) == 0.5
    assert m.boundary_accuracy(labels, np.array([0, 0, 1, 1, 1, 1]), indptr, indices) == 1.0
    assert np.isnan(m.boundary_accuracy(np.full(6, "A"), np.zeros(6), indptr, indices))
    assert m.score(labels, np.arange(6), indptr=indptr, indices=indices)["boundary_accuracy"] == 1.0


def test_nothing_to_compare_is_said():
    with pytest.raises(InputError, match="no spot carries both"):
        m.ari(["a", ""], ["", "b"])
    with pytest.raises(InputError, match="same spots"):
        m.nmi(["a", "b"], ["a"])
