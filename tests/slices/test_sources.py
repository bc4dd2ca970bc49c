import gzip
import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata.io import write_elem
from scipy import sparse

from stscale.config import Ingest
from stscale.errors import InputError
from stscale.slices import ingest, open_source
from stscale.slices.sources import Source, slice_name
from stscale.slices.sources_visium import unique_names

N, G = 9, 5


def adata_of(X) -> anndata.AnnData:
    return anndata.AnnData(
        X=X,
        obs=pd.DataFrame({"area": np.arange(N)}, index=[f"s{k}" for k in range(N)]),
        var=pd.DataFrame(index=[f"g{k}" for k in range(G)]),
        obsm={"spatial": np.random.default_rng(1).random((N, 2))},
    )


def counts() -> np.ndarray:
    dense = np.random.default_rng(0).poisson(0.8, (N, G)).astype(np.float32)
    dense[[0, 4, 8]] = 0  # also first and last
    dense[:, [0, 4]] = 0
    dense[3, 2] = 5
    return dense


def assembled(source: Source, entries: int) -> np.ndarray:
    dense = np.zeros((source.n, len(source.genes)))
    for row, column, value in source.pieces(entries):
        assert (row.dtype, column.dtype, value.dtype) == (np.int64, np.int32, np.float32)
        assert len(row) == len(column) == len(value) <= entries
        np.add.at(dense, (row, column), value)
    return dense


def write_zarr(path: Path, adata: anndata.AnnData, *, version: int) -> None:
    """Write without touching anndata's global settings."""
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    for key, value in [("X", adata.X), ("obs", adata.obs), ("var", adata.var), ("obsm", dict(adata.obsm))]:
        write_elem(group, key, value)


FORMS = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "dense": np.asarray,
    "int": lambda X: sparse.csr_matrix(X.astype(np.uint16)),
    "double": lambda X: X.astype(np.float64),
}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("suffix", ["h5ad", "v2.zarr", "v3.zarr"])
def test_every_form_gives_the_same_entries(tmp_path, suffix, form):
    adata = adata_of(FORMS[form](counts()))
    path = tmp_path / f"a.{suffix}"
    if suffix == "h5ad":
        adata.write_h5ad(path)
    else:
        write_zarr(path, adata, version=int(suffix[1]))
    source = open_source(path)
    for entries in (1, 4, 1000):
        np.testing.assert_array_equal(assembled(source, entries), counts())
    assert source.names.tolist() == adata.obs_names.tolist()
    assert source.genes.tolist() == adata.var_names.tolist()
    np.testing.assert_array_equal(source.coordinates, adata.obsm["spatial"])
    assert (source.unit, source.um_per_unit) == (None, None)
    assert source.n_bytes > 1000


def test_int64_pointers_and_storage_chunks_larger_and_smaller_than_pieces(tmp_path):
    adata_of(sparse.csr_matrix(counts())).write_h5ad(tmp_path / "a.h5ad")
    X = sparse.csr_matrix(counts())
    for chunk in (2, 3, X.nnz):
        with h5py.File(tmp_path / "a.h5ad", "r+") as file:
            group = file["X"]
            for key, value in [("data", X.data), ("indices", X.indices), ("indptr", X.indptr)]:
                del group[key]
                value = value if key == "data" else value.astype(np.int64)
                group.create_dataset(key, data=value, chunks=(min(chunk, len(value)),))
        for entries in (1, 3, 5, 100):
            np.testing.assert_array_equal(assembled(open_source(tmp_path / "a.h5ad"), entries), counts())


