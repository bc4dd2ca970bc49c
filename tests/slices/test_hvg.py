import numpy as np
import pytest
from made_slices import gene_names, poisson, write_slice

from stscale.config import Ingest, Preprocess
from stscale.errors import InputError
from stscale.slices import Collection
from stscale.slices.hvg import rank_by_variance, rank_genes, trend
from stscale.slices.ingest import ingest
from stscale.slices.moments import Moments
from stscale.slices.preprocess import rank_collection
from stscale.slices.stream import collection_blocks

SIZES = (161, 83, 240)  # unequal, and not in order


def ranked(collection, *, workers=2, **options):
    config = Preprocess(**options)
    return rank_collection(collection, collection_blocks(collection), config=config, workers=workers)


def scanpy_table(matrices, genes, n_top):
    import anndata
    import pandas as pd
    import scanpy
    from scipy import sparse

    # zero-padded, because scanpy takes the batches in sorted order
    batch = np.repeat([f"b{i:03d}" for i in range(len(matrices))], [m.shape[0] for m in matrices])
    adata = anndata.AnnData(
        sparse.vstack([sparse.csr_matrix(m) for m in matrices], format="csr"),
        obs=pd.DataFrame({"batch": batch}, index=[str(k) for k in range(len(batch))]),
        var=pd.DataFrame(index=list(genes)),
    )
    return scanpy.pp.highly_variable_genes(
        adata, flavor="seurat_v3", n_top_genes=n_top, batch_key="batch", inplace=False
    )


def assert_equals_scanpy(collection, n_top, monkeypatch):
    matrices = [collection.block(i, 0, store.n) for i, store in enumerate(collection.stores)]
    matrices = [m[np.diff(m.indptr) > 0] for m in matrices]  # spots without a count are not part of any fit
    ranking = ranked(collection, n_hvg=n_top).ranking
    # genes with the very same counts have the same variance, and scanpy leaves their order to an unstable sort
    unstable = np.argsort
    monkeypatch.setattr(np, "argsort", lambda a, axis=-1, **_: unstable(a, axis=axis, kind="stable"))
    table = scanpy_table(matrices, collection.genes, n_top)
    monkeypatch.undo()
    np.testing.assert_allclose(ranking.variance_norm, table["variances_norm"], rtol=1e-10)
    np.testing.assert_array_equal(ranking.n_slices, table["highly_variable_nbatches"])
    np.testing.assert_array_equal(ranking.rank, table["highly_variable_rank"])
    chosen = set(collection.genes[ranking.columns])
    assert chosen == set(table.index[table["highly_variable"]])
    plain = scanpy_table(matrices, collection.genes, n_top)
    return len(chosen & set(plain.index[plain["highly_variable"]])) / n_top


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("three")
    genes = gene_names(150)
    return Collection.build(
        [
            write_slice(tmp_path / f"{i}.zarr", poisson(n, 150, seed=i), genes, name=f"s{i}", seed=i)
            for i, n in enumerate(SIZES)
        ]
    )


@pytest.mark.parametrize("n_top", [20, 100, 150])
def test_equals_scanpy_on_three_slices(three, n_top, monkeypatch):
    assert_equals_scanpy(three, n_top, monkeypatch)


def real_collection(shared_data, tmp_path, pattern):
    files = sorted(shared_data.glob(pattern))
    assert files
    return Collection.build([ingest(path, tmp_path / f"{path.stem}.zarr", config=Ingest()) for path in files])


@pytest.mark.real
@pytest.mark.parametrize(("pattern", "n_top"), [("dlpfc_br8100/*.h5ad", 1000), ("her2st/*[AC][135].h5ad", 500)])
def test_equals_scanpy_on_real_slices(shared_data, tmp_path, monkeypatch, pattern, n_top):
    overlap = assert_equals_scanpy(real_collection(shared_data, tmp_path, pattern), n_top, monkeypatch)
    assert overlap >= 0.99  # scanpy as it is, ties in its own order


def test_workers_do_not_show(three):
    one, two = ranked(three, workers=1, n_hvg=30), ranked(three, workers=2, n_hvg=30)
    np.testing.assert_array_equal(one.ranking.variance_norm, two.ranking.variance_norm)
    np.testing.assert_array_equal(one.mean, two.mean)


def test_empty_spots_change_nothing(three, tmp_path):
    genes = gene_names(150)
    padded = []
    for i, n in enumerate(SIZES):
        X = np.zeros((n + 16, 150))
        X[8 : n + 8] = poisson(n, 150, seed=i)  # whole empty blocks at both ends
        padded.append(write_slice(tmp_path / f"p{i}.zarr", X, genes, name=f"s{i}", seed=9))
    a, b = ranked(three, n_hvg=30), ranked(Collection.build(padded), n_hvg=30)
    np.testing.assert_array_equal(a.ranking.columns, b.ranking.columns)
    np.testing.assert_allclose(a.ranking.variance_norm, b.ranking.variance_norm, rtol=1e-12)
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-12)


def test_all_genes_are_kept_when_there_are_no_more(three):
    got = ranked(three, n_hvg=5000).ranking
    np.testing.assert_array_equal(got.columns, np.arange(150))
    assert np.sort(got.rank)[0] < np.sort(got.rank)[-1]
    assert not np.isnan(got.rank).any()


