"""What a program sees while a run goes on: one JSON object a line, on stdout."""

import json
import signal
import sys
import time
from types import TracebackType
from typing import Any

from stscale.verdict import verdict


class JsonLines:
    """Prints every event as it happens; the last one is `done`, `stopped` or `error`.

    Each line has `time` (seconds since 1970) and `event`; the other fields are those of events.jsonl.
    """

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is None:
            return
        code, text = verdict(value)
        if code > 128:
            self({"event": "stopped", "signal": signal.Signals(code - 128).name, "exit": code})
        else:
            self({"event": "error", "exit": code, "text": text})

    def __call__(self, event: dict[str, Any]) -> None:
        """Print one event of a run."""
        sys.stdout.write(json.dumps({"time": round(time.time(), 3), **event}, default=str) + "\n")
        sys.stdout.flush()  # a pipe would keep them back

    def done(self, lines: list[str], **fields: Any) -> None:
        """Print what came out."""
        self({"event": "done", **fields})
