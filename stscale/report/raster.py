"""Too many spots to draw one by one: the commonest domain of each pixel."""

import numpy as np
from numpy.typing import NDArray

GREY = -1
"""A pixel with nothing but spots left out."""

EMPTY = -2
"""A pixel without a spot."""


def majority(
    xy: NDArray[np.floating],
    domain: NDArray[np.integer],
    *,
    low: tuple[float, float],
    high: tuple[float, float],
    shape: tuple[int, int],
) -> NDArray[np.int64]:
    """Bin spots into an image.

    Parameters
    ----------
    xy
        (n, 2) positions; those on the upper border belong to the last pixel, those outside are dropped.
    domain
        (n,) domain numbers, -1 for a spot left out.
    low, high
        Corners (x, y) of the image.
    shape
        Rows (along y) and columns (along x).

    Returns
    -------
    (rows, columns) int64
        The commonest domain of each pixel, the smallest of equally common ones; spots left out count only where
        there is no other (`GREY`); `EMPTY` without any. Row 0 lies at `low`.
    """
    h, w = shape
    cell = []
    for axis, bins in ((1, h), (0, w)):
        place = np.floor((xy[:, axis] - low[axis]) / (high[axis] - low[axis]) * bins).astype(np.int64)
        place[xy[:, axis] == high[axis]] = bins - 1
        cell.append(place)
    inside = (cell[0] >= 0) & (cell[0] < h) & (cell[1] >= 0) & (cell[1] < w)
    pixel = (cell[0] * w + cell[1])[inside]
    of = np.asarray(domain, dtype=np.int64)[inside]
    image = np.full(h * w, EMPTY, dtype=np.int64)
    image[pixel] = GREY
    pixel, of = pixel[of >= 0], of[of >= 0]
    if len(of):
        k = int(of.max()) + 1
        key, count = np.unique(pixel * k + of, return_counts=True)
        # per pixel the largest count first; lexsort is stable, so ties keep the smallest domain
        order = np.lexsort((-count, key // k))
        key = key[order]
        _, first = np.unique(key // k, return_index=True)
        image[key[first] // k] = key[first] % k
    return image.reshape(h, w)
