"""What the network reads: rows of features by spot, from files mapped into memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from stscale.atomic import atomic_path
from stscale.graphs.csr import Graph
from stscale.memory import Touched
from stscale.sampling.batch import Expander
from stscale.slices.features import FeatureStore

# Rows read and written at a time while a mapped file is filled.
ROWS = 8192


class Inputs(Protocol):
    """Rows of an (n, g) matrix that may not fit in memory."""

    n: int
    width: int

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Gather rows in the order asked, (m, g) float32."""


class DenseInputs:
    """An (n, g) float32 matrix in a raw file mapped into memory; little of it stays resident.

    Parameters
    ----------
    path
        The file; created with `n` rows when missing, else opened.
    n, width
        Shape.
    """

    def __init__(self, path: Path, n: int, width: int) -> None:
        self.path = path
        self.n = n
        self.width = width
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists() and path.stat().st_size == n * width * 4
        self.array: NDArray[np.float32] = np.memmap(
            path, dtype=np.float32, mode="r+" if there else "w+", shape=(n, width)
        )
        self._touched = Touched(self.array)

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Gather rows in the order asked, (m, g) float32."""
        found = np.asarray(self.array[ids])
        self._touched.add(len(ids), 1 + int(np.count_nonzero(np.diff(ids) != 1)))
        return found

    def write(self, lo: int, rows: NDArray[np.float32]) -> None:
        """Write rows (m, g) from row `lo` on."""
        self.array[lo : lo + len(rows)] = rows
        self._touched.add(len(rows))

    def __reduce__(self) -> tuple[Any, ...]:
        # other processes get the file, to read, not its content
        cast("np.memmap[Any, Any]", self.array).flush()
        return _dense, (self.path.absolute(), self.n, self.width)


class SparseInputs:
    """Genes of a feature store, made dense a batch at a time.

    Parameters
    ----------
    features
        The feature store.
    folder
        Where the CSR arrays are unpacked as raw files, to be mapped into memory.
    counts
        Raw counts instead of normalised values.
    """

    def __init__(self, features: FeatureStore, folder: Path, *, counts: bool = False) -> None:
        read = features.counts if counts else features.normalised
        self.n, self.width = features.n, features.g
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._indptr = np.zeros(self.n + 1, dtype=np.int64)
        paths = folder / "indices.i32", folder / "data.f32"
        with paths[0].open("wb") as indices, paths[1].open("wb") as data:
            for lo in range(0, self.n, ROWS):
                block = read(lo, min(lo + ROWS, self.n))
                self._indptr[lo + 1 : lo + block.shape[0] + 1] = self._indptr[lo] + block.indptr[1:]
                block.indices.astype(np.int32).tofile(indices)
                block.data.astype(np.float32).tofile(data)
        self._open()

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Gather rows in the order asked, (m, g) float32."""
        start = self._indptr[ids]
        lengths = self._indptr[np.asarray(ids) + 1] - start
        ends = np.cumsum(lengths)
        place = np.repeat(start - (ends - lengths), lengths) + np.arange(int(lengths.sum()))
        out = np.zeros((len(ids), self.width), dtype=np.float32)
        out[np.repeat(np.arange(len(ids)), lengths), self._indices[place]] = self._data[place]
        runs = 1 + int(np.count_nonzero(np.diff(ids) != 1))
        for touched in self._touched:
            touched.add(len(place), runs)
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        # other processes get the files, to read, not their content
        path = self._folder.absolute() / "indptr.npy"
        if not path.exists():
            with atomic_path(path) as part:
                np.save(part, self._indptr)
        return _sparse, (self._folder.absolute(), self.n, self.width)

    def _open(self) -> None:
        empty = self._indptr[-1] == 0
        paths = self._folder / "indices.i32", self._folder / "data.f32"
        self._indices = np.empty(0, np.int32) if empty else np.memmap(paths[0], dtype=np.int32, mode="r")
        self._data = np.empty(0, np.float32) if empty else np.memmap(paths[1], dtype=np.float32, mode="r")
        self._touched = Touched(self._indices), Touched(self._data)


def _dense(path: Path, n: int, width: int) -> DenseInputs:
    inputs = object.__new__(DenseInputs)
    inputs.path, inputs.n, inputs.width = path, n, width
    # read only: a file that is missing here must not be made
    inputs.array = np.memmap(path, dtype=np.float32, mode="r", shape=(n, width))
    inputs._touched = Touched(inputs.array)
    return inputs


