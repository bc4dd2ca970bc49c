from dataclasses import replace
from importlib import import_module

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stscale.config import Ingest
from stscale.errors import InputError
from stscale.slices import SliceStore, ingest
from stscale.slices.ingest import _Buckets, _scatter
from stscale.slices.sources import open_source

MODULE = import_module("stscale.slices.ingest")  # the package gives the function of this name
SMALL = Ingest(tile=2, chunk=4)


def slice_of(n: int, *, genes: int = 6, seed: int = 0) -> anndata.AnnData:
    rng = np.random.default_rng(seed)
    X = rng.poisson(0.7, (n, genes)).astype(np.float32)
    X[::4] = 0
    return anndata.AnnData(
        X=sparse.csr_matrix(X),
        obs=pd.DataFrame(
            {"domain": pd.Categorical(["L1", None] * n)[:n], "area": rng.random(n)},
            index=[f"s{k}" for k in range(n)],
        ),
        var=pd.DataFrame({"kind": ["t"] * genes}, index=[f"g{k}" for k in range(genes)]),
        obsm={"spatial": rng.random((n, 2)) * 100},
    )


def same(store: SliceStore, adata: anndata.AnnData) -> None:
    """The store is the AnnData with its rows permuted by `input_row`."""
    rows = store.input_row()
    X = adata.X if isinstance(adata.X, np.ndarray) else adata.X.toarray()
    assert np.array_equal(np.sort(rows), np.arange(adata.n_obs))
    np.testing.assert_array_equal(store.counts(0, store.n).toarray(), X[rows])
    assert store.names().tolist() == adata.obs_names[rows].tolist()
    assert store.genes().tolist() == adata.var_names.tolist()
    np.testing.assert_array_equal(store.coordinates(), adata.obsm["spatial"][rows])
    pd.testing.assert_frame_equal(store.obs(), adata.obs.iloc[rows], check_names=False)
    pd.testing.assert_frame_equal(store.var(), adata.var, check_names=False)


@pytest.mark.parametrize("n", [1, 4, 5, 31])
def test_store_is_the_file_permuted(tmp_path, n):
    adata = slice_of(n, seed=n)
    adata.write_h5ad(tmp_path / "a.h5ad")
    store = ingest(tmp_path / "a.h5ad", tmp_path / "out" / "a.zarr", config=SMALL)
    same(store, adata)
    assert (store.name, store.source) == ("a", "a.h5ad")
    assert store.source_bytes == (tmp_path / "a.h5ad").stat().st_size
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.zarr"]


