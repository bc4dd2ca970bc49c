"""Peak memory and time of a stretch of work."""

import threading
import time
from types import TracebackType

import psutil


class Meter:
    """Measure seconds and peak resident memory between entering and leaving.

    The memory is read every 50 ms by a thread: unlike the operating system's own high-water mark it can start
    anew for each stage.

    Attributes
    ----------
    seconds
        Wall time.
    peak_mb
        Largest resident set seen, MiB, of this process.
    first_mb
        Resident set on entering, MiB.
    """

    def __init__(self, interval: float = 0.05) -> None:
        self.seconds = 0.0
        self.peak_mb = self.first_mb = 0.0
        self._interval = interval
        self._done = threading.Event()
        self._process = psutil.Process()

    def __enter__(self) -> "Meter":
        self.peak_mb = self.first_mb = self.resident_mb()
        self._start = time.perf_counter()
        self._thread = threading.Thread(target=self._watch, name="stscale-meter", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._read()
        self.seconds = time.perf_counter() - self._start

    def _watch(self) -> None:
        while not self._done.is_set():
            self._read()
            self._done.wait(self._interval)

    def resident_mb(self) -> float:
        """Return the resident set now, MiB."""
        return float(self._process.memory_info().rss / 2**20)

    def _read(self) -> None:
        self.peak_mb = max(self.peak_mb, self.resident_mb())
