"""Spatial regularisation: the exact value, the drawn pairs' weights, and that draws are right on average."""

from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stscale.errors import InputError
from stscale.graphs.csr import Graph, block_diagonal, from_pairs
from stscale.losses import SpatialPairs, draw_pairs, pair_weight, spatial_regularisation
from stscale.sampling import TileSampler
from stscale.sampling.neighbor import NeighborSampler


def dense(z: NDArray[Any], graph: Graph, offsets: NDArray[Any]) -> float:
    """The definition: every ordered pair of a slice, once."""
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    near = [set(graph.indices[graph.indptr[i] : graph.indptr[i + 1]].tolist()) for i in range(graph.n)]
    total = 0.0
    for lo, hi in pairwise(offsets):
        for i in range(lo, hi):
            for j in range(lo, hi):
                p = 1 / (1 + np.exp(-unit[i] @ unit[j]))
                total -= (np.log(p) if j in near[i] else np.log(1 - p)) if i != j else 0.0
    return total / graph.n


def every_pair(n: int, edges: NDArray[np.int64]) -> SpatialPairs:
    linked = np.eye(n, dtype=bool)
    linked[edges[0], edges[1]] = True
    others = np.stack(np.nonzero(~linked))
    return SpatialPairs(
        edges=edges,
        edge_weight=np.ones(edges.shape[1]),
        others=others,
        other_weight=np.ones(others.shape[1]),
        unseen=np.empty(0, np.int64),
    )


def tissue() -> tuple[NDArray[Any], Graph, NDArray[np.int64]]:
    """Latents and graph of three unequal slices, neighbours near in the order of the spots as tiles have it."""
    sizes = [23, 60, 37]
    rings = [from_pairs(n, np.repeat(np.arange(n), 2), (np.repeat(np.arange(n), 2) + [1, 3] * n) % n) for n in sizes]
    rng = np.random.default_rng(0)
    return rng.normal(size=(120, 5)) + 0.7, block_diagonal(rings), np.cumsum([0, *sizes])


