"""The transform of values before components: against its definition, back again, and what it leaves alone."""

import numpy as np
import pytest
from scipy import sparse

from stscale.config import Preprocess
from stscale.slices.transform import Transform


def test_is_freeman_and_tukeys_at_the_mean_library() -> None:
    counts = np.array([[0.0, 1, 2], [7, 0, 300]])
    library, mean = np.array([[50.0], [900]]), 400.0
    stored = sparse.csr_matrix(np.log1p(counts / library * 1e4))
    x = counts / library * mean
    transform = Transform.of(Preprocess(), mean)
    got = transform.rows(stored, np.ones((1, 3)), 0)
    np.testing.assert_allclose(got.toarray(), np.sqrt(x) + np.sqrt(x + 1) - 1, rtol=1e-12)
    assert got.nnz == stored.nnz  # no zero became a value
    gain = np.array([[1.0, 2, 3], [0.5, 1, 4]])
    each = transform.rows(stored, gain, np.array([1, 0]))
    np.testing.assert_allclose(each.toarray(), got.toarray() * gain[[1, 0]], rtol=1e-12)
    np.testing.assert_allclose(transform.rows(stored, gain, 1).toarray(), got.toarray() * gain[1], rtol=1e-12)
    assert Transform(kind="log").rows(stored, gain, 1) is stored  # a factor would not act on logarithms


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keeps_dtype_order_and_its_argument(dtype) -> None:
    values = np.r_[0, np.geomspace(1e-3, 9.2, 50)].astype(dtype)
    kept = values.copy()
    there = Transform(kind="sqrt", ratio=0.037).values(values)
    assert there.dtype == dtype
    assert there[0] == 0
    assert (np.diff(there) > 0).all()
    np.testing.assert_array_equal(values, kept)  # not in place: rows are read more than once


def test_variance_hardly_depends_on_the_mean() -> None:
    rng = np.random.default_rng(0)
    transform = Transform(kind="sqrt", ratio=0.1)
    counts = rng.poisson([2.0, 8.0, 32.0, 128.0], (20_000, 4)).astype(np.float64)
    spread = transform.values(np.log1p(counts / transform.ratio)).var(axis=0)
    assert spread.max() / spread.min() < 1.15
    assert np.ptp(np.log1p(counts / transform.ratio).var(axis=0)) > spread.max() - spread.min()


def test_log_normalised_input_is_taken_as_it_is() -> None:
    assert Transform.of(Preprocess(lognormalized=True), 400.0).kind == "log"
    assert Transform.of(Preprocess(transform="log"), 400.0).kind == "log"
