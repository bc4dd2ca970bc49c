"""The stages on a real Dask cluster, a scheduler and two workers in processes of their own: the bits of a local run."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from stscale_cli.app import main
from test_pipeline import ORDER, SMALL, STAGES, events, stages, write_inputs

import stscale.cluster
import stscale.compute
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
        wait_for(lambda: file.exists() and file.read_text(encoding="utf-8").rstrip().endswith("}"))  # whole, too
        self.address = json.loads(file.read_text(encoding="utf-8"))["address"]

    def start_worker(self) -> None:
        local = ("--local-directory", str(self.folder / "local"))
        arguments = (self.address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", *local)
        self.workers.append(self.start("worker", *arguments, "--preload", str(ROOT / "tests" / "mortal.py")))

    def wait(self, workers: int) -> None:
        from distributed import Client

        with Client(self.address, timeout=10, set_as_default=False) as client:
            wait_for(lambda: len(client.nthreads()) == workers)

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


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    """Blocks of the embedding small enough that there are several."""
    with pytest.MonkeyPatch.context() as patch:
        # the package's attribute `embed` is the function: the module is reached by its name
        patch.setattr(importlib.import_module("stscale.training.embed"), "ROWS", 50)
        yield


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
def two(running: Cluster, request: pytest.FixtureRequest) -> Cluster:
    """The cluster with two workers that live."""
    while running.alive() < 2:
        running.start_worker()
    request.getfixturevalue("local")  # made while the workers start
    running.wait(2)
    return running


@pytest.fixture
def some(running: Cluster) -> Cluster:
    """The cluster with what workers are left, at least one."""
    if not running.alive():
        running.start_worker()
    running.wait(running.alive())
    return running


@pytest.fixture
def stscale_(monkeypatch, capfd):
    """Run `integrate` in this process; return exit code, stdout and stderr, those of other threads too."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stscale", "integrate", *map(str, arguments), "--quiet"])
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


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


@pytest.mark.parametrize("address", ["host:8786", "http://host:8786", "tcp://host", "tcp://a b:1", ""])
def test_what_is_no_address(stscale_, inputs, tmp_path, address):
    code, out, err = stscale_(*inputs, "-o", tmp_path / "run", "--scheduler", address)
    assert (code, out) == (2, "")
    assert err == f"error: scheduler {address!r} is no address; expected tcp://host:port, for example tcp://host:8786\n"
    assert not (tmp_path / "run").exists()


