"""The service, without its transport: jobs in, jobs out."""

import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from stscale import __version__
from stscale.errors import InputError
from stscale.rundir import MANIFEST
from stscale.serving.artefacts import REPORT, artefact
from stscale.serving.dispatcher import MIB, Dispatcher
from stscale.serving.examiner import Examiner
from stscale.serving.journal import Journal
from stscale.serving.lock import Lock
from stscale.serving.orders import Order
from stscale.serving.places import Places
from stscale.serving.refusal import ConflictError
from stscale.serving.schemas import Job, JobPage, Machine, Planned, Progress, State, Submission
from stscale.serving.settings import Settings
from stscale.serving.store import JobStore, Row

ENDED = [state for state in State if state.ended]
MAPPED = "mapped.json"


class Service:
    """Jobs on one machine.

    Parameters
    ----------
    settings
        What it was started with.
    examine
        Says what an order will take, or refuses it; by default `Examiner`.
    """

    def __init__(self, settings: Settings, examine: Callable[[Order], Planned] | None = None) -> None:
        self.settings = settings
        self.places = Places(settings.slices, settings.runs)
        self.examine = examine or Examiner(settings)
        self.leaving: Callable[[], bool] = lambda: False  # set by whoever runs the server
        self._adding = threading.Lock()
        self._only = Lock(settings.state / "service.lock")

    def open(self) -> None:
        """Go on with what an earlier service left.

        Raises
        ------
        InputError
            When another service has the folder.
        """
        if not self._only.take():
            raise InputError(f"another service works in {self.settings.state}; give another folder with --state")
        self.store = JobStore(self.settings.state / "jobs.sqlite")
        self.dispatcher = Dispatcher(self.settings, self.store, self.places, self.journal)
        self.dispatcher.open()

    def close(self) -> None:
        """Stop running jobs with a checkpoint, for the next service to go on with."""
        self.dispatcher.close()
        self.store.close()
        self._only.drop()

    def journal(self, number: int) -> Journal:
        """Return what the processes of a job said."""
        return Journal(self.settings.state / "jobs" / str(number))

    def submit(self, submission: Submission) -> Job:
        """Queue a job.

        Raises
        ------
        InputError
            When it cannot be done here (`RefusedError`), or its folders are in use by another job (`ConflictError`).
        """
        name = f"{submission.command}-{self.store.next_id()}"
        order = Order.read(submission, self.places, name)
        self._check_unused(order)
        planned = self.examine(order)
        with self._adding:
            if submission.out is None and order.out.name == name:  # other submissions may have come first
                name = f"{submission.command}-{self.store.next_id()}"
                order = Order.read(submission, self.places, name)
            self._check_unused(order)
            number = self.store.next_id()
            journal = self.journal(number)
            journal.begin(order.toml)
            row = self.store.add(
                number,
                command=submission.command,
                submission=submission.model_dump(mode="json"),
                words=order.words(journal.config, self.settings.threads),
                reads=order.reads,
                out=str(order.out),
                planned=planned.model_dump(),
            )
        self.dispatcher.wake()
        return self.shown(row)

    def page(self, states: Sequence[State], limit: int, offset: int) -> JobPage:
        """Return jobs of some states (none: of all), the newest first."""
        rows, total = self.store.page(states or list(State), limit, offset)
        return JobPage(jobs=[self.shown(row) for row in rows], total=total)

    def job(self, number: int) -> Job | None:
        """Return a job, None when there is none of that number."""
        row = self.store.get(number)
        return None if row is None else self.shown(row)

    def cancel(self, number: int) -> None:
        """Stop a job.

        Raises
        ------
        ConflictError
            When it has ended.
        """
        if not self.dispatcher.cancel(number):
            raise ConflictError(f"job {number} has ended; there is nothing to cancel")

    def delete(self, number: int, *, files: bool) -> None:
        """Forget a job that has ended.

        Parameters
        ----------
        number
            Of the job.
        files
            Delete the run folder too, if this job made it.

        Raises
        ------
        ConflictError
            When the job has not ended, or its folder is in use.
        """
        row = self.store.get(number)
        if row is None:
            return
        out = Path(row["out"])
        with self._adding:
            if files and row["submission"]["run"] and row["command"] == "align":
                raise ConflictError(f"job {number} aligned a run that another one made; delete that one with its files")
            if files and State(row["state"]).ended:
                self._check_folder(number, out)
            if not self.store.remove(number, ENDED):
                raise ConflictError(f"job {number} has not ended; cancel it first")
            if files and out.resolve() == out and any((out / name).is_file() for name in (MANIFEST, MAPPED)):
                shutil.rmtree(out)
            self.journal(number).remove()

    def machine(self) -> Machine:
        """Return what jobs share."""
        active = self.store.active()
        running = [row for row in active if row["state"] != State.queued]
        return Machine(
            version=__version__,
            memory_mb=round(self.settings.memory / MIB, 1),
            reserved_mb=round(sum(row["planned"]["ram_mb"] for row in running), 1),
            workers=["CPU" if d is None else f"GPU {d}" for d in self.settings.devices],
            running=len(running),
            queued=len(active) - len(running),
        )

    def shown(self, row: Row) -> Job:
        """Return a job as clients see it."""
        state = State(row["state"])
        return Job(
            **{k: v for k, v in row.items() if k in Job.model_fields},
            progress=self.journal(row["id"]).progress() if state is not State.queued else Progress(),
            waits_for=self.dispatcher.waits.get(row["id"]) if state is State.queued else None,
            report=artefact(Path(row["out"]), REPORT) is not None,
        )

    def _check_unused(self, order: Order) -> None:
        """Refuse an order that writes what an unfinished job reads or writes, or reads what one writes."""
        for row in self.store.active():
            written = Path(row["out"])
            clash = [order.out] if any(_touch(order.out, Path(p)) for p in [written, *row["reads"]]) else []
            clash += [Path(p) for p in order.reads if _touch(Path(p), written)]
            if clash:
                raise ConflictError(
                    f"{clash[0]} is in use by job {row['id']}; wait for its end, or name another folder"
                )

    def _check_folder(self, number: int, out: Path) -> None:
        for row in self.store.active():
            if any(_touch(out, Path(p)) for p in [row["out"], *row["reads"]]):
                raise ConflictError(
                    f"{out} is in use by job {row['id']}; job {number} can be deleted without its files"
                )


def _touch(a: Path, b: Path) -> bool:
    return a.is_relative_to(b) or b.is_relative_to(a)
