"""Where the time of a training step goes, and what OpenMP's way of waiting costs.

Parts are timed from outside: functions are wrapped by name in the child, so the loop is the one users run, and a
name that is not there is listed as absent, not guessed.
"""

import functools
import importlib
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.child import call
from benchmarks.data import environment, say
from benchmarks.integration import Simulation, simulated

WARM = 10
"""Steps before the first measured one."""
MODEL = "stscale.models.spotscape"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a step.

    Attributes
    ----------
    places
        `module:name` or `module:Class.name`, alternatives or several.
    of
        The part it is inside; None: a part of the step itself.
    """

    places: tuple[str, ...]
    of: str | None = None


PARTS = {
    "sampling": Part(
        places=("stscale.sampling.tile:TileSampler.batch", "stscale.sampling.neighbor:NeighborSampler.batch")
    ),
    "gathering rows": Part(
        places=("stscale.training.inputs:DenseInputs.rows", "stscale.training.inputs:SparseInputs.rows")
    ),
    "edges": Part(places=("stscale.training.fit:layer_edges",)),
    "transposing edges": Part(places=("stscale.models.edges:Pattern.transposed",)),
    "terms": Part(places=(f"{MODEL}:Spotscape.terms",)),
    "both views": Part(places=(f"{MODEL}:Spotscape.views",), of="terms"),
    "dropping edges": Part(places=("stscale.models.edges:Edges.dropped",), of="both views"),
    "dropping features": Part(places=(f"{MODEL}:drop_features",), of="both views"),
    "convolutions": Part(places=(f"{MODEL}:Spotscape.layer",), of="both views"),
    "sparse products": Part(places=("stscale.models.edges:Edges.__matmul__",), of="convolutions"),
    "decoder": Part(places=("torch.nn:Linear.forward",), of="terms"),
    "reconstruction": Part(places=(f"{MODEL}:masked_mse",), of="terms"),
    "telescope": Part(places=(f"{MODEL}:Spotscape._telescope",), of="terms"),
    "scale matching": Part(places=(f"{MODEL}:scale_matching",), of="terms"),
    "its search": Part(places=("stscale.losses.scale_matching:nearest",), of="scale matching"),
    "prototypes": Part(places=(f"{MODEL}:Spotscape._prototypes", f"{MODEL}:prototype_contrast"), of="terms"),
    "their k-means": Part(places=(f"{MODEL}:kmeans",), of="prototypes"),
    "backward": Part(places=("torch:Tensor.backward",)),
    "optimiser": Part(places=("torch.optim:Adam.step", "torch.optim:AdamW.step")),
}


class Clock:
    """Inclusive seconds and calls of named parts, step by step.

    Notes
    -----
    Not for concurrent calls: the measured loop prepares its batches itself (`train.prefetch = 0`).
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.calls: dict[str, int] = defaultdict(int)
        self._now: dict[str, float] = defaultdict(float)
        self._depth: dict[str, int] = defaultdict(int)
        self._last = time.perf_counter()

    def wrapped(self, function: Callable[..., Any], name: str, of: str | None) -> Callable[..., Any]:
        """Return the function timed under a name: only its outermost call, and only inside the part `of`."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._depth[name] or (of is not None and not self._depth[of]):
                return function(*args, **kwargs)
            self._depth[name] += 1
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._now[name] += time.perf_counter() - start
                self.calls[name] += len(self.steps) >= WARM
                self._depth[name] -= 1

        return timed

    def ends_step(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, after which a step is over."""

        @functools.wraps(function)
        def last(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            finally:
                now = time.perf_counter()
                self.steps.append({**self._now, "step": now - self._last})
                self._now.clear()
                self._last = now

        return last

    def table(self) -> list[dict[str, Any]]:
        """Return ms of every part over the measured steps: median where it ran, mean over all steps."""
        measured = self.steps[WARM:]
        found = []
        for name in ("step", *PARTS):
            values = [step[name] * 1e3 for step in measured if name in step]
            if values:
                entry = {"part": name, "of": PARTS[name].of if name in PARTS else None}
                entry |= {"median_ms": statistics.median(values), "mean_ms": sum(values) / len(measured)}
                calls = self.calls[name] if name in PARTS else len(measured)
                counts = {"share_of_steps": len(values) / len(measured), "calls_per_step": calls / len(measured)}
                found.append({**entry, **counts})
        return found


def install(clock: Clock) -> list[str]:
    """Wrap every part in this process and return the places that are not there."""
    absent = []
    for name, part in PARTS.items():
        for place in part.places:
            there = located(place)
            if there is None:
                absent.append(place)
                continue
            owner, leaf, found = there
            if isinstance(found, functools.cached_property):
                found.func = clock.wrapped(found.func, name, part.of)
                continue
            timed = clock.wrapped(found, name, part.of)
            setattr(owner, leaf, clock.ends_step(timed) if name == "optimiser" else timed)
    return absent


def located(place: str) -> tuple[Any, str, Any] | None:
    """Return the owner, the name and the function of a place; None where it is not there."""
    module, _, dotted = place.partition(":")
    *owners, leaf = dotted.split(".")
    try:
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        return owner, leaf, vars(owner)[leaf]
    except (ImportError, AttributeError, KeyError):
        return None


class EnoughError(Exception):
    """Training has gone as far as it is measured."""


def _train(
    files: list[str], out: str, domains: int, threads: int, train: dict[str, Any], seen: Callable[[int], None]
) -> None:
    """Integrate up to the last training step, telling each reported step; stages that are finished are reused."""
    from stscale import integrate, preset

    def observer(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            seen(event["step"])
            if event["step"] == event["total"]:
                raise EnoughError

    changes = {"run": {"threads": threads, "device": "cpu"}, "domains": {"k": domains}, "train": train}
    try:
        integrate(files, out=out, config=preset("default").replace(changes), observer=observer)
    except EnoughError:
        return
    raise RuntimeError("training ended without reporting its last step")


def parts(files: list[str], out: str, domains: int, threads: int, steps: int) -> dict[str, Any]:
    """Time the parts of a training step; runs in the child.

    Returns
    -------
    dict
        parts (rows of ms), measured steps, absent places.
    """
    clock = Clock()
    absent = install(clock)
    train = {"steps": WARM + steps, "prefetch": 0, "checkpoint_every": 10**9}
    _train(files, out, domains, threads, train, lambda step: None)
    return {"parts": clock.table(), "measured_steps": len(clock.steps) - WARM, "absent": absent}


def seconds_per_step(files: list[str], out: str, domains: int, threads: int, steps: int) -> float:
    """Return seconds per step as users have them, batches prepared ahead, the first steps left out; in the child."""
    stamps: list[tuple[int, float]] = []
    train = {"steps": steps, "checkpoint_every": 10**9, "log_every": 5}
    _train(files, out, domains, threads, train, lambda step: stamps.append((step, time.perf_counter())))
    first = next(stamp for stamp in stamps if stamp[0] >= WARM)
    return (stamps[-1][1] - first[1]) / (stamps[-1][0] - first[0])


def step_parts(what: Simulation, folder: Path, domains: int, threads: int, steps: int) -> dict[str, Any]:
    """Simulate, prepare and time the parts of a step in a child."""
    files, _ = simulated(what, folder, threads)
    before = environment(threads)
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as home:
        given = {"files": files, "out": f"{home}/run", "domains": domains, "threads": threads}
        found = call("benchmarks.steps:parts", {**given, "steps": steps}, threads=threads).value
        for row in found["parts"]:
            say(f"{row['part']}: {row['median_ms']:.2f} ms")
        found["seconds_per_step_prefetched"] = call(
            "benchmarks.steps:seconds_per_step", {**given, "steps": steps}, threads=threads
        ).value
    note = "inclusive ms; median over the steps where a part ran, mean over all; batches prepared in the loop itself"
    return {"what": note, "environment": before, "spots": what.spots, "slices": what.slices, **found}


def wait_policy(what: Simulation, folder: Path, domains: int, threads: int, steps: int, repeats: int) -> dict[str, Any]:
    """Compare seconds per step with OpenMP threads that spin while they wait and with ones that sleep."""
    files, _ = simulated(what, folder, threads)
    before = environment(threads)
    found: dict[str, list[float]] = {"PASSIVE": [], "ACTIVE": []}
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as home:
        given = {"files": files, "out": f"{home}/run", "domains": domains, "threads": threads, "steps": steps}
        for _ in range(repeats):
            for policy, seconds in found.items():
                done = call(
                    "benchmarks.steps:seconds_per_step", given, threads=threads, environment={"OMP_WAIT_POLICY": policy}
                )
                seconds.append(done.value)
    medians = {policy: statistics.median(seconds) for policy, seconds in found.items()}
    say(", ".join(f"OMP_WAIT_POLICY={policy}: {seconds:.4f} s per step" for policy, seconds in medians.items()))
    shape = {"spots": what.spots, "steps": steps}
    return {"environment": before, **shape, "seconds_per_step": medians, "runs": found}