def test_memory_smaller_than_the_slice(tmp_path, monkeypatch):
    # 1 entry a piece and at most 3 a block: every bucket is read in several ranges
    monkeypatch.setattr(MODULE, "PIECE_BYTES", SMALL.memory_mb * 2**20)
    monkeypatch.setattr(MODULE, "BLOCK_BYTES", SMALL.memory_mb * 2**20 // 3)
    monkeypatch.setattr(MODULE, "BUCKETS", 3)
    adata = slice_of(30, seed=2)
    adata.write_h5ad(tmp_path / "a.h5ad")
    same(ingest(tmp_path / "a.h5ad", tmp_path / "a.zarr", config=SMALL), adata)


@pytest.mark.parametrize("entries", [1, 7, 1000])
def test_blocks_are_bounded_and_in_order(tmp_path, entries):
    adata = slice_of(37, seed=5)
    adata.write_h5ad(tmp_path / "a.h5ad")
    order = np.random.default_rng(1).permutation(37)
    buckets = _Buckets(tmp_path, n=37, chunk=4)
    _scatter(open_source(tmp_path / "a.h5ad"), order, buckets, entries=entries)
    blocks = list(buckets.blocks(n_genes=6, entries=entries))
    assert all(block.nnz <= entries or block.shape[0] == 1 for block in blocks)
    np.testing.assert_array_equal(sparse.vstack(blocks).toarray(), adata.X.toarray()[order])
    assert list(tmp_path.glob("bucket-*")) == []


def test_number_of_buckets_is_bounded(tmp_path):
    buckets = _Buckets(tmp_path, n=100_003, chunk=4)
    rows = np.arange(100_003)
    buckets.add(rows[::-1], np.zeros(len(rows), np.int32), np.ones(len(rows), np.float32))
    assert 100 < len(list(tmp_path.iterdir())) <= 128


def test_a_store_can_be_ingested_again(tmp_path):
    adata = slice_of(11)
    adata.write_h5ad(tmp_path / "a.h5ad")
    first = ingest(tmp_path / "a.h5ad", tmp_path / "a.zarr", config=SMALL)
    second = ingest(tmp_path / "a.zarr", tmp_path / "b.zarr", config=SMALL, name="again")
    assert (second.name, second.n) == ("again", 11)
    assert list(second.obs()) == ["domain", "area"]
    rows = second.input_row()
    np.testing.assert_array_equal(second.counts(0, 11).toarray(), first.counts(0, 11).toarray()[rows])


def broken(kind: str) -> anndata.AnnData:
    adata = slice_of(200)
    xy = adata.obsm["spatial"]
    if kind == "negative":
        adata.X[7, 3] = -2
    elif kind == "nan":
        adata.X[7, 3] = np.nan
    elif kind == "inf":
        adata.X[7, 3] = np.inf
    elif kind == "no spatial":
        adata.obsm["X_pca"] = adata.obsm.pop("spatial")
    elif kind == "columns":
        adata.obsm["spatial"] = np.c_[xy, xy]
    elif kind == "nan place":
        xy[[5, 9], 1] = np.nan
    elif kind == "shared":
        xy[:3] = xy[3]
    elif kind == "names":
        adata.obs_names = ["s0", "s0", *adata.obs_names[2:]]
    elif kind == "genes":
        adata.var_names = ["g9", "g9", *adata.var_names[2:]]
    elif kind == "no spots":
        adata = adata[:0].copy()
    elif kind == "no genes":
        adata = adata[:, :0].copy()
    elif kind == "no X":
        adata.X = None
    return adata


@pytest.mark.filterwarnings("ignore:.*names are not unique", "ignore:Changing the sparsity")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("negative", r"negative value \(-2 at spot 's7', gene 'g3'\)"),
        ("nan", r"not finite \(nan at spot 's7', gene 'g3'\)"),
        ("inf", r"not finite \(inf at spot 's7', gene 'g3'\)"),
        ("no spatial", r'no obsm\["spatial"\] \(found: X_pca\)'),
        ("columns", r"shape \(200, 4\); expected \(200, 2\) or"),
        ("nan place", r"2 spots with missing or infinite coordinates \(first: 's5'\)"),
        ("shared", "4 of 200 spots on the position of another"),
        ("names", r"1 spot names that repeat \(first: 's0'\)"),
        ("genes", r"1 gene names that repeat \(first: 'g9'\)"),
        ("no spots", "has no spots"),
        ("no genes", "has no genes"),
        ("no X", "has no X|X is neither"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, kind, message):
    broken(kind).write_h5ad(tmp_path / "bad.h5ad")
    with pytest.raises(InputError, match=message) as error:
        ingest(tmp_path / "bad.h5ad", tmp_path / "out.zarr", config=SMALL)
    assert "\n" not in str(error.value)
    assert "bad" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.h5ad"]


def test_a_few_shared_positions_are_kept_and_counted(tmp_path):
    adata = slice_of(200)
    adata.obsm["spatial"][150] = adata.obsm["spatial"][20]
    adata.write_h5ad(tmp_path / "a.h5ad")
    store = ingest(tmp_path / "a.h5ad", tmp_path / "a.zarr", config=SMALL)
    assert store.shared_positions == 2
    same(store, adata)


def test_paths_in_each_other_are_refused(tmp_path):
    adata = slice_of(5)
    adata.write_h5ad(tmp_path / "sub.h5ad")
    ingest(tmp_path / "sub.h5ad", tmp_path / "a.zarr", config=SMALL)
    for source, out in [
        (tmp_path / "a.zarr", tmp_path / "a.zarr"),
        (tmp_path / "a.zarr", tmp_path / "a.zarr" / "X"),
        (tmp_path / "sub.h5ad", tmp_path),
    ]:
        with pytest.raises(InputError, match="lie in each other"):
            ingest(source, out, config=SMALL)
    with pytest.raises(InputError, match="is a file"):
        ingest(tmp_path / "a.zarr", tmp_path / "sub.h5ad", config=SMALL)
    assert SliceStore.open(tmp_path / "a.zarr").n == 5


@pytest.mark.real
def test_real_visium_slice(shared_data, tmp_path):
    file = shared_data / "dlpfc_br8100" / "151673.h5ad"
    store = ingest(file, tmp_path / "a.zarr", config=Ingest(memory_mb=16))
    adata = anndata.read_h5ad(file)
    same(store, adata)
    assert (store.n, store.n_genes, store.is_counts, store.lognormalized) == (3639, 3851, True, False)
    np.testing.assert_array_equal(store.totals(), adata.X.sum(axis=1).A1[store.input_row()])
    # tiles are compact: 64 spots of a hexagonal grid of 3 639
    xy = store.coordinates()[: 3639 // 64 * 64].reshape(-1, 64, 2)
    whole = np.prod(np.ptp(store.coordinates(), axis=0)) / 3639 * 64
    assert np.median(np.prod(np.ptp(xy, axis=1), axis=1)) < 2.5 * whole


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_another_matrix_than_x(form, tmp_path):
    adata = slice_of(30, seed=4)
    counts = adata.X.copy()
    whole = adata.copy()
    adata = adata[:, :4].copy()
    adata.raw = whole
    adata.layers["counts"] = counts[:, :4]
    adata.X = adata.X.toarray() - 0.5  # centred, as for PCA
    path = tmp_path / f"a.{form}"
    adata.write_h5ad(path) if form == "h5ad" else adata.write_zarr(path)
    with pytest.raises(InputError, match=r"negative value.*--layer"):
        ingest(path, tmp_path / "out.zarr", config=SMALL)
    for layer, expected in (("counts", counts[:, :4]), ("raw", counts)):
        store = ingest(path, tmp_path / f"{layer}.zarr", config=replace(SMALL, layer=layer))
        np.testing.assert_array_equal(store.counts(0, 30).toarray(), expected.toarray()[store.input_row()])
        assert store.genes().tolist() == whole.var_names[: expected.shape[1]].tolist()
        assert store.var().columns.tolist() == ["kind"]
    with pytest.raises(InputError, match=r"has no layer 'spliced'; say with --layer .*found: X, counts, raw$"):
        ingest(path, tmp_path / "no.zarr", config=replace(SMALL, layer="spliced"))
    assert not (tmp_path / "no.zarr").exists()


def test_a_slice_without_x_says_what_it_has(tmp_path):
    adata = slice_of(30, seed=4)
    adata.layers["counts"] = adata.X.copy()
    adata.X = None
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match=r"has no X; say with --layer .*where the counts are; found: counts$"):
        ingest(tmp_path / "a.h5ad", tmp_path / "a.zarr", config=SMALL)
    assert ingest(tmp_path / "a.h5ad", tmp_path / "a.zarr", config=replace(SMALL, layer="counts")).n == 30