def test_nobody_answers(stscale_, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(stscale.cluster, "TIMEOUT", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        code, out, err = stscale_(*inputs, "-o", tmp_path / "run", "--scheduler", address)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: no Dask scheduler answers at {address}")
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_cluster_without_workers(running, stscale_, inputs, tmp_path):
    # the first test that needs the cluster: nobody has started workers yet
    code, _, err = stscale_(*inputs, "-o", tmp_path / "run", "--scheduler", running.address)
    assert (code, err.count("\n")) == (2, 1)
    assert f"the Dask scheduler at {running.address} has no workers; start some with `dask worker" in err
    assert not (tmp_path / "run").exists()


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


def test_the_error_of_a_worker_is_that_of_a_local_run(some, stscale_, tmp_path):
    def spoilt(name, adata):
        if name == "a":
            adata.X = adata.X * -1
        return adata

    paths = write_inputs(tmp_path / "inputs", spoilt)
    said = [
        stscale_(*paths, "-o", tmp_path / "run", "--threads", "1", *more)
        for more in ([], ["--scheduler", some.address])
    ]
    assert said[0] == said[1]
    assert said[0][0] == 2
    assert said[0][2].startswith("error: ")
    assert said[0][2].count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_another_environment_is_refused(some, monkeypatch, inputs, tmp_path):
    true = stscale.cluster.version
    for name, change in {
        "python": ("platform.python_version_tuple", lambda: ("2", "7", "0")),
        "stscale": ("__version__", "0.0"),
        "numpy": ("version", lambda package: "0.1+cpu" if package == "numpy" else true(package)),
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(f"stscale.cluster.{change[0]}", change[1])
            wrong = {"python": "2.7", "stscale": "0.0", "numpy": "0.1"}[name]
            with pytest.raises(InputError, match=rf"the scheduler tcp\S+ has {name} \S+, this process {wrong}; give"):
                integrate(inputs, out=tmp_path / "run", config=on(some.address))
    assert not (tmp_path / "run").exists()


def test_a_worker_that_cannot_import_the_package(some, monkeypatch):
    # pickled by a name that is nowhere
    monkeypatch.setattr(stscale.cluster._versions, "__qualname__", "_nowhere")
    monkeypatch.setattr(stscale.cluster, "_nowhere", stscale.cluster._versions, raising=False)
    with pytest.raises(InputError, match="cannot run stscale"), cluster(some.address, threads=1):
        pass


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="a path that is another place in each process")
def test_files_that_a_worker_does_not_see(some, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = Path("/proc/self/cwd")
    (tmp_path / "run").mkdir()
    (tmp_path / "here.h5ad").write_text("12")
    (tmp_path / "both.h5ad").write_text("12")
    (some.folder / "both.h5ad").write_text("123")
    with cluster(some.address, threads=1):
        check_shared(tmp_path / "run", [tmp_path / "here.h5ad", tmp_path])
        with pytest.raises(InputError, match=r"^worker tcp\S+ cannot read the run folder /proc/self/cwd/run \(No such"):
            check_shared(mine / "run", [])
        with pytest.raises(InputError, match=r"^worker tcp\S+ cannot read /proc/self/cwd/here.h5ad; .* share"):
            check_shared(tmp_path / "run", [mine / "here.h5ad"])
        with pytest.raises(InputError, match=r"^worker tcp\S+ sees another file at /proc/self/cwd/both.h5ad"):
            check_shared(tmp_path / "run", [tmp_path / "here.h5ad", mine / "both.h5ad"])
    assert list((tmp_path / "run").iterdir()) == []
    with pytest.raises(InputError, match="cannot read the run folder"):
        integrate(inputs, out=mine / "new", config=on(some.address))
    assert not (tmp_path / "new").exists()


def test_blocks_come_in_order_whatever_they_take(some):
    waits = [0.1 * (k % 3 == 0) for k in range(30)]
    with cluster(some.address, threads=7) as compute:
        assert compute == Compute(scheduler=None, workers=some.alive())
        slept = map_blocks(lambda k: time.sleep(waits[k]) or k, range(30), workers=2, scheduler=None)
        assert list(slept) == list(range(30))
        assert list(map_blocks(lambda k: k, [], scheduler=None)) == []

        def both(scheduler):
            joined = "({})".format
            return reduce_blocks(str, range(20), lambda r: joined(" ".join(r)), fan_in=3, scheduler=scheduler)

        assert both(None) == both("threads")  # the same tree, bracket by bracket
        pids = set(map_blocks(lambda k: time.sleep(0.05) or os.getpid(), range(8), workers=2, scheduler=None))
    assert pids == {w.pid for w in some.workers if w.poll() is None}


def test_an_error_waits_for_what_still_runs(some, tmp_path):
    def work(k):
        if k == 0:
            raise InputError("found, expected, what to do")
        time.sleep(0.5)
        (tmp_path / str(k)).touch()

    with cluster(some.address, threads=1), pytest.raises(InputError, match=r"^found, expected, what to do$"):
        list(map_blocks(work, range(3), workers=2, scheduler=None))
    assert {p.name for p in tmp_path.iterdir()} == {"1", "2"}


def test_a_task_that_takes_workers_down_is_said_in_one_line(some):
    from distributed.scheduler import KilledWorker

    def work(k):
        raise KilledWorker("task", SimpleNamespace(address="tcp://none:1"), 3)  # what the scheduler gives up with

    with cluster(some.address, threads=1), pytest.raises(StscaleError, match=r"^4 Dask workers died .* more memory"):
        list(map_blocks(work, range(3), workers=2, scheduler=None))


def test_without_workers_or_scheduler_a_run_gives_up(some, monkeypatch, caplog):
    """The last test: nothing is left of the cluster then."""
    monkeypatch.setattr(stscale.compute, "PATIENCE", 0.5)
    with cluster(some.address, threads=1):
        slow = map_blocks(lambda k: time.sleep(5 * k), range(4), workers=1, scheduler=None)
        assert next(slow) is None
        for worker in some.workers:
            worker.kill()
        with pytest.raises(StscaleError, match="no worker for"):
            next(slow)
        with pytest.raises(StscaleError, match="no worker for"):
            list(map_blocks(lambda k: k, range(4), workers=1, scheduler=None))
        some.scheduler.kill()
        with pytest.raises(StscaleError, match="connection to the Dask scheduler was lost"):
            list(map_blocks(lambda k: k, range(4), workers=1, scheduler=None))
    assert caplog.records == []  # the errors said it
