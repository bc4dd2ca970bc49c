"""Which spots of two slices lie on each other, once one is laid on the other: edges of a graph that joins slices.

A spot is joined to its k nearest of the other slice, as long as these are no further than spots of that slice are from
each other: beyond its rim, and over holes in it, there is nothing to be joined to.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from stscale.alignment.pair import PairResult
from stscale.alignment.view import SliceView

SHARE = 0.95
"""Share of the spots whose k-th neighbour in their own slice is no further than the longest link to that slice."""


def joins(pair: PairResult) -> bool:
    """Whether spots that lie on each other show the same tissue: the fit is credible, and no mirror image is better."""
    return pair.credible and pair.mirror == pair.transform.mirror


def links(
    pair: PairResult, source: SliceView, target: SliceView, k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Join each spot of either slice to its nearest of the other.

    Parameters
    ----------
    pair
        How the source lies on the target.
    source, target
        The slices.
    k
        Spots of the other slice; all are taken when it has fewer.

    Returns
    -------
    tuple
        (m,) int64 spots of the source and of the target. A link found from both sides stands twice.
    """
    moved = pair.lay(source.xy)
    there = _near(moved, target.xy, k)
    back = _near(target.xy, moved, k)
    return np.concatenate([there[0], back[1]]), np.concatenate([there[1], back[0]])


def _near(points: NDArray[np.float64], others: NDArray[np.float64], k: int) -> tuple[NDArray[np.int64], ...]:
    """Return points (m,) and, beside them, those of the others near them (m,)."""
    tree, count = cKDTree(others), min(k, len(others))
    own = min(count + 1, len(others))
    reach = float(np.quantile(tree.query(others, k=[own])[0], SHARE))
    # a spot of a regular lattice laid exactly on another must not miss its neighbours by rounding
    distance, near = tree.query(points, k=list(range(1, count + 1)), distance_upper_bound=reach * (1 + 1e-6))
    found = np.isfinite(distance)
    return np.nonzero(found)[0], near[found].astype(np.int64)
