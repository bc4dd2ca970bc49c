"""What a person sees while a run goes on."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SAID = {
    "ingest": "reading slices",
    "features": "normalising, choosing genes, principal components",
    "graph": "building spatial graphs",
    "train": "training",
    "embed": "embedding every spot",
    "domains": "finding domains",
    "write": "writing integrated.zarr",
    "report": "writing report.html",
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
        elif event["event"] == "note":
            self.console.print(f"  note: {event['text']}")
        elif event["event"] == "step":
            self._step(event)

    def _step(self, event: dict[str, Any]) -> None:
        if self._task is None:
            self._task = self._bar.add_task("step", total=event["total"], terms="")
        plain = {"event", "step", "total", "seconds_per_step"}
        terms = "  ".join(f"{k} {v:.3g}" for k, v in event.items() if k not in plain)
        rate = 1 / max(event["seconds_per_step"], 1e-9)
        self._bar.update(self._task, completed=event["step"], terms=f"{terms}  {rate:.1f} steps/s")
        if event["step"] == event["total"]:
            self.console.print(f"  {event['total']} steps: {terms}")
