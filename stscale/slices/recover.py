"""Counts out of values that were normalised: exact, or not at all.

Normalisation divides the counts c_i of a spot by a size s_i of its own, and often takes a logarithm: v = f(c_i / s_i).
After f⁻¹ the values of a spot are multiples of one number, 1 / s_i. Where the smallest of them is that of one count,
the others over it are integers; where it is that of two or three counts, they are halves or thirds. So

    c_ig = m · y_ig / min_g y_ig,   y = f⁻¹(v),   m the least of 1 … 8 that makes all of spot i integers

and f is the right one if every spot of a slice comes out so: of values that are no multiples, one in ten does by
chance. Logarithms of counts that were divided by nothing give integers themselves, which stay as they are. A spot whose
counts all share a factor comes back without it: its library is smaller then, its shares are the same.
Counts of thousands come back as exactly as the precision of the values lets them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Scale = Literal["linear", "ln", "log2", "log10"]

TITLES: dict[Scale, str] = {
    "linear": "counts over a size of each spot",
    "ln": "log(1 + x) of counts, normalised or not",
    "log2": "log2(1 + x) of counts, normalised or not",
    "log10": "log10(1 + x) of counts, normalised or not",
}
_INVERSE: dict[Scale, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "linear": lambda v: v,
    "ln": np.expm1,
    "log2": lambda v: np.expm1(v * np.log(2.0)),
    "log10": lambda v: np.expm1(v * np.log(10.0)),
}

MULTIPLES = 8
"""Counts of a spot's smallest value, at most."""

NEAR = 0.05
"""How far from an integer a small count may come out, over the multiple: values of three decimals do."""

NEAR_LARGE, LARGE = 1e-3, 20.0
"""Counts above `LARGE` may be this much of what they are above it further off."""

ENTRIES = 1 << 17
"""Looked at together: most wrong scales are refused by the first of them."""

TOLD = 10
"""Values that could have been off, at least, for a slice to be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How the values of a slice become counts.

    Attributes
    ----------
    scale
        f, what was done to the counts after the division.
    divided
        Whether counts were divided by a size of each spot.
    """

    scale: Scale
    divided: bool

    def counts(self, rows: sparse.csr_matrix) -> sparse.csr_matrix:
        """Return the counts of whole rows, (m, g) float32; rows without an entry stay so.

        Raises
        ------
        ValueError
            When a row is no multiple of anything on this scale.
        """
        rows = _plain(rows)
        data = np.empty(rows.nnz, np.float32)
        for part in _parts(rows):
            found = _counts(rows[part], self)
            if found is None:
                raise ValueError(f"values are no counts on the scale {self.scale!r}")
            data[rows.indptr[part.start] : rows.indptr[part.stop]] = found[0]
        return sparse.csr_matrix((data, rows.indices, rows.indptr), shape=rows.shape)


def recovery(blocks: Callable[[], Iterable[sparse.csr_matrix]]) -> Recovery | None:
    """Tell how all rows of a slice become counts.

    Parameters
    ----------
    blocks
        Reads the slice from its start, whole rows (m, g) with values of 0 or above, block by block. Rows that
        fit no way end the reading.

    Returns
    -------
    Recovery or None
        None where no way makes counts of every row, or fewer than `TOLD` values tell.
    """
    telling = {Recovery(scale=scale, divided=divided): 0 for divided in (False, True) for scale in _INVERSE}
    for block in blocks():
        rows = _plain(block)
        for part in _parts(rows):
            for way in list(telling):
                found = _counts(rows[part], way)
                if found is None:
                    del telling[way]
                else:
                    telling[way] += found[1]
            if not telling:
                return None
    return next((way for way, told in telling.items() if told >= TOLD), None)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def _counts(rows: sparse.csr_matrix, way: Recovery) -> tuple[NDArray[np.float64], int] | None:
    """Return the counts of the entries and how many could have been off; None where one is not near an integer.

    Large ones cannot, nor can the smallest of a row, and another one of a row is used up in choosing its multiple.
    """
    amounts = _INVERSE[way.scale](rows.data.astype(np.float64))
    if len(amounts) == 0:
        return amounts, 0
    if not np.isfinite(amounts).all():
        return None
    if not way.divided:
        found = np.round(amounts)
        if found.min() < 1 or not _near(amounts).all():
            return None
        small = found[found <= LARGE]
        return found, int(np.count_nonzero(small > 1)) if len(np.unique(small)) > 1 else 0
    lengths = _lengths(rows.indptr)
    starts = np.cumsum(lengths) - lengths
    ratio = amounts / np.repeat(np.minimum.reduceat(amounts, starts), lengths)
    if not np.isfinite(ratio).all():
        return None
    row, open_ = np.repeat(np.arange(len(lengths)), lengths), np.ones(len(lengths), dtype=bool)
    found = np.empty_like(ratio)
    for multiple in range(1, MULTIPLES + 1):
        here = np.flatnonzero(open_[row])
        off = np.bincount(row[here], weights=~_near(multiple * ratio[here], multiple), minlength=len(lengths))
        fits = open_ & (off == 0)
        here = np.flatnonzero(fits[row])
        found[here] = np.round(multiple * ratio[here])
        open_ &= ~fits
        if not open_.any():
            could = np.bincount(row[(ratio > 1 + NEAR) & (found <= LARGE)], minlength=len(lengths))
            return found, int(np.maximum(could - 1, 0).sum())
    return None


def _near(value: NDArray[np.float64], multiple: int = 1) -> NDArray[np.bool_]:
    return np.asarray(np.abs(value - np.round(value)) <= NEAR / multiple + NEAR_LARGE * np.maximum(value - LARGE, 0.0))


def _parts(rows: sparse.csr_matrix) -> Iterator[slice]:
    """Cut rows so that none has more than `ENTRIES` entries, unless it is one row."""
    lo = 0
    while lo < rows.shape[0]:
        hi = int(np.searchsorted(rows.indptr, rows.indptr[lo] + ENTRIES, side="right")) - 1
        hi = min(max(hi, lo + 1), rows.shape[0])
        yield slice(lo, hi)
        lo = hi


def _plain(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """Copy without what is stored and 0: the smallest value of a row is one of its counts."""
    copy = sparse.csr_matrix(rows, copy=True)
    copy.sum_duplicates()
    copy.eliminate_zeros()
    return copy


def _lengths(indptr: NDArray[Any]) -> NDArray[np.int64]:
    """Entries of each row that has one."""
    lengths = np.diff(indptr).astype(np.int64)
    return lengths[lengths > 0]
