import json
import pickle
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stscale.errors import InputError
from stscale.slices import SliceStore, StoreWriter, hilbert_order, is_store
from stscale.slices import writer as writer_module

GENES = np.array([f"g{k}" for k in range(7)])


def matrix(n: int, *, seed: int = 0, genes: int = len(GENES)) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    dense = rng.poisson(0.8, (n, genes)).astype(np.float32)
    dense[3::4] = 0  # empty rows, also at the borders of chunks of 4
    return sparse.csr_matrix(dense)


def settings(n: int, *, chunk: int = 4, tile: int = 2, seed: int = 0, **other):
    xy = np.random.default_rng(seed + 100).random((n, 2))
    return {
        "name": "a",
        "genes": GENES,
        "names": np.array([f"s{k}" for k in range(n)]),
        "coordinates": xy,
        "order": hilbert_order(xy),
        "obs": pd.DataFrame({"label": pd.Categorical(["x", None] * n)[:n], "depth": np.arange(n)}),
        "var": None,
        "config": SimpleNamespace(tile=tile, chunk=chunk),
        "source": "a.h5ad",
        "source_bytes": 12,
        "unit": "px",
    } | other


def write(path, X, *, step: int = 3, **other) -> SliceStore:
    with StoreWriter(path, **settings(X.shape[0], **other)) as writer:
        order = writer._order
        for lo in range(0, X.shape[0], step):
            writer.append(X[order[lo : lo + step]])
    return SliceStore.open(path)


@pytest.mark.parametrize(("n", "step"), [(1, 1), (4, 100), (5, 4), (8, 4), (9, 3), (23, 1)])
def test_what_is_written_is_read(tmp_path, n, step):
    X = matrix(n)
    store = write(tmp_path / "a.zarr", X, step=step)
    order = store.input_row()
    assert np.array_equal(np.sort(order), np.arange(n))
    assert (store.n, store.n_genes, store.dims, store.nnz) == (n, 7, 2, X.nnz)
    np.testing.assert_array_equal(store.counts(0, n).toarray(), X[order].toarray())
    assert store.names().tolist() == [f"s{k}" for k in order]
    assert store.genes().tolist() == GENES.tolist()
    assert store.obs()["depth"].tolist() == order.tolist()
    assert list(store.obs()) == ["label", "depth"]
    assert list(store.var()) == []
    np.testing.assert_array_equal(store.totals(), X[order].toarray().sum(axis=1))
    np.testing.assert_array_equal(store.gene_sums()[0], X.toarray().sum(axis=0))
    np.testing.assert_array_equal(store.gene_sums()[1], (X.toarray() ** 2).sum(axis=0))
    np.testing.assert_array_equal(store.coordinates(), settings(n)["coordinates"][order])


def test_every_range_of_rows(tmp_path):
    X = matrix(13)
    store = write(tmp_path / "a.zarr", X)
    dense = X[store.input_row()].toarray()
    for lo in (0, 3, 4, 12, 13):
        for hi in range(lo, 14):
            part = store.counts(lo, hi)
            assert (part.dtype, part.indices.dtype, part.indptr[0]) == (np.float32, np.int32, 0)
            np.testing.assert_array_equal(part.toarray(), dense[lo:hi])
    for lo, hi in [(-1, 3), (4, 3), (0, 14)]:
        with pytest.raises(IndexError, match="13 spots"):
            store.counts(lo, hi)


def test_shard_and_chunk_borders(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "CHUNK", 4)
    monkeypatch.setattr(writer_module, "SHARD", 8)
    for n in (5, 9, 14):
        X = matrix(n, seed=n)
        store = write(tmp_path / "a.zarr", X, step=n % 5 + 1)
        np.testing.assert_array_equal(store.counts(0, n).toarray(), X[store.input_row()].toarray())
        half = n // 2
        np.testing.assert_array_equal(store.counts(half, n).toarray(), X[store.input_row()[half:]].toarray())


def test_blocks_cover_the_store(tmp_path):
    for n, expected in [(1, [(0, 1)]), (4, [(0, 4)]), (5, [(0, 4), (4, 5)])]:
        assert write(tmp_path / f"{n}.zarr", matrix(n)).blocks() == expected


def test_anndata_opens_it(tmp_path):
    X = matrix(11)
    store = write(tmp_path / "a.zarr", X)
    adata = anndata.read_zarr(tmp_path / "a.zarr")
    assert isinstance(adata.X, sparse.csr_matrix | sparse.csr_array)
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X.toarray(), X[store.input_row()].toarray())
    np.testing.assert_array_equal(adata.obs["stscale_row"], store.input_row())
    np.testing.assert_array_equal(adata.obsm["spatial"], store.coordinates())
    assert adata.obs_names.tolist() == store.names().tolist()
    root = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    assert root["zarr_format"] == 3
    pointer = json.loads((tmp_path / "a.zarr" / "X" / "indptr" / "zarr.json").read_text())
    assert pointer["data_type"] == "int64"


