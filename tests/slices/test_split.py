"""One input of several slices: parted by a column, ingested in one pass to the stores of the slices alone."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from test_regions import write_table

from stscale.config import Ingest
from stscale.errors import InputError
from stscale.slices import Collection, SliceStore, ingest, ingest_parts, open_source
from stscale.slices.ingest import bring
from stscale.slices.regions import on_each_other
from stscale.slices.sources import Source
from stscale.slices.split import parts, slice_names, suspected

SIZES = {"s10": 70, "s2": 45, "s1": 61}
SMALL = Ingest(tile=8, chunk=16, memory_mb=16)


def atlas(path, *, sizes=SIZES, genes=30, log=False, **columns):
    """Slices in one file, each in a frame of its own, rows shuffled; returns the AnnData written."""
    rng = np.random.default_rng(3)
    n = sum(sizes.values())
    X = rng.poisson(1.5, (n, genes)).astype(np.float32)
    X[np.arange(n), rng.integers(genes, size=n)] += 1
    if log:
        X = np.log1p(X / X.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    section = np.repeat(list(sizes), list(sizes.values()))[rng.permutation(n)]
    obs = pd.DataFrame({"section": section, "depth": rng.random(n)}, index=[f"spot{i}" for i in range(n)])
    for name, values in columns.items():
        obs[name] = values(obs) if callable(values) else values
    adata = anndata.AnnData(sparse.csr_matrix(X), obs=obs, obsm={"spatial": rng.uniform(0, 100, (n, 2))})
    adata.write_h5ad(path)
    return adata


def same(one: SliceStore, other: SliceStore) -> None:
    assert (one.name, one.n, one.n_genes, one.recovered) == (other.name, other.n, other.n_genes, other.recovered)
    for read in (SliceStore.names, SliceStore.coordinates, SliceStore.input_row, SliceStore.totals, SliceStore.genes):
        np.testing.assert_array_equal(read(one), read(other))
    assert (one.counts(0, one.n) != other.counts(0, other.n)).nnz == 0
    pd.testing.assert_frame_equal(one.obs(), other.obs(), check_categorical=False)


@pytest.mark.parametrize("log", [False, True])
def test_stores_are_those_of_the_slices_alone(tmp_path, monkeypatch, log) -> None:
    whole = atlas(tmp_path / "atlas.h5ad", log=log)
    names = slice_names([tmp_path / "atlas.h5ad"], Ingest(split="section"))
    assert names == [["s1", "s2", "s10"]]
    outs = [tmp_path / "stores" / f"{name}.zarr" for name in names[0]]
    passes = []
    monkeypatch.setattr(
        Source, "pieces", lambda self, entries, real=Source.pieces: passes.append(1) or real(self, entries)
    )
    ingest_parts(tmp_path / "atlas.h5ad", outs, column="section", config=SMALL)
    assert len(passes) == 1
    for name, out in zip(names[0], outs, strict=True):
        whole[whole.obs["section"] == name].copy().write_h5ad(tmp_path / f"{name}.h5ad")
        alone = ingest(tmp_path / f"{name}.h5ad", tmp_path / "alone" / f"{name}.zarr", config=SMALL)
        assert alone.is_counts
        same(SliceStore.open(out), alone)
    assert sorted(p.name for p in (tmp_path / "stores").iterdir()) == ["s1.zarr", "s10.zarr", "s2.zarr"]


def test_of_several_files_slices_are_named_after_both_and_stores_are_slices(tmp_path) -> None:
    for name in ("a", "b"):
        atlas(tmp_path / f"{name}.h5ad")
    given = [tmp_path / "a.h5ad", tmp_path / "b.h5ad"]
    assert slice_names(given, Ingest(split="section"))[1] == ["b-s1", "b-s2", "b-s10"]
    assert slice_names(given, Ingest()) == [["a"], ["b"]]
    config = Ingest(split="section")
    (store,) = bring(Ingest(), (given[0], (tmp_path / "a.zarr",)))
    assert slice_names([store, given[1]], Ingest(split="section")) == [["a"], ["s1", "s2", "s10"]]
    assert bring(config, (store, (store,))) == (store,)
    assert SliceStore.open(bring(config, (store, (tmp_path / "copy.zarr",)))[0]).n == sum(SIZES.values())


def ordered(obs):
    return pd.Categorical(obs["section"], ["s2", "s10", "unused", "s1"], ordered=True)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (ordered, ["s2", "s10", "s1"]),
        (lambda obs: pd.Categorical(obs["section"]), ["s1", "s2", "s10"]),
        (lambda obs: obs["section"].map({"s1": 0.14, "s2": -0.29, "s10": 0.04}), ["-0.29", "0.04", "0.14"]),
        (lambda obs: obs["section"].map({"s1": 2, "s2": 10, "s10": 1}), ["1", "2", "10"]),
        (lambda obs: obs["section"].map({"s1": 20240131.0, "s2": 3.0, "s10": 2.5}), ["2.5", "3", "20240131"]),
        (lambda obs: obs["section"] == "s1", ["False", "True"]),
        (lambda obs: obs["section"].map({"s1": "left/1", "s2": ".x", "s10": " b"}), ["_.x", "b", "left_1"]),
        ("one", ["one"]),
    ],
    ids=["ordered", "category", "floats", "integers", "floats that are integers", "bools", "odd texts", "one"],
)
def test_the_order_and_the_names_of_slices(tmp_path, values, expected) -> None:
    whole = atlas(tmp_path / "a.h5ad", given=values)
    found = parts(open_source(tmp_path / "a.h5ad"), "given")
    assert sorted(part.name for part in found) == sorted(expected)
    if "left_1" not in expected:
        assert [part.name for part in found] == expected
    assert np.array_equal(np.sort(np.concatenate([part.rows for part in found])), np.arange(whole.n_obs))
    given = np.asarray(whole.obs["given"].astype(object))
    assert all(len({*given[part.rows].tolist()}) == 1 for part in found)
    assert all((np.diff(part.rows) > 0).all() for part in found)


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("nowhere", "x", r"no obs column 'nowhere' .*found: depth, given, section"),
        ("given", lambda obs: obs["section"].where(obs["section"] != "s2"), "45 of 176 spots have no value in 'given'"),
        ("given", lambda obs: obs.index.astype(str), "'given' has 176 values for 176 spots"),
        ("given", lambda obs: obs["section"].map({"s1": "a/b", "s2": "a_b", "s10": "c"}), "name a slice 'a_b'"),
    ],
    ids=["no column", "no value", "barcodes", "one name"],
)
def test_columns_that_part_nothing_are_refused(tmp_path, column, values, said) -> None:
    atlas(tmp_path / "a.h5ad", given=values)
    with pytest.raises(InputError, match=said):
        slice_names([tmp_path / "a.h5ad"], Ingest(split=column))


def test_a_file_without_spots_and_the_wrong_function_are_refused(tmp_path) -> None:
    whole = atlas(tmp_path / "a.h5ad")
    whole[:0].copy().write_h5ad(tmp_path / "none.h5ad")
    with pytest.raises(InputError, match=r"none.h5ad has no spots; leave it out"):
        slice_names([tmp_path / "none.h5ad"], Ingest(split="section"))
    with pytest.raises(InputError, match="use ingest_parts"):
        ingest(tmp_path / "a.h5ad", tmp_path / "a.zarr", config=Ingest(split="section"))
    assert not (tmp_path / "a.zarr").exists()


def test_a_bad_value_leaves_no_store(tmp_path) -> None:
    whole = atlas(tmp_path / "a.h5ad")
    whole.X[5, 3] = -1.0
    whole.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="negative"):
        ingest_parts(tmp_path / "a.h5ad", [tmp_path / "o" / f"s{k}.zarr" for k in (1, 2, 10)], column="section")
    assert list((tmp_path / "o").iterdir()) == []


def test_regions_of_spatialdata_that_lie_on_each_other_are_parted(tmp_path) -> None:
    xy = np.random.default_rng(0).uniform(0, 10, (40, 2))
    root = write_table(tmp_path / "s.zarr", regions=["a", "b"] * 20, xy=xy, half=np.arange(40) // 20)
    assert slice_names([root], Ingest(split="region")) == [["a", "b"]]
    with pytest.raises(InputError, match=r"'a' and 'b' lie on each other.*--split region"):
        slice_names([root], Ingest(split="half"))
    with pytest.raises(InputError, match="--split region"):
        open_source(root)


def test_a_file_that_seems_to_hold_several_slices_is_told(tmp_path) -> None:
    atlas(tmp_path / "a.h5ad", library_id=lambda obs: obs["section"], batch="one")
    store = ingest(tmp_path / "a.h5ad", tmp_path / "a.zarr")
    assert suspected(store) == "library_id"
    (note,) = Collection.build([store], min_shared=5).notes()
    assert note.startswith("slice 'a' seems to be several: spots of different 'library_id' lie on each other; --split")
    atlas(tmp_path / "b.h5ad", sizes={"s1": 80}, depth=1.0)
    assert suspected(ingest(tmp_path / "b.h5ad", tmp_path / "b.zarr")) is None


def test_boxes_lie_on_each_other_by_hand() -> None:
    xy = np.array([[0, 0], [2, 2], [1, 0], [3, 2], [9, 9], [10, 10]], dtype=float)
    group = np.array(["a", "a", "b", "b", "c", "c"])
    assert on_each_other(xy, group) is None  # half of either, and no more
    assert on_each_other(xy - [[0, 0], [0, 0], [0.2, 0], [0.2, 0], [0, 0], [0, 0]], group) == ("a", "b")
    assert on_each_other(xy[:2], group[:2]) is None
