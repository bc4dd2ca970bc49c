"""Batches over several graphs: neighbours, weights, fan-outs, and that any step can be asked at any time."""

import numpy as np
import pytest
import torch

from stscale.config import Sample
from stscale.errors import InputError
from stscale.graphs.build import knn_graph
from stscale.graphs.csr import Graph, block_diagonal
from stscale.models.edges import layer_edges
from stscale.sampling import Batch, Expander, make_sampler

OFFSETS = np.array([0, 70, 160])
CPU = torch.device("cpu")
ALL = ((-1, -1), (-1, -1))


@pytest.fixture(scope="module")
def graphs() -> tuple[Graph, Graph]:
    rng = np.random.default_rng(0)
    sizes = np.diff(OFFSETS)
    near, far = ([knn_graph(rng.random((n, 2)), k) for n in sizes] for k in (5, 3))
    return block_diagonal(near), block_diagonal(far)


def sampler(graphs: tuple[Graph, Graph], fan_outs=ALL, part=(0, 1), kind="tile"):
    config = Sample(kind=kind, batch_size=48, tile=8)
    return make_sampler(graphs, OFFSETS, config, hops=2, seed=3, fan_outs=fan_outs, part=part)


def dense(graph: Graph) -> np.ndarray:
    a = np.eye(graph.n)
    a[np.repeat(np.arange(graph.n), graph.degree()), graph.indices] = 1
    scale = 1 / np.sqrt(a.sum(axis=1))
    return scale[:, None] * a * scale


def two_layers(batch: Batch, x: np.ndarray) -> np.ndarray:
    """A1 (A1 x + A2 x) + A2 (A1 x - A2 x) of the seeds."""
    (a, b), (c, d) = layer_edges(batch, CPU)
    h = torch.from_numpy(x[batch.nodes])
    return (c @ (a @ h + b @ h) + d @ (a @ h - b @ h)).numpy()


@pytest.mark.parametrize("kind", ["tile", "neighbor"])
def test_all_neighbours_give_the_exact_product(graphs, kind) -> None:
    x = np.random.default_rng(1).normal(size=(160, 3))
    one, two = (dense(g) for g in graphs)
    expected = one @ (one + two) @ x + two @ (one - two) @ x
    drawn = sampler(graphs, kind=kind)
    seen = []
    for step in range(drawn.batches_per_epoch):
        batch = drawn.batch(step)
        np.testing.assert_allclose(two_layers(batch, x), expected[batch.seeds], rtol=1e-5, atol=1e-5)
        seen += batch.seeds.tolist()
    assert sorted(seen) == list(range(160))


def test_fan_outs_limit_each_graph_and_keep_the_sum_unbiased(graphs) -> None:
    x = np.random.default_rng(2).normal(size=(160, 1)) + 3
    one, two = (dense(g) for g in graphs)
    expander = Expander(graphs, 1, [(2,), (1,)])
    rng = np.random.default_rng(0)
    total = np.zeros((160, 2))
    draws = 500
    for _ in range(draws):
        batch = expander.expand(np.arange(160), rng)
        drawn = [np.diff(r.indptr) - 1 for r in batch.relations]
        assert np.array_equal(drawn[0], np.minimum(2, graphs[0].degree()))
        assert np.array_equal(drawn[1], np.minimum(1, graphs[1].degree()))
        ((a, b),) = layer_edges(batch, CPU)
        h = torch.from_numpy(x[batch.nodes])
        total += np.concatenate([(a @ h).numpy(), (b @ h).numpy()], axis=1) / draws
    expected = np.concatenate([one @ x, two @ x], axis=1)
    assert np.abs(total - expected).max() < 0.3
    assert abs((total - expected).mean()) < 0.02


def test_a_step_is_a_function_of_seed_and_step(graphs) -> None:
    first, again = (sampler(graphs, fan_outs=((3, 2), (2, 1))) for _ in range(2))
    a = [first.batch(s) for s in range(5)]
    b = [again.batch(s) for s in (4, 0)]
    for x, y in ((a[4], b[0]), (a[0], b[1])):
        assert np.array_equal(x.nodes, y.nodes)
        for r, q in zip(x.relations, y.relations, strict=True):
            assert np.array_equal(r.indices, q.indices)
            assert np.array_equal(r.weight, q.weight)


def test_ranks_share_the_seeds_of_a_step(graphs) -> None:
    whole = sampler(graphs).batch(1).seeds
    parts = [sampler(graphs, part=(r, 3)).batch(1).seeds for r in range(3)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_tiles_are_whole_and_counted(graphs) -> None:
    drawn = sampler(graphs)
    assert drawn.tiles == (9, 12)
    tile = drawn.tile_of(np.arange(160))
    assert np.array_equal(np.unique(tile), np.arange(21))
    for step in range(drawn.batches_per_epoch):
        seeds = drawn.batch(step).seeds
        held = np.unique(drawn.tile_of(seeds))
        assert np.isin(tile, held).sum() == len(seeds)


def test_a_short_fan_out_is_refused(graphs) -> None:
    with pytest.raises(InputError, match="one number per hop: 2"):
        sampler(graphs, fan_outs=((5,), (5, 5)))


def test_drawing_without_a_generator_is_refused(graphs) -> None:
    with pytest.raises(ValueError, match="generator"):
        Expander(graphs, 1, [(2,), (2,)]).expand(np.arange(4))
