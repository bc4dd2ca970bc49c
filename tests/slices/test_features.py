import json
import pickle

import numpy as np
import pytest
from made_slices import gene_names, poisson, write_slice
from scipy import sparse

from stscale.config import Ingest, Preprocess
from stscale.errors import InputError
from stscale.slices import Collection
from stscale.slices.capture import PRIOR, moved
from stscale.slices.features import FeatureStore, build_features
from stscale.slices.ingest import ingest
from stscale.slices.stream import Block, collection_blocks

SIZES = (41, 17, 26)  # unequal, and not in order
CHUNK = 8
# store rows made empty: ends of blocks, a whole block, neighbours across a border, the last row
EMPTY = ((0, 7, 8, 9, 40), (*range(8, 16), 16), (3, 15, 16, 25))


def matrices(g=90, *, seed=0):
    """Counts in store order, with the rows of EMPTY empty."""
    X = [poisson(n, g, seed=seed + i) for i, n in enumerate(SIZES)]
    for i, rows in enumerate(EMPTY):
        X[i][:, 0] += 1  # no other row is empty
        X[i][list(rows)] = 0
    return X


def in_input_order(X, seed):
    """Undo the shuffle of `write_slice`, so that the store holds X as it stands."""
    order = np.random.default_rng(seed).permutation(len(X))
    out = np.empty_like(X)
    out[order] = X
    return out


def collect(folder, X, *, genes=None, mode="intersection", names=("b", "c", "a")):
    stores = []
    for i, dense in enumerate(X):
        own = gene_names(dense.shape[1]) if genes is None else genes[i]
        path = folder / f"{names[i]}.zarr"
        stores.append(write_slice(path, in_input_order(dense, i), own, name=names[i], chunk=CHUNK, seed=i))
    return Collection.build(stores, genes=mode)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return collect(tmp_path_factory.mktemp("slices"), matrices())


def build(folder, collection, *, name="features.zarr", workers=2, seed=0, **options):
    own = {"n_hvg": 40, "n_pcs": 6, "center": "all", "scale_genes": False, "transform": "log", "axes": "spots"}
    options = own | options
    return build_features(collection, folder / name, config=Preprocess(**options), seed=seed, workers=workers)


def reference(X, columns, target_sum=1e4):
    """Dense log-normalised rows of the spots that have counts."""
    rows = np.concatenate([dense[dense.sum(axis=1) > 0] for dense in X]).astype(np.float64)
    return np.log1p(rows / rows.sum(axis=1, keepdims=True) * target_sum)[:, columns]


def test_blocks_cover_every_row_once_and_stay_small(tmp_path, collection):
    for options in ({}, {"rows": 1}, {"rows": 7}, {"rows": 41}, {"rows": 42}, {"entries": 200}):
        blocks = collection_blocks(collection, **options)
        rows = [(b.slice, row) for b in blocks for row in range(b.lo, b.hi)]
        assert rows == [(i, row) for i, n in enumerate(SIZES) for row in range(n)]
    assert blocks[0] == Block(slice=0, lo=0, hi=4)  # one tile: 200 entries are fewer, but tiles are not cut


def test_rows_are_those_with_counts_in_order(tmp_path, collection):
    store = build(tmp_path, collection)
    kept = [np.setdiff1d(np.arange(n), EMPTY[i]) for i, n in enumerate(SIZES)]
    assert store.n == sum(map(len, kept))
    np.testing.assert_array_equal(store.slice(), np.repeat([0, 1, 2], [len(rows) for rows in kept]))
    np.testing.assert_array_equal(store.row(), np.concatenate(kept))
    np.testing.assert_array_equal(store.offsets(), np.cumsum([0] + [len(rows) for rows in kept]))
    for i in range(3):
        np.testing.assert_array_equal(store.left_out(i), EMPTY[i])
    xy = [s.coordinates()[rows] for s, rows in zip(collection.stores, kept, strict=True)]
    np.testing.assert_array_equal(store.xy(), np.concatenate(xy))
    assert store.slice_names == ("b", "c", "a")
    assert (store.n_slices, store.n_left_out) == (3, (5, 9, 4))