def test_ranks_of_a_hand_made_table():
    # slice:           0     1     2            ranks (top 2)
    variance = np.array(
        [
            [9.0, 1.0, 8.0, 7.0],  # 0 → gene 0, 1 → gene 2
            [1.0, 9.0, 2.0, 8.0],  # 0 → gene 1, 1 → gene 3
            [1.0, 2.0, 9.0, 8.0],  # 0 → gene 2, 1 → gene 3
        ]
    )
    got = rank_genes(variance, np.ones((3, 4), dtype=bool), n_top=2)
    np.testing.assert_array_equal(got.rank, [0.0, 0.0, 0.5, 1.0])
    np.testing.assert_array_equal(got.n_slices, [1, 1, 2, 2])
    np.testing.assert_array_equal(got.columns, [0, 1])
    np.testing.assert_allclose(got.variance_norm, variance.mean(axis=0))


def test_equal_ranks_are_decided_by_the_number_of_slices():
    variance = np.array([[9.0, 1.0, 1.0], [1.0, 1.5, 9.0], [1.0, 2.0, 9.0]])
    got = rank_genes(variance, np.ones((3, 3), dtype=bool), n_top=1)
    np.testing.assert_array_equal(got.rank, [0.0, np.nan, 0.0])
    np.testing.assert_array_equal(got.columns, [2])


def test_absent_genes_are_not_ranked():
    variance = np.array([[99.0, 3.0, 2.0], [5.0, 1.0, 2.0]])
    present = np.array([[False, True, True], [True, True, True]])
    got = rank_genes(variance, present, n_top=2)
    np.testing.assert_array_equal(got.n_slices, [1, 1, 2])
    np.testing.assert_array_equal(got.rank, [0.0, 0.0, 1.0])
    np.testing.assert_array_equal(got.variance_norm, [5.0, 2.0, 2.0])


def test_a_gene_of_the_union_ranks_as_in_its_own_slices(tmp_path):
    genes = gene_names(120)
    X = [poisson(n, 120, seed=i) for i, n in enumerate((50, 31, 70))]
    has = [np.arange(0, 110), np.arange(5, 120), np.arange(0, 120)]
    stores = [
        write_slice(tmp_path / f"{i}.zarr", X[i][:, has[i]], genes[has[i]], name=f"s{i}", seed=i) for i in range(3)
    ]
    union = Collection.build(stores, genes="union")
    got = ranked(union, n_hvg=40).ranking
    alone = [ranked(Collection.build([store]), n_hvg=40).ranking for store in stores]
    ranks = np.full((3, 120), np.nan)
    for i in range(3):
        ranks[i, has[i]] = alone[i].rank
    seen = ~np.isnan(ranks).all(axis=0)
    np.testing.assert_array_equal(got.n_slices, (~np.isnan(ranks)).sum(axis=0))
    np.testing.assert_array_equal(got.rank[seen], np.nanmedian(ranks[:, seen], axis=0))
    assert np.isnan(got.rank[~seen]).all()
    assert len(got.columns) == 40


def test_lognormalised_genes_rank_by_variance():
    X = np.log1p(poisson(40, 9, seed=3))
    from scipy import sparse

    got = rank_by_variance([Moments.of(sparse.csr_matrix(X))], np.ones((1, 9), dtype=bool), n_top=4)
    np.testing.assert_array_equal(got.columns, np.sort(np.argsort(-X.var(axis=0))[:4]))


@pytest.mark.parametrize("g", [1, 2, 3, 5])
def test_too_few_genes_for_a_trend(g):
    # skmisc ends the process on one to three genes: it must not be asked
    from scipy import sparse

    moments = Moments.of(sparse.csr_matrix(poisson(40, g, seed=1, level=5.0)))
    with pytest.raises(InputError, match=f"slice 'tiny'.* {g} genes that vary over 40 spots"):
        trend(moments, np.ones(g, dtype=bool), span=0.3, name="tiny")


def test_trend_widens_its_window_on_few_genes():
    from scipy import sparse
    from skmisc.loess import loess

    moments = Moments.of(sparse.csr_matrix(poisson(200, 10, seed=2, level=5.0)))
    x, y = np.log10(moments.mean()), np.log10(moments.variance())
    with pytest.raises(ValueError, match=r"singular|svddc"):
        loess(x, y, span=0.3, degree=2).fit()
    got = trend(moments, np.ones(10, dtype=bool), span=0.3, name="small")
    model = loess(x, y, span=0.5, degree=2)
    model.fit()
    np.testing.assert_allclose(got, np.sqrt(10**model.outputs.fitted_values))


def test_without_a_trend_all_genes_can_still_be_kept(tmp_path):
    stores = [write_slice(tmp_path / "a.zarr", poisson(30, 4, seed=0, level=5.0), gene_names(4), name="tiny")]
    tiny = Collection.build(stores)
    got = ranked(tiny, n_hvg=4)
    np.testing.assert_array_equal(got.ranking.columns, np.arange(4))
    assert got.notes == ("slice 'tiny': no trend of variance on mean, its genes are ranked by variance",)
    with pytest.raises(InputError, match="leave the slice out"):
        ranked(tiny, n_hvg=3)
