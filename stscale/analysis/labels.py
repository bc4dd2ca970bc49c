"""What a label is, and which are missing: the one place that decides it."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from stscale.errors import InputError

MISSING_TEXT = ("", "nan", "NaN", "<NA>")
"""Text that means "no label": what NaN becomes when numpy or a CSV file makes text of it."""


def labelled(labels: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Say which spots carry a label, and number the labels.

    Parameters
    ----------
    labels
        (n,) numbers, text, categories or objects. Missing: NaN, None, NA, the text of `MISSING_TEXT`, and the
        integer −1 (the code of a missing category).

    Returns
    -------
    mask
        (n,) bool, True where labelled.
    codes
        (n,) int64, 0 … L−1 in order of appearance, −1 where unlabelled.
    """
    import pandas as pd

    values = np.asarray(labels)
    if values.ndim != 1:
        raise InputError(f"labels have shape {values.shape}, expected one per spot")
    if values.dtype.kind in "US":
        values = values.astype(object)
    codes, found = pd.factorize(values)
    codes = np.asarray(codes, dtype=np.int64)
    missing = [
        i
        for i, value in enumerate(found)
        if (isinstance(value, str) and value in MISSING_TEXT)
        or (isinstance(value, int | np.integer) and not isinstance(value, bool) and value == -1)
    ]
    if missing:
        number = np.cumsum(~np.isin(np.arange(len(found)), missing)) - 1
        number[missing] = -1
        codes = np.where(codes >= 0, number[codes], -1)
    return codes >= 0, codes


def paired(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the codes (m,) of two labellings over the spots that carry both.

    Raises
    ------
    InputError
        Different lengths, or no spot with both labels.
    """
    (mask_a, a), (mask_b, b) = labelled(first), labelled(second)
    if len(a) != len(b):
        raise InputError(f"{len(a)} labels and {len(b)} labels; expected the same spots")
    both = mask_a & mask_b
    if not both.any():
        raise InputError(f"no spot carries both labels: {mask_a.sum()} and {mask_b.sum()} of {len(a)} are labelled")
    return a[both], b[both]


def contingency(a: NDArray[np.int64], b: NDArray[np.int64]) -> sp.coo_matrix:
    """Count the spots in each pair of codes: sparse (L, M) float64 without stored zeros."""
    shape = (int(a.max()) + 1, int(b.max()) + 1)
    table = sp.csr_matrix((np.ones(len(a)), (a, b)), shape=shape)
    return sp.coo_matrix(table)
