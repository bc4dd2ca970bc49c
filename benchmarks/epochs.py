"""One pass over all spots, in stscale's minibatches or full batch with the terms as published; runs in a child."""

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchmarks.child import peak_rss_mib

if TYPE_CHECKING:
    from stscale.models import Method
    from stscale.training import Task

Form = Literal["own", "published"]
FEATURES = 50
"""Principal components, as the default has."""
DOMAINS = 7
TINY = 240
"""Spots of the training that comes first, so that all imports are in the baseline."""


def measure(
    n: int, form: Form, slices: int, warm: int, epochs: int, threads: int, limit_mib: float | None = None
) -> dict[str, Any]:
    """Time epochs of one form on random spots.

    Parameters
    ----------
    n
        Spots, in `slices` slices.
    form
        "own": the default minibatches and terms. "published": full batch, dense terms, k-means every epoch.
        The prototypes take part from the first step in both.
    slices
        At least two, or there is nothing to match.
    warm, epochs
        Epochs before the measured ones, and those.
    threads
        Of everything.
    limit_mib
        Memory that may be allocated (Linux): beyond it an allocation is refused and the process fails.

    Returns
    -------
    dict
        seconds of each epoch, steps of an epoch, the last loss, and baseline_mib: the peak resident set after
        a tiny training, before the data.
    """
    from stscale.threads import set_threads

    set_threads(threads)
    if limit_mib is not None and sys.platform == "linux":
        size = int(limit_mib * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    with tempfile.TemporaryDirectory(prefix="stscale-epochs-") as name:
        _run(TINY, form, slices, 2, Path(name) / "tiny")
        baseline = peak_rss_mib()
        seconds, steps, loss = _run(n, form, slices, warm + epochs, Path(name) / "data")
    return {"seconds": seconds[warm:], "steps_per_epoch": steps, "loss": loss, "baseline_mib": baseline}


def _run(n: int, form: Form, slices: int, epochs: int, folder: Path) -> tuple[list[float], int, float]:
    """Train from scratch and return the seconds of every epoch, steps per epoch and the last loss."""
    from stscale.config import Train
    from stscale.training import fit

    task, method = setting(n, form, slices, folder)
    steps = task.sampler.batches_per_epoch
    stamps: list[float] = []
    losses: list[float] = []

    def report(entry: dict[str, Any]) -> None:
        losses.append(entry["loss"])
        if entry["step"] % steps == 0:
            stamps.append(time.perf_counter())

    config = Train(epochs=epochs, log_every=1, checkpoint_every=10**9)
    start = time.perf_counter()
    fit(method, task, config, folder / "checkpoints", report)
    return np.diff([start, *stamps]).tolist(), steps, losses[-1]


def setting(n: int, form: Form, slices: int, folder: Path) -> "tuple[Task, Method]":
    """Make random spots, their sampler and an untrained network; the same weights for both forms."""
    import torch

    from benchmarks.dense import DenseSpotscape
    from benchmarks.points import points
    from stscale.config import Sample, Spotscape
    from stscale.models import Spotscape as Own
    from stscale.sampling import make_sampler
    from stscale.training import DenseInputs, Task

    rng = np.random.default_rng(0)
    tissue = points(n, slices, rng)
    inputs = DenseInputs(folder / "input.f32", n, FEATURES)
    inputs.array[:] = rng.standard_normal((n, FEATURES), dtype=np.float32)
    published = form == "published"
    config = Spotscape(warmup=0.0, refresh=1) if published else Spotscape(warmup=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        method = (DenseSpotscape if published else Own)(FEATURES, slices, DOMAINS, config, 0)
    sample = Sample(batch_size=max(2, n)) if published else Sample()
    task = Task(
        sampler=make_sampler(tissue.graph, tissue.offsets, sample, hops=method.n_layers, seed=0),
        inputs=inputs,
        targets=None,
        library=None,
        group=tissue.group,
        mask=None,
        seed=0,
        device=torch.device("cpu"),
        digest=f"{form} {n}",
    )
    return task, method
