"""The command line from simulate to metrics, as a person types it."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import anndata
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

import stscale
from stscale.config import Run, Simulate, load, preset

pytestmark = pytest.mark.figures
ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    *("--threads", "1", "--device", "cpu", "-k", "4"),
    *("--set", "report.umap=false", "--set", "report.markers=false", "--set", "report.quality=false"),
    *("--set", "train.steps=6", "--set", "spotscape.hidden=16", "--set", "spotscape.latent=8"),
    *("--set", "preprocess.n_pcs=10", "--set", "domains.n_init=1", "--set", "domains.n_components=6"),
]


def module(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "stscale_cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_version(stscale_):
    assert stscale_("--version") == (0, f"{stscale.__version__}\n", "")


def test_help_of_the_module():
    done = module("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in ("integrate", "ingest", "simulate", "metrics", "inspect", "config"))


def test_config_prints_what_config_reads(stscale_, tmp_path):
    for arguments, expected in (
        ([], Run()),
        (["--preset", "paper"], preset("paper")),
        (
            ["--set", "train.steps=7", "--set", "graph.kind=delaunay"],
            Run().replace({"train": {"steps": 7}, "graph": {"kind": "delaunay"}}),
        ),
    ):
        code, out, err = stscale_("config", *arguments)
        assert (code, err) == (0, "")
        path = tmp_path / "run.toml"
        path.write_text(out, encoding="utf-8")
        assert load(path) == expected


def test_config_of_a_simulation(stscale_):
    code, out, _ = stscale_("config", "--simulate")
    assert code == 0
    assert Simulate(**tomllib.loads(out)["simulate"]) == Simulate()


def test_the_later_wins(stscale_, tmp_path):
    """Preset, then file, then --set."""
    (tmp_path / "run.toml").write_text("[train]\nlr = 0.25\nepochs = 9\n", encoding="utf-8")
    code, out, _ = stscale_("config", "--preset", "paper", "--config", tmp_path / "run.toml", "--set", "train.epochs=3")
    train = tomllib.loads(out)["train"]
    assert (code, train["lr"], train["epochs"]) == (0, 0.25, 3)
    assert tomllib.loads(out)["spotscape"]["input"] == "genes"


def test_normalised_slices_become_counts_or_stay_as_given(stscale_, tmp_path):
    stscale_("simulate", tmp_path / "sim", "--slices", 1, "--spots", 100, "--genes", 70, "--threads", 1)
    adata = anndata.read_zarr(next((tmp_path / "sim").glob("*.zarr")))
    adata.X = adata.X.astype(np.float32).log1p()
    adata.write_h5ad(tmp_path / "logs.h5ad")
    for options, kind in (([], "counts, brought back from log(1 + x) of counts"), (["--as-given"], "log-normalised")):
        code, out, err = stscale_("ingest", tmp_path / "logs.h5ad", "-o", tmp_path / "out", "--overwrite", *options)
        assert code == 0, err
        assert f"100 spots × 70 genes, {kind}" in out
        assert f"values stored ({kind}" in stscale_("inspect", tmp_path / "out" / "logs.zarr")[1]
    code, out, err = stscale_("integrate", tmp_path / "out" / "logs.zarr", "-o", tmp_path / "run", *SMALL)
    assert code == 2
    assert err.splitlines()[-1].startswith("error: slice 'logs' holds log-normalised values")


def test_from_simulation_to_metrics(stscale_, tmp_path):
    sim, stores, run = tmp_path / "sim", tmp_path / "stores", tmp_path / "run"
    code, out, _ = stscale_("simulate", sim, "--slices", 2, "--spots", 100, "--genes", 70, "--threads", 1)
    assert code == 0
    assert "2 slices × 100 spots × 70 genes" in out
    slices = sorted(sim.glob("*.zarr"))
    assert len(slices) == 2

    code, out, _ = stscale_("inspect", *slices)
    assert code == 0
    assert out.count("100 spots × 70 genes") == 2
    assert "domain" in out

    anndata.read_zarr(slices[0]).write_h5ad(tmp_path / "first.h5ad")
    code, out, _ = stscale_("ingest", tmp_path / "first.h5ad", "-o", stores)
    assert code == 0
    assert "100 spots × 70 genes, counts" in out

    code, out, err = stscale_("integrate", stores / "first.zarr", slices[1], "-o", run, *SMALL)
    assert code == 0, err
    assert "200 spots of 2 slices, 4 domains" in out
    assert "training" in err

    code, out, _ = stscale_("metrics", run, "--labels", "domain", "--json", "--threads", 1)
    assert code == 0
    obs = anndata.read_zarr(run / "integrated.zarr").obs
    found = json.loads(out)
    assert found["labels"]["ari"] == pytest.approx(adjusted_rand_score(obs["domain"], obs["stscale_domain"]))
    assert {"unsupervised", "slice first", "slice slice-01"} <= set(found)

    code, out, _ = stscale_("metrics", run, "--labels", "domain", "--threads", 1)
    assert code == 0
    assert "labels:" in out
    code, out, err = stscale_("metrics", run, "--labels", "nothing")
    assert (code, out) == (2, "")
    assert err.startswith("error: obs has no column 'nothing'")
    assert err.count("\n") == 1

    code, out, _ = stscale_("inspect", run)
    assert code == 0
    assert all(stage in out for stage in ("ingest", "features", "train", "report"))

    code, out, err = stscale_("integrate", stores / "first.zarr", slices[1], "-o", run, *SMALL)
    assert code == 0
    assert err.count("(unchanged, reused)") == 8


def test_quiet_is_quiet_and_debug_shows_where(tmp_path):
    """In a process of its own, where warnings would reach the terminal."""
    done = module("simulate", tmp_path / "sim", "--slices", 2, "--spots", 60, "--genes", 60, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    slices = sorted((tmp_path / "sim").glob("*.zarr"))
    done = module("integrate", *slices, "-o", tmp_path / "run", *SMALL, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "run" / "report.html").exists()
    done = module("inspect", tmp_path / "none.h5ad")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'none.h5ad'} does not exist\n"
    done = module("inspect", tmp_path / "none.h5ad", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "InputError" in done.stderr


def test_a_bug_is_one_line_and_exit_1(stscale_, monkeypatch, tmp_path):
    def broken(*args, **kwargs):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("stscale.pipeline.integrate", broken)
    code, _, err = stscale_("integrate", tmp_path, "-o", tmp_path / "run", "--quiet")
    assert code == 1
    assert err.startswith("error: RuntimeError: two lines")
    assert err.count("\n") == 1


def test_an_interrupt_exits_with_130(stscale_, monkeypatch, tmp_path):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("stscale.pipeline.integrate", interrupted)
    assert stscale_("integrate", tmp_path, "-o", tmp_path / "run", "--quiet")[0] == 130
