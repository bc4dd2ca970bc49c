import pickle
from dataclasses import replace
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stscale.config import Ingest, Preprocess
from stscale.errors import InputError
from stscale.slices import Collection, SliceStore, StoreWriter, hilbert_order, ingest

# unequal sizes; gene sets that overlap in part and stand in another order in each slice
SIZES = (13, 4, 22)
GENES = (["d", "b", "a", "c", "x"], ["a", "c", "b", "y", "d"], ["c", "z", "x", "a", "d", "b"])


def make(path, *, name, genes, n, seed=0, scale=1.0, dims=2) -> SliceStore:
    rng = np.random.default_rng(seed)
    xy = rng.random((n, dims))
    order = hilbert_order(xy)
    X = sparse.csr_matrix((rng.poisson(1.0, (n, len(genes))) * scale).astype(np.float32))
    with StoreWriter(
        path,
        name=name,
        genes=np.array(genes),
        names=np.array([f"{name}-{k}" for k in range(n)]),
        coordinates=xy,
        order=order,
        obs=pd.DataFrame(index=range(n)),
        var=None,
        config=SimpleNamespace(tile=2, chunk=4),
        source="made",
        source_bytes=0,
        unit=None,
    ) as writer:
        writer.append(X[order])
    return SliceStore.open(path)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return [make(folder / f"{k}.zarr", name=f"slice{k}", genes=GENES[k], n=SIZES[k], seed=k) for k in range(3)]


def expected(stores, vocabulary) -> np.ndarray:
    """All spots by genes, built by name."""
    rows = []
    for store in stores:
        frame = pd.DataFrame(store.counts(0, store.n).toarray(), columns=store.genes())
        rows.append(frame.reindex(columns=vocabulary, fill_value=0.0).to_numpy())
    return np.concatenate(rows)


@pytest.mark.parametrize(("mode", "vocabulary"), [("intersection", "abcd"), ("union", "abcdxyz")])
@pytest.mark.parametrize("arrangement", [(0, 1, 2), (2, 0, 1)])
def test_gather_in_any_order(stores, mode, vocabulary, arrangement):
    given = [stores[k] for k in arrangement]
    collection = Collection.build(given, genes=mode, min_shared=2)
    assert "".join(collection.genes) == vocabulary
    assert collection.n == sum(SIZES)
    dense = expected(given, list(vocabulary))
    for i, store in enumerate(given):
        columns = collection.columns(i)
        assert (
            [gene in store.genes() for gene in vocabulary] == (columns >= 0).tolist() == collection.present[i].tolist()
        )
        assert store.genes()[columns[columns >= 0]].tolist() == [g for g in vocabulary if g in store.genes()]
    ids = np.random.default_rng(8).permutation(collection.n)
    assert not np.array_equal(ids[ids], np.arange(collection.n))  # an involution would hide a wrong inverse
    for asked in (ids, ids[:5], np.repeat(ids[:7], 2), ids[:0], np.array([collection.n - 1])):
        block = collection.gather(asked)
        assert (block.dtype, block.shape) == (np.float32, (len(asked), len(vocabulary)))
        np.testing.assert_array_equal(block.toarray(), dense[asked])


def test_gather_reads_short_runs(stores, monkeypatch):
    monkeypatch.setattr("stscale.slices.collection.GAP", 2)
    collection = Collection.build(stores, min_shared=2)
    ids = np.array([38, 0, 20, 12, 13, 17, 16, 3])
    np.testing.assert_array_equal(collection.gather(ids).toarray(), expected(stores, list("abcd"))[ids])


def test_blocks_are_in_vocabulary_order(stores):
    collection = Collection.build(stores, genes="union", min_shared=2)
    dense = expected(stores, list("abcdxyz"))
    for i, store in enumerate(stores):
        for lo, hi in [*store.blocks(), (1, store.n), (2, 2)]:
            block = collection.block(i, lo, hi)
            assert block.has_sorted_indices
            start = collection.offsets[i]
            np.testing.assert_array_equal(block.toarray(), dense[start + lo : start + hi])


def test_locate_at_the_borders(stores):
    collection = Collection.build(stores, min_shared=2)
    assert collection.offsets.tolist() == [0, 13, 17, 39]
    which, row = collection.locate(np.array([38, 12, 13, 16, 17, 0]))
    assert which.tolist() == [2, 0, 1, 1, 2, 0]
    assert row.tolist() == [21, 12, 0, 3, 0, 0]
    for bad in (-1, 39):
        with pytest.raises(IndexError, match="0 to 38"):
            collection.gather(np.array([3, bad]))


def test_pickled_collection_reads(stores):
    collection = pickle.loads(pickle.dumps(Collection.build(stores, min_shared=2)))
    np.testing.assert_array_equal(
        collection.gather(np.array([20, 3])).toarray(), expected(stores, list("abcd"))[[20, 3]]
    )


