"""Runs of one file that holds several slices: the run of the slices alone, and all that goes on from it."""

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
from test_pipeline import ORDER, SIZES, TINY, stages, tissue, write_inputs

from stscale import align, integrate
from stscale.alignment import RunSlices
from stscale.config import dump
from stscale.errors import InputError
from stscale.planning import read_headers
from stscale.serving.examine import examine
from stscale.slices import SliceStore

CONFIG = TINY.replace({"run": {"method": "smooth"}, "align": {"refine": False}})
SPLIT = CONFIG.replace({"ingest": {"split": "section"}})
NAMES = sorted(ORDER)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> Path:
    """The three slices in one file, rows shuffled together; all of them in one place."""
    whole = anndata.concat({name: tissue(name, SIZES[name]) for name in ORDER}, label="section", join="outer")
    path = tmp_path_factory.mktemp("atlas") / "atlas.h5ad"
    whole[np.random.default_rng(1).permutation(whole.n_obs)].copy().write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def run(atlas, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("split") / "run"
    integrate([atlas], out=out, config=SPLIT)
    return out


def rows(path: Path, name: str) -> anndata.AnnData:
    whole = anndata.read_h5ad(path)
    return whole[whole.obs["section"] == name]


def test_the_run_is_that_of_the_slices_in_files_of_their_own(atlas, run, tmp_path) -> None:
    alone = [tmp_path / f"{name}.h5ad" for name in NAMES]
    for path in alone:
        rows(atlas, path.stem).copy().write_h5ad(path)
    integrate(alone, out=tmp_path / "run", config=CONFIG)
    one, other = (anndata.read_zarr(folder / "integrated.zarr") for folder in (run, tmp_path / "run"))
    assert one.obs_names.tolist() == [n for name in NAMES for n in rows(atlas, name).obs_names]
    assert one.obs_names.equals(other.obs_names)
    np.testing.assert_array_equal(one.obsm["X_stscale"], other.obsm["X_stscale"])
    assert one.obs["stscale_slice"].astype(str).tolist() == other.obs["section"].astype(str).tolist()
    assert one.obs["stscale_domain"].astype(str).tolist() == other.obs["stscale_domain"].astype(str).tolist()


def test_it_is_reused_and_made_anew_by_another_column(atlas, run, tmp_path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    assert set(stages([atlas], copy, SPLIT).values()) == {"reused"}
    again = stages([atlas], copy, CONFIG.replace({"ingest": {"split": "domain"}}))
    assert again["ingest"] == "start"
    names = anndata.read_zarr(copy / "integrated.zarr").obs["stscale_slice"].unique().tolist()
    assert names == ["L0", "L1", "L2"]
    assert sorted(p.stem for p in (copy / "slices").iterdir()) == names


def test_its_slices_are_found_and_aligned(atlas, run, tmp_path, stscale_) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    slices = RunSlices.open(copy)
    assert slices.names == tuple(NAMES)
    assert slices.stores() == [copy / "slices" / f"{name}.zarr" for name in NAMES]
    assert align(copy).alignment.pairs[0].source == "b"
    assert (copy / "transforms.json").is_file()
    code, out, _ = stscale_("inspect", copy)
    assert (code, "3 slices" in out) == (0, True)
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    assert [entry["slices"] for entry in manifest["inputs"]] == [NAMES]


def test_every_command_takes_the_word(atlas, run, tmp_path, stscale_) -> None:
    pattern = atlas.parent / "at*.h5ad"  # as in a container, where no shell matches it
    code, out, err = stscale_("map", run, pattern, "-o", tmp_path / "mapped", "--split", "section", "--threads", 1)
    assert code == 0, err
    told = json.loads((tmp_path / "mapped" / "mapped.json").read_text(encoding="utf-8"))
    assert [(s["name"], s["spots"]) for s in told["slices"]] == [(name, SIZES[name]) for name in NAMES]
    mapped, whole = (anndata.read_zarr(p) for p in (tmp_path / "mapped" / "mapped.zarr", run / "integrated.zarr"))
    there = np.isfinite(whole.obsm["X_stscale"]).all(axis=1)
    np.testing.assert_allclose(mapped.obsm["X_stscale"][there], whole.obsm["X_stscale"][there], atol=1e-4)
    code, out, _ = stscale_("ingest", atlas, "-o", tmp_path / "stores", "--split", "section")
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()] == [str(tmp_path / "stores" / f"{n}.zarr") for n in NAMES]
    assert [SliceStore.open(tmp_path / "stores" / f"{n}.zarr").n for n in NAMES] == [SIZES[n] for n in NAMES]
    code, _, err = stscale_("ingest", atlas, "-o", tmp_path / "stores", "--split", "section")
    assert (code, "a.zarr exists" in err) == (2, True)
    code, out, _ = stscale_("plan", atlas, "--split", "section", "--threads", 1)
    assert (code, out.startswith(f"3 slices, {sum(SIZES.values())} spots")) == (0, True)
    (tmp_path / "options.toml").write_text(dump(SPLIT), encoding="utf-8")
    words = ("--no-refine", "--config", tmp_path / "options.toml", "--split", "domain", "--quiet")
    code, _, err = stscale_("align", atlas, "-o", tmp_path / "laid", *words)
    assert code == 0, err
    assert RunSlices.open(tmp_path / "laid").names == ("L0", "L1", "L2")


def test_coordinates_in_columns_give_the_run_of_those_in_obsm(atlas, run, tmp_path, stscale_) -> None:
    moved = anndata.read_h5ad(atlas)
    moved.obs[["x", "y"]] = moved.obsm.pop("spatial")
    moved.write_h5ad(tmp_path / "atlas.h5ad")
    (tmp_path / "options.toml").write_text(dump(SPLIT), encoding="utf-8")
    words = ("-o", tmp_path / "run", "--config", tmp_path / "options.toml", "--quiet")
    code, _, err = stscale_("integrate", tmp_path / "atlas.h5ad", *words)
    assert (code, "say with --coordinates" in err) == (2, True)
    code, _, err = stscale_("integrate", tmp_path / "atlas.h5ad", *words, "--coordinates", "x,y")
    assert code == 0, err
    one, other = (anndata.read_zarr(folder / "integrated.zarr") for folder in (run, tmp_path / "run"))
    for key in ("spatial", "X_stscale"):
        np.testing.assert_array_equal(one.obsm[key], other.obsm[key])
    code, _, err = stscale_(
        "map", tmp_path / "run", tmp_path / "atlas.h5ad", "-o", tmp_path / "mapped", "--split", "section"
    )
    assert code == 0, err


def test_headers_are_those_of_the_slices(atlas) -> None:
    found = read_headers(atlas, SPLIT.ingest)
    assert [(h.name, h.n) for h in found] == [(name, SIZES[name]) for name in NAMES]
    whole = read_headers(atlas)[0].stored
    assert abs(sum(h.stored for h in found) - whole) <= len(found)
    assert {h.sorted for h in found} == {whole}


def test_the_service_looks_at_slices_to_map_as_the_command_does(atlas, run, tmp_path) -> None:
    order = {"command": "map", "slices": [str(atlas)], "run": str(run), "out": str(tmp_path / "out"), "threads": 1}
    for column in ("section", "nowhere"):
        options = tmp_path / f"{column}.toml"
        options.write_text(f"[ingest]\nsplit = '{column}'\n", encoding="utf-8")
        if column == "section":
            assert examine(order | {"toml": str(options)})["ram_mb"] > 0
        else:
            with pytest.raises(InputError, match="no obs column 'nowhere'"):
                examine(order | {"toml": str(options)})


def test_what_cannot_be_parted_leaves_nothing(atlas, tmp_path, stscale_) -> None:
    for command in ("integrate", "align", "ingest"):
        code, _, err = stscale_(command, atlas, "-o", tmp_path / "out", "--split", "nowhere")
        assert (code, err.count("\n")) == (2, 1)
        assert "has no obs column 'nowhere'" in err
        assert not (tmp_path / "out").exists()


def test_a_file_of_several_slices_is_told(atlas, tmp_path) -> None:
    seen: list[dict] = []
    integrate([atlas], out=tmp_path / "run", config=CONFIG, observer=seen.append)
    notes = " ".join(str(e) for e in seen)
    assert "'section' lie on each other; --split section makes each a slice of its own" in notes


def test_several_files_of_several_slices(atlas, tmp_path) -> None:
    paths = write_inputs(tmp_path / "in", lambda name, adata: halves(adata))
    result = integrate(paths, out=tmp_path / "run", config=CONFIG.replace({"ingest": {"split": "half"}}))
    assert result.slices == tuple(f"{name}-{half}" for name in ORDER for half in (0, 1))
    assert result.n == sum(SIZES.values())


def halves(adata: anndata.AnnData) -> anndata.AnnData:
    middle = np.median(adata.obsm["spatial"][:, 0])
    adata.obs["half"] = (adata.obsm["spatial"][:, 0] > middle).astype(int)
    return adata
