"""Streaming, atomic writer of a slice store: what ingestion and simulation have in common."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.atomic import atomic_path
from stscale.errors import InputError
from stscale.slices import keys
from stscale.slices.checks import check_order, check_slice, check_values
from stscale.slices.recover import Scale

if TYPE_CHECKING:
    import pandas as pd
    import zarr

CHUNK = 1 << 16  # elements a compressed chunk of X/data and X/indices: 256 KiB
SHARD = 16 * CHUNK  # elements a file
LOG_MAX = 25.0  # largest credible log value: e^25 is 7e10 counts, 2^25 3e7


class Layout(Protocol):
    """The two numbers a store's layout needs; `stscale.config.Ingest` has them."""

    @property
    def tile(self) -> int:
        """Spots per tile."""

    @property
    def chunk(self) -> int:
        """Spots per block, a multiple of `tile`."""


class StoreWriter:
    """Write a slice store row by row; nothing is at `path` unless everything was written.

    Parameters
    ----------
    path
        Where the store goes; an existing folder there is replaced on success.
    name
        Name of the slice.
    genes : (g,) str
        Gene names in column order.
    names : (n,) str
        Spot names in input order.
    coordinates : (n, 2) or (n, 3) float
        Coordinates in input order.
    order : (n,) int64
        Input row at each store position, see `hilbert_order`.
    obs
        The input's columns about spots, n rows in input order; its index is replaced by `names`.
    var
        The input's columns about genes, g rows; its index is replaced by `genes`. None for no columns.
    config
        Tile and chunk.
    source, source_bytes
        File name and size of the input.
    unit
        Unit of the coordinates; None when unknown.
    um_per_unit
        Micrometres per coordinate unit; None when unknown.

    Attributes
    ----------
    recovered
        What the values were before they became counts again, a `recover.Scale`; None, as at first: values are as given.

    Raises
    ------
    InputError
        On names that repeat, coordinates that cannot be used, values that are negative or not finite, or
        a number of rows other than n.

    Examples
    --------
    >>> with StoreWriter(path, ...) as writer:  # doctest: +SKIP
    ...     for block in blocks:
    ...         writer.append(block)
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        genes: NDArray[np.str_],
        names: NDArray[np.str_],
        coordinates: NDArray[np.float64],
        order: NDArray[np.int64],
        obs: "pd.DataFrame",
        var: "pd.DataFrame | None",
        config: Layout,
        source: str,
        source_bytes: int,
        unit: str | None,
        um_per_unit: float | None = None,
    ) -> None:
        self.path = Path(path)
        self._name = name
        self._genes = np.asarray(genes).astype(np.str_)
        self._names = np.asarray(names).astype(np.str_)
        self._xy = np.asarray(coordinates, dtype=np.float64)
        self._order = np.asarray(order, dtype=np.int64)
        self._obs, self._var = obs, var
        if config.tile < 1 or config.chunk < config.tile or config.chunk % config.tile:
            raise InputError(
                f"chunk is {config.chunk}, tile is {config.tile}; chunk must be a positive multiple of tile"
            )
        self._attrs: dict[str, Any] = {
            "format": keys.FORMAT,
            "name": name,
            "n": len(self._names),
            "n_genes": len(self._genes),
            "dims": int(self._xy.shape[-1]),
            "tile": int(config.tile),
            "chunk": int(config.chunk),
            "unit": unit,
            "um_per_unit": um_per_unit,
            "shared_positions": check_slice(name, names=self._names, genes=self._genes, coordinates=self._xy),
            "source": source,
            "source_bytes": int(source_bytes),
        }
        check_order(self._order, n=len(self._names))
        self.recovered: Scale | None = None
        self._stack = ExitStack()
        self._moments = _Moments(n=len(self._names), n_genes=len(self._genes))

    def __enter__(self) -> "StoreWriter":
        import zarr

        self._root = zarr.open_group(self._stack.enter_context(atomic_path(self.path)), mode="w", zarr_format=3)
        self._root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        matrix = self._root.create_group("X")
        matrix.attrs.update(
            {
                "encoding-type": "csr_matrix",
                "encoding-version": "0.1.0",
                "shape": [len(self._names), len(self._genes)],
            }
        )
        self._data = _Stream(matrix, "data", np.dtype(np.float32))
        self._indices = _Stream(matrix, "indices", np.dtype(np.int32))
        return self

    def append(self, block: sparse.csr_matrix) -> None:
        """Write the next rows.

        Parameters
        ----------
        block : (m, g) csr_matrix
            Rows in store order. It is not changed: duplicates are summed, explicit zeros dropped and
            indices sorted in a copy.

        Raises
        ------
        InputError
            If a value is negative or not finite, or there are more rows than names.
        ValueError
            If the block has another number of columns than there are genes.
        """
        rows, columns = block.shape
        if columns != len(self._genes):
            raise ValueError(f"the block has {columns} columns; the slice has {len(self._genes)} genes")
        lo = self._moments.rows
        if lo + rows > len(self._names):
            raise InputError(f"slice {self._name!r}: more rows came than its {len(self._names)} spots")
        block = _canonical(block)
        check_values(
            self._name,
            row=lambda entry: int(self._order[lo + np.searchsorted(block.indptr, entry, side="right") - 1]),
            column=block.indices,
            value=block.data,
            names=self._names,
            genes=self._genes,
        )
        self._moments.add(block)
        self._data.append(block.data)
        self._indices.append(block.indices)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            # the error goes through the stack, so that the atomic path removes what was written
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._finish()

    def _finish(self) -> None:
        from anndata.io import write_elem

        n, moments = len(self._names), self._moments
        if moments.rows != n:
            raise InputError(f"slice {self._name!r}: {moments.rows} rows came for its {n} spots")
        self._data.close()
        self._indices.close()
        pointer = _Stream(self._root["X"], "indptr", np.dtype(np.int64))  # type: ignore[arg-type]
        pointer.append(moments.indptr)
        pointer.close()
        obs = _writable(self._obs, self._names, keys.OBS_RESERVED).iloc[self._order]
        obs[keys.ROW] = self._order
        obs[keys.TOTAL] = moments.totals
        var = _writable(self._var, self._genes, keys.VAR_RESERVED)
        var[keys.SUM], var[keys.SUMSQ] = moments.sums, moments.squares
        elements: dict[str, Any] = {"obs": obs, "var": var, "obsm": {keys.SPATIAL: self._xy[self._order]}}
        for key, element in (elements | {k: {} for k in ("layers", "obsp", "uns", "varm", "varp")}).items():
            # said outright, because anndata warns that its own default is about to change
            write_elem(self._root, key, element, dataset_kwargs={"shards": None})
        # last, because this is what makes the folder a store
        self._root.attrs[keys.ATTRS] = self._attrs | {
            "counts": moments.integers,
            "lognormalized": not moments.integers and moments.largest < LOG_MAX,
            "max": moments.largest,
            "recovered": self.recovered,
            "nnz": int(moments.indptr[-1]),
            "complete": True,
        }


class _Moments:
    """What is learnt about the values as they pass."""

    def __init__(self, *, n: int, n_genes: int) -> None:
        self.rows = 0
        self.indptr = np.zeros(n + 1, dtype=np.int64)
        self.totals = np.zeros(n)
        self.sums = np.zeros(n_genes)
        self.squares = np.zeros(n_genes)
        self.largest = 0.0
        self.integers = True

    def add(self, block: sparse.csr_matrix) -> None:
        lo, hi = self.rows, self.rows + block.shape[0]
        self.rows = hi
        self.indptr[lo + 1 : hi + 1] = self.indptr[lo] + block.indptr[1:]
        if block.nnz == 0:
            return
        values = block.data.astype(np.float64)
        row = np.repeat(np.arange(hi - lo), np.diff(block.indptr))
        self.totals[lo:hi] = np.bincount(row, weights=values, minlength=hi - lo)
        self.sums += np.bincount(block.indices, weights=values, minlength=len(self.sums))
        self.squares += np.bincount(block.indices, weights=values * values, minlength=len(self.sums))
        self.largest = max(self.largest, float(values.max()))
        self.integers = self.integers and bool((values == np.floor(values)).all())


class _Stream:
    """A one-dimensional Zarr array that grows by whole shards."""

    def __init__(self, group: "zarr.Group", name: str, dtype: np.dtype[Any]) -> None:
        self._array = group.create_array(name, shape=(0,), dtype=dtype, chunks=(CHUNK,), shards=(SHARD,))
        self._array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        self._buffer = np.empty(SHARD, dtype=dtype)
        self._held = 0  # elements in the buffer
        self._size = 0  # elements on disk

    def append(self, values: NDArray[Any]) -> None:
        taken = 0
        while taken < len(values):
            more = min(SHARD - self._held, len(values) - taken)
            self._buffer[self._held : self._held + more] = values[taken : taken + more]
            self._held += more
            taken += more
            if self._held == SHARD:
                self.close()

    def close(self) -> None:
        if self._held == 0:
            return
        start, self._size = self._size, self._size + self._held
        self._array.resize((self._size,))
        self._array[start : self._size] = self._buffer[: self._held]
        self._held = 0


def _canonical(block: sparse.csr_matrix) -> sparse.csr_matrix:
    """Copy with sorted indices, no duplicates, no zeros, float32."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused by name
        copy = sparse.csr_matrix(block, dtype=np.float32, copy=True)
    copy.sum_duplicates()
    copy.eliminate_zeros()
    copy.sort_indices()
    return copy


def _writable(frame: "pd.DataFrame | None", index: NDArray[np.str_], reserved: frozenset[str]) -> "pd.DataFrame":
    """Copy `frame` with a new index that AnnData can store, without this project's own columns."""
    import pandas as pd

    labels = pd.Index(index.astype(object))
    if frame is None:
        return pd.DataFrame(index=labels)
    copy = frame.drop(columns=[column for column in frame.columns if column in reserved])
    copy.index = labels
    copy.columns = copy.columns.astype(str)
    for column in copy.columns:
        values = copy[column]
        if isinstance(values.dtype, pd.StringDtype) or (
            values.dtype == object and pd.api.types.infer_dtype(values, skipna=False) != "string"
        ):
            # AnnData has no mixed columns: categories of text keep what is missing missing
            copy[column] = values.astype(object).where(values.isna(), values.astype(str)).astype("category")
    return copy
