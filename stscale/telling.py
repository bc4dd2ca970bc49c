"""What a run says while it goes on: to its folder and to whoever watches."""

from collections.abc import Callable
from typing import Any

from stscale.rundir import RunFolder

Observer = Callable[[dict[str, Any]], None]


class Telling:
    """A run folder and an observer that hear the same.

    Parameters
    ----------
    run
        Its events.jsonl gets every event.
    observer
        Called with each event.
    """

    def __init__(self, run: RunFolder, observer: Observer) -> None:
        self.run = run
        self.observer = observer

    def tell(self, kind: str, **fields: Any) -> None:
        """Report an event."""
        self.run.event(kind, **fields)
        self.observer({"event": kind, **fields})

    def skip(self, stage: str) -> None:
        """Report that a stage is reused."""
        self.run.reuse(stage)
        self.observer({"event": "stage", "stage": stage, "state": "reused"})
