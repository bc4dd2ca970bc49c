"""`stscale serve` as a process: started, killed, started again, stopped; and what it refuses to start with."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import psutil
import pytest
from made_service import SHOWN, TOKEN
from test_pipeline import write_inputs
from test_resume import SETTINGS, check_equal, finish

ROOT = Path(__file__).resolve().parents[2]


def tables() -> dict:
    """The options of an uninterrupted run, as a client gives them."""
    found: dict = {"run": {"threads": 1, "device": "cpu"}, "domains": {"k": 3}}
    for name, value in SETTINGS.items():
        section, _, option = name.partition(".")
        found.setdefault(section, {})[option] = json.loads(value) if isinstance(value, str) else value
    return found


class Server:
    """A service in a process of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        line = [sys.executable, "-m", "stscale_cli", "serve", "--slices", str(folder / "slices")]
        line += ["--runs", str(folder / "runs"), "--port", "0", "--grace", "30", *words]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "STSCALE_TOKEN": TOKEN, "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=ROOT, text=True
        )
        said = self.process.stdout.readline()
        assert said.startswith("http://127.0.0.1:"), self.process.communicate()
        self.client = httpx2.Client(base_url=said.split()[0], headers=SHOWN, timeout=60)

    def job(self, number: int) -> dict:
        return self.client.get(f"/jobs/{number}").json()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def end(self, number: int = signal.SIGKILL) -> str:
        self.client.close()
        self.process.send_signal(number)
        said = self.process.communicate(timeout=60)[1]
        assert self.process.returncode == (-number if number == signal.SIGKILL else 128 + number)
        return said


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "runs").mkdir()
    write_inputs(tmp_path / "slices")
    yield tmp_path
    for process in psutil.process_iter():  # whatever a failed test left
        try:
            if str(tmp_path) in " ".join(process.cmdline()):
                process.kill()
        except psutil.Error:
            continue


def follow(server: Server, number: int, after: int, enough) -> int:
    """Follow a job from an event on until one that is enough; return its number."""
    headers = {"Last-Event-ID": str(after)}
    with server.client.stream("GET", f"/jobs/{number}/events", headers=headers) as answer:
        assert answer.status_code == 200
        event, last = {}, after
        for line in answer.iter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
            if line.startswith("id: "):
                assert int(line.removeprefix("id: ")) == last + 1  # none twice, none left out
                last += 1
            if not line and enough(event):
                return last
    raise AssertionError(f"the stream ended with {event}")


@pytest.mark.slow
def test_killed_and_stopped_with_and_without_its_job_to_the_same_bits(folder):
    config = tables()
    body = {"command": "integrate", "slices": ["c.h5ad", "a.h5ad", "b.h5ad"], "out": "study", "config": config}
    server = Server(folder)
    answer = server.client.post("/jobs", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["planned"]["ram_mb"] > 100
    seen = follow(server, 1, 0, lambda e: e.get("step", 0) >= 40)
    (child,) = server.children()
    server.end()
    child.kill()  # with its job: the machine went down
    psutil.wait_procs([child], timeout=20)

    server = Server(folder)
    seen = follow(server, 1, seen, lambda e: e.get("step", 0) >= 120)
    assert "stopped by SIGTERM" in server.end(signal.SIGTERM)  # and its job, with a checkpoint
    told = (folder / "runs" / ".stscale-serve" / "jobs" / "1" / "progress.jsonl").read_text("utf-8").splitlines()
    assert json.loads(told[-1])["exit"] == 143

    server = Server(folder)
    seen = follow(server, 1, seen, lambda e: e.get("step", 0) >= 160)
    (child,) = server.children()
    server.end()  # alone: its job goes on
    assert child.is_running()

    server = Server(folder)
    assert not server.children()
    follow(server, 1, seen, lambda e: e.get("state") == "done")
    job = server.job(1)
    assert (job["state"], job["exit_code"], job["attempts"], job["report"]) == ("done", 0, 1, True)
    assert "<html" in server.client.get("/jobs/1/report").text
    assert server.client.get("/jobs/1/files/manifest.json").json()["commands"]["integrate"][0] == "stscale"
    server.end(signal.SIGINT)

    finish([folder / "slices" / f"{name}.h5ad" for name in "cab"], folder / "uninterrupted")
    check_equal(folder / "runs" / "study", folder / "uninterrupted")


@pytest.mark.parametrize(
    ("words", "token", "said"),
    [
        ([], None, "no token: set STSCALE_TOKEN, or give --token-file"),
        ([], "short", "the token has 5 characters; give 16 or more"),
        (["--no-token"], TOKEN, "--no-token, and there is one in STSCALE_TOKEN"),
        (["--no-token", "--host", "0.0.0.0"], None, "--no-token and --host 0.0.0.0 would let everybody in"),
        (["--token-file", "nowhere"], TOKEN, "--token-file nowhere cannot be read"),
        (["--slices", "nowhere"], TOKEN, "--slices nowhere is no folder"),
        (["--memory", "lots"], TOKEN, "--memory = 'lots': expected an amount of memory"),
        (["--state", "SLICES/state"], TOKEN, "lies in a folder of slices"),
        (["--host", "192.0.2.1"], TOKEN, "cannot listen on 192.0.2.1, port 8000"),
    ],
)
def test_what_it_does_not_start_with(stscale_, monkeypatch, tmp_path, words, token, said):
    monkeypatch.setattr("stscale.serving.gpus.gpus", list)
    monkeypatch.delenv("STSCALE_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("STSCALE_TOKEN", token)
    (tmp_path / "slices").mkdir()
    words = [word.replace("SLICES", str(tmp_path / "slices")) for word in words]
    code, out, error = stscale_("serve", "--slices", tmp_path / "slices", "--runs", tmp_path / "runs", *words)
    assert (code, out) == (2, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


def test_without_the_extra_it_says_what_to_install(stscale_, monkeypatch, tmp_path):
    there = importlib.util.find_spec
    monkeypatch.setattr("stscale_cli.serve.find_spec", lambda name: None if name == "uvicorn" else there(name))
    code, out, error = stscale_("serve", "--slices", tmp_path, "--runs", tmp_path)
    assert (code, out) == (2, "")
    assert error == "error: stscale serve needs uvicorn: pip install 'stscale[serve]'\n"


def test_a_worker_a_gpu(monkeypatch):
    from stscale.errors import InputError
    from stscale.serving import gpus

    counted = subprocess.CompletedProcess([], 0, stdout="3\n", stderr="")
    monkeypatch.setattr(gpus.subprocess, "run", lambda *a, **k: counted)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.devices(None) == ("0", "1", "2")
    assert gpus.devices(2) == ("0", "1")
    with pytest.raises(InputError, match="--workers 4: this machine has 3 GPUs"):
        gpus.devices(4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-af,6")
    assert gpus.devices(None) == ("4", "GPU-af", "6")
    counted.stdout = "0\n"
    assert gpus.devices(None) == (None,)
    assert gpus.devices(2) == (None, None)