def _sparse(folder: Path, n: int, width: int) -> SparseInputs:
    inputs = object.__new__(SparseInputs)
    inputs.n, inputs.width, inputs._folder = n, width, folder
    inputs._indptr = np.load(folder / "indptr.npy", mmap_mode="r")
    inputs._open()
    return inputs


def pca_inputs(features: FeatureStore, graph: Graph, folder: Path, *, smooth: int) -> DenseInputs:
    """Unpack the principal components, scaled by one number so that their mean variance is 1.

    Parameters
    ----------
    features
        The feature store.
    graph
        Spatial graph, for the smoothing.
    folder
        Where the raw files go.
    smooth
        Rounds of averaging each spot with its neighbours.
    """
    scale = component_scale(features)
    inputs = DenseInputs(folder / "input-0.f32", features.n, features.p)
    for lo in range(0, features.n, ROWS):
        hi = min(lo + ROWS, features.n)
        inputs.write(lo, features.pca(lo, hi) * scale)
    for r in range(smooth):
        before, inputs = inputs, smoothed(inputs, graph, folder / f"input-{r + 1}.f32")
        before.path.unlink()
    return inputs


def component_scale(features: FeatureStore) -> float:
    """Return what `pca_inputs` multiplies the components by."""
    return float(1.0 / np.sqrt(max(float(np.mean(features.pca_variance())), 1e-12)))


def smoothed_targets(inputs: DenseInputs, graph: Graph, folder: Path, *, rounds: int) -> DenseInputs:
    """Smooth the inputs and scale them by one number to mean square 1: what is reconstructed.

    A spot's own noise cannot be predicted from its neighbours; its smoothed profile can.
    """
    out, scale = _smoothed_scale(inputs, graph, folder, rounds)
    for block in _row_blocks(out):
        out.write(block[0], out.rows(block) * scale)
    return out


def target_scale(inputs: DenseInputs, graph: Graph, folder: Path, *, rounds: int) -> float:
    """Return what `smoothed_targets` multiplies the smoothed inputs by; 1 without smoothing."""
    return float(_smoothed_scale(inputs, graph, folder, rounds)[1]) if rounds else 1.0


def _smoothed_scale(inputs: DenseInputs, graph: Graph, folder: Path, rounds: int) -> tuple[DenseInputs, np.float32]:
    out = inputs
    for r in range(rounds):
        out = smoothed(out, graph, folder / f"target-{r + 1}.f32")
    total = sum(float(np.sum(np.square(out.rows(block), dtype=np.float64))) for block in _row_blocks(out))
    return out, np.float32(1.0 / np.sqrt(max(total / (out.n * out.width), 1e-12)))


def _row_blocks(rows: Inputs) -> list[NDArray[np.int64]]:
    return [np.arange(lo, min(lo + ROWS, rows.n)) for lo in range(0, rows.n, ROWS)]


def propagated(inputs: DenseInputs, graphs: Sequence[Graph], path: Path) -> DenseInputs:
    """Average the inputs over each graph with GCN weights: [Â₁X ‖ Â₂X ‖ …], (n, graphs · g), block by block.

    The first convolution of a network is ÂXW, and ÂX does not change in training: it is computed once and exactly,
    and a minibatch needs one hop less.

    Parameters
    ----------
    inputs
        X, (n, g).
    graphs
        Of the same n spots.
    path
        The file of the result.
    """
    from scipy.sparse import csr_matrix

    out = DenseInputs(path, inputs.n, len(graphs) * inputs.width)
    expander = Expander(graphs, 1)
    for lo in range(0, inputs.n, ROWS):
        batch = expander.expand(np.arange(lo, min(lo + ROWS, inputs.n)))
        x, shape = inputs.rows(batch.nodes), (batch.n_seeds, len(batch.nodes))
        means = [csr_matrix((r.weight, r.indices, r.indptr), shape=shape) @ x for r in batch.relations]
        out.write(lo, np.concatenate(means, axis=1))
    return out


def smoothed(inputs: DenseInputs, graph: Graph, path: Path) -> DenseInputs:
    """Replace each row by the mean over the spot and its neighbours, block by block."""
    from scipy.sparse import csr_matrix

    out = DenseInputs(path, inputs.n, inputs.width)
    expander = Expander(graph, 1)
    for lo in range(0, inputs.n, ROWS):
        batch = expander.expand(np.arange(lo, min(lo + ROWS, inputs.n)))
        near = batch.relations[0]
        one = np.ones(len(near.indices), dtype=np.float32)
        total = csr_matrix((one, near.indices, near.indptr), shape=(batch.n_seeds, len(batch.nodes)))
        out.write(lo, (total @ inputs.rows(batch.nodes)) / np.diff(near.indptr)[:, None])
    return out
