"""A lock that a process and its children hold until the last of them has ended, however it ends."""

import fcntl
import os
from pathlib import Path


class Lock:
    """An exclusive lock on a file: the system's own, so a killed process leaves none behind.

    Parameters
    ----------
    path
        The file; made when missing. Nothing is written into it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: int | None = None

    def take(self) -> bool:
        """Take the lock; return False when somebody else has it."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self.descriptor = descriptor
        return True

    def drop(self) -> None:
        """Let go; children that were given the descriptor still hold the lock."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def free(self) -> bool:
        """Whether nobody has the lock."""
        taken = self.take()
        self.drop()
        return taken
