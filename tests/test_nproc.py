"""Several ranks through the command line: `--nproc`, torchrun, errors, nobody left behind."""

import os
import subprocess
import sys
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
