import time
from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from stscale.slices.moments import Moments
from stscale.slices.stream import map_blocks, reduce_blocks


def counts(seed, n=37, g=11):
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix(rng.poisson(rng.gamma(0.5, 3.0, size=g), size=(n, g)).astype(np.float32))


def assert_same(a, b):
    assert a.n == b.n
    np.testing.assert_array_equal(a.total, b.total)
    np.testing.assert_array_equal(a.squares, b.squares)


def test_moments_equal_numpy():
    x = counts(0)
    got = Moments.of(x)
    dense = x.toarray().astype(np.float64)
    np.testing.assert_allclose(got.mean(), dense.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(got.variance(), dense.var(axis=0, ddof=1), rtol=1e-12, atol=1e-13)


def test_clipped_moments_equal_numpy():
    x = counts(1)
    limit = np.linspace(0.0, 6.5, x.shape[1])
    before = x.data.copy()
    got = Moments.of(x, limit=limit)
    dense = np.minimum(x.toarray().astype(np.float64), limit)
    np.testing.assert_allclose(got.total, dense.sum(axis=0), rtol=1e-13)
    np.testing.assert_allclose(got.squares, (dense**2).sum(axis=0), rtol=1e-13)
    np.testing.assert_array_equal(x.data, before)


@pytest.mark.parametrize("cuts", [[0, 37], [0, 1, 37], [0, 36, 37], [0, 0, 5, 5, 20, 37], list(range(38))])
def test_merging_any_cut_is_exact_for_counts(cuts):
    x = counts(2)
    parts = [Moments.of(x[a:b]) for a, b in pairwise(cuts)]
    assert_same(Moments.merge(parts), Moments.of(x))


def test_merge_is_associative_and_commutative_for_counts():
    a, b, c = (Moments.of(counts(seed, n=n)) for seed, n in ((3, 5), (4, 17), (5, 1)))
    assert_same(Moments.merge([Moments.merge([a, b]), c]), Moments.merge([a, Moments.merge([b, c])]))
    assert_same(Moments.merge([a, b, c]), Moments.merge([c, a, b]))


def test_merge_leaves_its_parts_alone():
    a, b = Moments.of(counts(6)), Moments.of(counts(7))
    before = a.total.copy()
    Moments.merge([a, b])
    np.testing.assert_array_equal(a.total, before)


def test_constant_gene_has_no_variance():
    # 0.1 in float32 is not a round number: both sums round
    x = sparse.csr_matrix(np.full((1001, 2), [0.1, 7.0], dtype=np.float32))
    np.testing.assert_array_equal(Moments.of(x).variance(), [0.0, 0.0])


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_spots_have_no_variance(n):
    x = counts(8)[:n]
    np.testing.assert_array_equal(Moments.of(x).variance(), np.zeros(x.shape[1]))


def concatenate(parts):
    return [block for part in parts for block in part]


@pytest.mark.parametrize("n_blocks", [1, 2, 7, 8, 9, 63, 64, 65, 130, 513, 600])
@pytest.mark.parametrize("fan_in", [2, 8])
def test_reduction_keeps_the_order_of_blocks(n_blocks, fan_in):
    blocks = list(range(n_blocks))
    got = reduce_blocks(lambda b: [b], blocks, concatenate, workers=2, fan_in=fan_in)
    assert got == blocks


def test_reduction_combines_at_most_fan_in_results():
    widths = []

    def combine(parts):
        widths.append(len(parts))
        return sum(parts)

    assert reduce_blocks(lambda b: b, list(range(200)), combine, workers=2) == 19900
    assert max(widths) == 8


def test_reduction_is_bit_equal_for_any_number_of_workers():
    def block_sum(seed):
        time.sleep(0.001 * (seed % 3))  # so that blocks end out of order
        return np.random.default_rng(seed).standard_normal(5)

    def add(parts):
        return np.sum(parts, axis=0)

    one, two, three = (reduce_blocks(block_sum, list(range(70)), add, workers=w) for w in (1, 2, 3))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("scheduler", ["synchronous", None])
def test_other_schedulers_give_the_same(scheduler):
    blocks = list(range(70))
    assert reduce_blocks(lambda b: [b], blocks, concatenate, scheduler=scheduler) == blocks
    assert list(map_blocks(lambda b: b, blocks, scheduler=scheduler)) == blocks


def test_reduction_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no blocks"):
        reduce_blocks(lambda b: b, [], sum)


@pytest.mark.parametrize("n_blocks", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_map_yields_in_order(n_blocks, workers):
    def function(b):
        time.sleep(0.002 * (n_blocks - b))
        return b * b

    got = list(map_blocks(function, list(range(n_blocks)), workers=workers))
    assert got == [b * b for b in range(n_blocks)]


def test_map_runs_only_a_window_ahead():
    started = []

    def function(b):
        started.append(b)
        return b

    stream = map_blocks(function, list(range(40)), workers=2)
    for taken in range(20):
        next(stream)
        time.sleep(0.002)
        assert len(started) <= taken + 1 + 4
    stream.close()
    assert len(started) < 40


def test_errors_of_a_block_reach_the_caller():
    def function(b):
        if b == 3:
            raise KeyError("block three")
        return b

    with pytest.raises(KeyError, match="block three"):
        list(map_blocks(function, list(range(5)), workers=2))
    with pytest.raises(KeyError, match="block three"):
        reduce_blocks(function, list(range(5)), sum, workers=2)
