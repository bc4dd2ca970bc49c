"""Order of points along a Hilbert curve: neighbours in the list are neighbours in the tissue."""

import numpy as np
from numpy.typing import NDArray

BITS = 20  # per axis: 3 axes x 20 bits still fit one 64-bit key, and 2^20 cells resolve any slide
_BATCH = 1 << 18  # points keyed at once: bounds the temporaries


def hilbert_order(xy: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order points along the Hilbert curve through their bounding square (or cube).

    Parameters
    ----------
    xy : (n, 2) or (n, 3) float64
        Finite coordinates, any unit. All axes are scaled by the largest extent, so that shape is kept.

    Returns
    -------
    (n,) int64
        ``order[k]`` is the row of `xy` at place ``k``. Points in the same cell (1/2^20 of the largest
        extent) keep their given order, so the result is the same everywhere.

    Raises
    ------
    ValueError
        If `xy` has not 2 or 3 columns or holds a value that is not finite.

    Notes
    -----
    Skilling, "Programming the Hilbert curve", AIP Conf. Proc. 707 (2004).
    """
    if xy.ndim != 2 or xy.shape[1] not in (2, 3):
        raise ValueError(f"coordinates have shape {xy.shape}; expected (n, 2) or (n, 3)")
    if len(xy) == 0:
        return np.empty(0, dtype=np.int64)
    points = np.asarray(xy, dtype=np.float64)
    if not np.isfinite(points).all():
        raise ValueError("coordinates hold values that are not finite; drop or repair those points")
    low = points.min(axis=0)
    # halve before subtracting: the extent of huge but finite coordinates must not overflow
    extent = 2.0 * float((points.max(axis=0) / 2 - low / 2).max())
    key = np.zeros(len(points), dtype=np.uint64)
    if 0.0 < extent < np.inf:
        for start in range(0, len(points), _BATCH):
            part = (points[start : start + _BATCH] - low) / extent
            cells = np.minimum((part * 2**BITS).astype(np.uint64), np.uint64(2**BITS - 1))
            key[start : start + _BATCH] = _keys(np.ascontiguousarray(cells.T))
    return np.argsort(key, kind="stable").astype(np.int64, copy=False)


def _keys(cells: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hilbert index of integer cells (d, m); `cells` is used as work space."""
    d = len(cells)
    one = np.uint64(1)
    for bit in range(BITS - 1, 0, -1):
        mask = np.uint64((1 << bit) - 1)
        for axis in range(d):
            high = (cells[axis] >> np.uint64(bit)) & one
            swap = np.where(high == 0, (cells[0] ^ cells[axis]) & mask, np.uint64(0))
            # high bit set: invert the low bits of axis 0; else exchange them between the two axes
            cells[0] ^= np.where(high == 1, mask, swap)
            cells[axis] ^= swap
    for axis in range(1, d):
        cells[axis] ^= cells[axis - 1]
    flip = np.zeros_like(cells[0])
    for bit in range(BITS - 1, 0, -1):
        high = (cells[-1] >> np.uint64(bit)) & one
        flip ^= high * np.uint64((1 << bit) - 1)
    cells ^= flip
    key: NDArray[np.uint64] = np.zeros_like(cells[0])
    for bit in range(BITS - 1, -1, -1):
        for axis in range(d):
            key = (key << one) | ((cells[axis] >> np.uint64(bit)) & one)
    return key