def test_layers_and_raw_are_not_used_unless_asked_for(tmp_path):
    adata = adata_of(sparse.csr_matrix(counts()))
    adata.layers["counts"] = adata.X * 7
    adata.raw = adata
    adata.write_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(assembled(open_source(tmp_path / "a.h5ad"), 10), counts())
    np.testing.assert_array_equal(
        assembled(open_source(tmp_path / "a.h5ad", config=Ingest(layer="counts")), 10), counts() * 7
    )


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_coordinates_of_another_key_and_of_columns(tmp_path, suffix):
    adata = adata_of(sparse.csr_matrix(counts()))
    xy = adata.obsm.pop("spatial")
    adata.obsm["X_places"] = np.column_stack([xy, xy[:, 0]])
    adata.obs["center x"], adata.obs["y"], adata.obs["kind"] = xy[:, 0] * 2, xy[:, 1].astype(np.float32), "a"
    path = tmp_path / f"a.{suffix}"
    adata.write_h5ad(path) if suffix == "h5ad" else write_zarr(path, adata, version=3)

    def read(coordinates):
        return open_source(path, config=Ingest(coordinates=coordinates)).coordinates

    np.testing.assert_array_equal(read("X_places"), adata.obsm["X_places"])
    np.testing.assert_allclose(read("center x, y"), xy * [2, 1], rtol=1e-6)
    np.testing.assert_allclose(read("y,center x,y"), xy[:, [1, 0, 1]] * [1, 2, 1], rtol=1e-6)
    for wrong, said in (
        ("spatial", r"no obsm\[.spatial.\] .found: X_places.; put the coordinates there.*--coordinates"),
        ("x,y", "two or three columns of obs, got 'x,y'; found: area, center x, kind, y"),
        ("y,", "got 'y,'"),
        ("y,y,y,y", "two or three columns"),
        ("y,kind", "columns 'y,kind', does not hold numbers"),
    ):
        with pytest.raises(InputError, match=said):
            read(wrong)


def test_damaged_pointers_are_refused(tmp_path):
    adata_of(sparse.csr_matrix(counts())).write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        file["X/indptr"][-1] += 1
    with pytest.raises(InputError, match="damaged"):
        list(open_source(tmp_path / "a.h5ad").pieces(5))
    (tmp_path / "b.h5ad").write_bytes((tmp_path / "a.h5ad").read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        open_source(tmp_path / "b.h5ad")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x/151673.h5ad", "151673"),
        ("a.slice.zarr", "a"),
        ("S1.H5AD", "S1"),
        ("v1.2_section", "v1.2_section"),
        ("sample/outs", "sample"),
        ("sd.zarr/tables/cells", "cells"),
    ],
)
def test_names_come_from_paths(path, name):
    assert slice_name(Path(path)) == name


