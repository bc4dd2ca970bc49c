"""What a person sees while a run goes on."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


def duration(seconds: float) -> str:
    """Write seconds as s, min or h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


SAID = {
    "ingest": "reading slices",
    "features": "normalising, choosing genes, principal components",
    "graph": "building spatial graphs",
    "train": "training",
    "embed": "embedding every spot",
    "domains": "finding domains",
    "write": "writing integrated.zarr",
    "report": "writing report.html",
    "align": "laying slices on each other",
    "transfer": "carrying labels and genes over",
    "impute": "imputing genes",
    "trajectory": "pseudotime from the root domain",
}


class Display:
    """Prints stages as they start, and a bar with the named loss terms, the rate and the time left."""

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[terms]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

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
            self._task = self._bar.add_task("step", total=event["total"], terms="")
        plain = {"event", "step", "total", "seconds_per_step"}
        terms = "  ".join(f"{k} {v:.3g}" for k, v in event.items() if k not in plain)
        rate = 1 / max(event["seconds_per_step"], 1e-9)
        self._bar.update(self._task, completed=event["step"], terms=f"{terms}  {rate:.1f} steps/s")
        if event["step"] == event["total"]:
            self.console.print(f"  {event['total']} steps: {terms}")
