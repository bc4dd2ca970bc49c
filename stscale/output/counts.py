"""X of integrated.zarr: raw counts of the common genes, rows in the input's order."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.memory import Touched
from stscale.slices.collection import Collection
from stscale.slices.feature_writer import MatrixWriter
from stscale.slices.stream import ENTRIES, collection_blocks


def write_counts(root: Any, collection: Collection, scratch: Path) -> None:
    """Write X, a CSR matrix (n, g) float32, slice by slice.

    A store holds its rows along the Hilbert curve: a slice is unpacked to raw files in that order (8 bytes an entry)
    and read back in the input's order, a bounded number of entries at a time.

    Parameters
    ----------
    root
        The open Zarr v3 group of integrated.zarr; it has no X yet.
    collection
        The slices; columns are its vocabulary. Genes that a slice lacks have no entries.
    scratch
        Where the temporary folder of the raw files goes.
    """
    writer = MatrixWriter(root.create_group("X"), len(collection.genes))
    blocks = collection_blocks(collection)
    for i, store in enumerate(collection.stores):
        with tempfile.TemporaryDirectory(prefix=".counts.", suffix=".part", dir=scratch) as folder:
            unpacked = _Unpacked(Path(folder), store.n, len(collection.genes))
            for block in blocks:
                if block.slice == i:
                    unpacked.append(collection.block(i, block.lo, block.hi))
            back = np.empty(store.n, dtype=np.int64)
            back[store.input_row()] = np.arange(store.n)
            for rows in unpacked.ordered(back):
                writer.append(rows)
    writer.close()


class _Unpacked:
    """One slice as raw files, written row by row and read in any order."""

    def __init__(self, folder: Path, n: int, g: int) -> None:
        self._paths = folder / "indices.i32", folder / "data.f32"
        self._indptr, self._rows, self._g = np.zeros(n + 1, dtype=np.int64), 0, g

    def append(self, block: sparse.csr_matrix) -> None:
        lo, self._rows = self._rows, self._rows + block.shape[0]
        self._indptr[lo + 1 : self._rows + 1] = self._indptr[lo] + block.indptr[1:]
        for path, values in zip(
            self._paths, (block.indices.astype(np.int32), block.data.astype(np.float32)), strict=True
        ):
            with path.open("ab") as file:
                values.tofile(file)

    def ordered(self, order: NDArray[np.int64]) -> Iterator[sparse.csr_matrix]:
        """Yield the rows in the given order, as many at a time as hold `ENTRIES` values, at least one."""
        kinds = np.dtype(np.int32), np.dtype(np.float32)
        arrays = [_mapped(path, kind) for path, kind in zip(self._paths, kinds, strict=True)]
        touched = [Touched(array) for array in arrays]
        lengths = np.diff(self._indptr)[order]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        lo = 0
        while lo < len(order):
            hi = max(lo + 1, int(np.searchsorted(ends, ends[lo] + ENTRIES, side="right")) - 1)
            indptr = ends[lo : hi + 1] - ends[lo]
            place = np.repeat(self._indptr[order[lo:hi]] - indptr[:-1], lengths[lo:hi]) + np.arange(indptr[-1])
            indices, data = (array[place] for array in arrays)
            for pages in touched:
                pages.add(len(place), hi - lo)
            yield sparse.csr_matrix((data, indices, indptr), shape=(hi - lo, self._g))
            lo = hi


def _mapped(path: Path, kind: np.dtype[Any]) -> NDArray[Any]:
    # an empty file cannot be mapped
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.empty(0, kind)