def test_unknown_formats_are_told_what_is_understood(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "a.csv", tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(InputError, match=r"h5ad.*SpatialData.*Visium"):
            open_source(path)


# --- SpatialData --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "version"), [("tables", 3), ("table", 2)])
def test_spatialdata_table(tmp_path, folder, version):
    root = tmp_path / "sd.zarr"
    zarr.open_group(str(root), mode="w", zarr_format=version).create_group("shapes")
    zarr.open_group(str(root / folder), mode="w", zarr_format=version)
    adata = adata_of(sparse.csc_matrix(counts()))
    write_zarr(root / folder / "cells", adata, version=version)
    source = open_source(root)
    assert source.name == "sd"
    np.testing.assert_array_equal(assembled(source, 4), counts())
    write_zarr(root / folder / "bins", adata, version=version)
    with pytest.raises(InputError, match=rf"2 tables.*{folder}/bins, .*{folder}/cells"):
        open_source(root)
    np.testing.assert_array_equal(assembled(open_source(root / folder / "bins", name="b"), 4), counts())


def test_spatialdata_without_coordinates_or_table(tmp_path):
    root = tmp_path / "sd.zarr"
    zarr.open_group(str(root), mode="w", zarr_format=3).create_group("shapes")
    with pytest.raises(InputError, match="found shapes"):
        open_source(root)
    zarr.open_group(str(root / "tables"), mode="w", zarr_format=3)
    adata = adata_of(sparse.csr_matrix(counts()))
    del adata.obsm["spatial"]
    write_zarr(root / "tables" / "cells", adata, version=3)
    with pytest.raises(InputError, match="put the coordinates there"):
        open_source(root)


# --- Visium -------------------------------------------------------------------------------------------

BARCODES = ["AAA-1", "CCC-1", "GGG-1", "TTT-1"]
SYMBOLS = ["MBP", "PCP4", "MBP", "CD3"]
TYPES = ["Gene Expression"] * 3 + ["Antibody Capture"]
TISSUE = {"AAA-1": 1, "CCC-1": 0, "GGG-1": 1, "TTT-1": 1, "off-1": 0}
FEATURES_BY_SPOTS = np.array([[1, 9, 0, 2], [0, 9, 3, 0], [4, 9, 0, 0], [7, 7, 7, 7]])


def visium(folder: Path, *, matrix: str = "h5", positions: str = "new") -> Path:
    spatial = folder / "spatial"
    spatial.mkdir(parents=True)
    rows = [f"{b},{t},{k},{k + 1},{100 + k},{200 + 2 * k}" for k, (b, t) in enumerate(TISSUE.items())][::-1]
    head = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"
    file = "tissue_positions.csv" if positions == "new" else "tissue_positions_list.csv"
    (spatial / file).write_text("\n".join([head, *rows] if positions == "new" else rows) + "\n")
    (spatial / "scalefactors_json.json").write_text(json.dumps({"spot_diameter_fullres": 110.0}))
    X = sparse.csc_matrix(FEATURES_BY_SPOTS)
    ids = [f"ENSG{k}" for k in range(4)]
    if matrix == "h5":
        with h5py.File(folder / "V1_filtered_feature_bc_matrix.h5", "w") as h5:
            group = h5.create_group("matrix")
            for key, value in [("data", X.data), ("indices", X.indices), ("indptr", X.indptr)]:
                group[key] = value
            group["shape"], group["barcodes"] = X.shape, np.array(BARCODES, dtype="S")
            features = group.create_group("features")
            for key, value in [("id", ids), ("name", SYMBOLS), ("feature_type", TYPES)]:
                features[key] = np.array(value, dtype="S")
        return folder
    inner = folder / "filtered_feature_bc_matrix"
    inner.mkdir()
    entries = [f"{r + 1} {c + 1} {FEATURES_BY_SPOTS[r, c]}" for r, c in np.argwhere(FEATURES_BY_SPOTS)]
    texts = {
        "matrix.mtx": "\n".join(
            [
                "%%MatrixMarket matrix coordinate integer general",
                "%metadata",
                f"4 4 {len(entries)}",
                *entries,
            ]
        )
        + "\n",
        "barcodes.tsv": "\n".join(BARCODES) + "\n",
        "features.tsv": "".join(f"{i}\t{s}\t{t}\n" for i, s, t in zip(ids, SYMBOLS, TYPES, strict=True)),
    }
    for name, text in texts.items():
        if matrix == "mtx.gz":
            (inner / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (inner / name).write_text(text)
    return folder


@pytest.mark.parametrize("matrix", ["h5", "mtx", "mtx.gz"])
@pytest.mark.parametrize("positions", ["new", "old"])
def test_visium_folder(tmp_path, matrix, positions):
    visium(tmp_path / "sample" / "outs", matrix=matrix, positions=positions)
    source = open_source(tmp_path / "sample")
    assert source.name == "sample"
    assert source.names.tolist() == ["AAA-1", "GGG-1", "TTT-1"]
    assert source.genes.tolist() == ["MBP", "PCP4", "MBP-1"]
    assert source.var["gene_ids"].tolist() == ["ENSG0", "ENSG1", "ENSG2"]
    assert source.coordinates.tolist() == [[200.0, 100.0], [204.0, 102.0], [206.0, 103.0]]
    assert source.obs.to_dict("list") == {"in_tissue": [1] * 3, "array_row": [0, 2, 3], "array_col": [1, 3, 4]}
    assert (source.unit, source.um_per_unit) == ("px", 0.5)
    for entries in (1, 3, 100):
        np.testing.assert_array_equal(assembled(source, entries), FEATURES_BY_SPOTS[:3, [0, 2, 3]].T)


def test_visium_becomes_a_store(tmp_path):
    store = ingest(visium(tmp_path / "s", matrix="mtx.gz"), tmp_path / "s.zarr", config=Ingest(tile=1, chunk=2))
    rows = store.input_row()
    np.testing.assert_array_equal(store.counts(0, 3).toarray(), FEATURES_BY_SPOTS[:3, [0, 2, 3]].T[rows])
    assert (store.name, store.unit, store.um_per_unit) == ("s", "px", 0.5)
    assert list(store.obs()) == ["in_tissue", "array_row", "array_col"]
    assert list(store.var()) == ["gene_ids"]


def test_visium_parquet_without_pyarrow(tmp_path, monkeypatch):
    folder = visium(tmp_path / "s")
    (folder / "spatial" / "tissue_positions.csv").rename(folder / "spatial" / "tissue_positions.parquet")

    def missing(path):
        raise ImportError("no parquet engine")

    monkeypatch.setattr(pd, "read_parquet", missing)
    with pytest.raises(InputError, match="needs pyarrow"):
        open_source(folder)


def test_visium_mistakes_are_named(tmp_path):
    folder = visium(tmp_path / "s")
    with pytest.raises(InputError, match="10x Visium folder, which has no layer 'counts'"):
        open_source(folder, config=Ingest(layer="counts"))
    with pytest.raises(InputError, match="which has coordinates of its own; leave out --coordinates"):
        open_source(folder, config=Ingest(coordinates="x,y"))
    (folder / "filtered_feature_bc_matrix.h5").write_bytes(b"")
    with pytest.raises(InputError, match="2 filtered matrices"):
        open_source(folder)
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    positions = folder / "spatial" / "tissue_positions.csv"
    text = positions.read_text()
    positions.write_text(text.replace("GGG-1", "ggg-1"))
    with pytest.raises(InputError, match=r"1 barcodes have no position .first: 'GGG-1'"):
        open_source(folder)
    positions.write_text(text.replace("in_tissue", "tissue"))
    with pytest.raises(InputError, match="lacks in_tissue"):
        open_source(folder)
    positions.unlink()
    with pytest.raises(InputError, match="has none of tissue_positions"):
        open_source(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("4 4 11", "4 4 12", "names 12 entries and has 11"),
        ("4 4 11", "5 4 11", "5 × 4, but the files beside it name 4 features"),
        ("1 1 1\n", "9 1 1\n", "outside its 4 × 4"),
        ("1 1 1\n", "1 0 1\n", "outside its 4 × 4"),
        ("1 1 1\n", "1 x 1\n", "not a number"),
        ("general", "symmetric", "expected a Matrix Market"),
    ],
)
def test_damaged_mtx_is_named(tmp_path, old, new, message):
    folder = visium(tmp_path / "s", matrix="mtx")
    file = folder / "filtered_feature_bc_matrix" / "matrix.mtx"
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message) as error:
        list(open_source(folder).pieces(3))
    assert "\n" not in str(error.value)


def test_truncated_gzip_is_named(tmp_path):
    folder = visium(tmp_path / "s", matrix="mtx.gz")
    file = folder / "filtered_feature_bc_matrix" / "matrix.mtx.gz"
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(InputError, match="is it whole"):
        list(open_source(folder).pieces(3))


@pytest.mark.filterwarnings("ignore:Suffix used")
def test_unique_names_are_those_of_anndata():
    for names in (["A", "B", "A", "A"], ["A", "A-1", "A", "A"], ["A", "A", "A-1"], ["x"], ["B", "B-2", "B", "B"]):
        expected = anndata.utils.make_index_unique(pd.Index(names, dtype=object)).tolist()
        assert unique_names(names) == expected
