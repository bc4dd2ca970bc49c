"""The blocks of the layer-wise embedding, in this process or as tasks of a cluster."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stscale.compute import Compute
from stscale.graphs.csr import Graph, mapped
from stscale.models.edges import layer_edges
from stscale.models.layers import Measured
from stscale.models.method import Method
from stscale.sampling.batch import Expander
from stscale.slices.stream import map_blocks
from stscale.training.inputs import Inputs

Range = tuple[int, int]  # rows lo to hi
Sums = list[tuple[Tensor, int]]  # of each measured layer: sums (2, d) float64, rows


class Blocks(Protocol):
    """Passes over all spots, block by block."""

    def measure(self, i: int, inputs: Inputs, ranges: list[Range]) -> None:
        """Replace the running statistics of layer `i` by those of all rows."""

    def rows(self, i: int, inputs: Inputs, ranges: list[Range]) -> Iterator[NDArray[np.float32]]:
        """Yield the output of layer `i` for each range of rows, in order; of the last layer the latents."""


class LocalBlocks:
    """Blocks computed one after the other in this process.

    Parameters
    ----------
    method
        In evaluation mode, on `device`.
    graphs
        Of all spots, those the method reads.
    device
        Where the network runs.
    """

    def __init__(self, method: Method, graphs: Graph | Sequence[Graph], device: torch.device) -> None:
        self._method, self._device = method, device
        self._expander = Expander(graphs, 1)

    def measure(self, i: int, inputs: Inputs, ranges: list[Range]) -> None:
        """Replace the running statistics of layer `i` by those of all rows."""
        with _measuring(self._method):
            for rows in ranges:
                _block(self._method, i, inputs, self._expander, rows, self._device)

    def rows(self, i: int, inputs: Inputs, ranges: list[Range]) -> Iterator[NDArray[np.float32]]:
        """Yield the output of layer `i` for each range of rows, in order."""
        for rows in ranges:
            yield _output(self._method, i, inputs, self._expander, rows, self._device)


class ClusterBlocks:
    """Blocks computed by the workers of a Dask cluster, on their CPUs.

    The workers map graph and inputs into memory, from files. Each computes with as many threads as this process,
    and sums are added in the order of the blocks, so the bits are those of `LocalBlocks`.

    Parameters
    ----------
    method
        In evaluation mode, on the CPU.
    graphs
        Of all spots, those the method reads.
    folder
        Where the graphs are unpacked; every worker must see it, and the files of the inputs.
    compute
        The cluster.
    """

    def __init__(self, method: Method, graphs: Graph | Sequence[Graph], folder: Path, compute: Compute) -> None:
        self._method, self._compute = method, compute
        self._graphs = []
        for i, graph in enumerate((graphs,) if isinstance(graphs, Graph) else graphs):
            self._graphs.append(folder.absolute() / f"graph-{i}")
            graph.unpack(self._graphs[-1])

    def measure(self, i: int, inputs: Inputs, ranges: list[Range]) -> None:
        """Replace the running statistics of layer `i` by those of all rows."""
        task = LayerTask(self._method, i, inputs, self._graphs, torch.get_num_threads())
        with _measuring(self._method) as norms:
            for found in map_blocks(task.sums, ranges, workers=self._compute.workers, scheduler=None):
                for norm, (sums, rows) in zip(norms, found, strict=True):
                    norm.add(sums, rows)

    def rows(self, i: int, inputs: Inputs, ranges: list[Range]) -> Iterator[NDArray[np.float32]]:
        """Yield the output of layer `i` for each range of rows, in order."""
        task = LayerTask(self._method, i, inputs, self._graphs, torch.get_num_threads())
        return map_blocks(task.rows, ranges, workers=self._compute.workers, scheduler=None)


class LayerTask:
    """A layer as a pure function of a range of rows; wherever it is unpickled it opens its files anew.

    Parameters
    ----------
    method
        With the statistics to start from.
    i
        The layer.
    inputs
        Rows of all spots; pickled as the files they are in.
    graphs
        Folders of `Graph.unpack`.
    threads
        Threads of torch: other numbers give other bits.
    """

    def __init__(self, method: Method, i: int, inputs: Inputs, graphs: list[Path], threads: int) -> None:
        self._made = method, i, inputs, graphs, threads
        # threads of one process share the task: each borrows a network and an expander, which keep state
        self._idle: list[tuple[Method, Expander]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made

    def sums(self, rows: Range) -> Sums:
        """Return sums and number of rows that each normalisation met in these rows."""
        _, i, inputs, _, _ = self._made
        with self._desk() as (method, expander), _measuring(method) as norms:
            _block(method, i, inputs, expander, rows, torch.device("cpu"))
            # taken: nothing is left for the statistics of this copy, which other blocks start from
            return [norm.take() for norm in norms]

    def rows(self, rows: Range) -> NDArray[np.float32]:
        """Output of the layer for these rows, (hi - lo, d) float32."""
        _, i, inputs, _, _ = self._made
        with self._desk() as (method, expander):
            return _output(method, i, inputs, expander, rows, torch.device("cpu"))

    @contextmanager
    def _desk(self) -> Iterator[tuple[Method, Expander]]:
        from copy import deepcopy

        method, _, _, graphs, threads = self._made
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        desk = self._idle.pop() if self._idle else (deepcopy(method), Expander([mapped(g) for g in graphs], 1))
        yield desk
        self._idle.append(desk)


@contextmanager
def _measuring(method: Method) -> Iterator[list[Measured]]:
    norms = [m for m in method.modules() if isinstance(m, Measured)]
    with ExitStack() as stack:
        for norm in norms:
            stack.enter_context(norm.measuring())
        yield norms


@torch.no_grad()
def _output(
    method: Method, i: int, inputs: Inputs, expander: Expander, rows: Range, device: torch.device
) -> NDArray[np.float32]:
    h = _block(method, i, inputs, expander, rows, device)
    return (method.fuse(h) if i == method.n_layers - 1 else h).float().cpu().numpy()


@torch.no_grad()
def _block(method: Method, i: int, inputs: Inputs, expander: Expander, rows: Range, device: torch.device) -> Tensor:
    batch = expander.expand(np.arange(*rows))
    x = torch.from_numpy(inputs.rows(batch.nodes)).to(device)
    return method.layer(i, x, layer_edges(batch, device)[0])
