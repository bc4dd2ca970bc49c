"""What a slice must be to be used: every check ends in one line that names the slice and the way out."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError

MAX_SHARED = 0.01  # share of spots that may lie exactly on another one


def check_slice(
    name: str,
    *,
    names: NDArray[np.str_],
    genes: NDArray[np.str_],
    coordinates: NDArray[np.float64],
) -> int:
    """Check names and coordinates.

    Parameters
    ----------
    name
        Name of the slice, for messages.
    names : (n,) str
        Spot names.
    genes : (g,) str
        Gene names.
    coordinates : (n, 2) or (n, 3) float64
        Coordinates in the order of `names`.

    Returns
    -------
    int
        Spots that lie on exactly the place of another one (at most 1 % of them).

    Raises
    ------
    InputError
        If there are no spots or genes, a name repeats, or coordinates are missing, misshapen, not finite
        or shared by more than 1 % of the spots.
    """
    if len(names) == 0:
        raise InputError(f"slice {name!r} has no spots; leave it out")
    if len(genes) == 0:
        raise InputError(f"slice {name!r} has no genes; leave it out")
    _check_unique(name, "spot names", names, "run adata.obs_names_make_unique()")
    _check_unique(name, "gene names", genes, "run adata.var_names_make_unique()")
    return _check_coordinates(name, names, coordinates)


def check_order(order: NDArray[np.int64], *, n: int) -> None:
    """Check that `order` names each of n rows once.

    Raises
    ------
    ValueError
        If it is not a permutation of ``0 .. n - 1``.
    """
    seen = np.zeros(n, dtype=bool)
    if len(order) == n and n and order.min() >= 0 and order.max() < n:
        seen[order] = True
    if not seen.all():
        raise ValueError(f"order (length {len(order)}) must name each of the {n} rows exactly once")


def check_values(
    name: str,
    *,
    row: Callable[[int], int],
    column: NDArray[np.integer],
    value: NDArray[np.float32],
    names: NDArray[np.str_],
    genes: NDArray[np.str_],
) -> None:
    """Refuse values that are negative or not finite.

    Parameters
    ----------
    name
        Name of the slice, for messages.
    row
        Input row of an entry; asked only about the first bad one.
    column : (m,) int
        Gene of each entry.
    value : (m,) float32
        The values.
    names, genes : (n,) and (g,) str
        Spot names in input order and gene names, for messages.

    Raises
    ------
    InputError
        Naming the first such value, its spot and its gene.
    """
    if len(value) == 0 or (value.min() >= 0 and np.isfinite(value.max())):
        return  # a NaN makes the minimum NaN, which is not >= 0
    entry = int(np.flatnonzero(~((value >= 0) & np.isfinite(value)))[0])
    where = f"spot {str(names[row(entry)])!r}, gene {str(genes[int(column[entry])])!r}"
    if value[entry] < 0 and np.isfinite(value[entry]):
        raise InputError(
            f"slice {name!r} holds a negative value ({value[entry]:g} at {where}); give raw counts, not "
            "scaled or residual values (--layer, where the file has them elsewhere)"
        )
    raise InputError(f"slice {name!r} holds a value that is not finite ({value[entry]:g} at {where}); repair X")


def _check_unique(name: str, what: str, values: NDArray[np.str_], remedy: str) -> None:
    unique, count = np.unique(values, return_counts=True)
    if len(unique) == len(values):
        return
    twice = unique[count > 1]
    raise InputError(f"slice {name!r} has {len(twice)} {what} that repeat (first: {str(twice[0])!r}); {remedy}")


def _check_coordinates(name: str, names: NDArray[np.str_], xy: NDArray[np.float64]) -> int:
    if xy.ndim != 2 or len(xy) != len(names) or xy.shape[1] not in (2, 3):
        raise InputError(
            f"slice {name!r} has coordinates of shape {tuple(xy.shape)}; expected ({len(names)}, 2) or "
            f"({len(names)}, 3): keep only the columns that are positions"
        )
    bad = np.flatnonzero(~np.isfinite(xy).all(axis=1))
    if len(bad):
        raise InputError(
            f"slice {name!r} has {len(bad)} spots with missing or infinite coordinates (first: "
            f"{str(names[bad[0]])!r}); drop those spots or give their positions"
        )
    order = np.lexsort(xy.T)
    same = (np.diff(xy[order], axis=0) == 0).all(axis=1)
    # a spot is counted when it equals the one before or after it in sorted order
    shares = np.zeros(len(xy), dtype=bool)
    shares[1:] |= same
    shares[:-1] |= same
    shared = int(shares.sum())
    if shared > MAX_SHARED * len(xy):
        raise InputError(
            f"slice {name!r} has {shared} of {len(xy)} spots on the position of another (first: "
            f"{str(names[order[np.flatnonzero(shares)[0]]])!r}), more than {MAX_SHARED:.0%}: check that the "
            "coordinates are of single spots and of one slice"
        )
    return shared
