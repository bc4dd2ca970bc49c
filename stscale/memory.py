"""Giving memory back: pages of mapped files that were read, and what the allocator keeps for later."""

import ctypes
import gc
import mmap
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT = 32 << 20
"""Bytes of one mapped file that may stay in memory after they were read or written."""

AROUND = 64 << 10
"""Bytes that come along with any place that is touched: Linux maps 16 pages at a time."""


def let_go(array: NDArray[Any]) -> None:
    """Drop the pages of a mapped file from this process; nothing is lost, they are read again when needed.

    Pages that were touched count as resident memory for as long as the mapping lives, so a pass over a file of
    100 GB would look (and, with a limit on the job, end) like 100 GB of memory. Does nothing for other arrays.
    """
    holder: Any = array
    while isinstance(holder, np.ndarray):
        mapped = getattr(holder, "_mmap", None)
        if isinstance(mapped, mmap.mmap):
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)
            return
        holder = holder.base


def share_arenas() -> None:
    """Let the threads allocate from two arenas instead of eight per core (glibc; `MALLOC_ARENA_MAX` wins).

    What one thread frees in an arena of its own no other thread gets, so the resident memory of streaming grows by
    the number of arenas.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        option = getattr(ctypes.CDLL(None), "mallopt", None)
        if option is not None:
            option(-8, 2)  # M_ARENA_MAX


def trim() -> None:
    """Return freed memory to the system, where the C library can be asked to (glibc)."""
    gc.collect()
    if sys.platform == "linux":
        release = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if release is not None:
            release(0)


class Touched:
    """Counts the bytes touched in a mapped file and lets them go past `KEPT`.

    Parameters
    ----------
    array
        The mapped file.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self._bytes = 0

    def add(self, rows: int, runs: int = 1) -> None:
        """Count rows read or written, in so many runs of adjacent ones."""
        self._bytes += rows * self._array[:1].nbytes + runs * AROUND
        if self._bytes > KEPT:
            let_go(self._array)
            self._bytes = 0
