"""The contract: what a run will take, and options that make it fit."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stscale.config import Run
from stscale.errors import InputError
from stscale.planning.cost import Cost, costs
from stscale.planning.headers import Header, Size, sizes
from stscale.planning.machine import Machine
from stscale.size import bytes_of, said

MIB = 2**20

Options = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An option that was lowered to fit.

    Attributes
    ----------
    option
        `section.name`.
    before, after
        Its values.
    result
        Whether the result depends on it beyond rounding.
    """

    option: str
    before: int
    after: int
    result: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Prediction for one run.

    Attributes
    ----------
    size, machine
        What it was made from.
    run
        The options, lowered where a budget asked for it.
    costs
        Of each stage.
    changes
        What was lowered.
    notes
        What the user should know, one sentence each.
    """

    size: Size
    machine: Machine
    run: Run
    costs: tuple[Cost, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def ram(self) -> float:
        """Peak bytes of memory."""
        return max(c.ram for c in self.costs)

    @property
    def vram(self) -> float:
        """Peak bytes of GPU memory."""
        return max(c.vram for c in self.costs)

    @property
    def disk(self) -> float:
        """Bytes of disk, all stages together."""
        return sum(c.disk for c in self.costs)

    @property
    def seconds(self) -> float:
        """Seconds of all stages."""
        return sum(c.seconds for c in self.costs)

    def record(self) -> dict[str, Any]:
        """Return what the manifest keeps; MiB and seconds."""
        stages = {
            c.stage: {
                "ram_mb": round(c.ram / MIB, 1),
                "vram_mb": round(c.vram / MIB, 1),
                "disk_mb": round(c.disk / MIB, 1),
                "seconds": round(c.seconds, 1),
            }
            for c in self.costs
        }
        return {
            "ram_mb": round(self.ram / MIB, 1),
            "vram_mb": round(self.vram / MIB, 1),
            "disk_mb": round(self.disk / MIB, 1),
            "seconds": round(self.seconds, 1),
            "stages": stages,
            "changes": [dataclasses.asdict(c) for c in self.changes],
            "size": dataclasses.asdict(self.size),
        }


def make_plan(headers: Sequence[Header], run: Run, machine: Machine, *, cuda: bool, folder: Path) -> Plan:
    """Predict a run, and lower options until it fits the budgets `run.max_ram` and `run.max_vram`.

    Options that change nothing but rounding go first (blocks, sorting memory, prefetch), then bank, batch and rows
    of the mixture's fit, which change the result and are reported as such. Without a budget nothing is lowered.

    Parameters
    ----------
    headers
        Of the slices.
    run
        Options.
    machine
        From `probe`.
    cuda
        Whether training runs on a GPU.
    folder
        Where the run goes, for the messages.

    Raises
    ------
    InputError
        When the run cannot fit: with the smallest budget that would do; or when the disk is too small.
    """
    size = sizes(headers, run.preprocess)
    if run.domains.k is not None and run.domains.k > size.n:
        raise InputError(f"domains.k = {run.domains.k} is more than the {size.n} spots; lower it")
    limits = _Limits(run, machine)

    def priced(candidate: Run) -> tuple[Cost, ...]:
        threads = min(machine.threads, candidate.threads or machine.threads)
        used = dataclasses.replace(machine, threads=threads)
        return tuple(costs(size, candidate, used, steps=_steps(candidate, size), cuda=cuda))

    current, found = run, priced(run)
    changes: list[Change] = []
    for option, smallest, result in KNOBS:
        while limits.excess(found) > 0:
            lowered = _lowered(current, option, smallest, machine)
            # a value far above the data is halved until that shows
            while lowered is not None and limits.excess(priced(lowered)) > limits.excess(found) - MIB:
                lowered = _lowered(lowered, option, smallest, machine)
            if lowered is None:
                break
            current, found = lowered, priced(lowered)
        before, after = _value(run, option, machine), _value(current, option, machine)
        if after < before:
            changes.append(Change(option=option, before=before, after=after, result=result))
    limits.check(found, size)
    plan = Plan(
        size=size,
        machine=machine,
        run=current,
        costs=found,
        changes=tuple(changes),
        notes=limits.notes(found),
    )
    if plan.disk > machine.free_disk:
        raise InputError(
            f"the run would write about {said(plan.disk)} to {folder}, where {said(machine.free_disk)} are free; "
            "give a folder on a larger disk with -o"
        )
    return plan


# option, smallest value tried, whether the result depends on it beyond rounding
KNOBS: tuple[tuple[str, int, bool], ...] = (
    ("preprocess.block", 131_072, False),
    ("ingest.memory_mb", 32, False),
    ("ingest.chunk", 1024, False),
    ("train.prefetch", 0, False),
    ("run.threads", 1, False),
    ("spotscape.bank", 0, True),
    ("sample.batch_size", 256, True),
    ("domains.max_fit", 10_000, True),
)


def _value(run: Run, option: str, machine: Machine) -> int:
    section, name = option.split(".")
    value: int = getattr(run if section == "run" else getattr(run, section), name)
    return value or machine.threads if option == "run.threads" else value


def _lowered(run: Run, option: str, smallest: int, machine: Machine) -> Run | None:
    """Halve an option, not below `smallest`; None when it is there already."""
    section, name = option.split(".")
    value = _value(run, option, machine)
    smaller = max(smallest, value // 2)
    if option == "ingest.chunk":
        smaller = max(run.ingest.tile, smaller // run.ingest.tile * run.ingest.tile)
    if smaller >= value:
        return None
    return run.replace({section: {name: smaller}})


def _steps(run: Run, size: Size) -> int:
    if not run.trains:
        return 0
    batches = -(-size.n // max(1, min(run.sample.batch_size, size.n)))
    return run.train.epochs * batches if run.train.epochs else run.budget.steps or 0


class _Limits:
    """Budgets of memory, and what is said about them."""

    def __init__(self, run: Run, machine: Machine) -> None:
        self.machine = machine
        self.ram = bytes_of(run.max_ram, "max_ram") if run.max_ram else None
        self.vram = bytes_of(run.max_vram, "max_vram") if run.max_vram else None

    def excess(self, found: Sequence[Cost]) -> float:
        """Bytes above the budgets that were given, the larger of both."""
        over = [0.0]
        if self.ram is not None:
            over.append(max(c.ram for c in found) - self.ram)
        if self.vram is not None:
            over.append(max(c.vram for c in found) - self.vram)
        return max(over)

    def check(self, found: Sequence[Cost], size: Size) -> None:
        """Refuse what cannot fit; `found` is the smallest the options allow when a budget was given."""
        self._refuse(found, size, "max_ram", self.ram, lambda c: c.ram, self.machine.total_ram, "memory")
        vram = self.machine.free_vram
        self._refuse(found, size, "max_vram", self.vram, lambda c: c.vram, vram, "GPU memory")

    def _refuse(
        self,
        found: Sequence[Cost],
        size: Size,
        option: str,
        budget: int | None,
        taken: Callable[[Cost], float],
        there: int | None,
        what: str,
    ) -> None:
        worst = max(found, key=taken)
        needed = taken(worst)
        flag = "--" + option.replace("_", "-")
        enough = said(-(-needed * 1.02 // (16 * MIB)) * 16 * MIB)
        data = f"{size.n:,} spots of {size.slices} slices with {size.genes:,} genes"
        if budget is not None and needed > budget:
            raise InputError(
                f"{flag} {said(budget)} is too little {what} for {data}: {worst.stage} takes {said(needed)} at the "
                f"least; give {flag} {enough} or more"
            )
        if budget is None and there is not None and needed > there:
            raise InputError(
                f"{data} would take {said(needed)} of {what} ({worst.stage}) and this machine has {said(there)}; "
                f"give {flag} {said(there)} to lower batch and block sizes"
            )

    def notes(self, found: Sequence[Cost]) -> tuple[str, ...]:
        """Say what is tight."""
        peak = max(c.ram for c in found)
        if self.ram is None and peak > self.machine.free_ram:
            free = said(self.machine.free_ram)
            return (f"about {said(peak)} of memory will be needed and {free} are free now; --max-ram {free} fits it",)
        return ()
