"""Which pairs of a batch stand for the edges and the non-edges of all slices, and with which weights."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpatialPairs:
    """Ordered pairs (i, j) of a batch, each with the number of pairs of the whole data that it stands for.

    Attributes
    ----------
    edges
        (2, e) int64; row 0: position among the rank's own seeds, row 1: position among all seeds of the batch.
    edge_weight
        (e,) float64.
    others
        (2, q) int64, pairs of one slice that are no edges, i ≠ j.
    other_weight
        (q,) float64.
    unseen
        (u,) int64 slices with fewer than two of their units in the batch (and not all of them): what this batch
        says about pairs across their units is nothing, which is too little.
    """

    edges: NDArray[np.int64]
    edge_weight: NDArray[np.float64]
    others: NDArray[np.int64]
    other_weight: NDArray[np.float64]
    unseen: NDArray[np.int64]


def pair_weight(
    unit_i: NDArray[np.int64], unit_j: NDArray[np.int64], drawn: NDArray[np.int64], total: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return one over the probability that both ends of a pair of one slice are in a batch.

    Spots come in units, tiles or themselves. With T units in a slice and t of them in the batch it is T/t for two
    spots of one unit and T(T − 1) / (t(t − 1)) for spots of two.

    That is exact for `stratified_order`, whose draws are not independent: it permutes the units of a slice uniformly,
    and independently of the places in the epoch that it deals to them. Given t, which depends on the places alone,
    the units of the slice in the batch are a uniform choice of t out of T. The mean over batches of
    weight · [both drawn] is 1 for every t that can hold the pair, so for their mixture also.

    Parameters
    ----------
    unit_i, unit_j
        (q,) sampling unit (tile, or the spot itself) of both ends.
    drawn, total
        (q,) or scalar, units t of the pair's slice in the batch, and T in all.

    Raises
    ------
    InputError
        Numbers of units that cannot hold the pair.
    """
    same = unit_i == unit_j
    drawn, total = np.broadcast_arrays(drawn, total)
    if (drawn > total).any() or (drawn < np.where(same, 1, 2)).any():
        raise InputError("units drawn are more than there are, or fewer than a pair lies in; count both per slice")
    one = total / drawn
    # where both ends share a unit the second factor is not asked for, and t may be 1
    return np.where(same, one, one * (total - 1) / np.maximum(drawn - 1, 1))


