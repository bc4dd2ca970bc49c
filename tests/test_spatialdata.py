"""SpatialData in and out, with the library itself: `make test-scverse` installs it in an environment of its own."""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import stscale
from stscale.config import Run, Simulate
from stscale.errors import InputError
from stscale.slices.simulate import simulate
from stscale.slices.sources import open_source

spatialdata = pytest.importorskip("spatialdata", reason="spatialdata is not installed (make test-scverse)")

# the library and what it imports announce their own plans
pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG = Run().replace(
    {
        "run": {"threads": 1, "device": "cpu"},
        "preprocess": {"n_hvg": 80, "n_pcs": 10},
        "spotscape": {"hidden": 16, "latent": 8, "clusters": 3, "refresh": 4, "reservoir": 64},
        "sample": {"batch_size": 512, "tile": 32},
        "train": {"steps": 10},
        "domains": {"k": 3, "n_init": 1},
        "align": {"rotations": 24, "starts": 3, "refine": False},
    }
)
TURN = np.array([[0.0, -2.0, 5.0], [2.0, 0.0, -3.0], [0.0, 0.0, 1.0]])  # of the elements to "global"


def write(adata: anndata.AnnData, path: Path, *, old: bool, coordinates: bool) -> None:
    """Write a slice as the library does: an image, circles turned and scaled into "global", and the table."""
    from spatialdata._io.format import SpatialDataContainerFormatV01
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Affine, Identity, Scale

    given = np.asarray(adata.obsm["spatial"])
    own = (given - TURN[:2, 2]) @ np.linalg.inv(TURN[:2, :2]).T
    ids = np.random.default_rng(0).permutation(adata.n_obs) + 100
    place = pd.DataFrame(own, index=ids).loc[np.sort(ids)]  # the element has an order of its own
    axes = ("x", "y")
    ways = {"global": Affine(TURN, axes, axes), "pixels": Identity()}
    circles = ShapesModel.parse(place.to_numpy(), geometry=0, radius=1.0, index=place.index, transformations=ways)
    image = Image2DModel.parse(
        np.zeros((1, 8, 8)), dims=("c", "y", "x"), transformations={"global": Scale([3.0, 3.0], axes)}
    )
    aside = Image2DModel.parse(np.zeros((1, 4, 4)), dims=("c", "y", "x"), transformations={"elsewhere": Identity()})
    made = adata.copy()
    if not coordinates:
        del made.obsm["spatial"]
    made.obs["region"], made.obs["bin"] = pd.Categorical(["circles"] * adata.n_obs), ids
    table = TableModel.parse(made, region="circles", region_key="region", instance_key="bin")
    whole = spatialdata.SpatialData(
        images={"he": image, "aside": aside}, shapes={"circles": circles}, tables={"cells": table}
    )
    whole.write(path, **({"sdata_formats": SpatialDataContainerFormatV01()} if old else {}))


@pytest.fixture(scope="module")
def slices(tmp_path_factory) -> list[Path]:
    """Three slices of one tissue: SpatialData on Zarr v3 and on v2 without obsm["spatial"], and h5ad."""
    folder = tmp_path_factory.mktemp("given")
    files = [folder / "a.zarr", folder / "b.zarr", folder / "c.h5ad"]
    for number, path in enumerate(simulate(folder / "s", slices=3, spots=200, genes=90, seed=1, config=Simulate())):
        adata = anndata.read_zarr(path)
        adata = adata[np.random.default_rng(number).permutation(adata.n_obs)].copy()
        adata.obs = adata.obs[["domain"]]
        adata.obs_names = [f"{number}-{k}" for k in range(adata.n_obs)]
        if number == 2:
            adata.write_h5ad(files[2])
        else:
            write(adata, files[number], old=number == 1, coordinates=number == 0)
    return files


