"""Uniform picks without replacement within the rows of a ragged array."""

import numpy as np
from numpy.typing import NDArray


def smallest_per_row(
    lengths: NDArray[np.int64], row: NDArray[np.int64], fan: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Pick at most `fan` entries of each row, each subset equally likely.

    Every entry gets a random key; the `fan` smallest of a row stay.

    Parameters
    ----------
    lengths
        (r,) entries per row.
    row
        (e,) row of each entry, ascending.
    fan
        Entries kept per row, 0 or more.
    rng
        Source of the keys.

    Returns
    -------
    ndarray
        (kept,) int64 positions, ascending.
    """
    # row + random sorts rows among themselves and shuffles within: one sort for all rows
    order = np.argsort(row + rng.random(len(row)), kind="stable")
    rank = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.sort(order[rank < fan])