def test_values_equal_numpy(tmp_path, collection):
    X = matrices()
    store = build(tmp_path, collection)
    columns = np.searchsorted(gene_names(90), store.genes())
    assert (np.diff(columns) > 0).all()
    assert len(columns) == store.g == 40
    rows = np.concatenate([dense[dense.sum(axis=1) > 0] for dense in X])
    np.testing.assert_array_equal(store.library(), rows.sum(axis=1))  # over the vocabulary, not the chosen genes
    np.testing.assert_array_equal(store.counts(0, store.n).toarray(), rows[:, columns])
    normal = reference(X, columns)
    np.testing.assert_allclose(store.normalised(0, store.n).toarray(), normal, rtol=1e-6)
    for lo, hi in ((0, 0), (5, 5), (0, 1), (7, 9), (35, 37), (store.n - 1, store.n)):
        np.testing.assert_allclose(store.normalised(lo, hi).toarray(), normal[lo:hi], rtol=1e-6)
        assert store.pca(lo, hi).shape == (hi - lo, 6)
    np.testing.assert_allclose(store.var()["mean"], rows.mean(axis=0)[columns], rtol=1e-6)
    assert store.mask().all()


def freeman_tukey(X, columns, *, gain=True):
    """Dense √x + √(x + 1) − 1 at the mean library, over the root of what the slice captures of a gene against all."""
    kept = [dense[dense.sum(axis=1) > 0].astype(np.float64) for dense in X]
    rows = np.concatenate(kept)
    library = rows.sum(axis=1, keepdims=True)
    x = rows / library * library.mean()
    y = np.sqrt(x) + np.sqrt(x + 1) - 1
    if gain:
        share = rows.mean(axis=0) / rows.mean(axis=0).sum()
        captured = [(dense.sum(axis=0) + 20) / (dense.sum() * share + 20) for dense in kept]
        y /= np.sqrt(np.repeat(captured, [len(dense) for dense in kept], axis=0))
    return y[:, columns]


def told(parts, precision, *, taken, p=6, weight=None, scale=False):
    """Scores of centred rows, slice by slice, and noise: each row's ridge regression on the axes of all, one by one.

    Values of a gene that a slice lacks (precision 0) are 0. Axes are of squares counted `weight` times.
    """
    X, has, n = np.concatenate(parts), precision > 0, sum(map(len, parts))
    root = np.sqrt(has if weight is None else weight)
    both = (root.T * [len(part) for part in parts]) @ root / n
    rooted = X * np.repeat(root, [len(part) for part in parts], axis=0)
    covariance = rooted.T @ rooted / both / (n - taken)
    if scale:
        deviation = np.sqrt(np.diag(covariance))
        parts, covariance = [part / deviation for part in parts], covariance / np.outer(deviation, deviation)
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :p].T

    def scores(noise, precision):
        out = []
        for part, weight in zip(parts, precision, strict=True):
            inner = np.linalg.inv(axes @ np.diag(weight) @ axes.T + noise)
            out.extend((np.eye(p) + noise) @ inner @ axes @ (weight * row) for row in part)
        return np.array(out)

    noise = np.zeros((p, p))
    for _ in range(3):
        variance = (scores(noise, has.astype(float)) ** 2).mean(axis=0)
        noise = np.diag((np.trace(covariance) - variance.sum()) / (X.shape[1] - p) / variance)
    return scores(noise, precision), np.diag(noise)


