"""The order of an epoch: a function of (seed, epoch) alone, every slice spread evenly over it."""

import numpy as np
from numpy.typing import NDArray


def stratified_order(group: NDArray[np.int32], seed: int, epoch: int) -> NDArray[np.int64]:
    """Shuffle items so that every run of them mixes the groups in proportion.

    Within its group an item gets a random rank; (rank + u) / size with u uniform in [0, 1) is its place in the
    epoch, so each group fills the epoch evenly.

    Parameters
    ----------
    group
        (t,) group (slice) of each item.
    seed, epoch
        The same pair gives the same order, whatever was drawn before.

    Returns
    -------
    ndarray
        (t,) int64 permutation.
    """
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(group))
    by_group = shuffled[np.argsort(group[shuffled], kind="stable")]
    sizes = np.bincount(group)
    rank = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = (rank + rng.random(len(group))) / np.repeat(sizes, sizes)
    return by_group[np.argsort(place, kind="stable")]


def even_cuts(items: int, per_batch: int) -> NDArray[np.int64]:
    """Cut `items` into the fewest batches of at most `per_batch`, sizes differing by one at the most."""
    batches = max(1, -(-items // per_batch))
    return np.linspace(0, items, batches + 1).round().astype(np.int64)
