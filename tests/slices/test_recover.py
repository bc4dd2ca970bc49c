"""Counts out of normalised values: exact, or left alone."""

from importlib import import_module

import anndata
import numpy as np
import pytest
from scipy import sparse

from stscale.config import Ingest
from stscale.slices import ingest
from stscale.slices.recover import MULTIPLES, Recovery, recovery

SMALL = Ingest(tile=2, chunk=4)
SCALES = {"linear": lambda x: x, "ln": np.log1p, "log2": lambda x: np.log2(1 + x), "log10": lambda x: np.log10(1 + x)}


def made(n: int = 60, genes: int = 40, *, mean: float = 1.5, seed: int = 0) -> np.ndarray:
    """Counts with a spot that has none, one that has one, and one without a single count of 1."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(mean * rng.gamma(1.0, 1.0, genes), (n, genes)).astype(float)
    counts[3] = 0
    counts[4], counts[4, 7] = 0, 1
    counts[5] = np.where(counts[5] > 0, counts[5] + 1, 0)
    counts[5, :2] = 2, 3
    return counts


def told(values: np.ndarray, *, rows: int = 1000) -> Recovery | None:
    values = sparse.csr_matrix(values.astype(np.float32))
    return recovery(lambda: (values[lo : lo + rows] for lo in range(0, values.shape[0], rows)))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("rows", [7, 1000])
def test_every_count_comes_back(scale, rows, monkeypatch) -> None:
    monkeypatch.setattr("stscale.slices.recover.ENTRIES", 20 * rows)
    counts = made()
    size = np.random.default_rng(1).lognormal(0.0, 1.0, (len(counts), 1))
    values = SCALES[scale](counts / size)
    way = told(values, rows=rows)
    assert way == Recovery(scale=scale, divided=True)
    found = way.counts(sparse.csr_matrix(values.astype(np.float32)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), counts)


@pytest.mark.parametrize("scale", ["ln", "log2", "log10"])
def test_counts_that_were_not_divided_keep_a_common_factor(scale) -> None:
    counts = made()
    counts[8] *= 6
    values = SCALES[scale](counts)
    way = told(values)
    assert way == Recovery(scale=scale, divided=False)
    np.testing.assert_array_equal(way.counts(sparse.csr_matrix(values)).toarray(), counts)


def test_a_common_factor_is_lost_where_counts_were_divided() -> None:
    counts = made()
    counts[8] *= 2
    values = np.log1p(counts / np.random.default_rng(1).lognormal(0.0, 1.0, (len(counts), 1)))
    expected = counts.copy()
    expected[8] /= np.gcd.reduce(counts[8].astype(int))
    np.testing.assert_array_equal(told(values).counts(sparse.csr_matrix(values)).toarray(), expected)


def test_values_of_three_decimals_come_back() -> None:
    counts = made()
    values = np.round(np.log1p(counts / counts.sum(axis=1, keepdims=True).clip(1) * 1e4), 3)
    np.testing.assert_array_equal(told(values).counts(sparse.csr_matrix(values)).toarray(), counts)


def test_large_counts_come_back_from_single_precision() -> None:
    counts = made() * 1.0
    counts[:, 0] = np.random.default_rng(2).integers(1_000, 100_000, len(counts))
    counts[3] = 0
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True).clip(1) * 1e4).astype(np.float32)
    found = told(values).counts(sparse.csr_matrix(values)).toarray()
    np.testing.assert_array_equal(found[:, 1:], counts[:, 1:])
    np.testing.assert_allclose(found[:, 0], counts[:, 0], rtol=1e-4)


def altered() -> dict[str, np.ndarray]:
    """Values that are no counts over a size, or not all of them."""
    rng, counts = np.random.default_rng(4), made(n=80)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1) * 1e4
    one = np.log1p(shares)
    one[40, np.flatnonzero(counts[40])[:4]] *= rng.uniform(1.05, 1.2, 4)
    deep = counts + (counts > 0) * MULTIPLES
    return {
        "by gene": np.log1p(counts * rng.uniform(0.5, 2.0, counts.shape[1])),
        "averaged": np.log1p(shares[:-1] + 0.3 * shares[1:]),
        "ambient taken off": np.maximum(counts - 0.1 * counts.mean(axis=0), 0),
        "intensities": rng.lognormal(3.0, 1.0, counts.shape),
        "roots": np.sqrt(shares),
        "some values of one spot": one,
        "no spot with few counts of anything": np.log1p(deep / rng.lognormal(0, 1, (len(counts), 1))),
    }


@pytest.mark.parametrize("kind", altered())
def test_what_is_no_count_is_left_alone(kind, tmp_path) -> None:
    values = altered()[kind].astype(np.float32)
    assert told(values) is None
    slice_ = anndata.AnnData(
        sparse.csr_matrix(values), obsm={"spatial": np.random.default_rng(0).random((len(values), 2))}
    )
    slice_.write_h5ad(tmp_path / "a.h5ad")
    store = ingest(tmp_path / "a.h5ad", tmp_path / "a.zarr", config=SMALL)
    assert (store.is_counts, store.recovered) == (False, None)
    np.testing.assert_array_equal(store.counts(0, store.n).toarray(), values[store.input_row()])


def test_too_few_values_tell_nothing() -> None:
    values = np.full((30, 4), 0.7)
    assert told(values) is None
    assert told(np.zeros((5, 4))) is None
    assert recovery(lambda: ()) is None


def test_a_row_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="no counts on the scale 'ln'"):
        Recovery(scale="ln", divided=True).counts(sparse.csr_matrix([[0.5, 0.77, 1.01]]))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_ingestion_brings_counts_back_whatever_holds_them(form, tmp_path) -> None:
    counts = made(n=31)
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True).clip(1) * 1e4).astype(np.float32)
    xy = np.random.default_rng(0).random((31, 2))
    anndata.AnnData(form(values), obsm={"spatial": xy}).write_h5ad(tmp_path / "a.h5ad")
    store = ingest(tmp_path / "a.h5ad", tmp_path / "a.zarr", config=SMALL)
    assert (store.is_counts, store.lognormalized, store.recovered) == (True, False, "ln")
    np.testing.assert_array_equal(store.counts(0, 31).toarray(), counts[store.input_row()])
    np.testing.assert_array_equal(store.totals(), counts.sum(axis=1)[store.input_row()])
    kept = ingest(tmp_path / "a.h5ad", tmp_path / "b.zarr", config=Ingest(tile=2, chunk=4, recover=False))
    assert (kept.is_counts, kept.lognormalized, kept.recovered) == (False, True, None)
    np.testing.assert_array_equal(kept.counts(0, 31).toarray(), values[kept.input_row()])


def test_counts_are_not_looked_at_twice(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        import_module("stscale.slices.ingest"), "recovery", lambda blocks: pytest.fail("these are counts")
    )
    anndata.AnnData(made(), obsm={"spatial": np.random.default_rng(0).random((60, 2))}).write_h5ad(tmp_path / "a.h5ad")
    store = ingest(tmp_path / "a.h5ad", tmp_path / "a.zarr", config=SMALL)
    assert (store.is_counts, store.recovered) == (True, None)
