"""Any source → slice store: an external sort by place on the Hilbert curve, in bounded memory."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from stscale.slices.split import SUFFIX, Part, parts
from stscale.slices.store import SliceStore, is_store
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
        Tile and chunk of the store; memory for sorting; which matrix and coordinates.
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
        If the source cannot be used, or `config.split` is given, which is for `ingest_parts`; nothing is left at `out`
        then, and what was there stays.

    Notes
    -----
    The entries of the matrix are streamed once into at most 128 temporary files beside `out`, 12 bytes
    each, by their row chunk; each file then becomes rows. What is not counts is read once more
    before, to tell whether it was. Memory depends on the number of spots and genes
    through names and tables only, never on the number of entries.
    """
    if config.split is not None:
        raise InputError(f"ingest writes one slice, and split = {config.split!r} is given; use ingest_parts")
    source, out = Path(source), Path(out)
    _check_paths(source, out)
    given = open_source(source, name=name, config=config)
    _write(given, [Part(name=given.name, rows=np.arange(given.n))], [out], config)
    return SliceStore.open(out)


def ingest_parts(source: str | Path, outs: Sequence[str | Path], *, column: str, config: Ingest = Ingest()) -> None:
    """Write a slice store for each slice that a source holds, in one pass over its matrix.

    Parameters
    ----------
    source
        What `open_source` understands.
    outs
        The stores, ``NAME.zarr`` in one folder, as many as the column has values and in their order (`split.parts`);
        each is called NAME.
    column
        Of obs, which tells the slices apart.
    config
        As in `ingest`. Values become counts again only where that is exact for every spot of the source.

    Raises
    ------
    InputError
        As `ingest` and `split.parts`; nothing is left then of a slice that was not written whole.
    """
    source, stores = Path(source), [Path(out) for out in outs]
    for store in stores:
        _check_paths(source, store)
    given = open_source(source, config=replace(config, split=column))
    named = [
        Part(name=store.name.removesuffix(SUFFIX), rows=part.rows)
        for part, store in zip(parts(given, column), stores, strict=True)
    ]
    _write(given, named, stores, config)


def bring(config: Ingest, pair: tuple[Path, tuple[Path, ...]]) -> tuple[Path, ...]:
    """Ingest what an input of a run holds, unless it is a slice store and is used where it is.

    Parameters
    ----------
    config
        As in `ingest`; `split` says whether an input holds several slices.
    pair
        The source and its stores; the same path for a store.

    Returns
    -------
    tuple of Path
        The stores.

    Raises
    ------
    InputError
        As `ingest` and `ingest_parts`.
    """
    source, stores = pair
    if stores != (source,):
        if config.split is None or is_store(source):
            ingest(source, stores[0], config=replace(config, split=None))
        else:
            ingest_parts(source, stores, column=config.split, config=config)
    return stores


def _write(given: Source, held: Sequence[Part], stores: Sequence[Path], config: Ingest) -> None:
    """Sort the entries of a source once and write the stores of its slices one after the other."""
    orders = []
    for part in held:
        # before the order is made, which needs finite coordinates
        coordinates = given.coordinates[part.rows]
        check_slice(part.name, names=given.names[part.rows], genes=given.genes, coordinates=coordinates)
        orders.append(hilbert_order(coordinates))
    place = np.concatenate([part.rows[order] for part, order in zip(held, orders, strict=True)])
    folder = stores[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    memory = config.memory_mb * 2**20
    with tempfile.TemporaryDirectory(prefix=f".{stores[0].name}.", suffix=".part", dir=folder) as scratch:
        buckets = _Buckets(Path(scratch), n=given.n, chunk=config.chunk)
        integers = _scatter(given, place, buckets, entries=max(1, memory // PIECE_BYTES))
        rows = partial(buckets.blocks, n_genes=len(given.genes), entries=max(1, memory // BLOCK_BYTES))
        way: Recovery | None = None
        if config.recover and not integers:
            way = recovery(partial(rows, keep=True))
        blocks = _Cut(rows())
        for part, order, store in zip(held, orders, stores, strict=True):
            with _writer(given, part, order, store, config) as writer:
                for block in blocks.take(len(part.rows)):
                    writer.append(block if way is None else way.counts(block))
                if way is not None:
                    writer.recovered = way.scale


def _writer(given: Source, part: Part, order: NDArray[np.int64], store: Path, config: Ingest) -> StoreWriter:
    return StoreWriter(
        store,
        name=part.name,
        genes=given.genes,
        names=given.names[part.rows],
        coordinates=given.coordinates[part.rows],
        order=order,
        obs=given.obs.iloc[part.rows],
        var=given.var,
        config=config,
        source=given.path.resolve().name,
        source_bytes=given.n_bytes,
        unit=given.unit,
        um_per_unit=given.um_per_unit,
    )


class _Cut:
    """Blocks of rows, handed out slice by slice."""

    def __init__(self, blocks: Iterator[sparse.csr_matrix]) -> None:
        self._blocks = blocks
        self._rest: sparse.csr_matrix | None = None

    def take(self, rows: int) -> Iterator[sparse.csr_matrix]:
        """Yield the next so many rows."""
        while rows:
            block = next(self._blocks) if self._rest is None else self._rest
            own = min(rows, block.shape[0])
            self._rest = block[own:] if own < block.shape[0] else None
            rows -= own
            yield block if self._rest is None else block[:own]


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
