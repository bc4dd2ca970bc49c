"""Which job runs when and where, and what becomes of it."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stscale.errors import InputError
from stscale.serving.attempt import Attempt
from stscale.serving.journal import Journal
from stscale.serving.places import Places
from stscale.serving.schemas import State
from stscale.serving.settings import Settings
from stscale.serving.store import JobStore, Row
from stscale.size import said
from stscale.stopping import SIGNALS

MIB = 2**20
EVERY = 0.2
"""Seconds between two looks at the running jobs."""


class Dispatcher:
    """Starts jobs in the order they came, one a worker, as long as their plans fit into memory together.

    None overtakes another, so none waits for ever.

    Parameters
    ----------
    settings
        Of the service.
    store
        Its jobs.
    places
        Where their paths may lead.
    journal
        Gives the journal of a job's number.
    """

    def __init__(self, settings: Settings, store: JobStore, places: Places, journal: Callable[[int], Journal]) -> None:
        self.settings, self.store, self.places, self.journal = settings, store, places, journal
        self.waits: dict[int, str] = {}
        self._running: dict[int, Attempt] = {}
        self._kill_at: dict[int, float] = {}
        self._closing = False
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Take up what an earlier service left, and start jobs from now on."""
        with self._lock:
            for row in self.store.active():
                self._take_up(row)
        self._thread = threading.Thread(target=self._go, name="dispatcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the running jobs with a checkpoint; they wait for the next service.

        What has not stopped within `settings.grace` is left to itself, and found by the next service.
        """
        self._closing = True
        self.wake()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            for attempt in self._running.values():
                attempt.send(signal.SIGTERM)
        until = time.monotonic() + self.settings.grace
        while self._running and time.monotonic() < until:
            time.sleep(EVERY / 2)
            with self._lock:
                self._reap()

    def alive(self) -> bool:
        """Whether jobs are started."""
        return self._thread is not None and self._thread.is_alive()

    def wake(self) -> None:
        """Look at the jobs now."""
        self._wake.set()

    def cancel(self, number: int) -> bool:
        """Stop a job, with a checkpoint if it runs; return whether there was anything to stop."""
        with self._lock:
            if self.store.move(number, [State.queued], state=State.cancelled, ended=time.time()):
                return True
            if self.store.move(number, [State.running], state=State.cancelling):
                self._running[number].send(signal.SIGTERM)
                self._kill_at[number] = time.monotonic() + self.settings.grace
                return True
        row = self.store.get(number)
        return row is not None and row["state"] == State.cancelling

    def tick(self) -> None:
        """See what has ended, and start what can be."""
        with self._lock:
            self._reap()
            self._start()

    def _go(self) -> None:
        while not self._closing:
            self.tick()
            self._wake.wait(EVERY)
            self._wake.clear()

    def _take_up(self, row: Row) -> None:
        number, journal = row["id"], self.journal(row["id"])
        attempt = Attempt.left(journal)
        if attempt is None:
            if row["state"] != State.queued:
                self._end(row, journal.code(), lost=True)
            return
        self._running[number] = attempt
        self.store.move(number, [State.queued], state=State.running)
        if row["state"] == State.cancelling:
            attempt.send(signal.SIGTERM)
            self._kill_at[number] = time.monotonic() + self.settings.grace

    def _reap(self) -> None:
        for number, attempt in list(self._running.items()):
            if not attempt.ended():
                if time.monotonic() > self._kill_at.get(number, float("inf")):
                    attempt.send(signal.SIGKILL)
                continue
            del self._running[number]
            self._kill_at.pop(number, None)
            row = self.store.get(number)
            if row is not None:
                self._end(row, attempt.code, lost=self._closing)

    def _end(self, row: Row, code: int | None, *, lost: bool) -> None:
        """Note what became of a process; `lost`: it ended because the service did."""
        stops = [n for s in SIGNALS for n in (-s, 128 + s)]
        if code is not None and -code in SIGNALS:  # met before Python listened
            code = 128 - code
        new: dict[str, Any]
        ended = {"exit_code": code, "ended": time.time(), "worker": None}
        if code == 0:
            new = {"state": State.done, **ended}
        elif row["state"] == State.cancelling:
            new = {"state": State.cancelled, **ended}
        elif lost and (code is None or code in stops):
            new = {"state": State.queued, "worker": None, "attempts": max(0, row["attempts"] - 1)}
        elif code is not None and code > 0 and code not in stops:
            new = {"state": State.failed, **ended, "error": self._said(row, f"ended with {code}")}
        elif row["attempts"] <= self.settings.retries:
            new = {"state": State.queued, "worker": None, "exit_code": code}
        else:
            text = f"{_how(code)} {row['attempts']} times"
            new = {"state": State.failed, **ended, "error": self._said(row, text)}
        self.store.move(row["id"], [State.queued, State.running, State.cancelling], **new)

    def _said(self, row: Row, otherwise: str) -> str:
        """Return the last line of stderr; of a killed process with how it ended before it."""
        line = self.journal(row["id"]).error()
        if not line:
            return f"{otherwise}, and left no word"
        return line if otherwise.startswith("ended") else f"{otherwise}; its last words: {line}"

    def _start(self) -> None:
        active = self.store.active()
        queued = [row for row in active if row["state"] == State.queued]
        taken = [row for row in active if row["state"] != State.queued]
        self.waits = {}
        for place, row in enumerate(queued):
            reason = self._reason(row, taken)
            if reason:
                self.waits[row["id"]] = reason
                first = f"job {row['id']}, which is before it"
                self.waits.update({later["id"]: first for later in queued[place + 1 :]})
                return
            if self._begin(row, self._free(taken)[0]):
                taken.append(row)

    def _reason(self, row: Row, taken: list[Row]) -> str:
        """Say what a job waits for, nothing when it can start."""
        left = self.settings.memory - sum(r["planned"]["ram_mb"] for r in taken) * MIB
        needed = row["planned"]["ram_mb"] * MIB
        if not self._free(taken):
            return "a worker"
        if taken and needed > left:
            free = f"{said(max(left, 0))} of {said(self.settings.memory)}"
            return f"{said(needed)} of memory; the running jobs leave {free}"
        return ""

    def _free(self, taken: list[Row]) -> list[int]:
        return [k for k in range(len(self.settings.devices)) if k not in {r["worker"] for r in taken}]

    def _begin(self, row: Row, worker: int) -> bool:
        number, now = row["id"], time.time()
        try:
            self.places.unchanged([*map(Path, row["reads"]), Path(row["out"])])
        except InputError as error:
            self.store.move(number, [State.queued], state=State.failed, ended=now, error=str(error))
            return False
        # noted first: a service that dies here finds a running job without a process, and starts it
        new = {"state": State.running, "worker": worker, "attempts": row["attempts"] + 1}
        self.store.move(number, [State.queued], **new, started=row["started"] or now, error=None)
        row.update(worker=worker)
        journal = self.journal(number)
        attempt = Attempt.start(row["words"], journal, self.settings.devices[worker]) or Attempt.left(journal)
        if attempt is None:  # ended between the two looks
            self.store.move(number, [State.running], state=State.queued, worker=None)
            return False
        self._running[number] = attempt
        return True


def _how(code: int | None) -> str:
    if code is None:
        return "ended without a word"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"stopped from outside ({code})"
