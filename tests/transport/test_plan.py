"""The plan as an operator: its properties, against dense arithmetic."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from stscale.errors import InputError
from stscale.transport import Plan


def random_plan(n: int, m: int, seed: int, density: float = 0.3) -> tuple[Plan, np.ndarray]:
    g = np.random.default_rng(seed)
    dense = g.random((n, m)) * (g.random((n, m)) < density)
    row, column = np.nonzero(dense)
    return Plan.from_pairs(row, column, dense[row, column], shape=(n, m)), dense


def permutation(order: np.ndarray) -> Plan:
    return Plan.from_pairs(np.arange(len(order)), order, shape=(len(order), len(order)))


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 12), m=st.integers(1, 12), seed=st.integers(0, 99))
def test_push_and_pull_are_weighted_means_and_marginals_sums(n: int, m: int, seed: int) -> None:
    plan, dense = random_plan(n, m, seed)
    source, target = plan.marginals()
    np.testing.assert_allclose(source, dense.sum(1), atol=1e-15)
    np.testing.assert_allclose(target, dense.sum(0), atol=1e-15)
    x, y = np.random.default_rng(seed + 1).normal(size=(n, 3)), np.random.default_rng(seed + 2).normal(size=m)
    with np.errstate(invalid="ignore"):
        expected = (dense.T @ x) / dense.sum(0)[:, None], (dense @ y) / dense.sum(1)
    np.testing.assert_allclose(plan.push(x), expected[0], atol=1e-12)  # NaN where there is no mass
    np.testing.assert_allclose(plan.pull(y), expected[1], atol=1e-12)
    np.testing.assert_allclose(plan.push(sp.csr_array(x)).toarray(), np.nan_to_num(expected[0]), atol=1e-12)
    assert plan.coverage == np.mean(dense.sum(1) > 0)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 99), n=st.integers(1, 9))
def test_best_is_the_dense_argmax(seed: int, n: int) -> None:
    plan, dense = random_plan(n, 7, seed)
    target, source = plan.best()
    assert target.tolist() == np.where(dense.any(1), dense.argmax(1), -1).tolist()
    assert source.tolist() == np.where(dense.any(0), dense.argmax(0), -1).tolist()


def test_equal_masses_choose_the_smaller_row() -> None:
    plan = Plan.from_pairs([0, 0, 1, 1], [2, 1, 1, 2], shape=(3, 3))
    assert [b.tolist() for b in plan.best()] == [[1, 1, -1], [-1, 0, 0]]


def test_a_chain_of_permutations_is_their_product() -> None:
    a, b = np.array([2, 0, 3, 1]), np.array([1, 2, 0, 3])
    chained = permutation(a).chain(permutation(b), k=1)
    assert chained.best()[0].tolist() == b[a].tolist()
    assert b[a].tolist() != a[b].tolist()  # the order of the two matters here


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 99))
def test_chain_is_the_gluing_and_keeps_source_mass(seed: int) -> None:
    (first, one), (second, two) = random_plan(9, 6, seed), random_plan(6, 8, seed + 1, density=0.5)
    mass = two.sum(1, keepdims=True)
    dense = one @ np.divide(two, mass, out=np.zeros_like(two), where=mass > 0)
    np.testing.assert_allclose(first.chain(second, k=8).weights.toarray(), dense, atol=1e-14)
    short = first.chain(second, k=2).weights
    assert np.diff(short.indptr).max() <= 2
    np.testing.assert_allclose(short.sum(axis=1), dense.sum(1), atol=1e-14)
    smallest_kept = np.sort(dense, axis=1)[:, -2]
    assert (dense[short.nonzero()] >= smallest_kept[short.nonzero()[0]] - 1e-15).all()


def test_labels_are_transferred_by_their_one_hot_push() -> None:
    labels = np.array([0, 0, 1, 2])
    plan = Plan.from_pairs([0, 1, 2, 3, 3], [0, 0, 0, 1, 3], [0.3, 0.3, 0.5, 1.0, 0.2], shape=(4, 4))
    share = plan.push(np.eye(3)[labels])
    assert share[0].tolist() == pytest.approx([0.6 / 1.1, 0.5 / 1.1, 0])
    assert share[[0, 1, 3]].argmax(1).tolist() == [0, 2, 2]
    assert np.isnan(share[2]).all()


def test_a_round_trip_is_exact_and_a_broken_file_is_said(tmp_path: Path) -> None:
    plan, dense = random_plan(5, 9, 0)
    path = tmp_path / "deep" / "plan.npz"
    plan.save(path)
    loaded = Plan.load(path)
    assert loaded.shape == (5, 9)
    np.testing.assert_array_equal(loaded.weights.toarray(), dense)
    assert [p.name for p in path.parent.iterdir()] == ["plan.npz"]
    path.write_bytes(b"broken")
    with pytest.raises(InputError, match="holds no plan"):
        Plan.load(path)


def test_repeated_pairs_add_and_zeros_are_dropped() -> None:
    plan = Plan.from_pairs([1, 1, 0], [0, 0, 1], [1.0, 2.0, 0.0], shape=(2, 2))
    assert plan.weights.toarray().tolist() == [[0, 0], [3, 0]]
    assert plan.coverage == 0.5


def test_empty_plans_work() -> None:
    plan = Plan.from_pairs([], [], shape=(2, 3))
    assert plan.coverage == 0
    assert [b.tolist() for b in plan.best()] == [[-1, -1], [-1, -1, -1]]
    assert np.isnan(plan.push(np.ones(2))).tolist() == [True] * 3
    assert plan.chain(Plan.from_pairs([0], [0], shape=(3, 1))).weights.nnz == 0


def test_bad_input() -> None:
    with pytest.raises(InputError, match="equal lengths"):
        Plan.from_pairs([0], [0, 1], shape=(2, 2))
    with pytest.raises(InputError, match="target rows span"):
        Plan.from_pairs([0], [2], shape=(2, 2))
    with pytest.raises(InputError, match="negative"):
        Plan.from_pairs([0], [1], [-1.0], shape=(2, 2))
    plan = permutation(np.arange(3))
    with pytest.raises(InputError, match="each of 3 source spots"):
        plan.push(np.ones(4))
    with pytest.raises(InputError, match="expected the same"):
        plan.chain(permutation(np.arange(4)))
    with pytest.raises(InputError, match="at least 1"):
        plan.chain(plan, k=0)
