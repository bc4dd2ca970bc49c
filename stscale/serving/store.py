"""The jobs of a service, in SQLite."""

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stscale.serving.schemas import State

COLUMNS = {
    "id": "INTEGER PRIMARY KEY AUTOINCREMENT",  # a number is never given twice
    "state": "TEXT NOT NULL",
    "command": "TEXT NOT NULL",
    "submission": "TEXT NOT NULL",
    "words": "TEXT NOT NULL",
    "reads": "TEXT NOT NULL",
    "out": "TEXT NOT NULL",
    "planned": "TEXT NOT NULL",
    "submitted": "REAL NOT NULL",
    "started": "REAL",
    "ended": "REAL",
    "worker": "INTEGER",
    "attempts": "INTEGER NOT NULL DEFAULT 0",
    "exit_code": "INTEGER",
    "error": "TEXT",
}
JSON = ("submission", "words", "reads", "planned")
ACTIVE = (State.queued, State.running, State.cancelling)

Row = dict[str, Any]


class JobStore:
    """A table of jobs; every change is on disk when the call returns.

    Parameters
    ----------
    path
        The database; made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(f"CREATE TABLE IF NOT EXISTS jobs ({', '.join(f'{k} {v}' for k, v in COLUMNS.items())})")
        self._db.execute("CREATE INDEX IF NOT EXISTS states ON jobs (state)")

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def next_id(self) -> int:
        """Return the number that the next job gets, unless another one comes first."""
        found = self._rows("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'")
        return int(found[0]["seq"]) + 1 if found else 1

    def add(self, number: int, **values: Any) -> Row:
        """Queue a job."""
        values = {"id": number, "state": State.queued, "submitted": time.time(), **values}
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        with self._lock:
            self._db.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", [*_plain(values).values()])
        found = self.get(number)
        if found is None:
            raise sqlite3.DatabaseError(f"job {number} vanished")
        return found

    def get(self, number: int) -> Row | None:
        """Return a job, None where there is none of that number."""
        found = self._rows("SELECT * FROM jobs WHERE id = ?", number)
        return found[0] if found else None

    def page(self, states: Sequence[State], limit: int, offset: int) -> tuple[list[Row], int]:
        """Return jobs of some states, the newest first, and how many there are."""
        where = f"state IN ({', '.join('?' * len(states))})"
        with self._lock:
            total = self._rows(f"SELECT count(*) AS n FROM jobs WHERE {where}", *states)[0]["n"]
            page = f"SELECT * FROM jobs WHERE {where} ORDER BY id DESC LIMIT ? OFFSET ?"
            return self._rows(page, *states, limit, offset), int(total)

    def active(self) -> list[Row]:
        """Return the jobs that have not ended, in the order they came."""
        return self._rows(f"SELECT * FROM jobs WHERE state IN ({', '.join('?' * len(ACTIVE))}) ORDER BY id", *ACTIVE)

    def move(self, number: int, before: Sequence[State], **values: Any) -> bool:
        """Change a job that is in one of the states `before`; return whether it was."""
        sets, marks = ", ".join(f"{k} = ?" for k in values), ", ".join("?" * len(before))
        with self._lock:
            done = self._db.execute(
                f"UPDATE jobs SET {sets} WHERE id = ? AND state IN ({marks})",
                [*_plain(values).values(), number, *before],
            )
        return done.rowcount == 1

    def remove(self, number: int, before: Sequence[State]) -> bool:
        """Forget a job that is in one of the states `before`; return whether it was."""
        marks = ", ".join("?" * len(before))
        with self._lock:
            done = self._db.execute(f"DELETE FROM jobs WHERE id = ? AND state IN ({marks})", [number, *before])
        return done.rowcount == 1

    def _rows(self, query: str, *values: Any) -> list[Row]:
        with self._lock:
            found = self._db.execute(query, values).fetchall()
        return [{k: json.loads(r[k]) if k in JSON else r[k] for k in r.keys()} for r in found]  # noqa: SIM118  # a Row


def _plain(values: Row) -> Row:
    return {k: json.dumps(v) if k in JSON else v for k, v in values.items()}
