"""What a person sees while a run goes on."""

import time
from types import TracebackType
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .jsonlines import JsonLines
from .options import Progress as Kind

EVERY = 30.0
"""Seconds between two lines about the steps of a training where there is no bar."""


def duration(seconds: float) -> str:
    """Write seconds as s, min or h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


SAID = {
    "ingest": "reading slices",
    "features": "normalising, choosing genes, principal components",
    "graph": "building spatial graphs",
    "join": "laying slices on each other, joining their graphs",
    "train": "training",
    "embed": "embedding every spot",
    "domains": "finding domains",
    "write": "writing integrated.zarr",
    "quality": "judging the embedding without labels",
    "report": "writing report.html",
    "align": "laying slices on each other",
    "transfer": "carrying labels and genes over",
    "impute": "imputing genes",
    "trajectory": "pseudotime from the root domain",
}


def watching(kind: Kind, *, quiet: bool) -> "Display | JsonLines":
    """Return what shows the events of a run."""
    if kind is Kind.json and not quiet:
        return JsonLines()
    return Display(quiet=quiet, plain=kind is Kind.plain)


class Display:
    """Prints stages as they start, and the named loss terms, the rate and the time left.

    On a terminal they are a bar; elsewhere, or when `plain`, a line every half minute.
    """

    def __init__(self, *, quiet: bool, plain: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.plain = plain or not self.console.is_terminal
        self.quiet = quiet
        self._said = time.monotonic()
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[terms]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=self.plain,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def done(self, lines: list[str], **fields: Any) -> None:
        """Print what came out, on stdout."""
        if not self.quiet:
            typer.echo("\n".join(lines))

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event of a run."""
        if event["event"] == "stage":
            text = SAID.get(event["stage"], event["stage"])
            self.console.print(f"{text} (unchanged, reused)" if event["state"] == "reused" else text)
        elif event["event"] == "plan":
            self._plan(event)
        elif event["event"] == "pair":
            state = " (unchanged, reused)" if event["state"] == "reused" else ""
            self.console.print(f"  {event['number']}/{event['total']}: {event['source']} on {event['target']}{state}")
        elif event["event"] == "note":
            self.console.print(f"  note: {event['text']}")
        elif event["event"] == "step":
            self._step(event)

    def _plan(self, event: dict[str, Any]) -> None:
        from stscale.size import said

        amounts = {k: said(event[f"{k}_mb"] * 2**20) for k in ("ram", "vram", "disk") if event[f"{k}_mb"]}
        parts = [f"{amounts['ram']} of memory", f"{amounts['disk']} of disk", f"about {duration(event['seconds'])}"]
        if "vram" in amounts:
            parts.insert(1, f"{amounts['vram']} of GPU memory")
        self.console.print(f"plan: {', '.join(parts)}")
        for change in event["changes"]:
            effect = "changes the result" if change["result"] else "does not change the result"
            self.console.print(
                f"  note: {change['option']} {change['before']} lowered to {change['after']} to fit ({effect})"
            )
        for note in event["notes"]:
            self.console.print(f"  note: {note}")

    def _step(self, event: dict[str, Any]) -> None:
        if self._task is None:
            self._said = time.monotonic()
            self._task = self._bar.add_task("step", total=event["total"], terms="")
        plain = {"event", "step", "total", "seconds_per_step"}
        terms = "  ".join(f"{k} {v:.3g}" for k, v in event.items() if k not in plain)
        rate = 1 / max(event["seconds_per_step"], 1e-9)
        self._bar.update(self._task, completed=event["step"], terms=f"{terms}  {rate:.1f} steps/s")
        if event["step"] == event["total"]:
            self.console.print(f"  {event['total']} steps: {terms}")
        elif self.plain and time.monotonic() - self._said > EVERY:
            self._said = time.monotonic()
            left = duration((event["total"] - event["step"]) * event["seconds_per_step"])
            self.console.print(f"  step {event['step']} of {event['total']}, {left} left: {terms}")
