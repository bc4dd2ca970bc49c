"""The layer-wise embedding against one forward over the whole graph."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from stscale.config import Sample, Spotscape, Train
from stscale.graphs.build import knn_graph
from stscale.graphs.csr import Graph, block_diagonal
from stscale.models import Method
from stscale.models import Spotscape as Network
from stscale.models.edges import layer_edges
from stscale.sampling import Expander, make_sampler
from stscale.training import DenseInputs, Task, embed, fit

CPU = torch.device("cpu")
OFFSETS = np.array([0, 50, 160, 205])
N, G = 205, 10


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # the package's attribute `embed` is the function: the module is reached by its name
    monkeypatch.setattr(importlib.import_module("stscale.training.embed"), "ROWS", 37)


@pytest.fixture(scope="module")
def graph() -> Graph:
    rng = np.random.default_rng(0)
    return block_diagonal([knn_graph(rng.random((n, 2)), 4) for n in np.diff(OFFSETS)])


def trained(graph: Graph, folder: Path, activation: str) -> tuple[Method, DenseInputs]:
    rng = np.random.default_rng(1)
    inputs = DenseInputs(folder / "x.f32", N, G)
    inputs.array[:] = rng.normal(size=(N, G)) + 3 * rng.normal(size=G)
    torch.manual_seed(0)
    method = Network(G, 3, 3, Spotscape(hidden=16, latent=5, activation=activation), 0)
    task = Task(
        sampler=make_sampler(graph, OFFSETS, Sample(batch_size=64, tile=8), hops=2, seed=0),
        inputs=inputs,
        targets=None,
        library=None,
        group=np.repeat(np.arange(3, dtype=np.int32), np.diff(OFFSETS)),
        mask=None,
        seed=0,
        device=CPU,
        digest="a",
    )
    fit(method, task, Train(steps=6, lr=1e-2), folder / "checkpoints", lambda _: None)
    return method, inputs


def dense_forward(method: Method, inputs: DenseInputs, graph: Graph) -> np.ndarray:
    edges = layer_edges(Expander(graph, 2).expand(np.arange(N)), CPU)
    with torch.no_grad():
        return method.eval()(torch.from_numpy(np.array(inputs.array)), edges).numpy()


@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("remeasure", [True, False])
def test_embedding_equals_the_whole_forward(graph: Graph, tmp_path: Path, activation: str, remeasure: bool) -> None:
    method, inputs = trained(graph, tmp_path, activation)
    before = dense_forward(method, inputs, graph)
    z = embed(method, inputs, graph, tmp_path / "scratch", device=CPU, remeasure=remeasure)
    assert (z.n, z.width) == (N, 5)
    after = dense_forward(method, inputs, graph)
    np.testing.assert_allclose(z.array, after, rtol=1e-5, atol=1e-5)
    assert np.ptp(after, axis=0).max() > 0.1
    assert np.allclose(before, after, atol=1e-3) != remeasure


def test_remeasured_statistics_are_those_of_all_spots(graph: Graph, tmp_path: Path) -> None:
    method, inputs = trained(graph, tmp_path, "relu")
    embed(method, inputs, graph, tmp_path / "scratch", device=CPU)
    a = np.eye(N)
    a[np.repeat(np.arange(N), graph.degree()), graph.indices] = 1
    a /= np.sqrt(np.outer(a.sum(1), a.sum(1)))
    h = np.array(inputs.array, dtype=np.float64)
    for block in method.convolutions:
        h = a @ h @ block.linear.weight.detach().double().numpy().T + block.linear.bias.detach().double().numpy()
        mean, var = h.mean(axis=0), h.var(axis=0, ddof=1)
        np.testing.assert_allclose(block.norm.running_mean.numpy(), mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(block.norm.running_var.numpy(), var, rtol=1e-4)
        gain, shift = (v.detach().double().numpy() for v in (block.norm.weight, block.norm.bias))
        h = np.maximum((h - mean) / np.sqrt(var + 1e-5) * gain + shift, 0)
