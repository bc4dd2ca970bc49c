"""Spots as pixels: the commonest domain of each, the mean of a value, and where a domain is widest."""

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
    pixel, inside = _pixels(xy, low, high, shape)
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


def mean_image(
    xy: NDArray[np.floating],
    value: NDArray[np.floating],
    *,
    low: tuple[float, float],
    high: tuple[float, float],
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Return the mean value of the spots of each pixel, (rows, columns); NaN without any. Otherwise as `majority`."""
    pixel, inside = _pixels(xy, low, high, shape)
    count = np.bincount(pixel, minlength=shape[0] * shape[1]).astype(np.float64)
    total = np.bincount(pixel, weights=value[inside], minlength=len(count))
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0).reshape(shape)


def poles(image: NDArray[np.integer], k: int) -> dict[int, tuple[int, int]]:
    """Find where each domain of a `majority` image is widest.

    Parameters
    ----------
    image
        (rows, columns).
    k
        Number of domains.

    Returns
    -------
    dict
        (row, column) of the pixel farthest from every other domain and from the outside, by domain; domains without a
        pixel are missing.
    """
    from scipy.ndimage import distance_transform_edt, find_objects

    found = {}
    framed = np.pad(image, 1, constant_values=EMPTY)
    for number, box in enumerate(find_objects(np.maximum(framed + 1, 0), max_label=k)):
        if box is None:
            continue
        # one pixel around the domain: its border counts as outside
        rows, columns = (slice(s.start - 1, s.stop + 1) for s in box)
        depth = distance_transform_edt(framed[rows, columns] == number)
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        found[number] = (int(row) + rows.start - 1, int(column) + columns.start - 1)
    return found


def _pixels(
    xy: NDArray[np.floating], low: tuple[float, float], high: tuple[float, float], shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the flat pixel of each spot inside the image, and which spots those are, (n,)."""
    cell = []
    for axis, bins in ((1, shape[0]), (0, shape[1])):
        place = np.floor((xy[:, axis] - low[axis]) / (high[axis] - low[axis]) * bins).astype(np.int64)
        place[xy[:, axis] == high[axis]] = bins - 1
        cell.append(place)
    inside = (cell[0] >= 0) & (cell[0] < shape[0]) & (cell[1] >= 0) & (cell[1] < shape[1])
    return (cell[0] * shape[1] + cell[1])[inside], inside
