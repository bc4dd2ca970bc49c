"""One process that does a job: started here, or left by a service that died."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from stscale.serving.journal import Journal
from stscale.serving.lock import Lock

PROGRAM = (sys.executable, "-m", "stscale_cli")
"""What does a job."""

KEPT_BACK = ("STSCALE_TOKEN",)
"""Variables that no job sees."""


class Attempt:
    """A process of the command line; its lock outlives the service, so that no job runs twice at a time.

    Parameters
    ----------
    journal
        Of the job.
    process
        The child; None for one that another service started.
    """

    def __init__(self, journal: Journal, process: subprocess.Popen[bytes] | None) -> None:
        self.journal = journal
        self._process = process
        self._lock = Lock(journal.lock)

    @classmethod
    def start(cls, words: Sequence[str], journal: Journal, device: str | None) -> "Attempt | None":
        """Start `stscale` with `words`, told to the journal; None when a process has the job already.

        Parameters
        ----------
        words
            Command and options.
        journal
            Of the job.
        device
            Its ``CUDA_VISIBLE_DEVICES``; None leaves what the service has.
        """
        lock = Lock(journal.lock)
        if not lock.take():
            return None
        env = {k: v for k, v in os.environ.items() if k not in KEPT_BACK}
        if device is not None:
            env["CUDA_VISIBLE_DEVICES"] = device
        try:
            with journal.opened() as (told, errors):
                process = subprocess.Popen(
                    [*PROGRAM, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=told,
                    stderr=errors,
                    cwd=journal.folder,
                    env=env,
                    pass_fds=(lock.descriptor or 0,),
                    start_new_session=True,  # Ctrl-C in the service's terminal is the service's to hear
                )
        finally:
            lock.drop()
        return cls(journal, process)

    @classmethod
    def left(cls, journal: Journal) -> "Attempt | None":
        """Return the process that a dead service left with a job, None when there is none."""
        return None if Lock(journal.lock).free() else cls(journal, None)

    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._lock.free() if self._process is None else self._process.poll() is not None

    @property
    def code(self) -> int | None:
        """Exit code, below 0 for a signal; of a process that is no child, what its last line said, None for nothing."""
        return self.journal.code() if self._process is None else self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Send a signal, to whoever holds the lock."""
        if self._process is not None:
            self._process.send_signal(number)
            return
        for process in psutil.process_iter():
            try:
                if any(Path(file.path) == self.journal.lock for file in process.open_files()):
                    process.send_signal(number)
            except psutil.Error:  # gone, or somebody else's
                continue
