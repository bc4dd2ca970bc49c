"""Which slice is laid on which: a pair list, checked before any work."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

from stscale.errors import InputError

RULES = ("sequential", "star", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairList:
    """Pairs of slices that connect all of them.

    Attributes
    ----------
    names
        The slices, in their order.
    pairs
        (source, target) places in `names`; the source is laid on the target.
    reference
        Place of the slice whose frame is kept.

    Raises
    ------
    InputError
        A slice alone, repeated names, a pair of a slice with itself, a repeated pair (in either direction), a
        slice that no chain of pairs joins to the reference.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    reference: int = 0

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise InputError(f"{len(self.names)} slice given; alignment needs at least two")
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise InputError(f"two slices are called {sorted(twice)[0]!r}; give them different names")
        seen: set[frozenset[int]] = set()
        for source, target in self.pairs:
            if not (0 <= source < len(self.names) and 0 <= target < len(self.names)):
                raise InputError(f"pair ({source}, {target}) points outside the {len(self.names)} slices")
            if source == target:
                raise InputError(f"slice {self.names[source]!r} is paired with itself")
            if frozenset((source, target)) in seen:
                raise InputError(f"the pair {self.names[source]!r}, {self.names[target]!r} is listed twice")
            seen.add(frozenset((source, target)))
        if not 0 <= self.reference < len(self.names):
            raise InputError(f"reference {self.reference} is not one of the {len(self.names)} slices")
        joined = {self.reference}
        for _ in self.names:
            joined |= {end for pair in self.pairs if joined & set(pair) for end in pair}
        lost = [name for place, name in enumerate(self.names) if place not in joined]
        if lost:
            raise InputError(
                f"no chain of pairs joins {lost[0]!r} to {self.names[self.reference]!r}; add a pair that does"
            )

    @classmethod
    def build(cls, names: Sequence[str], rule: str | Path = "sequential", *, reference: str | None = None) -> PairList:
        """Make the pairs of a rule, or read them from a file.

        Parameters
        ----------
        names
            Slices in their order.
        rule
            `"sequential"` (each on the one before, away from the reference on either side), `"star"` (all on the
            reference), `"all"`, or a file: TOML with `pairs = [["a", "b"], …]`, or CSV with two columns, source
            and target (a first line `source,target` is skipped).
        reference
            Slice whose frame is kept; default the first.

        Raises
        ------
        InputError
            A name that is no slice, a file that cannot be read, and what the class says.
        """
        names = tuple(names)
        place = {name: number for number, name in enumerate(names)}
        if reference is not None and reference not in place:
            raise InputError(_unknown(reference, names, "reference"))
        centre = 0 if reference is None else place[reference]
        numbers = range(len(names))
        if rule == "sequential":
            pairs = [(b, a) if a >= centre else (a, b) for a, b in pairwise(numbers)]
        elif rule == "star":
            pairs = [(number, centre) for number in numbers if number != centre]
        elif rule == "all":
            pairs = [(b, a) for a, b in combinations(numbers, 2)]
        else:
            listed = _read(Path(rule))
            for name in (name for pair in listed for name in pair):
                if name not in place:
                    raise InputError(_unknown(name, names, str(rule)))
            pairs = [(place[source], place[target]) for source, target in listed]
        return cls(names=names, pairs=tuple(pairs), reference=centre)


def _unknown(name: str, names: Sequence[str], where: str) -> str:
    known = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"{where}: no slice is called {name!r}; the slices are {known}"


def _read(path: Path) -> list[tuple[str, str]]:
    if path.suffix not in (".toml", ".csv"):
        raise InputError(f"align.pairs = {str(path)!r}: expected {', '.join(RULES)}, or a file .toml or .csv")
    if not path.is_file():
        raise InputError(f"pair list {path} does not exist; expected {', '.join(RULES)}, or a file .toml or .csv")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the pair list {path}: {error}") from error
    if path.suffix == ".toml":
        try:
            rows = tomllib.loads(text).get("pairs")
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{path} is not TOML: {error}") from error
        if not isinstance(rows, list):
            raise InputError(f'{path} has no list `pairs = [["source", "target"], …]`')
    else:
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if any(row)]
        if rows and [cell.lower() for cell in rows[0]] == ["source", "target"]:
            rows = rows[1:]
    for number, row in enumerate(rows, start=1):
        if not (isinstance(row, list) and len(row) == 2 and all(isinstance(cell, str) and cell for cell in row)):
            raise InputError(f"{path}: pair {number} is {row!r}; expected two names, source and target")
    return [(row[0], row[1]) for row in rows]
