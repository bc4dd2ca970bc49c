"""The events of a job as they happen."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi.sse import ServerSentEvent

from stscale.serving.journal import Journal, parsed
from stscale.serving.schemas import State
from stscale.serving.store import Row

EVERY = 0.2
"""Seconds between two looks."""


async def follow(
    journal: Journal, after: int, look: Callable[[], Row | None], gone: Callable[[], bool]
) -> AsyncIterator[ServerSentEvent]:
    """Yield the events of a job, then how it ended.

    Parameters
    ----------
    journal
        Of the job.
    after
        Number of the last event that the client has; an event's number is that of its line.
    look
        Returns the job's row; None when it is gone.
    gone
        Whether the service is ending: clients then ask its successor.

    Yields
    ------
    ServerSentEvent
        Each line of ``--progress json`` with its number as id; at the end an event `end` with state, exit code and
        error, without an id.
    """
    number, begun = 0, b""
    with journal.events.open("rb") as file:
        while not gone():
            row = await asyncio.to_thread(look)  # before reading: what was written before its end is read below
            while line := file.readline():
                begun += line
                if not begun.endswith(b"\n"):
                    break
                number += 1
                text, begun = begun.decode("utf-8", errors="replace").strip(), b""
                if number > after and parsed(text) is not None:
                    yield ServerSentEvent(raw_data=text, id=str(number))
            if row is None or State(row["state"]).ended:
                yield ServerSentEvent(data=_end(row), event="end")
                return
            await asyncio.sleep(EVERY)


def _end(row: Row | None) -> dict[str, Any]:
    if row is None:
        return {"state": "deleted"}
    return {name: row[name] for name in ("state", "exit_code", "error")}
