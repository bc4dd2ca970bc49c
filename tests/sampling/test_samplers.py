"""Samplers: composition of the batches, and the exactness of their aggregation."""

import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from stscale.config import Sample
from stscale.errors import InputError, StscaleError
from stscale.graphs.build import knn_graph
from stscale.graphs.csr import Graph, block_diagonal
from stscale.models.edges import layer_edges
from stscale.sampling import Batch, Sampler, TileSampler, make_sampler
from stscale.sampling.order import even_cuts, stratified_order

with warnings.catch_warnings():
    # PyTorch Geometric scripts functions while it is imported, which recent PyTorch announces to end
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch_geometric.data import Data
    from torch_geometric.loader import NodeLoader
    from torch_geometric.sampler import EdgeSamplerInput

    from stscale.sampling.fan_out import CsrSampler

OFFSETS = np.array([0, 61, 201, 300])
CPU = torch.device("cpu")
KINDS = [
    Sample(kind="tile", batch_size=48, tile=8),
    Sample(kind="neighbor", batch_size=48, fan_out=(3, 2)),
    Sample(kind="neighbor", batch_size=48, fan_out=(-1, -1)),
]
kinds = pytest.mark.parametrize("config", KINDS, ids=["tile", "fan", "all"])


@pytest.fixture(scope="module")
def graph() -> Graph:
    rng = np.random.default_rng(0)
    parts = []
    for lo, hi in pairwise(OFFSETS):
        xy = rng.random((hi - lo, 2))
        parts.append(knn_graph(xy[np.lexsort((xy[:, 1], (xy[:, 0] * 5).astype(int)))], 5))
    return block_diagonal(parts)


def make(graph: Graph, config: Sample, seed: int = 7) -> Sampler:
    return make_sampler(graph, OFFSETS, config, hops=2, seed=seed)


def normalised(graph: Graph) -> np.ndarray:
    """Â = D^-1/2 (A + I) D^-1/2, dense float64."""
    a = np.eye(graph.n)
    a[np.repeat(np.arange(graph.n), graph.degree()), graph.indices] = 1
    scale = 1 / np.sqrt(a.sum(axis=1))
    return scale[:, None] * a * scale[None]


def aggregated(batch: Batch, x: np.ndarray) -> np.ndarray:
    h = torch.from_numpy(x[batch.nodes])
    for (edges,) in layer_edges(batch, CPU):
        h = edges @ h
    return h.numpy()


def same(a: Batch, b: Batch) -> bool:
    relations = all(
        np.array_equal(getattr(one, k), getattr(two, k))
        for one, two in zip(a.relations, b.relations, strict=True)
        for k in ("indptr", "indices", "weight")
    )
    return relations and np.array_equal(a.nodes, b.nodes) and a.counts == b.counts


@kinds
def test_every_node_is_a_seed_exactly_once_per_epoch(graph: Graph, config: Sample) -> None:
    sampler = make(graph, config)
    orders = []
    for epoch in range(2):
        steps = range(epoch * sampler.batches_per_epoch, (epoch + 1) * sampler.batches_per_epoch)
        orders.append(np.concatenate([sampler.batch(s).seeds for s in steps]))
        assert sorted(orders[-1].tolist()) == list(range(300))
    assert not np.array_equal(*orders)


@kinds
def test_any_step_can_be_asked_at_any_time(graph: Graph, config: Sample) -> None:
    steps = range(2 * make(graph, config).batches_per_epoch + 1)
    sampler = make(graph, config)
    in_order = [sampler.batch(s) for s in steps]
    other = make(graph, config)
    for s in np.random.default_rng(1).permutation(len(steps)):
        assert same(other.batch(int(s)), in_order[s])
    assert not same(make(graph, config, seed=8).batch(0), in_order[0])


@kinds
def test_every_batch_mixes_the_slices(graph: Graph, config: Sample) -> None:
    sampler = make(graph, replace(config, batch_size=96))
    group = np.repeat(np.arange(3), np.diff(OFFSETS))
    for step in range(3 * sampler.batches_per_epoch):
        share = np.bincount(group[sampler.batch(step).seeds], minlength=3) / sampler.batch(step).n_seeds
        assert (share > 0).all()
        assert share[1] > 0.25  # the largest slice holds 47 % of the spots


