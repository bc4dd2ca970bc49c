"""Services on made folders, and a stand-in for the command line that does as its slices' names say."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from stscale.serving import Service, Settings, create_app
from stscale.serving.orders import Order
from stscale.serving.schemas import Planned, State

TOKEN = "a token of twenty-six letters"
SHOWN = {"Authorization": f"Bearer {TOKEN}"}
MIB = 2**20

FAKE = """
import json, os, signal, sys, time
from pathlib import Path

def tell(**event):
    print(json.dumps({"time": time.time(), **event}), flush=True)

def stopped(number, frame):
    tell(event="stopped", signal="SIGTERM", exit=143)
    sys.exit(143)

signal.signal(signal.SIGTERM, stopped)
work = Path(sys.argv[2])
with (work / "starts").open("a") as file:
    file.write(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')} {os.environ.get('STSCALE_TOKEN')}\\n")
tell(event="stage", stage="train", state="start")
tell(event="step", step=1, total=9)
while True:
    if (work / "die").exists():
        print("a line before", file=sys.stderr)
        print("out of something", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if (work / "fail").exists():
        print("error: this cannot be done", file=sys.stderr)
        tell(event="error", exit=2, text="this cannot be done")
        sys.exit(2)
    if (work / "deaf").exists():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (work / "deaf").rename(work / "deafened")
    if (work / "go").exists():
        tell(event="done")
        sys.exit(0)
    time.sleep(0.01)
"""


def planned(mb: float) -> Callable[[Order], Planned]:
    """Return an examiner that finds every order to take that much."""
    return lambda order: Planned(ram_mb=mb, vram_mb=0.0, disk_mb=1.0, seconds=1.0)


def settings(folder: Path, **changes: Any) -> Settings:
    """Return settings whose slices s0 … s4 are folders, with 1 000 MB for jobs."""
    for k in range(5):
        (folder / "slices" / f"s{k}").mkdir(parents=True, exist_ok=True)
    for name in ("runs", "state"):
        (folder / name).mkdir(exist_ok=True)
    given: dict[str, Any] = {
        "slices": (folder / "slices",),
        "runs": folder / "runs",
        "state": folder / "state",
        "memory": 1000 * MIB,
        "devices": (),
        "token": TOKEN,
        "grace": 20.0,
    }
    return Settings(**{**given, **changes})


@contextmanager
def served(service: Service) -> Iterator[TestClient]:
    """Open a service and yield a client that shows the token."""
    service.open()
    try:
        with TestClient(create_app(service), headers=SHOWN, base_url="http://localhost") as client:
            yield client
    finally:
        service.close()


def fake(monkeypatch: Any, folder: Path) -> None:
    """Let `FAKE` do the jobs; its first slice is the folder where it finds what to do."""
    program = folder / "fake.py"
    program.write_text(FAKE, encoding="utf-8")
    monkeypatch.setattr("stscale.serving.attempt.PROGRAM", (sys.executable, str(program)))
    monkeypatch.setattr("stscale.serving.dispatcher.EVERY", 0.02)


def until(true: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until something is true; return it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.01)
    return found


def state(client: TestClient, number: int) -> State:
    return State(client.get(f"/jobs/{number}").json()["state"])
