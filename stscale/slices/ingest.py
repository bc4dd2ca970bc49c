"""Any source → slice store: an external sort by place on the Hilbert curve, in bounded memory."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.config import Ingest
from stscale.errors import InputError
from stscale.slices.checks import check_slice, check_values
from stscale.slices.hilbert import hilbert_order
from stscale.slices.recover import Recovery, recovery
from stscale.slices.sources import Source, open_source
from stscale.slices.store import SliceStore
from stscale.slices.writer import StoreWriter

BUCKETS = 128  # files open at once, well below the smallest usual limit of 256
PIECE_BYTES = 128  # memory an entry takes while its piece is read, checked and sorted into buckets
BLOCK_BYTES = 64  # memory an entry takes while its bucket becomes rows


def ingest(source: str | Path, out: str | Path, *, config: Ingest = Ingest(), name: str | None = None) -> SliceStore:
    """Write a slice store from any source.

    Parameters
    ----------
    source
        What `open_source` understands.
    out
        The store, usually ``NAME.zarr``; a folder that is there is replaced once the new one is whole.
    config
        Tile and chunk of the store; memory for sorting.
    name
        Name of the slice; by default the source's name without its suffix.

    Returns
    -------
    SliceStore
        The store, opened. X is float32 whatever the source holds: integers above 2^24 are rounded. Values that are
        counts over a size of each spot, or logarithms of such, become counts again (`stscale.slices.recover`), unless
        `config.recover` is false.

    Raises
    ------
    InputError
        If the source cannot be used; nothing is left at `out` then, and what was there stays.

    Notes
    -----
    The entries of the matrix are streamed once into at most 128 temporary files beside `out`, 12 bytes
    each, by their row chunk; each file then becomes rows. What is not counts is read once more
    before, to tell whether it was. Memory depends on the number of spots and genes
    through names and tables only, never on the number of entries.
    """
    source, out = Path(source), Path(out)
    _check_paths(source, out)
    given = open_source(source, name=name, layer=config.layer)
    # before the order is made, which needs finite coordinates
    check_slice(given.name, names=given.names, genes=given.genes, coordinates=given.coordinates)
    order = hilbert_order(given.coordinates)
    writer = StoreWriter(
        out,
        name=given.name,
        genes=given.genes,
        names=given.names,
        coordinates=given.coordinates,
        order=order,
        obs=given.obs,
        var=given.var,
        config=config,
        source=source.resolve().name,
        source_bytes=given.n_bytes,
        unit=given.unit,
        um_per_unit=given.um_per_unit,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    memory = config.memory_mb * 2**20
    with (
        writer,
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as scratch,
    ):
        buckets = _Buckets(Path(scratch), n=given.n, chunk=config.chunk)
        integers = _scatter(given, order, buckets, entries=max(1, memory // PIECE_BYTES))
        rows = partial(buckets.blocks, n_genes=len(given.genes), entries=max(1, memory // BLOCK_BYTES))
        way: Recovery | None = None
        if config.recover and not integers:
            way = recovery(partial(rows, keep=True))
        for block in rows():
            writer.append(block if way is None else way.counts(block))
        if way is not None:
            writer.recovered = way.scale
    return SliceStore.open(out)


def bring(config: Ingest, pair: tuple[Path, Path]) -> Path:
    """Ingest one slice of a run, unless its source is a slice store and is used where it is.

    Parameters
    ----------
    config
        As in `ingest`.
    pair
        The source and the store; the same path for a store.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    InputError
        As `ingest`.
    """
    source, store = pair
    if source != store:
        ingest(source, store, config=config)
    return store


def _check_paths(source: Path, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; a slice store is a folder, give another path")
    here, there = source.resolve(), out.resolve()
    if here == there or there in here.parents or here in there.parents:
        raise InputError(f"{out} and its source {source} lie in each other; write the store somewhere else")


def _scatter(given: Source, order: NDArray[np.int64], buckets: "_Buckets", *, entries: int) -> bool:
    """Check the entries as they come and put each into the bucket of its store position; say if all are integers."""
    integers = True
    position = np.empty(given.n, dtype=np.int64)
    position[order] = np.arange(given.n)
    for row, column, value in given.pieces(entries):
        if len(row) == 0:
            continue
        if min(row.min(), column.min()) < 0 or row.max() >= given.n or column.max() >= len(given.genes):
            raise InputError(f"{given.path} is damaged: X has entries outside its {given.n} × {len(given.genes)}")
        check_values(
            given.name,
            row=lambda entry, row=row: int(row[entry]),  # type: ignore[misc]  # bound now, called at once
            column=column,
            value=value,
            names=given.names,
            genes=given.genes,
        )
        integers = integers and bool((value == np.floor(value)).all())
        buckets.add(position[row], column, value)
    return integers


class _Buckets:
    """Temporary files of (position, column, value), each for a run of whole row chunks."""

    def __init__(self, folder: Path, *, n: int, chunk: int) -> None:
        chunks = -(-n // chunk)
        self._height = chunk * -(-chunks // BUCKETS)  # rows a bucket
        self._n = n
        self._count = np.zeros(n, dtype=np.int64)  # entries a row
        self._folder = folder

    def add(self, position: NDArray[np.int64], column: NDArray[np.int32], value: NDArray[np.float32]) -> None:
        np.add.at(self._count, position, 1)
        bucket = position // self._height
        order = np.argsort(bucket, kind="stable")
        entries = np.empty((len(position), 3), dtype=np.int32)
        entries[:, 0], entries[:, 1] = position[order], column[order]
        entries[:, 2] = value[order].view(np.int32)
        bounds = np.searchsorted(bucket[order], np.arange(-(-self._n // self._height) + 1))
        for k in np.flatnonzero(np.diff(bounds)):
            # opened for each write: a piece goes to few buckets when the source is sorted, and to all else
            with self._file(int(k)).open("ab") as file:
                entries[bounds[k] : bounds[k + 1]].tofile(file)

    def blocks(self, *, n_genes: int, entries: int, keep: bool = False) -> Iterator[sparse.csr_matrix]:
        """Rows in store order, each block of at most `entries` entries (or of one row); `keep` lets one read again."""
        for k, lo in enumerate(range(0, self._n, self._height)):
            hi = min(lo + self._height, self._n)
            for a, b in self._ranges(lo, hi, entries):
                yield self._rows(self._file(k), a, b, n_genes=n_genes, entries=entries)
            if not keep:
                self._file(k).unlink(missing_ok=True)  # the store grows as the buckets shrink

    def _file(self, k: int) -> Path:
        return self._folder / f"bucket-{k:03d}"

    def _ranges(self, lo: int, hi: int, entries: int) -> Iterator[tuple[int, int]]:
        """Cut rows `lo` to `hi` so that no range has more than `entries` entries, unless it is one row."""
        total = np.concatenate([[0], np.cumsum(self._count[lo:hi])])
        a = 0
        while a < hi - lo:
            b = max(a + 1, int(np.searchsorted(total, total[a] + entries, side="right")) - 1)
            yield lo + a, lo + b
            a = b

    def _rows(self, path: Path, a: int, b: int, *, n_genes: int, entries: int) -> sparse.csr_matrix:
        size = int(self._count[a:b].sum())
        found = np.empty((size, 3), dtype=np.int32)
        held = 0
        if size:
            with path.open("rb") as file:
                while held < size:
                    # a bucket larger than memory is read once for each of its ranges
                    part = np.fromfile(file, dtype=np.int32, count=3 * min(entries // 4 + 1, 1 << 20))
                    if len(part) == 0:
                        raise OSError(f"{path} lost entries: {size} were written, {held} came back")
                    rows = part.reshape(-1, 3)
                    rows = rows[(rows[:, 0] >= a) & (rows[:, 0] < b)]
                    found[held : held + len(rows)] = rows
                    held += len(rows)
        value = found[:, 2].copy().view(np.float32)
        coordinates = (found[:, 0] - a, found[:, 1])
        return sparse.coo_matrix((value, coordinates), shape=(b - a, n_genes)).tocsr()
