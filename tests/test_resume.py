"""Killed at any moment and started again with the same command: the same bits as without the interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from test_pipeline import ORDER, SIZES, STAGES, events, write_inputs

from stscale.rundir import read_manifest

ROOT = Path(__file__).resolve().parents[1]
STEPS = 200
SETTINGS = {
    "preprocess.n_pcs": 10,
    "spotscape.hidden": 16,
    "spotscape.latent": 8,
    "spotscape.refresh": 7,
    "spotscape.reservoir": 64,
    "spotscape.bank": 60,  # state that a checkpoint must carry
    "sample.batch_size": 128,
    "sample.tile": 16,
    "train.steps": STEPS,
    "train.average": 0.8,
    "train.checkpoint_every": 20,
    "train.log_every": 1,
    "domains.n_init": 2,
    "report.umap": "false",
    "report.markers": "false",
    "report.quality": "false",
}


def command(inputs, out) -> list[str]:
    settings = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    return [
        *(sys.executable, "-m", "stscale_cli", "integrate", *map(str, inputs), "-o", str(out), "-k", "3"),
        *("--threads", "1", "--device", "cpu", "--quiet", *settings),
    ]


def start(inputs, out) -> subprocess.Popen:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command(inputs, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=ROOT)


def finish(inputs, out) -> None:
    process = start(inputs, out)
    said, error = process.communicate(timeout=120)
    assert process.returncode == 0, error.decode()
    assert said == b""


def told(out: Path) -> list[dict]:
    """Whole lines of events.jsonl so far; the last one may be half written."""
    path = out / "events.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def kill_when(inputs, out, reached, number=signal.SIGKILL) -> tuple[str, str]:
    """Start the command and kill it as soon as `reached(events)`; return what it said."""
    process = start(inputs, out)
    try:
        until = time.monotonic() + 60
        while not reached(told(out)):
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < until, "the moment never came"
            time.sleep(0.001)
    finally:
        process.send_signal(number)
        try:
            said, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    return said.decode(), error.decode()


def in_stage(name):
    return lambda seen: any(e["event"] == "stage" and e["stage"] == name for e in seen)


def at_step(step):
    return lambda seen: any(e["event"] == "step" and e["step"] >= step for e in seen)


def tensors(value, path=""):
    """Yield every tensor in nested dicts and lists, with its path."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for k, v in value.items():
            yield from tensors(v, f"{path}/{k}")
    elif isinstance(value, list | tuple):
        for k, v in enumerate(value):
            yield from tensors(v, f"{path}/{k}")


def check_equal(run: Path, other: Path) -> None:
    models = [dict(tensors(torch.load(r / "model.pt", weights_only=True))) for r in (run, other)]
    assert models[0].keys() == models[1].keys()
    assert len(models[0]) > 3
    for name, tensor in models[0].items():
        assert torch.equal(tensor, models[1][name]), name
    one, two = (anndata.read_zarr(r / "integrated.zarr") for r in (run, other))
    assert one.obsm["X_stscale"].tobytes() == two.obsm["X_stscale"].tobytes()
    assert one.obs.equals(two.obs)
    histories = [read_manifest(r)["stages"]["train"]["history"] for r in (run, other)]
    assert len(histories[0]) == STEPS
    assert histories[0] == histories[1]
    assert list(read_manifest(run)["stages"]) == STAGES


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> list[Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def uninterrupted(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    finish(inputs, out)
    return out


def test_killed_twice_in_training(inputs, uninterrupted, tmp_path):
    out = tmp_path / "run"
    for step in (50, 130):
        kill_when(inputs, out, at_step(step))
        assert "train" not in read_manifest(out)["stages"]
        assert not (out / "model.pt").exists()
    finish(inputs, out)
    steps = [e["step"] for e in events(out) if e["event"] == "step"]
    # each start went on from a checkpoint, not from the beginning
    starts = [b for a, b in pairwise(steps) if b <= a]
    assert len(starts) == 2
    assert all(s > 1 and s % 20 == 1 for s in starts)
    check_equal(out, uninterrupted)


def last_step(out: Path) -> int:
    return max(int(p.stem.removeprefix("step-")) for p in (out / "checkpoints").glob("step-*.pt"))


def test_asked_to_stop_in_training_it_ends_the_step_and_writes_a_checkpoint(inputs, uninterrupted, tmp_path):
    """By SIGTERM, then SIGINT, then SIGTERM in a stage without checkpoints."""
    out = tmp_path / "run"
    for step, number, code in ((50, signal.SIGTERM, 143), (130, signal.SIGINT, 130)):
        said = kill_when(inputs, out, at_step(step), number)
        assert said == ("", f"stopped by {number.name}; the same command goes on from here\n")
        assert 128 + number == code
        steps = [e["step"] for e in events(out) if e["event"] == "step"]
        assert last_step(out) == steps[-1]  # not a step is lost
        assert events(out)[-1]["state"] == "stopped"
        assert "train" not in read_manifest(out)["stages"]
    kill_when(inputs, out, in_stage("domains"), signal.SIGTERM)
    # the stage is short: on a busy machine the signal may come when it has ended, never when the next one has
    assert list(read_manifest(out)["stages"])[-1] in ("embed", "domains")
    assert list(out.rglob("*.part")) == []
    finish(inputs, out)
    steps = [e["step"] for e in events(out) if e["event"] == "step"]
    assert steps == list(range(1, STEPS + 1))
    check_equal(out, uninterrupted)


def test_asked_to_stop_before_anything_is_finished(inputs, tmp_path):
    for attempt in range(4):
        out = tmp_path / f"run-{attempt}"
        kill_when(inputs, out, in_stage("ingest"), signal.SIGTERM)
        stages = read_manifest(out)["stages"]  # the folder is a run, which the same command takes up
        assert list(out.rglob("*.part")) == []
        if not stages:
            break
        assert list(stages) == ["ingest"]  # half a second long: on a busy machine the signal may come after it
    assert stages == {}


@pytest.mark.parametrize("stage", ["ingest", "features", "embed"])
def test_killed_at_the_start_of_a_stage(inputs, uninterrupted, tmp_path, stage):
    out = tmp_path / "run"
    kill_when(inputs, out, in_stage(stage))
    assert "write" not in read_manifest(out)["stages"]
    finish(inputs, out)
    done = {e["stage"] for e in events(out) if e.get("state") == "end"}
    assert done == set(STAGES)
    check_equal(out, uninterrupted)


def test_the_uninterrupted_run_is_a_run(uninterrupted):
    adata = anndata.read_zarr(uninterrupted / "integrated.zarr")
    assert adata.n_obs == sum(SIZES[n] for n in ORDER)
    assert np.isfinite(adata.obsm["X_stscale"]).all()
    assert adata.obsm["X_stscale"].std(axis=0).min() > 0
