"""A job as its runner sees it: JSON lines, patterns without a shell, volumes, and the compose file's own commands."""

import errno
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from test_cli import SMALL
from test_pipeline import SIZES, STAGES, check_complete, write_inputs

ROOT = Path(__file__).resolve().parents[1]
# root may write anywhere; without these two capabilities it is held to what the files' modes say
POWERLESS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []


def job(*words: object, powerless: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `stscale integrate` as a process."""
    if powerless and POWERLESS and not shutil.which("setpriv"):
        pytest.skip("root without setpriv: file modes mean nothing here")
    line = [*(POWERLESS if powerless else []), sys.executable, "-m", "stscale_cli", "integrate", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)


@pytest.fixture(scope="module")
def slices(tmp_path_factory) -> Path:
    """A folder of slices that nobody may write to."""
    folder = tmp_path_factory.mktemp("volume") / "slices"
    for path in write_inputs(folder):
        path.chmod(0o444)
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


def test_read_only_slices_by_a_pattern_told_as_json_lines(slices, tmp_path):
    out = tmp_path / "run"
    done = job(slices / "*.h5ad", "-o", out, *SMALL, "--progress", "json", powerless=True)
    assert (done.returncode, done.stderr) == (0, "")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(isinstance(t["time"], float) for t in told)
    assert [t["stage"] for t in told if t["event"] == "stage" and t["state"] == "start"] == STAGES
    assert told[0]["event"] == "plan"
    assert [t["step"] for t in told if t["event"] == "step"][-1] == 6
    last = told[-1]
    n = sum(SIZES.values())
    assert (last["event"], last["spots"], last["domains"], last["run"]) == ("done", n, 4, str(out))
    assert last["slices"] == sorted(SIZES)
    check_complete(out, n)


def test_an_error_is_a_json_line_too(slices, tmp_path):
    done = job(slices / "*.h5ad", "-o", tmp_path / "run", *SMALL, "-k", "4000", "--progress", "json")
    assert done.returncode == 2
    assert done.stderr.startswith("error: domains.k = 4000 is more than the 350 spots")
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["event"], last["exit"]) == ("error", 2)
    assert done.stderr == f"error: {last['text']}\n"


def test_a_pattern_that_matches_nothing(slices, tmp_path):
    done = job(slices / "*.zarr", "-o", tmp_path / "run", *SMALL)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: nothing matches {slices / '*.zarr'}\n"


def test_a_volume_of_somebody_else(slices, tmp_path):
    """The mount point belongs to another user, as a volume made by root does to the image's user."""
    volume = tmp_path / "data"
    volume.mkdir()
    if os.getuid() == 0:
        os.chown(volume, 12345, 12345)
    volume.chmod(0o555)
    for out in (volume, volume / "deep" / "run"):
        done = job(slices / "*.h5ad", "-o", out, *SMALL, powerless=True)
        assert (done.returncode, done.stdout) == (2, "")
        said = f"error: cannot write to {volume} (Permission denied; it belongs to user {volume.stat().st_uid}, "
        assert said + f"this process is user {os.getuid()}); give a folder" in done.stderr
        assert done.stderr.count("error") == 1
    assert list(volume.iterdir()) == []


def test_a_full_disk_is_no_bug(stscale_, monkeypatch, tmp_path):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "/data/run/features.zarr")

    monkeypatch.setattr("stscale.pipeline.integrate", full)
    code, _, err = stscale_("integrate", tmp_path, "-o", tmp_path / "run", "-q")
    assert code == 2
    assert err.startswith("error: [Errno 28] No space left on device: '/data/run/features.zarr'; give places")
    assert err.count("\n") == 1


def service(name: str, places: dict[str, str]) -> tuple[list[str], list[str] | None]:
    """Return a service's command and health check, as the compose file has them, with names and paths of this place."""
    told = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text(encoding="utf-8"))["services"][name]
    command = [*told.get("entrypoint", ["stscale"]), *told.get("command", [])]
    check = told.get("healthcheck", {}).get("test")

    def placed(word: str) -> str:
        for a, b in places.items():
            word = re.sub(a, b, word)
        return word

    program = {"stscale": ["-m", "stscale_cli"], "dask": ["-m", "dask"], "python": []}

    def line(words: list[str]) -> list[str]:
        return [sys.executable, *program[words[0]], *map(placed, words[1:])]

    return line(command), None if check is None else line(check[1:])


def healthy(check: list[str], process: subprocess.Popen) -> None:
    until = time.monotonic() + 90
    while subprocess.run(check, capture_output=True, check=False, cwd=ROOT).returncode:
        assert process.poll() is None, "the service ended"
        assert time.monotonic() < until, "the service never became healthy"
        time.sleep(0.2)


def test_the_service_of_the_compose_file(slices, tmp_path):
    port = free_port()
    places = {
        r"^0\.0\.0\.0$": "127.0.0.1",
        r"\b8000\b": str(port),
        r"^/slices$": str(slices),
        r"^/data$": str(tmp_path),
    }
    command, check = service("serve", places)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "STSCALE_TOKEN": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no token: set STSCALE_TOKEN")
    env["STSCALE_TOKEN"] = "0123456789abcdef"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=ROOT)
    try:
        healthy(check, process)
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert said.decode().startswith(f"http://127.0.0.1:{port} (workers: CPU; ")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_scheduler_worker_and_job_of_the_compose_file(slices, tmp_path):
    port = free_port()
    places = {
        r"\bscheduler\b(?=[:'])": "127.0.0.1",
        r"^0\.0\.0\.0$": "127.0.0.1",
        r"\b8786\b": str(port),
        r"^/slices\b": str(slices),
        r"^/data\b": str(tmp_path),
        r"^/tmp/dask$": str(tmp_path / "dask"),
    }
    running = []
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    try:
        for name in ("scheduler", "worker"):
            command, check = service(name, places)
            log = (tmp_path / f"{name}.log").open("wb")
            with log:
                running.append(subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=tmp_path))
            healthy(check, running[-1])
        command, _ = service("cluster-job", places)
        done = subprocess.run(
            [*command, *SMALL], capture_output=True, text=True, check=False, cwd=ROOT, env=env, timeout=120
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout.splitlines()[-1])["event"] == "done"
        check_complete(tmp_path / "run", sum(SIZES.values()))
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(30)
    assert stat.S_IMODE(slices.stat().st_mode) == 0o555
