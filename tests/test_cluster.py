"""The stages on a real Dask cluster, a scheduler and two workers in processes of their own: the bits of a local run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import zarr
from stscale_cli.app import main
from test_pipeline import ORDER, SMALL, STAGES, events, stages, write_inputs

import stscale.cluster
from stscale import integrate
from stscale.cluster import check_shared, cluster
from stscale.compute import Compute
from stscale.config import Run
from stscale.errors import InputError, StscaleError
from stscale.rundir import read_manifest
from stscale.slices.stream import map_blocks, reduce_blocks

ROOT = Path(__file__).resolve().parents[1]
TINY = Run().replace({**SMALL, "ingest": {"tile": 16, "chunk": 32}})  # blocks enough for both workers


@dataclass
class Cluster:
    """A scheduler and its workers, each a process."""

    folder: Path
    address: str = ""
    scheduler: subprocess.Popen | None = None
    workers: list[subprocess.Popen] = field(default_factory=list)

    def start(self, role: str, *arguments: str) -> subprocess.Popen:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MORTAL": str(self.folder)}
        log = self.folder / f"{role}-{len(self.workers)}.log"
        with log.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{role}", "--no-dashboard", *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=self.folder,
            )

    def start_scheduler(self) -> None:
        file = self.folder / "scheduler.json"
        arguments = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        self.scheduler = self.start("scheduler", *arguments)
        wait_for(file.exists)
        self.address = str(__import__("json").loads(file.read_text(encoding="utf-8"))["address"])

    def start_worker(self) -> None:
        local = ("--local-directory", str(self.folder / "local"))
        arguments = (self.address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", *local)
        self.workers.append(self.start("worker", *arguments, "--preload", str(ROOT / "tests" / "mortal.py")))

    def alive(self) -> int:
        return sum(w.poll() is None for w in self.workers)

    def stop(self) -> None:
        for process in filter(None, [*self.workers, self.scheduler]):
            process.kill()
            process.wait()


def wait_for(reached, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until, "the moment never came"
        time.sleep(0.02)


def n_workers(address: str) -> int:
    from distributed import Client

    with Client(address, timeout=10, set_as_default=False) as client:
        return len(client.nthreads())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> list[Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def local(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "local"
    integrate(inputs, out=out, config=TINY)
    return out


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start_scheduler()
        yield made
    finally:
        made.stop()


@pytest.fixture
def two(running: Cluster) -> Cluster:
    """The cluster with two workers that live."""
    while running.alive() < 2:
        running.start_worker()
    wait_for(lambda: n_workers(running.address) == 2)
    return running


def on(address: str, config: Run = TINY) -> Run:
    return config.replace({"run": {"scheduler": address}})


def check_equal(run: Path, other: Path) -> None:
    """Every array of the features, the graph, the latents, the domains: bit by bit."""
    one, two = (dict(zarr.open_group(r / "features.zarr", mode="r").members(max_depth=None)) for r in (run, other))
    arrays = [k for k, v in one.items() if isinstance(v, zarr.Array)]
    assert one.keys() == two.keys()
    assert {"pca", "X/data", "counts/data", "pca_components", "xy"} <= set(arrays)
    for name in arrays:
        assert one[name][...].tobytes() == two[name][...].tobytes(), name
    for name in ("graph.npz", "latents.npy", "domains.npy"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    assert np.ptp(np.load(run / "latents.npy"), axis=0).min() > 0
    digests = [{k: v["digest"] for k, v in read_manifest(r)["stages"].items()} for r in (run, other)]
    assert digests[0] == digests[1]
    assert list(digests[0]) == STAGES


def left_behind(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.name.endswith(".part") or p.name.startswith(".shared")]


def test_a_run_on_a_cluster_is_a_local_run(two, inputs, local, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the workers are elsewhere
    relative = [Path(os.path.relpath(p)) for p in inputs]
    integrate(relative, out="run", config=on(two.address))
    check_equal(tmp_path / "run", local)
    assert left_behind(tmp_path) == []
    assert [e["slice"] for e in events(tmp_path / "run") if e["event"] == "ingested"] == list(ORDER)
    # either reuses what the other made
    assert set(stages(inputs, tmp_path / "run", TINY).values()) == {"reused"}
    assert set(stages(inputs, tmp_path / "run", on(two.address)).values()) == {"reused"}


@pytest.mark.parametrize("stage", ["ingest", "features", "embed"])
def test_a_worker_killed_in_the_middle_changes_nothing(two, inputs, local, tmp_path, stage):
    trap = two.folder / stage
    trap.touch()
    integrate(inputs, out=tmp_path / "run", config=on(two.address))
    assert not trap.exists()
    assert two.alive() == 1
    assert [w.poll() for w in two.workers].count(-signal.SIGKILL) >= 1
    check_equal(tmp_path / "run", local)
    assert left_behind(tmp_path) == []
