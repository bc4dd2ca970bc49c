"""What this machine has, and how fast it is: measured in about a second."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Resources and three speeds, each that of one kind of work.

    Attributes
    ----------
    threads
        Threads the run may use.
    base
        Bytes resident once the libraries of a run are loaded.
    free_ram, total_ram, free_disk, free_vram
        Bytes; `free_vram` is None where the run will use no GPU.
    products
        Float64 multiply-adds per second of a Gram product (dsyrk), all threads.
    counts
        Sparse counts per second through a logarithm and a bincount, one thread.
    steps
        Training steps per second of a stand-in: the dense products of a default step.
    """

    threads: int
    base: int
    free_ram: int
    total_ram: int
    free_disk: int
    free_vram: int | None
    products: float
    counts: float
    steps: float


def probe(folder: Path, *, threads: int, cuda: bool, idle: bool = False) -> Machine:
    """Measure this machine.

    Parameters
    ----------
    folder
        Where the run will be written (it, or the first parent that exists, tells the free disk).
    threads
        Threads the run may use; they are set already.
    cuda
        Whether training will use a GPU.
    idle
        Count the GPU memory that others hold as free.
    """
    import psutil

    _load()
    memory = psutil.virtual_memory()
    base = psutil.Process().memory_info().rss
    return Machine(
        threads=threads,
        base=base,
        free_ram=_allowed(memory.available) + base,
        total_ram=total_memory(),
        free_disk=shutil.disk_usage(_existing(folder)).free,
        free_vram=_free_vram(idle=idle) if cuda else None,
        products=_products(),
        counts=_counts(),
        steps=_steps(),
    )


def total_memory() -> int:
    """Return the bytes of memory that this machine, or the container, has."""
    import psutil

    return _allowed(psutil.virtual_memory().total)


def _load() -> None:
    """Import what the stages import, so that `base` holds it."""
    import anndata.io
    import dask.base
    import faiss
    import pandas
    import scipy.linalg
    import scipy.spatial
    import skmisc.loess
    import torch
    import zarr

    # named, so that no linter takes them away
    _ = (anndata.io, dask.base, faiss, pandas, scipy.linalg, scipy.spatial, skmisc.loess, torch, zarr)


def _allowed(amount: int) -> int:
    """Cap by the limit of the container (cgroup v2), where there is one."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return amount
    return min(amount, int(limit)) if limit.isdigit() else amount


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _free_vram(*, idle: bool) -> int:
    import torch

    free, total = torch.cuda.mem_get_info(int(os.environ.get("LOCAL_RANK", "0")))
    return int(total if idle else free)


def _rate(work: float, function: Callable[[], object]) -> float:
    """Work per second: the best of three, after a warm-up."""
    function()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return work / max(min(seconds), 1e-9)


def _products() -> float:
    from scipy.linalg.blas import dsyrk

    x = np.random.default_rng(0).random((512, 1024))
    return _rate(512 * 1024 * 1024 / 2, lambda: dsyrk(1.0, x.T))


def _counts() -> float:
    rng = np.random.default_rng(0)
    column, value = rng.integers(0, 2000, 500_000), rng.random(500_000)
    return _rate(500_000, lambda: np.bincount(column, weights=np.log1p(value)))


def _steps() -> float:
    import torch

    generator = torch.Generator().manual_seed(0)
    h, w = torch.randn(6000, 256, generator=generator), torch.randn(256, 64, generator=generator)
    v = torch.randn(6000, 50, generator=generator)

    def step() -> None:
        # forward and the two products of backward, of both layers
        for a, b in ((v, h), (h, h @ w)):
            for _ in range(2):
                _ = a.T @ b
            _ = a @ (a.T @ b)

    return _rate(1.0, step)
