"""The method that trains nothing: components averaged over neighbours, through every command."""

import importlib
import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
from test_pipeline import SIZES, SMALL, TINY, stages, write_inputs
from test_planning import MACHINE, headers

from stscale import integrate, map_slices
from stscale.config import STEPS, Run
from stscale.errors import InputError
from stscale.graphs import load
from stscale.planning import make_plan
from stscale.rundir import read_manifest
from stscale.slices.features import FeatureStore

STAGES = ["ingest", "features", "graph", "embed", "domains", "write", "report"]
CONFIG = TINY.replace({"run": {"method": "smooth"}, "smooth": {"rounds": 3}})


@pytest.fixture(scope="module", autouse=True)
def no_page():
    """Nothing here looks at the report but the test that draws one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stscale.report.write_report", lambda run: (run / "report.html").write_text("", encoding="utf-8"))
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> list[Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        # the package's attribute `embed` is the function: the module is reached by its name
        patch.setattr(importlib.import_module("stscale.training.embed"), "ROWS", 37)
        integrate(inputs, out=out, config=CONFIG)
    return out


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def naive(run: Path, rounds: int) -> np.ndarray:
    """Components of mean variance 1, averaged spot by spot in float64."""
    features, graph = FeatureStore.open(run / "features.zarr"), load(run / "graph.npz")
    h = features.pca(0, features.n).astype(np.float64)
    h /= np.sqrt(np.mean(features.pca_variance()))
    for _ in range(rounds):
        near = [[i, *graph.indices[graph.indptr[i] : graph.indptr[i + 1]]] for i in range(graph.n)]
        h = np.array([h[rows].mean(axis=0) for rows in near])
    return h


def test_the_embedding_is_the_mean_over_neighbours_and_self(finished):
    assert list(read_manifest(finished)["stages"]) == STAGES
    z = np.load(finished / "latents.npy")
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, naive(finished, 3), atol=2e-6)
    adata = anndata.read_zarr(finished / "integrated.zarr")
    assert adata.obsm["X_stscale"].shape == (sum(SIZES.values()), 10)
    assert adata.obs["stscale_domain"].nunique() == 3
    assert not (finished / "model.pt").exists()
    assert not (finished / "checkpoints").exists()


def test_a_spot_without_neighbours_keeps_its_components(inputs, tmp_path):
    lonely = CONFIG.replace({"graph": {"kind": "radius", "radius": 75.0}})
    integrate(inputs, out=tmp_path / "run", config=lonely)
    graph = load(tmp_path / "run" / "graph.npz")
    assert (graph.degree() == 0).any()
    np.testing.assert_allclose(np.load(tmp_path / "run" / "latents.npy"), naive(tmp_path / "run", 3), atol=2e-6)


def test_what_trains_other_methods_redoes_nothing(copy, inputs):
    assert stages(inputs, copy, CONFIG) == dict.fromkeys(STAGES, "reused")
    others = {"train": {"steps": 77}, "sample": {"tile": 8}, "spotscape": {"latent": 9}, "mhal": {"hidden": 16}}
    assert stages(inputs, copy, CONFIG.replace(others)) == dict.fromkeys(STAGES, "reused")
    done = stages(inputs, copy, CONFIG.replace({"smooth": {"rounds": 1}}))
    assert {s for s, state in done.items() if state == "start"} == {"embed", "domains", "write", "report"}
    np.testing.assert_allclose(np.load(copy / "latents.npy"), naive(copy, 1), atol=2e-6)


def test_an_interrupted_run_goes_on_to_the_same_bits(copy, inputs, tmp_path):
    before = np.load(copy / "latents.npy"), np.load(copy / "domains.npy")
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    manifest["stages"] = {k: v for k, v in manifest["stages"].items() if k in STAGES[:3]}
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (copy / "scratch").mkdir()
    (copy / "scratch" / "layer-0.f32").write_bytes(b"half")
    done = stages(inputs, copy, CONFIG)
    assert done == {s: "reused" if s in STAGES[:3] else "start" for s in STAGES}
    np.testing.assert_array_equal(np.load(copy / "latents.npy"), before[0])
    np.testing.assert_array_equal(np.load(copy / "domains.npy"), before[1])
    assert not (copy / "scratch").exists()


def test_a_folder_can_go_from_a_network_to_none_and_back(inputs, tmp_path):
    out = tmp_path / "run"
    integrate(inputs, out=out, config=TINY)
    learned = np.load(out / "latents.npy").copy()
    done = stages(inputs, out, CONFIG)
    assert done["graph"] == "reused"
    assert "train" not in done
    assert "train" not in read_manifest(out)["stages"]
    assert not (out / "model.pt").exists()
    assert stages(inputs, out, TINY)["train"] == "start"
    np.testing.assert_array_equal(np.load(out / "latents.npy"), learned)


def test_a_slice_of_the_run_is_mapped_to_where_it_was(finished, inputs, tmp_path):
    found = map_slices(finished, [inputs[1]], out=tmp_path / "mapped").adata()
    whole = anndata.read_zarr(finished / "integrated.zarr")
    own = whole[whole.obs["stscale_slice"] == inputs[1].stem]
    np.testing.assert_allclose(found.obsm["X_stscale"], own.obsm["X_stscale"], atol=1e-5)
    assert found.obs["stscale_domain"].astype(str).tolist() == own.obs["stscale_domain"].astype(str).tolist()


def test_what_needs_a_network_is_refused(finished, inputs, tmp_path, stscale_):
    with pytest.raises(InputError, match="'smooth', which normalises nothing: leave out --restat"):
        map_slices(finished, [inputs[0]], out=tmp_path / "mapped", restat=True)
    assert not (tmp_path / "mapped").exists()
    code, _, said = stscale_("impute", finished, "--genes", "g001", "--by", "decoder")
    assert code == 2
    assert "'smooth', which has no decoder; impute by regression" in said
    with pytest.raises(InputError, match=r"smooth\.rounds = 0: must be at least 1"):
        Run().replace({"smooth": {"rounds": 0}})


def test_one_slice_through_the_command_line(inputs, tmp_path, stscale_):
    out = tmp_path / "run"
    settings = [
        f"--set={section}.{name}={str(value).lower()}"
        for section in ("preprocess", "domains", "report")
        for name, value in SMALL[section].items()
    ]
    words = ("integrate", inputs[0], "-o", out, "--method", "smooth", "--threads", "1", "--device", "cpu", *settings)
    code, said, told = stscale_(*words)
    assert code == 0, told
    assert f"{SIZES['c']} spots of 1 slices, 3 domains" in said
    assert "training" not in told
    adata = anndata.read_zarr(out / "integrated.zarr")
    assert adata.obsm["X_stscale"].shape == (SIZES["c"], 10)
    code, said, _ = stscale_("plan", inputs[0], "--method", "smooth")
    assert code == 0
    assert "train " not in said
    assert "embed " in said


def test_the_page_says_that_nothing_was_trained(copy):
    from stscale.report.write import write_report

    page = write_report(copy).read_text(encoding="utf-8")
    assert "Nothing was trained: the embedding is the principal components, averaged over neighbours 3 times." in page
    assert 'id="losses"' not in page
    assert 'id="mixing"' in page


def test_the_plan_has_no_training_and_reads_no_network():
    def costs(changes: dict):
        run = Run().replace({"run": {"method": "smooth"}, "domains": {"k": 7}}).replace(changes)
        return make_plan(headers(100_000), run, MACHINE, cuda=False, folder=Path("out")).costs

    plain = costs({})
    assert "train" not in {c.stage for c in plain}
    others = {
        "spotscape": {"latent": 256},
        "train": {"epochs": 99},
        "mhal": {"latent": 256},
        "views": {"feature_k": 99},
    }
    assert costs(others) == plain
    embed = {c.stage: c for c in plain}["embed"]
    assert {c.stage: c for c in costs({"smooth": {"rounds": 9}})}["embed"].disk > embed.disk
    assert not Run().replace({"run": {"method": "smooth"}}).trains
    assert set(STEPS) == {"spotscape", "mhal", "stmfg"}
