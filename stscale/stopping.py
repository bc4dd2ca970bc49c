"""Being asked to stop: by a signal, or by a call; and the moments at which a stop would do harm."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from stscale import ranks

SIGNALS = (signal.SIGTERM, signal.SIGINT)
REPEAT = 2.0
"""Seconds within which a second signal is the echo of the first: torchrun and terminals send it twice."""


class Stopped(BaseException):
    """The process was asked to stop, and has brought to an end what must not be cut short.

    Not an `Exception`: nothing that handles errors may take it for one.

    Parameters
    ----------
    number
        The signal that asked.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command goes on from here")
        self.number = number

    @property
    def name(self) -> str:
        """The signal's name, ``"SIGTERM"``."""
        return signal.Signals(self.number).name

    @property
    def code(self) -> int:
        """Exit code by the shell's convention: 128 plus the signal."""
        return 128 + self.number


class _Request:
    """What was asked of this process: signals are its own, so there is one of these."""

    def __init__(self) -> None:
        self.number = 0
        self.since = 0.0
        self.told = False  # whether `Stopped` was raised for it
        self.depth = 0

    def forget(self) -> None:
        self.number, self.since, self.told, self.depth = 0, 0.0, False, 0


_request = _Request()


def request(number: int = signal.SIGTERM) -> None:
    """Ask this process to stop at the next moment that allows it: the end of a training step, or the next stage.

    Callable from any thread. The request stands until the process ends or `heeded` begins anew.
    """
    if not _request.number:
        _request.number, _request.since = number, time.monotonic()


def requested() -> int:
    """Return the signal that asked for a stop, 0 for none."""
    return _request.number


def check() -> None:
    """Raise `Stopped` when a stop was asked for."""
    if _request.number:
        _request.told = True
        raise Stopped(_request.number)


def agreed() -> int:
    """Return the signal that any rank was asked to stop by, 0 for none; every rank must call it at the same step."""
    number = ranks.largest(_request.number)
    if number:
        request(number)
    return number


@contextmanager
def deferred() -> Iterator[None]:
    """Let signals wait until the end of the block, or until it looks at `requested` itself.

    A second signal that is no echo of the first does not wait. Other threads than the main one see no signals,
    and pass through.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _request.depth += 1
    try:
        yield
    finally:
        _request.depth -= 1
    if _request.number and not _request.depth and not _request.told:
        check()


@contextmanager
def heeded() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into `Stopped` while the block runs, raised where it does no harm (`deferred`)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _request.forget()
    before = {number: signal.signal(number, _heard) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _heard(number: int, frame: FrameType | None) -> None:
    first = not _request.number
    request(number)
    if (first and not _request.depth) or (not first and time.monotonic() - _request.since > REPEAT):
        check()