@pytest.mark.parametrize(("kind", "gain"), [("sqrt", "slice"), ("sqrt", "all"), ("log", "slice")])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("center", ["all", "slice"])
def test_scores_equal_sklearn(tmp_path, center, scale, kind, gain, collection, monkeypatch):
    from sklearn.decomposition import PCA

    monkeypatch.setitem(PRIOR, "slice", 20.0)  # so that the few counts here say something
    X = matrices()
    store = build(tmp_path, collection, center=center, scale_genes=scale, transform=kind, gain=gain)
    columns = np.searchsorted(gene_names(90), store.genes())
    captured = gain == "slice"
    normal = reference(X, columns) if kind == "log" else freeman_tukey(X, columns, gain=captured)
    np.testing.assert_allclose(store.normalised(0, store.n).toarray(), reference(X, columns), rtol=1e-6)
    parts = np.split(normal, store.offsets()[1:-1])
    np.testing.assert_allclose(store.slice_mean(), [part.mean(axis=0) for part in parts], atol=1e-6)
    np.testing.assert_allclose(store.pca_mean(), normal.mean(axis=0), atol=1e-6)
    if center == "slice":
        normal = np.concatenate([part - part.mean(axis=0) for part in parts])
    ddof = 3 if center == "slice" else 1
    if scale:
        deviation = np.sqrt(((normal - normal.mean(axis=0)) ** 2).sum(axis=0) / (len(normal) - ddof))
        normal = (normal - normal.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    expected = PCA(6, svd_solver="full").fit_transform(normal)
    if captured and kind == "sqrt":
        assert np.ptp(store.gain()) > 0.1
        parts = np.split(normal - normal.mean(axis=0), store.offsets()[1:-1])
        expected, noise = told(parts, store.gain() ** -2.0, taken=ddof)
        np.testing.assert_allclose(store.pca_noise(), noise, rtol=1e-5)
    got = store.pca(0, store.n)
    sign = np.sign((got * expected).sum(axis=0))
    np.testing.assert_allclose(got * sign, expected, atol=1e-4 * np.abs(expected).max())
    assert store.pca_components().shape == (6, 40)
    np.testing.assert_allclose(store.pca_variance(), (expected**2).sum(axis=0) / (len(expected) - ddof), rtol=1e-5)


@pytest.mark.parametrize("scale", [False, True])
def test_poisson_heights_and_weights_reach_the_scores(tmp_path, scale, collection, monkeypatch):
    monkeypatch.setitem(PRIOR, "poisson", 20.0)  # so that the few counts here say something
    X = matrices()
    store = build(tmp_path, collection, center="slice", scale_genes=scale, transform="sqrt", gain="poisson")
    columns = np.searchsorted(gene_names(90), store.genes())
    kept = [dense[dense.sum(axis=1) > 0].astype(np.float64) for dense in X]
    mean = np.concatenate(kept).mean(axis=0)
    captured = [(d.sum(axis=0) + 20) / (d.sum() * mean / mean.sum() + 20) for d in kept]
    gain = np.array([moved(mean) / moved(mean * r) for r in captured])[:, columns]
    np.testing.assert_allclose(store.gain(), gain, rtol=1e-6)
    weight = np.array(captured)[:, columns]
    bare = np.split(freeman_tukey(X, columns, gain=False), store.offsets()[1:-1])
    parts = [part * factor - (part * factor).mean(axis=0) for part, factor in zip(bare, gain, strict=True)]
    expected, noise = told(parts, weight, taken=3, weight=weight, scale=scale)
    np.testing.assert_allclose(store.pca_noise(), noise, rtol=1e-5)
    got = store.pca(0, store.n)
    sign = np.sign((got * expected).sum(axis=0))
    np.testing.assert_allclose(got * sign, expected, atol=1e-4 * np.abs(expected).max())


def test_axes_of_surroundings_are_written_with_the_spread_of_spots(tmp_path, collection):
    bare = build(tmp_path, collection, center="slice", scale_genes=True)
    store = build(tmp_path, collection, name="around.zarr", center="slice", scale_genes=True, axes="surroundings")
    assert store.p == bare.p == 6
    scores = store.pca(0, store.n).astype(np.float64)
    assert not np.allclose(np.abs(scores), np.abs(bare.pca(0, bare.n)), atol=0.1)
    for part in np.split(scores, store.offsets()[1:-1]):
        np.testing.assert_allclose(part.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(store.pca_variance(), (scores**2).sum(axis=0) / (store.n - 3), rtol=1e-6)
    axes = store.pca_components() / store.pca_inverse()
    np.testing.assert_allclose(axes @ axes.T, np.eye(6), atol=1e-5)
    assert (store.pca_inverse() < bare.pca_inverse()).all()  # each gene weighs its autocorrelation besides
    again = build(
        tmp_path, collection, name="one.zarr", center="slice", scale_genes=True, axes="surroundings", workers=1
    )
    assert_same_files(store.path, again.path)


@pytest.mark.parametrize("transform", ["sqrt", "log"])
def test_what_slices_captured_is_known_before_the_gain(tmp_path, transform, collection):
    store = build(tmp_path, collection, transform=transform)
    values = store.normalised(0, store.n)
    bare = store.transform.rows(values, np.ones_like(store.gain()), 0).toarray()
    means = [part.mean(axis=0) for part in np.split(bare, store.offsets()[1:-1])]
    np.testing.assert_allclose(store.captured_mean(), means, atol=1e-5)
    assert (store.gain() == 1).all() == (transform == "log")


def assert_same_files(a, b):
    left = {path.relative_to(a): path.read_bytes() for path in a.rglob("*") if path.is_file()}
    right = {path.relative_to(b): path.read_bytes() for path in b.rglob("*") if path.is_file()}
    assert left == right


def test_workers_do_not_show(tmp_path, collection):
    one = build(tmp_path, collection, name="one.zarr", workers=1)
    two = build(tmp_path, collection, name="two.zarr", workers=2)
    assert_same_files(one.path, two.path)


def test_spots_empty_on_the_chosen_genes_only_stay(tmp_path, collection):
    X = matrices()
    chosen = np.searchsorted(gene_names(90), build(tmp_path, collection).genes())
    # the most even gene of all: it is not chosen, and it is all that these rows have
    other = np.setdiff1d(np.arange(90), chosen)[0]
    rows = {0: (12, 31), 1: (0,), 2: (24,)}
    for i, empty in rows.items():
        X[i][list(empty)] = 0
        X[i][list(empty), other] = 1
    (tmp_path / "again").mkdir()
    store = build(tmp_path, collect(tmp_path / "again", X))
    assert gene_names(90)[other] not in store.genes()
    assert store.n_left_out == (5, 9, 4)
    bare = np.concatenate([dense[dense.sum(axis=1) > 0] for dense in X])
    bare = np.flatnonzero(bare[:, np.searchsorted(gene_names(90), store.genes())].sum(axis=1) == 0)
    assert set(zip(store.slice()[bare].tolist(), store.row()[bare].tolist(), strict=True)) >= {
        (i, row) for i, empty in rows.items() for row in empty
    }
    assert store.normalised(0, store.n)[bare].nnz == 0
    np.testing.assert_array_equal(store.library()[bare], 1)
    assert np.isfinite(store.pca(0, store.n)).all()


def test_union_leaves_absent_genes_out(tmp_path):
    X = matrices(g=80)
    has = [np.arange(0, 70), np.arange(0, 80), np.r_[0, 8:80]]
    union = collect(
        tmp_path, [x[:, h] for x, h in zip(X, has, strict=True)], genes=[gene_names(80)[h] for h in has], mode="union"
    )
    store = build(tmp_path, union, n_hvg=80)
    present = np.array([np.isin(np.arange(80), h) for h in has])
    np.testing.assert_array_equal(store.mask(), present)
    masked = [np.where(p, x, 0) for x, p in zip(X, present, strict=True)]
    normal = reference(masked, np.arange(80))
    np.testing.assert_allclose(store.normalised(0, store.n).toarray(), normal, rtol=1e-6)
    known = present[store.slice()]
    mean = np.where(known, normal, 0).sum(axis=0) / known.sum(axis=0)
    np.testing.assert_allclose(store.pca_mean(), mean, rtol=1e-6)
    parts = np.split(np.where(known, normal, mean) - mean, store.offsets()[1:-1])
    expected, _ = told(parts, present.astype(float), taken=1)
    got = store.pca(0, store.n)
    sign = np.sign((got * expected).sum(axis=0))
    np.testing.assert_allclose(got * sign, expected, atol=1e-4 * np.abs(expected).max())


def test_lognormalised_values_are_taken_as_they_are(tmp_path):
    X = [np.log1p(dense) for dense in matrices()]
    collection = collect(tmp_path, X)
    store = build(tmp_path, collection, lognormalized=True)
    columns = np.searchsorted(gene_names(90), store.genes())
    rows = np.concatenate([dense[dense.sum(axis=1) > 0] for dense in X])
    np.testing.assert_array_equal(store.normalised(0, store.n).toarray(), rows[:, columns])
    np.testing.assert_array_equal(store.library(), 1)
    assert store.n_left_out == (5, 9, 4)
    with pytest.raises(InputError, match="holds no counts"):
        store.counts(0, 1)
    with pytest.raises(InputError, match="pass --lognormalized"):
        build(tmp_path, collection, name="no.zarr")


def test_counts_announced_as_logarithms_are_refused(tmp_path, collection):
    with pytest.raises(InputError, match="leave out --lognormalized"):
        build(tmp_path, collection, lognormalized=True)


def test_too_many_components_are_lowered_with_a_note(tmp_path, collection):
    store = build(tmp_path, collection, n_pcs=500)
    assert store.p == 40
    assert store.pca(0, 3).shape == (3, 40)
    assert store.notes == (f"n_pcs = 500 lowered to 40: {store.n} spots, 40 genes",)


def test_a_slice_without_counts_on_the_vocabulary_leaves_nothing_behind(tmp_path):
    X = matrices(g=70)
    only = [np.zeros((n, 2), dtype=np.float32) for n in SIZES]
    X[1][:] = 0
    only[1][:] = 3  # its counts are on genes that no other slice has
    X = [np.hstack(pair) for pair in zip(X, only, strict=True)]
    genes = [np.append(gene_names(70), [f"x{i}", f"y{i}"]) for i in range(3)]
    collection = collect(tmp_path, X, genes=genes)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"slice 'c': none of its 17 spots .* 70 genes"):
        build(tmp_path, collection, n_hvg=100)
    assert sorted(tmp_path.iterdir()) == before


def test_opening_something_else_is_refused(tmp_path, collection):
    for path in (tmp_path / "none.zarr", collection.stores[0].path):
        with pytest.raises(InputError, match="not a feature store"):
            FeatureStore.open(path)
    store = build(tmp_path, collection)
    with pytest.raises(IndexError, match="rows 0 to 67 are not inside the feature store of 66 spots"):
        store.pca(0, 67)
    description = json.loads((store.path / "zarr.json").read_text())
    description["attributes"]["stscale_features"]["complete"] = False
    (store.path / "zarr.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="expected a complete one"):
        FeatureStore.open(store.path)


def test_a_store_can_be_pickled_and_replaced(tmp_path, collection):
    store = pickle.loads(pickle.dumps(build(tmp_path, collection)))
    assert store.library().shape == (66,)
    again = build(tmp_path, collection, n_hvg=20)
    assert again.normalised(0, 5).shape == (5, 20)


def test_matrices_are_in_anndata_encoding(tmp_path, collection):
    import zarr
    from anndata.io import read_elem

    store = build(tmp_path, collection)
    root = zarr.open_group(store.path, mode="r")
    for key, own in (("X", store.normalised), ("counts", store.counts)):
        matrix = read_elem(root[key])
        assert sparse.issparse(matrix)
        np.testing.assert_array_equal(matrix.toarray(), own(0, store.n).toarray())


@pytest.mark.real
def test_real_slices(shared_data, tmp_path):
    files = sorted(shared_data.glob("dlpfc_br8100/*.h5ad"))
    stores = [ingest(path, tmp_path / f"{path.stem}.zarr", config=Ingest()) for path in files]
    store = build(tmp_path, Collection.build(stores), n_hvg=1000, n_pcs=20)
    assert (store.n, store.g, store.p) == (14364, 1000, 20)
    assert store.n_spots == (3639, 3673, 3592, 3460)
    assert store.notes == ()
    scores = store.pca(0, store.n).astype(np.float64)
    # scores are centred, uncorrelated, and have the variances announced
    np.testing.assert_allclose(np.cov(scores.T), np.diag(store.pca_variance()), atol=1e-4 * store.pca_variance()[0])
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-4)