@kinds
def test_seeds_come_first_and_rows_point_into_their_prefix(graph: Graph, config: Sample) -> None:
    sampler = make(graph, config)
    for step in range(sampler.batches_per_epoch):
        batch = sampler.batch(step)
        assert len(batch.counts) == 3
        assert batch.n_seeds == batch.counts[0] < batch.counts[1] < batch.counts[2] == len(batch.nodes)
        assert np.array_equal(batch.seeds, batch.nodes[: batch.counts[0]])
        assert len(np.unique(batch.nodes)) == len(batch.nodes)
        (edges,) = batch.relations
        assert len(edges.indptr) == batch.counts[1] + 1
        assert len(edges.indices) == edges.indptr[-1] == len(edges.weight)
        # every row ends with the node itself, and only neighbours stand before it
        assert np.array_equal(edges.indices[edges.indptr[1:] - 1], np.arange(batch.counts[1]))
        first = 0
        for hop, count in enumerate(batch.counts[:-1]):
            entries = edges.indices[edges.indptr[first] : edges.indptr[count]]
            assert entries.max() < batch.counts[hop + 1]
            first = count
        for i in range(batch.counts[1]):
            near = batch.nodes[edges.indices[edges.indptr[i] : edges.indptr[i + 1] - 1]]
            _, known = graph.rows(batch.nodes[i : i + 1])
            assert set(near.tolist()) <= set(known.tolist())
            assert len(set(near.tolist())) == len(near)


@pytest.mark.parametrize("config", [KINDS[0], KINDS[2]], ids=["tile", "all"])
def test_two_layers_over_a_batch_equal_the_whole_graph_on_its_seeds(graph: Graph, config: Sample) -> None:
    x = np.stack([np.arange(300.0), np.random.default_rng(2).normal(size=300)], axis=1)
    a = normalised(graph)
    expected = a @ a @ x
    sampler = make(graph, config)
    for step in range(sampler.batches_per_epoch):
        batch = sampler.batch(step)
        np.testing.assert_allclose(aggregated(batch, x), expected[batch.seeds], rtol=3e-7, atol=1e-6)


def test_the_last_tile_of_a_slice_is_shorter(graph: Graph) -> None:
    sampler = TileSampler(graph, OFFSETS, hops=2, batch_size=24, tile=8, seed=0)
    sizes = sampler.stops - sampler.starts
    assert np.bincount(sizes, minlength=9).tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 36]  # 61, 140, 99: 5, 4, 3 over
    for lo, hi in zip(sampler.starts, sampler.stops, strict=True):
        assert np.searchsorted(OFFSETS, lo, side="right") == np.searchsorted(OFFSETS, hi - 1, side="right")
    assert sampler.batches_per_epoch == 13
    for step in range(13):
        seeds = sampler.seeds(step)
        runs = np.split(seeds, np.flatnonzero(np.diff(seeds) != 1) + 1)
        assert all(len(r) % 8 == 0 or r[-1] + 1 in OFFSETS for r in runs)


@pytest.mark.parametrize("size", [300, 301, 10_000])
@pytest.mark.parametrize("kind", ["tile", "neighbor"])
def test_a_full_batch_holds_all_nodes_and_no_halo(graph: Graph, size: int, kind: str) -> None:
    sampler = make(graph, Sample(kind=kind, batch_size=size, fan_out=(-1, -1)))
    assert sampler.batches_per_epoch == 1
    for step in range(2):
        batch = sampler.batch(step)
        assert batch.counts == (300, 300, 300)
        assert sorted(batch.nodes.tolist()) == list(range(300))


def test_fan_out_is_a_limit_without_replacement(graph: Graph) -> None:
    sampler = make(graph, Sample(kind="neighbor", batch_size=50, fan_out=(4, 2)))
    degree = graph.degree()
    for step in range(sampler.batches_per_epoch):
        batch = sampler.batch(step)
        drawn = np.diff(batch.relations[0].indptr) - 1
        fan = np.where(np.arange(len(drawn)) < batch.n_seeds, 4, 2)
        assert np.array_equal(drawn, np.minimum(fan, degree[batch.nodes[: len(drawn)]]))


