"""Pairs of spots of two slices that look alike, in surroundings that look alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stscale.alignment.view import Cloud, SliceView
from stscale.errors import InputError
from stscale.graphs.csr import Graph
from stscale.graphs.neighbors import search

SURROUND = 6
"""Neighbours of a spot that take part in the smoothed score."""
REFERENCES = 64
"""Other pairs that a pair's distances are compared with."""
BLOCK = 1 << 21  # numbers gathered at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """m weighted pairs of spots.

    Attributes
    ----------
    source, target
        (m,) int64 rows of the two slices.
    weight
        (m,) float64 in (0, 1].
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.source)


def match(
    source: SliceView,
    target: SliceView,
    clouds: tuple[Cloud, Cloud],
    *,
    rng: np.random.Generator,
    k: int = 10,
    anchors: int = 5000,
    keep_scale: bool = True,
    seed: int = 0,
) -> Matches:
    """Match anchors of two slices: similarity, smoothed over neighbours, mutual, consistent in distance.

    1. Each anchor's k most similar anchors of the other slice, by cosine (FAISS), in both directions; a pair
       must be found in both (mutual).
    2. The score of (i, j) is ½ [mean over i' ∈ N(i) of max over j' ∈ N[j] of cos(i', j') + the same with the
       slices exchanged]: a pair is credible when the neighbours of i find partners near j.
    3. Of each source the best target stays; of pairs whose distances to `REFERENCES` other pairs are kept
       (within a tenth, plus two pitches), those above half of the best pairs' share stay.

    Memory is O(n·c + anchors·k).

    Parameters
    ----------
    source, target
        The slices.
    clouds
        Their channels (centred).
    rng
        Draws anchors and references.
    k
        Candidates per anchor.
    anchors
        At most so many spots of each slice take part.
    keep_scale
        Compare distances as they are; else up to their median ratio.
    seed
        Of FAISS.

    Raises
    ------
    InputError
        When no pair is mutual.
    """
    rows_s, rows_t = (_drawn(view.n, anchors, rng) for view in (source, target))
    za, zb = (_unit(cloud.values) for cloud in clouds)
    k_s, k_t = min(k, len(rows_t)), min(k, len(rows_s))
    there = search(zb[rows_t], za[rows_s], k_s, metric="cosine", seed=seed).index
    back = search(za[rows_s], zb[rows_t], k_t, metric="cosine", seed=seed).index
    forward = np.repeat(np.arange(len(rows_s)), k_s) * len(rows_t) + there.ravel()
    backward = back.ravel() * len(rows_t) + np.repeat(np.arange(len(rows_t)), k_t)
    mutual = np.intersect1d(forward, backward)
    if not len(mutual):
        raise InputError(f"no spot of {source.name!r} and {target.name!r} is among the other's {k} most alike; raise k")
    i, j = rows_s[mutual // len(rows_t)], rows_t[mutual % len(rows_t)]
    score = _smoothed(za, zb, source.graph, target.graph, i, j)
    order = np.lexsort((j, -score, i))
    _, first = np.unique(i[order], return_index=True)
    best = order[first]
    i, j, score = i[best], j[best], score[best]
    share = _consistent(source.xy[i], target.xy[j], 2 * max(source.pitch, target.pitch), rng, keep_scale=keep_scale)
    held = (share >= 0.5 * np.quantile(share, 0.95)) & (score > 0)
    if not held.any():
        raise InputError(f"no pair of {source.name!r} and {target.name!r} agrees with the others")
    return Matches(source=i[held], target=j[held], weight=np.clip(score[held], 1e-6, 1.0))


def _drawn(n: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def _unit(values: NDArray[np.float64]) -> NDArray[np.float32]:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(length > 0, length, 1.0)).astype(np.float32)


def _around(graph: Graph, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each row and its first six neighbours, (m, 7); where there are fewer the row stands again."""
    lengths, neighbours = graph.rows(rows)
    table = np.repeat(rows[:, None], SURROUND + 1, axis=1)
    start = np.cumsum(lengths) - lengths
    row = np.repeat(np.arange(len(rows)), lengths)
    place = np.arange(len(neighbours)) - np.repeat(start, lengths)
    held = place < SURROUND
    table[row[held], 1 + place[held]] = neighbours[held]
    return table


def _smoothed(
    za: NDArray[np.float32],
    zb: NDArray[np.float32],
    graph_a: Graph,
    graph_b: Graph,
    i: NDArray[np.int64],
    j: NDArray[np.int64],
) -> NDArray[np.float64]:
    score = np.empty(len(i))
    step = max(1, BLOCK // (2 * (SURROUND + 1) * za.shape[1]))
    for lo in range(0, len(i), step):
        part = slice(lo, lo + step)
        near_a, near_b = za[_around(graph_a, i[part])], zb[_around(graph_b, j[part])]  # (m, 7, c)
        cosine = np.einsum("iac,ibc->iab", near_a, near_b)
        score[part] = (cosine.max(axis=2).mean(axis=1) + cosine.max(axis=1).mean(axis=1)) / 2
    return score


def _consistent(
    x: NDArray[np.float64], y: NDArray[np.float64], slack: float, rng: np.random.Generator, *, keep_scale: bool
) -> NDArray[np.float64]:
    """Share of reference pairs whose distance to a pair is the same in both slices, (m,)."""
    chosen = rng.integers(len(x), size=min(len(x), REFERENCES))
    da = np.linalg.norm(x[:, None] - x[chosen], axis=2)
    db = np.linalg.norm(y[:, None] - y[chosen], axis=2)
    if not keep_scale and (da > 0).any():
        da = da * float(np.median(db[da > 0] / da[da > 0]))
    share: NDArray[np.float64] = (np.abs(da - db) <= 0.1 * np.maximum(da, db) + slack).mean(axis=1)
    return share