def estimates(z: NDArray[Any], graph: Graph, offsets: NDArray[np.int64], tile: int, steps: int) -> NDArray[Any]:
    """The drawn value of each batch: of tiles, or of single spots for tile 0."""
    size = len(z) * 2 // 5
    group = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    if tile:
        tiles = TileSampler(graph, offsets, hops=1, batch_size=size, tile=tile, seed=3)
        of_seed, total = np.searchsorted(tiles.starts, np.arange(len(z)), "right") - 1, -(-np.diff(offsets) // tile)
        seeds_of = tiles.seeds
    else:
        of_seed, total = np.arange(len(z)), np.diff(offsets)
        seeds_of = NeighborSampler(graph, offsets, fan_out=(2,), batch_size=size, seed=3).seeds
    rng = np.random.default_rng(7)
    out = []
    for step in range(steps):
        seeds = seeds_of(step)
        pairs = draw_pairs(seeds, graph.rows(seeds), group[seeds], of_seed[seeds], total, draws=3, rng=rng)
        assert not len(pairs.unseen)
        out.append(spatial_regularisation(torch.from_numpy(z[seeds]), pairs, spots=len(z)).item())
    return np.array(out)


def mean_agrees(found: NDArray[Any], value: float, within: float) -> None:
    """The mean of draws is the value up to chance, and chance is small enough for that to say something."""
    error = found.std() / np.sqrt(len(found))
    assert error < within * value
    assert abs(found.mean() - value) < 3 * error


def test_vectors(vectors: Callable[[str], dict[str, Any]]) -> None:
    v = vectors("spatial_reg")
    pairs = every_pair(len(v["z"]), v["edges"])
    z = torch.from_numpy(v["z"])
    assert spatial_regularisation(z, pairs, spots=50).item() == pytest.approx(float(v["value"]), rel=1e-10)
    assert spatial_regularisation(z.float(), pairs, spots=50).item() == pytest.approx(float(v["value"]), rel=1e-5)


@pytest.mark.parametrize("tile", [0, 5])
def test_a_thousand_draws_of_the_vectors(tile: int, vectors: Callable[[str], dict[str, Any]]) -> None:
    v = vectors("spatial_reg")
    found = estimates(v["z"], from_pairs(50, *v["edges"]), np.array([0, 50]), tile, 1000)
    mean_agrees(found, float(v["value"]), 0.005)


@pytest.mark.parametrize("tile", [0, 3])
def test_a_thousand_draws_over_slices(tile: int) -> None:
    z, graph, offsets = tissue()
    mean_agrees(estimates(z, graph, offsets, tile, 1000), dense(z, graph, offsets), 0.005)


def test_each_part_of_the_sum_is_right_on_average() -> None:
    _, graph, offsets = tissue()
    tiles = TileSampler(graph, offsets, hops=1, batch_size=48, tile=4, seed=0)
    group = np.repeat(np.arange(3), np.diff(offsets))
    unit, total = np.searchsorted(tiles.starts, np.arange(120), "right") - 1, np.bincount(group[tiles.starts])
    rng = np.random.default_rng(0)
    seen: dict[str, list[float]] = {"within": [], "across": [], "others": []}
    for step in range(1000):
        seeds = tiles.seeds(step)
        p = draw_pairs(seeds, graph.rows(seeds), group[seeds], unit[seeds], total, draws=2, rng=rng)
        i, j = seeds[p.edges]
        same = unit[i] == unit[j]
        seen["within"].append(p.edge_weight[same].sum())
        seen["across"].append(p.edge_weight[~same].sum())
        seen["others"].append(p.other_weight.sum())
    row = np.repeat(np.arange(120), graph.degree())
    within = int((unit[row] == unit[graph.indices]).sum())
    assert 0 < within < graph.n_edges
    pairs = sum(n * (n - 1) for n in np.diff(offsets))
    wanted = {"within": within, "across": graph.n_edges - within, "others": pairs - graph.n_edges}
    for name, value in wanted.items():
        mean_agrees(np.array(seen[name]), value, 0.03)


@pytest.mark.parametrize(("total", "drawn"), [(5, 2), (6, 4), (4, 4), (3, 1)])
def test_weights_over_all_choices_of_units(total: int, drawn: int) -> None:
    choices = list(combinations(range(total), drawn))
    pairs = [(0, 0)] + ([(0, total - 1)] if drawn > 1 else [])
    for i, j in pairs:
        weight = pair_weight(np.array([i]), np.array([j]), np.array(drawn), np.array(total))[0]
        assert sum(weight for c in choices if i in c and j in c) / len(choices) == pytest.approx(1.0, rel=1e-12)


def test_pairs_are_what_they_say() -> None:
    _, graph, offsets = tissue()
    group = np.repeat(np.arange(3), np.diff(offsets))
    seeds = np.random.default_rng(5).permutation(120)[:70]
    total = np.diff(offsets)
    arguments = (group[seeds], seeds, total)
    p = draw_pairs(seeds, graph.rows(seeds), *arguments, draws=40, rng=np.random.default_rng(1))
    linked = {(i, int(j)) for i in range(120) for j in graph.indices[graph.indptr[i] : graph.indptr[i + 1]]}
    found = list(zip(*seeds[p.edges].tolist(), strict=True))
    assert len(found) == len(set(found))
    assert set(found) == {(i, j) for i, j in linked if i in set(seeds) and j in set(seeds)}
    drawn = set(zip(*seeds[p.others].tolist(), strict=True))
    assert not drawn & linked
    assert all(i != j and group[i] == group[j] for i, j in drawn)
    again = draw_pairs(seeds, graph.rows(seeds), *arguments, draws=40, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(again.others, p.others)


def test_ranks_share_the_edges_of_the_union() -> None:
    z, graph, offsets = tissue()
    group = np.repeat(np.arange(3), np.diff(offsets))
    seeds = np.random.default_rng(5).permutation(120)[:70]
    base = torch.from_numpy(z[seeds])
    total, whole = np.diff(offsets), 0.0
    parts = []
    for own in ((0, 30), (30, 70)):
        rows = graph.rows(seeds[slice(*own)])
        p = draw_pairs(seeds, rows, group[seeds], seeds, total, draws=400, rng=np.random.default_rng(own[0]), own=own)
        parts.append(p.edges + np.array([[own[0]], [0]]))
        assert (seeds[slice(*own)][p.others[0]] != seeds[p.others[1]]).all()
        whole += spatial_regularisation(base[slice(*own)], p, spots=120, base=base).item()
    alone = draw_pairs(seeds, graph.rows(seeds), group[seeds], seeds, total, draws=400, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), alone.edges)
    assert whole == pytest.approx(spatial_regularisation(base, alone, spots=120).item(), rel=0.02)


def test_a_slice_of_which_too_little_was_drawn_is_named() -> None:
    _, graph, offsets = tissue()
    group = np.repeat(np.arange(3), np.diff(offsets))
    seeds = np.array([0, 1, 2, 3, 23, 24, 30, 31])  # one tile of slice 0, two of slice 1, none of slice 2
    tile = np.array([0, 0, 0, 0, 6, 6, 7, 7])
    p = draw_pairs(
        seeds, graph.rows(seeds), group[seeds], tile, np.array([6, 15, 10]), draws=3, rng=np.random.default_rng(0)
    )
    assert p.unseen.tolist() == [0, 2]
    assert np.isfinite(p.edge_weight).all()


def test_a_lone_seed_has_no_partner() -> None:
    graph = from_pairs(2, np.array([], dtype=np.int64), np.array([], dtype=np.int64))
    p = draw_pairs(
        np.arange(2), graph.rows(np.arange(2)), np.arange(2), np.arange(2), np.ones(2, np.int64), draws=4,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert p.edges.shape == p.others.shape == (2, 0)
    z = torch.randn(2, 3, requires_grad=True)
    value = spatial_regularisation(z, p, spots=2)
    value.backward()
    assert value.item() == 0.0
    assert (z.grad == 0).all()


def test_gradients_and_autocast() -> None:
    z, graph, _ = tissue()
    seeds = np.arange(20)
    p = draw_pairs(
        seeds, graph.rows(seeds), np.zeros(20, np.int64), seeds, np.array([23]), draws=3, rng=np.random.default_rng(0)
    )
    wide = torch.from_numpy(z[:20]).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: spatial_regularisation(t, p, spots=120), (wide,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = spatial_regularisation(wide.detach().float(), p, spots=120)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(spatial_regularisation(wide, p, spots=120).item(), rel=1e-5)


def test_what_does_not_fit() -> None:
    _, graph, _ = tissue()
    seeds, zeros = np.arange(6), np.zeros(6, np.int64)
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="5 rows for 6 own seeds"):
        draw_pairs(seeds, graph.rows(seeds[:5]), zeros, seeds, np.array([23]), draws=1, rng=rng)
    with pytest.raises(InputError, match="0 draws"):
        draw_pairs(seeds, graph.rows(seeds), zeros, seeds, np.array([23]), draws=0, rng=rng)
    with pytest.raises(InputError, match="given twice"):
        draw_pairs(zeros, graph.rows(zeros), zeros, zeros, np.array([23]), draws=1, rng=rng)
    with pytest.raises(InputError, match="units drawn"):
        draw_pairs(seeds, graph.rows(seeds), zeros, seeds, np.array([3]), draws=1, rng=rng)
