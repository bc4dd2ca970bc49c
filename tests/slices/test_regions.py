"""What a SpatialData table says of itself, read without the library."""

import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

from stscale.errors import InputError
from stscale.slices.regions import folder_of
from stscale.slices.sources import open_source
from stscale.slices.sources_anndata import annotation

N = 20


def write_table(root: Path, *, regions: list[str], xy: np.ndarray | None, keys: bool = True, **columns) -> Path:
    """Write a table as SpatialData lays it out."""
    zarr.open_group(str(root), mode="w", zarr_format=3).create_group("tables")
    obs = pd.DataFrame({"region": pd.Categorical(regions), "bin": np.arange(len(regions)), **columns})
    obs.index = [f"s{k}" for k in range(len(regions))]
    adata = anndata.AnnData(sparse.csr_matrix(np.ones((len(regions), 3), np.float32)), obs=obs)
    if xy is not None:
        adata.obsm["spatial"] = xy
    with anndata.settings.override(zarr_write_format=3):
        adata.write_zarr(root / "tables" / "cells")
    if keys:
        zarr.open_group(str(root / "tables" / "cells")).attrs.update({"region_key": "region", "instance_key": "bin"})
    return root


@pytest.fixture
def square() -> np.ndarray:
    return np.random.default_rng(0).random((N, 2))


def test_an_annotation_is_read_from_the_folder_and_from_its_table(tmp_path, square) -> None:
    root = write_table(tmp_path / "s.zarr", regions=["a", "b"] * (N // 2), xy=square + [[0, 0], [5, 0]] * (N // 2))
    for path in (root, root / "tables" / "cells"):
        found = annotation(path)
        assert (found.root, found.table) == (root, "tables/cells")
        assert (found.region_key, found.instance_key, found.regions) == ("region", "bin", ["a", "b"])
        assert found.instance.tolist() == list(range(N))
    assert open_source(root).n == N  # regions beside each other are one slice
    assert folder_of(tmp_path) == (tmp_path, "")


def test_regions_on_each_other_are_slices_of_their_own(tmp_path, square) -> None:
    root = write_table(tmp_path / "s.zarr", regions=["a", "b"] * (N // 2), xy=square)
    with pytest.raises(InputError, match=r"'a' and 'b' lie on each other.*--split region"):
        open_source(root)


def test_without_the_library_it_is_told_what_to_install(tmp_path, monkeypatch, square, stscale_) -> None:
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    root = write_table(tmp_path / "s.zarr", regions=["a"] * N, xy=None)
    with pytest.raises(InputError, match=r"has no obsm\[.spatial.\].*pip install 'stscale\[spatialdata\]'"):
        open_source(root)
    code, _, err = stscale_("export", tmp_path, "-o", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install 'stscale[spatialdata]'" in err
    assert not (tmp_path / "out").exists()


def test_a_table_that_annotates_nothing_needs_coordinates(tmp_path, square) -> None:
    root = write_table(tmp_path / "s.zarr", regions=["a"] * N, xy=None, keys=False)
    assert annotation(root) is None
    with pytest.raises(InputError, match=r"put the coordinates there"):
        open_source(root)