@pytest.fixture(scope="module")
def run(slices, tmp_path_factory) -> Path:
    """An aligned run of them."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stscale.report.write_report", lambda run: (run / "report.html").write_text("", encoding="utf-8"))
        stscale.align(slices, out=out, config=CONFIG)
    return out


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    return stscale.export(run, out=tmp_path_factory.mktemp("out") / "export")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_the_library_writes_is_read(slices) -> None:
    for path in slices[:2]:
        source, table = open_source(path), spatialdata.read_zarr(path)["cells"]
        assert source.names.tolist() == table.obs_names.tolist()
        dense = np.zeros(table.shape, np.float32)
        for row, column, value in source.pieces(1000):
            np.add.at(dense, (row, column), value)
        np.testing.assert_array_equal(dense, table.X.toarray())
    # the first has its coordinates in the table; the second's lie in its circles, in another order, turned and scaled
    expected = spatialdata.get_centroids(spatialdata.read_zarr(slices[1])["circles"]).compute()
    table = spatialdata.read_zarr(slices[1])["cells"]
    assert "spatial" not in table.obsm
    np.testing.assert_allclose(open_source(slices[1]).coordinates, expected.loc[table.obs["bin"]].to_numpy())
    inside = open_source(slices[1] / "tables" / "cells", name="b")
    np.testing.assert_array_equal(inside.coordinates, open_source(slices[1]).coordinates)


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_new_table_annotates_the_same_instances(name, exported, run, slices) -> None:
    before, after = spatialdata.read_zarr(slices["ab".index(name)]), spatialdata.read_zarr(exported / f"{name}.zarr")
    assert set(after.tables) == {"cells", "stscale"}
    table, cells = after["stscale"], after["cells"]
    np.testing.assert_array_equal(cells.X.toarray(), before["cells"].X.toarray())
    assert table.obs_names.tolist() == cells.obs_names.tolist()
    assert table.obs["bin"].tolist() == cells.obs["bin"].tolist()
    assert table.uns["spatialdata_attrs"] == {"region": ["circles"], "region_key": "region", "instance_key": "bin"}
    whole = anndata.read_zarr(run / "integrated.zarr")
    own = whole[whole.obs["stscale_slice"] == name]
    assert table.obs["stscale_domain"].astype(str).tolist() == own.obs["stscale_domain"].astype(str).tolist()
    assert table.obs["stscale_domain"].cat.categories.tolist() == ["0", "1", "2"]
    for key in ("X_stscale", "spatial", "spatial_aligned"):
        np.testing.assert_array_equal(table.obsm[key], own.obsm[key])
    element, joined = spatialdata.join_spatialelement_table(
        sdata=after, spatial_element_names="circles", table_name="stscale", how="left"
    )
    assert len(element["circles"]) == joined.n_obs == own.n_obs


@pytest.mark.parametrize("name", ["a", "b"])
def test_elements_lie_in_the_common_frame(name, exported) -> None:
    after = spatialdata.read_zarr(exported / f"{name}.zarr")
    table = after["stscale"]
    places = spatialdata.get_centroids(after["circles"], coordinate_system="stscale").compute().loc[table.obs["bin"]]
    np.testing.assert_allclose(places.to_numpy(), table.obsm["spatial_aligned"], rtol=1e-6, atol=1e-6)
    # the image goes where the circles go that it lies under
    from spatialdata.transformations import get_transformation

    axes = ("x", "y")
    to_frame, to_global = (
        get_transformation(after["he"], to).to_affine_matrix(axes, axes) for to in ("stscale", "global")
    )
    circles = get_transformation(after["circles"], "stscale").to_affine_matrix(axes, axes)
    np.testing.assert_allclose(to_frame, circles @ np.linalg.inv(TURN) @ to_global, rtol=1e-6, atol=1e-6)
    # the others keep their places, and what shares none stays where it is
    kept = get_transformation(after["circles"], get_all=True)
    np.testing.assert_allclose(kept["global"].to_affine_matrix(axes, axes), TURN)
    assert set(kept) == {"global", "pixels", "stscale"}
    assert set(get_transformation(after["aside"], get_all=True)) == {"elsewhere"}
    told = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    assert [s["transformed"] for s in told["slices"]] == [["circles", "he"], ["circles", "he"], ["spots"]]


def test_other_slices_become_circles(exported, run) -> None:
    after = spatialdata.read_zarr(exported / "c.zarr")
    assert set(after.tables) == {"stscale"}
    table = after["stscale"]
    for system, key in (("global", "spatial"), ("stscale", "spatial_aligned")):
        places = spatialdata.get_centroids(after["spots"], coordinate_system=system).compute()
        np.testing.assert_allclose(places.to_numpy(), table.obsm[key], rtol=1e-6, atol=1e-6)
    # neighbours touch: the simulated spots lie 100 apart
    assert after["spots"].radius.iloc[0] == pytest.approx(50, rel=0.1)


def test_slices_go_together_in_one_frame(exported) -> None:
    parts = {name: spatialdata.read_zarr(exported / f"{name}.zarr") for name in "ab"}
    one = spatialdata.concatenate(parts, concatenate_tables=True, merge_coordinate_systems_on_name=True)
    assert one["stscale"].n_obs == sum(p["stscale"].n_obs for p in parts.values())
    inside = {name for _, name, _ in one.filter_by_coordinate_system("stscale").gen_spatial_elements()}
    assert inside == {"circles-a", "circles-b", "he-a", "he-b"}


def test_the_slices_and_the_run_are_only_read(run, slices, tmp_path) -> None:
    before = content(run), content(slices[0])
    stscale.export(run, out=tmp_path / "out", table="found")
    assert (content(run), content(slices[0])) == before


def test_nothing_is_overwritten_unasked(run, slices, exported, tmp_path, stscale_) -> None:
    before = content(exported)
    cases = [
        (["-o", exported], "holds an earlier export; --overwrite"),
        (["-o", slices[0].parent], "holds the run or a slice"),
        (["-o", tmp_path / "x", "--table", "cells"], "the slice itself is in the table 'cells'"),
        (["-o", tmp_path / "x", "--table", "circles"], "has an element 'circles'"),
        (["-o", tmp_path / "x", "--table", "../x"], "cannot name a table"),
        (["-o", tmp_path / "x", "--source", slices[0]], "1 sources for 3 inputs"),
        (["-o", tmp_path / "x", *(w for s in (slices[1], slices[0], slices[2]) for w in ("--source", s))], "by their"),
    ]
    for arguments, said in cases:
        code, _, err = stscale_("export", run, *arguments, "-q")
        assert (code, err.count("\n")) == (2, 1), err
        assert said in err
    assert content(exported) == before
    assert not list(tmp_path.iterdir())


def test_an_export_of_an_export_replaces_its_names_on_request(run, slices, exported, tmp_path) -> None:
    again = [exported / "a.zarr" / "tables" / "cells", exported / "b.zarr" / "tables" / "cells", slices[2]]
    with pytest.raises(InputError, match=r"has a table 'stscale' already; --overwrite"):
        stscale.export(run, out=tmp_path / "x", sources=again)
    with pytest.raises(InputError, match=r"has a coordinate system 'stscale' already; --overwrite"):
        stscale.export(run, out=tmp_path / "x", sources=again, table="new")
    assert not (tmp_path / "x").exists()
    out = stscale.export(run, out=tmp_path / "x", sources=again, overwrite=True)
    found, old = (spatialdata.read_zarr(folder / "a.zarr") for folder in (out, exported))
    assert set(found.tables) == {"cells", "stscale"}
    np.testing.assert_array_equal(found["stscale"].obsm["X_stscale"], old["stscale"].obsm["X_stscale"])
    stscale.export(run, out=out, table="second", sources=slices, overwrite=True)
    assert set(spatialdata.read_zarr(out / "a.zarr").tables) == {"cells", "second"}


def test_elements_that_moved_are_no_way_to_the_frame(run, slices, tmp_path) -> None:
    from spatialdata.models import ShapesModel

    data = spatialdata.read_zarr(slices[0])
    n = len(data["circles"])
    data.shapes["circles"] = ShapesModel.parse(
        np.random.default_rng(1).random((n, 2)), geometry=0, radius=1.0, index=data["circles"].index
    )
    data.write(tmp_path / "moved.zarr")
    with pytest.raises(InputError, match="are not those of the elements"):
        stscale.export(run, out=tmp_path / "out", sources=[tmp_path / "moved.zarr", *slices[1:]])
    assert not (tmp_path / "out").exists()


def test_slices_of_one_folder_are_written_one_by_one(slices, tmp_path) -> None:
    config = CONFIG.replace({"run": {"method": "smooth"}, "ingest": {"split": "half"}, "domains": {"k": 2}})
    table = spatialdata.read_zarr(slices[0])["cells"]
    table.obs["half"] = (np.arange(table.n_obs) % 2).astype(str)
    del table.uns["spatialdata_attrs"]
    spatialdata.SpatialData(tables={"cells": table}).write(tmp_path / "both.zarr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stscale.report.write_report", lambda run: (run / "report.html").write_text("", encoding="utf-8"))
        stscale.integrate([tmp_path / "both.zarr"], out=tmp_path / "run", config=config)
    out = stscale.export(tmp_path / "run", out=tmp_path / "export")
    for name in ("0", "1"):
        found = spatialdata.read_zarr(out / f"{name}.zarr")["stscale"]
        assert found.obs_names.tolist() == table.obs_names[table.obs["half"] == name].tolist()
    told = json.loads((out / "export.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in told["slices"]] == ["0", "1"]
    moved = stscale.export(tmp_path / "run", sources=[tmp_path / "both.zarr"], out=tmp_path / "again")
    assert sorted(p.name for p in moved.iterdir()) == ["0.zarr", "1.zarr", "export.json"]
    with pytest.raises(InputError, match=r"2 sources for 1 inputs \(both.zarr\)"):
        stscale.export(tmp_path / "run", sources=[tmp_path / "both.zarr"] * 2, out=tmp_path / "third")
