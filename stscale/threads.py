"""Thread counts, decided in one place: two OpenMP runtimes (torch, FAISS) on a busy machine can cost fivefold."""

import os

from stscale.memory import share_arenas


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

    share_arenas()
    count = threads or available_cores()
    torch.set_num_threads(count)
    threadpool_limits(count)
    try:
        import faiss
    except Exception:  # a GPU build without its CUDA wheels raises RuntimeError; the first search says so clearly
        return count
    faiss.omp_set_num_threads(count)
    return count


def local_ranks() -> int:
    """Return how many ranks of one training share this machine, as torchrun says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def available_cores() -> int:
    """Return the cores this process may run on (affinity respected where the system tells)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
