"""What the processes of a job said: a folder that outlives the service."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from stscale.serving.schemas import Progress

TAIL = 65_536
"""Bytes that are read from the end of a file."""


class Journal:
    """Events, errors, options and lock of one job.

    Parameters
    ----------
    folder
        The job's own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.events = self.folder / "progress.jsonl"
        self.errors = self.folder / "stderr.txt"
        self.config = self.folder / "config.toml"
        self.lock = self.folder / "lock"

    def begin(self, toml: str) -> None:
        """Make the folder, empty but for the options."""
        self.remove()
        self.folder.mkdir(parents=True)
        self.events.touch()
        self.config.write_text(toml, encoding="utf-8")

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def opened(self) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """Yield the files that a new process writes to: events are added, errors are its own."""
        with self.events.open("ab+") as told, self.errors.open("wb") as errors:
            if told.tell():
                told.seek(-1, os.SEEK_END)
                if told.read(1) != b"\n":  # a process was killed in the middle of a line
                    told.write(b"\n")
                    told.flush()
            yield told, errors

    def last(self) -> list[dict[str, Any]]:
        """Return the last events, oldest first."""
        return [event for line in _tail(self.events).splitlines() if (event := parsed(line)) is not None]

    def progress(self) -> Progress:
        """Return what the job is at."""
        found = Progress()
        for event in self.last():
            if event["event"] == "stage" and event.get("state") in ("start", "reused"):
                found = Progress(stage=str(event["stage"]))
            elif event["event"] in ("step", "pair"):
                stage = "train" if event["event"] == "step" else "align"
                found = Progress(stage=stage, step=event.get("step", event.get("number")), total=event.get("total"))
        return found

    def code(self) -> int | None:
        """Return the exit code that the last event tells, None when it tells of no end."""
        events = self.last()
        kind = events[-1]["event"] if events else ""
        if kind == "done":
            return 0
        return int(events[-1]["exit"]) if kind in ("stopped", "error") else None

    def error(self) -> str:
        """Return the last line of stderr, or nothing."""
        lines = [line.strip() for line in _tail(self.errors).splitlines() if line.strip()]
        return lines[-1].removeprefix("error: ") if lines else ""


def parsed(line: str) -> dict[str, Any] | None:
    """Read an event; None for anything else, as half a line of a killed process."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            return file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