def test_blocks_are_made_canonical_in_a_copy(tmp_path):
    # one row: gene 2 twice, out of order, and an explicit zero at gene 5
    block = sparse.csr_matrix((np.array([1.0, 2.0, 0.0, 4.0]), np.array([2, 0, 5, 2]), np.array([0, 4])), shape=(1, 7))
    with StoreWriter(tmp_path / "a.zarr", **settings(1)) as writer:
        writer.append(block)
    assert block.nnz == 4
    row = SliceStore.open(tmp_path / "a.zarr").counts(0, 1)
    assert row.indices.tolist() == [0, 2]
    assert row.data.tolist() == [2.0, 5.0]


@pytest.mark.parametrize(("scale", "counts", "logs"), [(1.0, True, False), (0.37, False, True), (100.25, False, False)])
def test_kind_of_values(tmp_path, scale, counts, logs):
    X = matrix(9) * scale
    store = write(tmp_path / "a.zarr", X)
    assert (store.is_counts, store.lognormalized) == (counts, logs)
    assert store.max_value == pytest.approx(X.max())


def test_matrix_without_any_value(tmp_path):
    store = write(tmp_path / "a.zarr", sparse.csr_matrix((6, 7), dtype=np.float32))
    assert (store.nnz, store.max_value, store.is_counts) == (0, 0.0, True)
    assert store.counts(1, 5).shape == (4, 7)
    assert anndata.read_zarr(tmp_path / "a.zarr").X.nnz == 0


def test_a_crash_leaves_the_old_store(tmp_path):
    old = write(tmp_path / "a.zarr", matrix(5))

    def interrupted():
        with StoreWriter(tmp_path / "a.zarr", **settings(9)) as writer:
            writer.append(matrix(9)[:4])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert SliceStore.open(tmp_path / "a.zarr") == old
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize(
    ("n", "rows", "genes", "error", "message"),
    [
        (9, 4, 7, InputError, "4 rows came for its 9"),
        (3, 4, 7, InputError, "more rows"),
        (3, 3, 6, ValueError, "has 6 columns"),
    ],
)
def test_missing_and_surplus_rows_leave_nothing(tmp_path, n, rows, genes, error, message):
    def wrong():
        with StoreWriter(tmp_path / "a.zarr", **settings(n)) as writer:
            writer.append(matrix(rows, genes=genes))

    with pytest.raises(error, match=message):
        wrong()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, 1e300])
def test_writer_names_the_bad_value(tmp_path, bad):
    X = matrix(9).astype(np.float64)
    X = X.tolil()
    X[5, 2] = bad
    X = X.tocsr()
    with pytest.raises(InputError, match=r"spot 's5', gene 'g2'"):
        write(tmp_path / "a.zarr", X)
    assert not (tmp_path / "a.zarr").exists()


def test_replaced_store_is_read_anew(tmp_path):
    first = write(tmp_path / "a.zarr", matrix(6))
    assert first.counts(0, 6).shape == (6, 7)
    second = write(tmp_path / "a.zarr", matrix(10, seed=4))
    np.testing.assert_array_equal(second.counts(0, 10).toarray(), matrix(10, seed=4)[second.input_row()].toarray())


def test_pickle_and_equality(tmp_path):
    store = write(tmp_path / "a.zarr", matrix(6))
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert len({copy, store}) == 1
    np.testing.assert_array_equal(copy.counts(1, 5).toarray(), store.counts(1, 5).toarray())


def test_own_columns_of_an_earlier_store_are_replaced(tmp_path):
    obs = pd.DataFrame({"stscale_row": [9, 9, 9], "mixed": ["a", None, 3]})
    store = write(tmp_path / "a.zarr", matrix(3), obs=obs)
    assert np.array_equal(np.sort(store.input_row()), [0, 1, 2])
    back = store.obs().iloc[np.argsort(store.input_row())]["mixed"]
    assert back.isna().tolist() == [False, True, False]
    assert back[~back.isna()].tolist() == ["a", "3"]


def test_only_complete_stores_open(tmp_path):
    write(tmp_path / "a.zarr", matrix(3))
    assert is_store(tmp_path / "a.zarr")
    assert not is_store(tmp_path / "missing")
    assert not is_store(tmp_path)
    with pytest.raises(InputError, match="not a slice store"):
        SliceStore.open(tmp_path)
    file = tmp_path / "a.zarr" / "zarr.json"
    root = json.loads(file.read_text())
    for change, message in [({"complete": False}, "not written to its end"), ({"format": 99}, "version 99")]:
        changed = root | {"attributes": root["attributes"] | {"stscale": root["attributes"]["stscale"] | change}}
        file.write_text(json.dumps(changed))
        assert not is_store(tmp_path / "a.zarr")
        with pytest.raises(InputError, match=message):
            SliceStore.open(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": np.array(["a", "b", "a"])}, "1 spot names that repeat .first: 'a'"),
        ({"genes": np.array([*"abcdea", "a"])}, "1 gene names that repeat"),
        ({"config": SimpleNamespace(tile=3, chunk=4)}, "multiple of tile"),
        ({"coordinates": np.zeros((3, 2))}, "3 of 3 spots on the position of another"),
    ],
)
def test_writer_refuses(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        StoreWriter(tmp_path / "a.zarr", **(settings(3) | change))


def test_writer_refuses_an_order_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="exactly once"):
        StoreWriter(tmp_path / "a.zarr", **settings(3, order=np.array([0, 1, 1])))