def draw_pairs(
    seeds: NDArray[np.int64],
    rows: tuple[NDArray[np.int64], NDArray[np.int32]],
    group: NDArray[np.int64],
    unit: NDArray[np.int64],
    total: NDArray[np.int64],
    *,
    draws: int,
    rng: np.random.Generator,
    own: tuple[int, int] | None = None,
) -> SpatialPairs:
    """Take all edges among the seeds of a batch and draw non-edges among them, with weights.

    The sums over weighted pairs are unbiased for the sums over all ordered pairs of all slices: an edge weighs
    `pair_weight`; a seed draws partners uniformly among the other m − 1 seeds of its slice, each weighs
    (m − 1)/draws · `pair_weight`, and those that are edges are left out, not drawn again. Pairs of different slices
    do not count: they have no relation in space.

    Parameters
    ----------
    seeds
        (b,) distinct global ids of the seeds of all ranks.
    rows
        (lengths, neighbours) of the own seeds in the spatial graph, all neighbours:
        `graph.rows(seeds[first:stop])`.
    group
        (b,) slice of each seed.
    unit
        (b,) what was drawn: the tile of each seed (`np.searchsorted(sampler.starts, seeds, "right") - 1`), or the
        seed itself where spots are drawn one by one.
    total
        (s,) units (tiles, or spots) of each slice.
    draws
        Partners drawn per seed.
    rng
        Where they come from; a rank draws what one process would for the same seeds.
    own
        (first, stop) of the seeds that are this rank's; default all.

    Returns
    -------
    SpatialPairs
        At most b · draws non-edges; `unseen` names slices for which the batch is too small.

    Raises
    ------
    InputError
        Rows that do not fit the seeds, seeds given twice, or draws below 1.

    Notes
    -----
    This scheme needs the latents of seeds alone, and is the one to use. The other exact one, all edges (i, j) of
    each seed i with weight T/t, needs latents of the neighbours, which is one more hop of every batch.
    Its price is variance, and that depends on the units: spots drawn one by one see every edge with the same small
    probability, tiles see an edge across two of them only when both are drawn. With k = 50 neighbours most edges are
    of that kind, so prefer single spots (`NeighborSampler`) where the graph is dense. With tiles, every slice should
    have five or more in an average batch: the number varies by two or so, and one alone says nothing across tiles.
    """
    first, stop = (0, len(seeds)) if own is None else own
    lengths, neighbours = rows
    if len(lengths) != stop - first or not len(seeds) == len(group) == len(unit) or draws < 1:
        raise InputError(
            f"{len(lengths)} rows for {stop - first} own seeds, {len(group)} slices and {len(unit)} units for "
            f"{len(seeds)} seeds, {draws} draws; expected one each, and draws of 1 or more"
        )
    count = len(seeds)
    drawn = _units_per_slice(group, unit, len(total))
    edges = np.stack([np.repeat(np.arange(len(lengths)), lengths), _places(neighbours, seeds)])
    edges = edges[:, edges[1] >= 0]
    others, partners = _partners(group, first, stop, draws, rng)
    keys, edge_keys = others[0] * count + others[1], np.sort(edges[0] * count + edges[1])
    at = np.searchsorted(edge_keys, keys)
    is_edge = np.append(edge_keys, -1)[at] == keys
    others, partners = others[:, ~is_edge], partners[~is_edge]

    def weigh(pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        i, j = pairs[0] + first, pairs[1]
        return pair_weight(unit[i], unit[j], drawn[group[i]], total[group[i]])

    return SpatialPairs(
        edges=edges,
        edge_weight=weigh(edges),
        others=others,
        other_weight=weigh(others) * partners / draws,
        unseen=np.flatnonzero((drawn < 2) & (drawn < total)),
    )


def _units_per_slice(group: NDArray[np.int64], unit: NDArray[np.int64], slices: int) -> NDArray[np.int64]:
    """Distinct units of each slice; a unit lies in one slice."""
    at = np.unique(unit, return_index=True)[1]
    return np.bincount(group[at], minlength=slices)


def _places(nodes: NDArray[np.int32], seeds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of each node among the seeds, −1 for those that are none."""
    order = np.argsort(seeds)
    ordered = seeds[order]
    if (np.diff(ordered) == 0).any():
        raise InputError("a seed is given twice; expected distinct seeds")
    at = np.minimum(np.searchsorted(ordered, nodes), len(seeds) - 1)
    return np.where(ordered[at] == nodes, order[at], -1)


def _partners(
    group: NDArray[np.int64], first: int, stop: int, draws: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw for each own seed positions of other seeds of its slice: pairs (2, q), and how many it chose from."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    place = np.empty(len(group), dtype=np.int64)
    place[order] = np.arange(len(group))
    # drawn for the seeds of all ranks: who holds a seed does not matter
    choice = rng.random((len(group), draws))[first:stop].ravel()
    anchor = np.repeat(np.arange(first, stop), draws)
    several = sizes[group[anchor]] > 1
    anchor, choice = anchor[several], choice[several]
    g = group[anchor]
    # one of the m − 1 others: those from the anchor's own place on are moved up by one
    partner = starts[g] + np.minimum((choice * (sizes[g] - 1)).astype(np.int64), sizes[g] - 2)
    partner += partner >= place[anchor]
    return np.stack([anchor - first, order[partner]]), (sizes[g] - 1).astype(np.float64)
