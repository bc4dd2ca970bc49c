"""Several ranks through the command line: `--nproc`, torchrun, errors, nobody left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_pipeline import write_inputs

from stscale.rundir import read_manifest

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = [
    *(
        "--threads",
        "1",
        "--device",
        "cpu",
        "-k",
        "3",
        "-q",
        "--set",
        "train.steps=12",
        "--set",
        "sample.batch_size=128",
    ),
    *("--set", "sample.tile=16", "--set", "spotscape.warmup=0.3", "--set", "preprocess.n_pcs=10"),
    *("--set", "report.umap=false", "--set", "report.markers=false", "--set", "report.quality=false"),
    *("--set", "domains.n_init=2", "--set", "domains.n_components=6"),
]


def python(*arguments, timeout: float = 120) -> subprocess.CompletedProcess:
    plain = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=plain,
        cwd=ROOT,
    )


def alive() -> list[str]:
    """Command lines of other processes of the program."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "-m stscale_cli integrate" in text and "test_nproc" in text:
            found.append(text)
    return found


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("test_nproc"))


@pytest.fixture(scope="module")
def one(slices, tmp_path_factory):
    out = tmp_path_factory.mktemp("test_nproc") / "one"
    done = python("-m", "stscale_cli", "integrate", *slices, "-o", out, *OPTIONS)
    assert (done.returncode, done.stderr) == (0, "")
    return out


def same(one: Path, two: Path) -> None:
    first, second = (np.load(p / "latents.npy") for p in (one, two))
    np.testing.assert_allclose(second, first, atol=2e-3 * np.abs(first).max())
    stages = read_manifest(two)["stages"]
    assert stages["train"]["ranks"] == 2
    for a, b in zip(read_manifest(one)["stages"]["train"]["history"], stages["train"]["history"], strict=True):
        assert b == pytest.approx(a, rel=1e-3)


def test_nproc_trains_by_two_processes_to_the_same_result(slices, one, tmp_path):
    done = python("-m", "stscale_cli", "integrate", *slices, "-o", tmp_path / "two", "--nproc", 2, *OPTIONS)
    assert (done.returncode, done.stderr) == (0, "")
    same(one, tmp_path / "two")
    assert alive() == []


def test_torchrun_does_so_too_and_a_finished_run_is_reused(slices, one, tmp_path):
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "stscale_cli")
    done = python(*launch, "integrate", *slices, "-o", tmp_path / "two", *OPTIONS)
    assert done.returncode == 0, done.stderr
    same(one, tmp_path / "two")
    before = (tmp_path / "two" / "latents.npy").stat().st_mtime_ns
    done = python("-m", "stscale_cli", "integrate", *slices, "-o", tmp_path / "two", "--nproc", 2, *OPTIONS)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "two" / "latents.npy").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("-k", "4000"), "error: domains.k = 4000 is more than the 350 spots; lower it\n"),
        # fails in the middle of training, on all ranks
        (("--set", "train.lr=1e30"), "error: training stopped at step"),
        (("--set", "sample.batch_size=3"), "error: a batch of 3 seeds cannot be shared by 2 ranks"),
    ],
    ids=["before", "training", "preparing"],
)
def test_an_error_is_one_line_from_the_first_rank_and_nobody_stays(slices, tmp_path, change, message):
    done = python("-m", "stscale_cli", "integrate", *slices, "-o", tmp_path / "no", *OPTIONS, "--nproc", 2, *change)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert alive() == []


LONG = ("--set", "train.steps=150", "--set", "train.log_every=1", "--set", "train.checkpoint_every=1000")


def told(out: Path) -> list[dict]:
    path = out / "events.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def steps(out: Path) -> list[int]:
    return [e["step"] for e in told(out) if e["event"] == "step"]


@pytest.mark.parametrize("launch", ["nproc", "torchrun"])
def test_a_signal_to_the_one_that_was_started_stops_all_ranks_at_one_step(slices, tmp_path, launch):
    """Only the first rank, or torchrun's agent, is signalled: what a container runtime does."""
    out = tmp_path / "two"
    arguments = ["-m", "stscale_cli", "integrate", *map(str, slices), "-o", str(out), *OPTIONS, *LONG]
    if launch == "nproc":
        arguments += ["--nproc", "2"]
    else:
        arguments = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    plain = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    process = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True, env=plain, cwd=ROOT)
    try:
        until = time.monotonic() + 90
        while len(steps(out)) < 3:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until, "the moment never came"
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        error = process.communicate(timeout=90)[1]
    finally:
        process.kill()
    assert "stopped by SIGTERM; the same command goes on from here\n" in error
    if launch == "nproc":
        assert (process.returncode, error.count("\n")) == (143, 1)
    else:
        assert process.returncode != 0  # its own code, and its own words
    assert alive() == []
    last = steps(out)[-1]
    assert last < 150
    assert [p.name for p in (out / "checkpoints").glob("step-*.pt")] == [f"step-{last:07d}.pt"]
    assert told(out)[-1]["state"] == "stopped"
    if launch == "nproc":
        done = python(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert steps(out) == list(range(1, 151))