def test_too_few_shared_genes(stores, tmp_path):
    with pytest.raises(InputError, match=r"'slice0', 'slice1', 'slice2' share 4 genes, at least 50.*lower") as error:
        Collection.build(stores)
    assert "\n" not in str(error.value)
    assert Collection.build(stores[:1]).genes.tolist() == ["a", "b", "c", "d", "x"]
    other = make(tmp_path / "o.zarr", name="other", genes=["p", "q", "a"], n=3)
    with pytest.raises(InputError, match="'other' shares at most 1 genes"):
        Collection.build([*stores, other], genes="union", min_shared=2)
    assert len(Collection.build([*stores, other], genes="union", min_shared=1).genes) == 9
    with pytest.raises(InputError, match=r"share 1 genes, at least 2 are needed .fewest: .* share 1"):
        Collection.build([*stores, other], min_shared=2)


def test_union_may_hang_together_through_a_third(tmp_path):
    chain = [
        make(tmp_path / f"{name}.zarr", name=name, genes=list(genes), n=2, seed=3)
        for name, genes in [("left", "abc"), ("right", "cde"), ("bridge", "bcd")]
    ]
    assert "".join(Collection.build(chain, genes="union", min_shared=2).genes) == "abcde"
    with pytest.raises(InputError, match="'right' shares at most 1 genes with slices 'left'"):
        Collection.build(chain[:2], genes="union", min_shared=2)


def test_refuses_names_dims_and_nothing(stores, tmp_path):
    with pytest.raises(InputError, match="two slices are called 'slice0'"):
        Collection.build([stores[0], stores[1], stores[0]], min_shared=2)
    solid = make(tmp_path / "s.zarr", name="solid", genes=GENES[0], n=5, dims=3)
    with pytest.raises(InputError, match="'solid' has 3 coordinates"):
        Collection.build([stores[0], solid], min_shared=2)
    with pytest.raises(InputError, match="no slices"):
        Collection.build([])


def test_check_counts(stores, tmp_path):
    logs = make(tmp_path / "l.zarr", name="logs", genes=GENES[0], n=9, scale=0.7)
    odd = make(tmp_path / "o.zarr", name="odd", genes=GENES[0], n=9, scale=100.3)
    back = replace(stores[0], recovered="log2", name="back")
    counts, as_given, amounts = Preprocess(), Preprocess(lognormalized=True), Preprocess(fractional=True)
    Collection.build(stores, min_shared=2).check_counts(counts)
    Collection.build([back]).check_counts(counts)
    Collection.build([logs]).check_counts(as_given)
    Collection.build([stores[0], logs, odd], min_shared=2).check_counts(amounts)
    for given, said, message in [
        ([stores[0], logs], counts, "'logs' holds log-normalised values .max .*pass --lognormalized"),
        ([logs, stores[0]], as_given, "'slice0' holds counts"),
        ([back], as_given, r"'back' holds counts, brought back from log2\(1 \+ x\)"),
        ([odd], counts, "'odd' holds values that are neither.*--fractional"),
        ([odd], as_given, "'odd' holds values that are neither"),
    ]:
        with pytest.raises(InputError, match=message):
            Collection.build(given, min_shared=2).check_counts(said)


def test_what_was_brought_back_is_told(stores):
    assert Collection.build(stores, min_shared=2).notes() == ()
    all_of_them = [replace(s, recovered="ln") for s in stores]
    (note,) = Collection.build(all_of_them, min_shared=2).notes()
    assert note.startswith("values were given as log(1 + x) of counts")
    assert note.endswith("(--lognormalized uses them as they are)")
    mixed = [replace(stores[0], recovered="linear"), replace(stores[1], recovered="log2"), *stores[2:]]
    first, second = Collection.build(mixed, min_shared=2).notes()
    assert f"1 of {len(stores)} slices (first: 'slice0') were given as counts over a size" in first
    assert "(first: 'slice1') were given as log2(1 + x)" in second
    assert first.endswith("(--fractional with ingest.recover = false uses them as they are)")


@pytest.mark.real
def test_real_slices_with_unequal_genes(shared_data, tmp_path):
    files = [shared_data / "breast_st" / f"layer{k}.h5ad" for k in (3, 1, 4)]
    config = Ingest(tile=16, chunk=64)
    made = [ingest(file, tmp_path / f"{file.stem}.zarr", config=config) for file in files]
    adatas = [anndata.read_h5ad(file) for file in files]
    shared = sorted(set.intersection(*[set(adata.var_names) for adata in adatas]))
    collection = Collection.build(made)
    assert collection.genes.tolist() == shared
    dense = np.concatenate(
        [adata[:, shared].X.toarray()[store.input_row()] for adata, store in zip(adatas, made, strict=True)]
    )
    ids = np.random.default_rng(0).permutation(collection.n)[:200]
    np.testing.assert_array_equal(collection.gather(ids).toarray(), dense[ids])