def test_sampled_weights_are_unbiased(graph: Graph) -> None:
    x = np.random.default_rng(3).normal(size=(300, 1)) + 3
    a = normalised(graph)
    sampler = make(graph, Sample(kind="neighbor", batch_size=300, fan_out=(2, 2)))
    one, two = np.zeros((300, 1)), np.zeros((300, 1))
    draws = 600
    for step in range(draws):
        batch = sampler.batch(step)
        (first,), (second,) = layer_edges(batch, CPU)
        h = first @ torch.from_numpy(x[batch.nodes])
        one[batch.seeds] += h.numpy()[: batch.n_seeds] / draws
        two[batch.seeds] += (second @ h).numpy() / draws
    # the spread of one draw is about 1: six standard errors of the worst, a fraction of one for the mean
    assert np.abs(one - a @ x).max() < 0.25
    assert abs((one - a @ x).mean()) < 0.01
    assert np.abs(two - a @ a @ x).max() < 0.35
    assert abs((two - a @ a @ x).mean()) < 0.02


def test_every_neighbour_is_drawn_equally_often(graph: Graph) -> None:
    sampler = CsrSampler(graph, (2,))
    node = int(graph.degree().argmax())
    rng = np.random.default_rng(0)
    drawn = np.concatenate([sampler.draw(np.array([node]), rng).nodes[1:] for _ in range(2000)])
    _, near = graph.rows(np.array([node]))
    assert set(drawn.tolist()) == set(near.tolist())
    often = np.bincount(drawn, minlength=300)[near]
    expected = 4000 / len(near)
    assert np.abs(often - expected).max() < 5 * np.sqrt(expected)


def test_pyg_loader_runs_on_the_csr_sampler(graph: Graph) -> None:
    a = normalised(graph) > 0
    row = np.repeat(np.arange(300), graph.degree())
    edge_index = torch.from_numpy(np.stack([graph.indices.astype(np.int64), row]))
    data = Data(x=torch.arange(300.0)[:, None], edge_index=edge_index)
    loader = NodeLoader(data, CsrSampler(graph, (3, 2), seed=1), batch_size=40, shuffle=False)
    seen = []
    for batch in loader:
        nodes = batch.n_id.numpy()
        assert torch.equal(batch.x[:, 0].long(), batch.n_id)
        seen.extend(nodes[: batch.batch_size].tolist())
        source, target = nodes[batch.edge_index.numpy()]
        assert (source != target).all()
        assert a[source, target].all()
        incoming = np.bincount(batch.edge_index[1].numpy(), minlength=len(nodes))
        expected = np.minimum(graph.degree()[nodes[: batch.batch_size]], 3)
        assert np.array_equal(incoming[: batch.batch_size], expected)
        assert sum(batch.num_sampled_nodes) == len(nodes)
        assert sum(batch.num_sampled_edges) == batch.edge_index.shape[1]
    assert seen == list(range(300))


def test_edges_are_not_sampled_around(graph: Graph) -> None:
    inputs = EdgeSamplerInput(None, torch.tensor([0]), torch.tensor([1]))
    with pytest.raises(StscaleError, match="LinkNeighborLoader"):
        CsrSampler(graph, (2,)).sample_from_edges(inputs)


@pytest.mark.parametrize("fan_out", [(5,), (5, 4, 3)])
def test_one_fan_out_per_layer(graph: Graph, fan_out: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="one number per layer: 2"):
        make(graph, Sample(kind="neighbor", fan_out=fan_out))


def test_even_cuts_are_the_fewest_and_differ_by_one() -> None:
    for items, per_batch, batches in [(10, 3, 4), (9, 3, 3), (2, 5, 1), (100, 7, 15)]:
        sizes = np.diff(even_cuts(items, per_batch))
        assert (len(sizes), sizes.sum()) == (batches, items)
        assert sizes.max() <= per_batch
        assert sizes.max() - sizes.min() <= 1


def test_stratified_order_spreads_each_group_evenly() -> None:
    group = np.repeat(np.arange(3), [5, 100, 45]).astype(np.int32)
    order = stratified_order(group, 3, 1)
    assert sorted(order.tolist()) == list(range(150))
    for part in np.split(group[order], 5):
        counts = np.bincount(part, minlength=3)
        # a rank may slip over a border by one
        assert np.abs(counts - [1, 20, 9]).max() <= 1
    # within a group the order is random
    assert not np.array_equal(np.sort(order[group[order] == 1]), order[group[order] == 1])
