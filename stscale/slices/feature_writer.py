"""Writer of the feature store: rows as they come, then components and scores, then the description."""

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.compute import Scheduler
from stscale.errors import InputError
from stscale.slices.collection import Collection
from stscale.slices.components import Components
from stscale.slices.kinds import Kinds, averages
from stscale.slices.preprocess import Ranked, Rows
from stscale.slices.stream import ENTRIES, map_blocks
from stscale.slices.transform import Transform
from stscale.slices.writer import _Stream

if TYPE_CHECKING:
    import zarr

FORMAT: Final = 6
"""Version of the feature store; a store of another version is refused."""

ATTRS: Final = "stscale_features"
"""Root attribute that holds the description (a JSON object)."""

CHUNK: Final = 8192  # rows of `pca` in a chunk
LONG: Final = 1 << 16  # rows of the other arrays in a chunk


class FeatureWriter:
    """Write a feature store: `append` blocks, `close`, `write_components`, `write_variance`, `write_kinds`, `describe`.

    Parameters
    ----------
    root
        Empty Zarr v3 group.
    collection
        The slices.
    columns : (g,) int64
        Genes kept, ascending columns of the vocabulary.
    transform
        Of the values before components are computed; the values themselves are written.
    gain : (s, g) float64
        What the transformed values are multiplied by.
    lognormalized
        Whether there are no counts to write.
    """

    def __init__(
        self,
        root: "zarr.Group",
        collection: Collection,
        columns: NDArray[np.int64],
        transform: Transform,
        gain: NDArray[np.float64],
        *,
        lognormalized: bool,
    ) -> None:
        self._root, self._collection, self._columns = root, collection, columns
        self._transform, self._gain, self._lognormalized = transform, gain, lognormalized
        keys = ("X",) if lognormalized else ("X", "counts")
        self._matrices = {key: MatrixWriter(root.create_group(key), len(columns)) for key in keys}
        # O(n) vectors, a few bytes a spot
        self._kept: list[list[NDArray[np.int64]]] = [[] for _ in collection.stores]
        self._left_out: list[list[NDArray[np.int64]]] = [[] for _ in collection.stores]
        self._library: list[NDArray[np.float32]] = []

    def append(self, rows: Rows) -> None:
        """Write the next block; blocks come slice by slice, row by row."""
        self._matrices["X"].append(rows.normalised)
        if not self._lognormalized:
            self._matrices["counts"].append(rows.counts)
        self._kept[rows.block.slice].append(rows.kept)
        self._left_out[rows.block.slice].append(rows.left_out)
        self._library.append(rows.library)

    def close(self) -> None:
        """Write what is known once all rows came.

        Raises
        ------
        InputError
            If a slice has no spot with a count on the vocabulary.
        """
        stores = self._collection.stores
        kept = [np.concatenate(parts) for parts in self._kept]
        left_out = [np.concatenate(parts) for parts in self._left_out]
        for store, rows in zip(stores, kept, strict=True):
            if len(rows) == 0:
                raise InputError(
                    f"slice {store.name!r}: none of its {store.n} spots has a count on the "
                    f"{len(self._collection.genes)} genes in use; leave it out, or use genes = 'union'"
                )
        self._n_spots, self._n_left_out = [len(rows) for rows in kept], [len(rows) for rows in left_out]
        self._which = np.repeat(np.arange(len(stores), dtype=np.int32), self._n_spots)
        for matrix in self._matrices.values():
            self._indptr = matrix.close()
        xy = np.concatenate([store.coordinates()[rows] for store, rows in zip(stores, kept, strict=True)])
        self._put("slice", self._which)
        self._put("row", np.concatenate(kept))
        self._put("left_out", np.concatenate(left_out))
        self._put("library", np.concatenate(self._library))
        self._put("xy", xy)
        self._put("mask", self._collection.present[:, self._columns])
        self._put("gain", self._gain)

    def write_components(
        self, components: Components, *, workers: int, scheduler: Scheduler | None = "threads"
    ) -> NDArray[np.float64]:
        """Write the principal axes and the scores of all rows, reading the rows back block by block.

        Returns
        -------
        (p,) float64
            Sum of the squared scores along each axis.
        """
        self._p = len(components.axes)
        self._put("pca_components", components.axes.astype(np.float32))
        self._put("pca_mean", components.mean)
        self._put("slice_mean", components.slice_mean)
        self._put("pca_inverse", components.inverse)
        self._put("pca_noise", components.noise)
        n = len(self._which)
        scores = self._root.create_array("pca", shape=(n, self._p), chunks=(min(CHUNK, n), self._p), dtype=np.float32)
        ranges = self._ranges()
        function = partial(_scores, self._root, components, self._transform, self._gain, self._which, self._indptr)
        squares = np.zeros(self._p)
        for (lo, hi), block in zip(
            ranges, map_blocks(function, ranges, workers=workers, scheduler=scheduler), strict=True
        ):
            scores[lo:hi] = block
            squares += np.sum(block.astype(np.float64) ** 2, axis=0)
        return squares

    def write_variance(self, variance: NDArray[np.float64]) -> None:
        """Write the variance of spots along each axis, (p,)."""
        self._put("pca_variance", variance)

    def averages(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Average the scores over each spot and those around it, of some spots of every slice; see `averages`."""
        offsets = np.concatenate([[0], np.cumsum(self._n_spots)])
        return averages(self._scores, np.asarray(self._root["xy"][...]), offsets)  # type: ignore[index]

    def write_kinds(self, kinds: Kinds) -> None:
        """Write the kinds and how far slices were moved, and move their scores."""
        self._put("kinds", kinds.centres)
        self._put("kinds_gain", np.append(kinds.gain, kinds.own))
        self._put("move", kinds.move)
        if not kinds.moved:
            return
        for lo, hi in self._ranges():
            moved = self._scores(lo, hi) + kinds.move[self._which[lo:hi]]
            self._root["pca"][lo:hi] = moved.astype(np.float32)  # type: ignore[index]

    def _scores(self, lo: int, hi: int) -> NDArray[np.float32]:
        return np.asarray(self._root["pca"][lo:hi])  # type: ignore[index]  # zarr types an item as array or group

    def _ranges(self) -> list[tuple[int, int]]:
        n = len(self._which)
        return [(lo, min(lo + CHUNK, n)) for lo in range(0, n, CHUNK)]

    def describe(self, ranked: Ranked, *, height: str, notes: tuple[str, ...]) -> None:
        """Write the gene table and, last, the description that makes the folder a feature store."""
        import pandas as pd
        from anndata.io import write_elem

        ranking, columns = ranked.ranking, self._columns
        table = pd.DataFrame(
            {
                "mean": ranked.mean[columns],
                "variance_norm": ranking.variance_norm[columns],
                "rank": ranking.rank[columns],
                "n_slices": ranking.n_slices[columns],
            },
            index=pd.Index(self._collection.genes[columns].astype(object), name="name"),
        )
        # one text: readers of other languages meet no string type of Zarr's that is still being decided on
        text = "\n".join(self._collection.genes.tolist()).encode()
        self._put("vocabulary", np.frombuffer(text, dtype=np.uint8))
        self._put("vocabulary_mean", ranked.mean)
        # said outright, because anndata warns that its own default is about to change
        write_elem(self._root, "var", table, dataset_kwargs={"shards": None})
        self._root.attrs[ATTRS] = {
            "format": FORMAT,
            "n": len(self._which),
            "g": len(columns),
            "p": self._p,
            "slices": [store.name for store in self._collection.stores],
            "n_spots": self._n_spots,
            "n_left_out": self._n_left_out,
            "lognormalized": self._lognormalized,
            "transform": asdict(self._transform),
            "height": height,
            "notes": list(notes),
            "complete": True,
        }

    def _put(self, name: str, values: NDArray[Any]) -> None:
        # a chunk of no rows is not allowed, an array of no rows is
        chunks = (min(LONG, max(len(values), 1)), *values.shape[1:])
        array = self._root.create_array(name, shape=values.shape, chunks=chunks, dtype=values.dtype)
        array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        array[...] = values


class MatrixWriter:
    """A CSR matrix in AnnData's encoding that grows by rows.

    Parameters
    ----------
    group
        Empty Zarr v3 group.
    g
        Columns.
    """

    def __init__(self, group: "zarr.Group", g: int) -> None:
        self._group, self._g = group, g
        self._data = _Stream(group, "data", np.dtype(np.float32))
        self._indices = _Stream(group, "indices", np.dtype(np.int32))
        self._lengths: list[NDArray[np.int64]] = []

    def append(self, rows: sparse.csr_matrix) -> None:
        """Write the next rows, (m, g)."""
        self._data.append(rows.data)
        self._indices.append(rows.indices)
        self._lengths.append(np.diff(rows.indptr).astype(np.int64))

    def close(self) -> NDArray[np.int64]:
        """Write what is known once all rows came; return the row pointers (n + 1,)."""
        self._data.close()
        self._indices.close()
        indptr = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))]).astype(np.int64)
        pointer = _Stream(self._group, "indptr", np.dtype(np.int64))
        pointer.append(indptr)
        pointer.close()
        self._group.attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [len(indptr) - 1, self._g]}
        )
        return indptr


def read_csr(root: "zarr.Group", key: str, lo: int, hi: int, g: int) -> sparse.csr_matrix:
    """Rows `lo` to `hi` of the matrix `key` of a feature store, (hi - lo, g) float32."""

    def take(name: str, start: int, stop: int) -> NDArray[Any]:
        return np.asarray(root[f"{key}/{name}"][start:stop])  # type: ignore[index]  # array or group

    indptr = take("indptr", lo, hi + 1)
    start, stop = int(indptr[0]), int(indptr[-1])
    index_type = np.int32 if stop - start <= np.iinfo(np.int32).max else np.int64
    return sparse.csr_matrix(
        (take("data", start, stop), take("indices", start, stop), (indptr - start).astype(index_type)),
        shape=(hi - lo, g),
    )


def _scores(
    root: "zarr.Group",
    components: Components,
    transform: Transform,
    gain: NDArray[np.float64],
    which: NDArray[np.int32],
    indptr: NDArray[np.int64],
    rows: tuple[int, int],
) -> NDArray[np.float32]:
    """Scores of a range of rows, a bounded number of entries at a time."""
    lo, hi = rows
    p, g = components.axes.shape
    out = np.empty((hi - lo, p), dtype=np.float32)
    at = lo
    while at < hi:
        # as many rows as hold ENTRIES values, at least one
        end = int(np.searchsorted(indptr, indptr[at] + ENTRIES, side="right")) - 1
        end = min(max(end, at + 1), hi)
        values = transform.rows(read_csr(root, "X", at, end, g), gain, which[at:end])
        out[at - lo : end - lo] = components.scores(values, which[at:end])
        at = end
    return out
