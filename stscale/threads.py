"""Thread counts, decided in one place: two OpenMP runtimes (torch, FAISS) on a busy machine can cost fivefold."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from stscale.memory import share_arenas

Item = TypeVar("Item")
Found = TypeVar("Found")

# what `set_threads` was told last, 0: it was not called; BLAS cannot be asked where it is held to one thread
_given = 0


def set_threads(threads: int) -> int:
    """Give torch, FAISS and BLAS the same number of threads, and all threads the same memory arenas.

    Parameters
    ----------
    threads
        0 takes all cores this process may use.

    Returns
    -------
    int
        The number set.
    """
    import torch
    from threadpoolctl import threadpool_limits

    global _given
    share_arenas()
    count = _given = threads or available_cores()
    torch.set_num_threads(count)
    threadpool_limits(count)
    try:
        import faiss
    except Exception:  # a GPU build without its CUDA wheels raises RuntimeError; the first search says so clearly
        return count
    faiss.omp_set_num_threads(count)
    return count


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS use one thread within; also a decorator.

    Threads that share a small product wait for each other: on a machine that does something else too, EM takes several
    times as long with two threads as with one.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


def spread_over_threads(function: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """Return the results in the order of the items, from as many threads as were set, with BLAS of one thread each.

    They are the same bits for any number of threads.
    """
    items = list(items)
    count = min(_given or available_cores(), len(items))
    with one_blas_thread():
        if count < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(function, items))


def local_ranks() -> int:
    """Return how many ranks of one training share this machine, as torchrun says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def available_cores() -> int:
    """Return the cores this process may run on (affinity respected where the system tells)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
