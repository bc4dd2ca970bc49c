"""The blocks of the embedding as tasks: the bits of one loop in one process."""

import importlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from stscale.compute import Compute
from stscale.config import Spotscape
from stscale.graphs import block_diagonal, knn_graph
from stscale.graphs.csr import Graph, mapped
from stscale.models import Spotscape as Network
from stscale.training import DenseInputs, Inputs, SparseInputs, embed
from stscale.training.blocks import LayerTask, LocalBlocks

CPU = torch.device("cpu")
SIZES, G = (40, 97, 63), 12
N = sum(SIZES)
RANGES = [(lo, min(lo + 31, N)) for lo in range(0, N, 31)]


class Genes:
    """Stands in for a feature store with genes."""

    n, g = N, G

    def normalised(self, lo: int, hi: int) -> csr_matrix:
        dense = np.random.default_rng(1).random((N, G)).astype(np.float32)
        return csr_matrix(dense * (dense < 0.4))[lo:hi]


@pytest.fixture(scope="module")
def graph() -> Graph:
    rng = np.random.default_rng(0)
    return block_diagonal([knn_graph(rng.random((n, 2)), 4) for n in SIZES])


@pytest.fixture(params=["dense", "sparse"])
def inputs(request: pytest.FixtureRequest, tmp_path: Path) -> Inputs:
    if request.param == "sparse":
        return SparseInputs(Genes(), tmp_path / "inputs")
    dense = DenseInputs(tmp_path / "inputs.f32", N, G)
    dense.array[:] = np.random.default_rng(2).normal(size=(N, G)) * np.arange(1, G + 1)
    return dense


def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = Network(G, 3, 3, Spotscape(hidden=16, latent=5, activation="relu", reservoir=64, bank=0), 0)
        for norm in (block.norm for block in made.convolutions):
            norm.running_mean.normal_()
    return made.eval()


def test_tasks_embed_like_one_loop(inputs, graph, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("stscale.training.embed"), "ROWS", 31)
    one, two = network(), network()
    expected = embed(one, inputs, graph, tmp_path / "one", device=CPU)
    # without a client Dask's own threads take the tasks
    found = embed(two, inputs, graph, tmp_path / "two", device=CPU, compute=Compute(scheduler=None, workers=3))
    assert found.array.tobytes() == expected.array.tobytes()
    assert np.ptp(expected.array, axis=0).max() > 0.1
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def test_a_pickled_task_reads_the_same_files(inputs, graph, tmp_path):
    graph.unpack(tmp_path / "graph")
    task = LayerTask(network(), 0, inputs, [tmp_path / "graph"], 1)
    sent = pickle.dumps(task)
    assert len(sent) < 40_000  # the weights, not the data
    there = pickle.loads(pickle.dumps(pickle.loads(sent)))  # from a worker on to another one
    expected = list(LocalBlocks(network(), graph, CPU).rows(0, inputs, RANGES))
    with ThreadPoolExecutor(4) as threads:
        sums = [list(threads.map(there.sums, RANGES)) for _ in range(3)]
        rows = list(threads.map(there.rows, RANGES))
    assert [r.tobytes() for r in rows] == [r.tobytes() for r in expected]
    # threads share the task, and no block leaves a trace in it
    first = [[(s.numpy().tobytes(), n) for s, n in found] for found in sums[0]]
    assert all([[(s.numpy().tobytes(), n) for s, n in found] for found in other] == first for other in sums[1:])
    assert sum(found[0][1] for found in sums[0]) == N
    assert [found[1][1] for found in sums[0]] == [0] * len(RANGES)  # the other layer's normalisation met none


def test_a_missing_file_is_not_made(inputs, graph, tmp_path):
    sent = pickle.dumps(inputs)
    for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
        path.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(sent)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_an_unpacked_graph_comes_back(graph, tmp_path):
    graph.unpack(tmp_path / "new" / "graph")
    back = mapped(tmp_path / "new" / "graph")
    back.validate()
    assert back.indptr.tobytes() == graph.indptr.tobytes()
    assert back.indices.tobytes() == graph.indices.tobytes()
    assert isinstance(back.indices, np.memmap)
