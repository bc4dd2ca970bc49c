"""Giving memory back: pages of mapped files that were read, and what the allocator keeps for later."""

import ctypes
import gc
import mmap
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT = 64 << 20
"""Bytes of one mapped file that may stay in memory after they were read or written."""


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

    def add(self, rows: int) -> None:
        """Count rows read or written."""
        # a row of its own may bring a whole page along
        self._bytes += rows * max(self._array[:1].nbytes, 1)
        if self._bytes > KEPT:
            let_go(self._array)
            self._bytes = 0
