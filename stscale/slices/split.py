"""One input that holds several slices, told apart by a column about spots: which rows belong to which."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stscale.config import Ingest
from stscale.errors import InputError
from stscale.slices.regions import on_each_other
from stscale.slices.sources import Source, open_source, slice_name
from stscale.slices.store import SliceStore, is_store

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = ".zarr"

USUAL = ("library_id", "section", "section_id", "slice", "slice_id", "sample", "sample_id", "batch")
"""Columns that usually say which slice a spot is of."""

MOST = 500
"""Values of such a column at most: sections, not spots."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Rows of an input that are a slice.

    Attributes
    ----------
    name
        Of the slice: the value of the column.
    rows
        (n,) int64, in the input's order.
    """

    name: str
    rows: NDArray[np.int64]


def parts(source: Source, column: str) -> list[Part]:
    """Part the rows of an input by the values of a column.

    Parameters
    ----------
    source
        The input.
    column
        Of its obs: a text, category or number for each spot.

    Returns
    -------
    list of Part
        Numbers ascending; an ordered category in its order; texts with the numbers in them read as such ("s2" before
        "s10"). Slashes in a name become underscores.

    Raises
    ------
    InputError
        If the column is not there, a spot has no value, values are as many as spots, two values make one name, or, of
        SpatialData, regions of one part lie on each other.
    """
    import pandas as pd

    if not source.n:
        raise InputError(f"{source.path} has no spots; leave it out")
    if column not in source.obs:
        found = ", ".join(sorted(map(str, source.obs.columns))) or "nothing"
        raise InputError(f"{source.path} has no obs column {column!r} that tells its slices apart; found: {found}")
    values = source.obs[column]
    missing = int(values.isna().sum())
    if missing:
        raise InputError(
            f"{source.path}: {missing} of {source.n} spots have no value in {column!r}; each spot must be of a slice"
        )
    levels = _levels(values)
    if 2 * len(levels) > max(source.n, 2):
        raise InputError(
            f"{source.path}: {column!r} has {len(levels)} values for {source.n} spots; give the column that names the "
            "section of each spot"
        )
    names = [_name(level) for level in levels]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{source.path}: two values of {column!r} would name a slice {twice!r}; rename one")
    code = pd.Categorical(values.astype(object).map(_text), categories=levels).codes.astype(np.int64)
    order = np.argsort(code, kind="stable")
    rows = np.split(order, np.searchsorted(code[order], np.arange(1, len(levels))))
    found_parts = [Part(name=name, rows=own) for name, own in zip(names, rows, strict=True)]
    if source.annotation is not None:
        for part in found_parts:
            source.annotation.check_apart(source.coordinates, part.rows)
    return found_parts


def slice_names(paths: Sequence[Path], config: Ingest) -> list[list[str]]:
    """Return the slices that each input holds.

    Parameters
    ----------
    paths
        Inputs as `open_source` takes them, and slice stores, which hold one slice.
    config
        As in `open_source`; `split`: column that tells slices of an input apart, None: each input is one.

    Returns
    -------
    list of list of str
        With `split`, values of the column; of several inputs, FILE-VALUE.

    Raises
    ------
    InputError
        As `open_source` and `parts`.
    """
    several = sum(not is_store(path) for path in paths) > 1
    found = []
    for path in paths:
        if config.split is None or is_store(path):
            found.append([slice_name(path)])
            continue
        held = parts(open_source(path, config=config), config.split)
        found.append([f"{slice_name(path)}-{part.name}" if several else part.name for part in held])
    return found


def suspected(store: SliceStore) -> str | None:
    """Return the column by which a slice seems to be several: spots with different values lie on each other."""
    for column in USUAL:
        if column not in store.obs_columns():
            continue
        values = store.obs_column(column)
        if values.isna().any() or not 2 <= values.nunique() <= min(MOST, store.n // 2):
            continue
        if on_each_other(store.coordinates(), values.factorize()[0]) is not None:
            return column
    return None


def _levels(values: "pd.Series") -> list[str]:
    """Distinct values as texts, in order."""
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype) and values.dtype.ordered:
        return [_text(value) for value in values.cat.remove_unused_categories().cat.categories]
    distinct = values.astype(object).unique().tolist()
    if all(isinstance(value, int | float | np.number) for value in distinct):
        return [_text(value) for value in sorted(distinct)]
    return sorted({_text(value) for value in distinct}, key=_natural)


def _text(value: object) -> str:
    # 3.0 and 20240131.0 are integers that a missing value elsewhere made floats
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)


def _natural(text: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text)]


def _name(text: str) -> str:
    name = text.strip().replace("/", "_")
    return f"_{name}" if name.startswith(".") or not name else name
