"""Many slices as one: a common gene vocabulary, global spot ids, blocks and gathers in that vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.config import Preprocess
from stscale.errors import InputError
from stscale.slices.recover import TITLES
from stscale.slices.split import suspected
from stscale.slices.store import SliceStore

GAP = 64  # rows: two asked-for rows closer than this are read in one go rather than in two


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Collection:
    """Slices in the order given. Spot `row` of slice `i` has the global id ``offsets[i] + row``."""

    stores: tuple[SliceStore, ...]
    """The slices."""
    genes: NDArray[np.str_]
    """Vocabulary, (g,), sorted."""
    mode: Literal["intersection", "union"]
    """How the vocabulary was made."""
    present: NDArray[np.bool_]
    """(s, g): whether the slice has the gene."""
    offsets: NDArray[np.int64]
    """(s + 1,): global id of each slice's first spot; the last entry is the number of spots."""
    _columns: tuple[NDArray[np.int64], ...] = field(repr=False)

    @classmethod
    def build(
        cls,
        stores: Sequence[SliceStore],
        genes: Literal["intersection", "union"] = "intersection",
        min_shared: int = 50,
    ) -> "Collection":
        """Find the common vocabulary.

        Parameters
        ----------
        stores
            One or more slices with names that differ, all with 2 or all with 3 coordinates.
        genes
            ``"intersection"``: genes that every slice has. ``"union"``: genes that any slice has; `present`
            masks the others.
        min_shared
            Genes that several slices must at least share: all of them for the intersection; for the union,
            slices must hang together through pairs that share as many. A single slice need not share.

        Raises
        ------
        InputError
            If there is no slice, a name comes twice, coordinates differ in number, or too few
            genes are shared.
        """
        stores = tuple(stores)
        _check_stores(stores)
        own = [store.genes() for store in stores]
        union, inverse = np.unique(np.concatenate(own), return_inverse=True)
        ends = np.cumsum([len(names) for names in own])
        columns = np.full((len(stores), len(union)), -1, dtype=np.int64)
        for i, places in enumerate(np.split(inverse, ends[:-1])):
            columns[i, places] = np.arange(len(places))
        if genes == "intersection":
            common = (columns >= 0).all(axis=0)
            if len(stores) > 1 and common.sum() < min_shared:
                raise InputError(_too_few(stores, columns >= 0, int(common.sum()), min_shared))
            union, columns = union[common], columns[:, common]
        elif genes == "union":
            _check_linked(stores, columns >= 0, min_shared)
        else:
            raise InputError(f"genes is {genes!r}; expected 'intersection' or 'union'")
        return cls(
            stores=stores,
            genes=union,
            mode=genes,
            present=columns >= 0,
            offsets=np.concatenate([[0], np.cumsum([store.n for store in stores])]).astype(np.int64),
            _columns=tuple(columns),
        )

    @classmethod
    def onto(cls, stores: Sequence[SliceStore], genes: NDArray[np.str_]) -> "Collection":
        """Read slices in a vocabulary that is known already.

        Parameters
        ----------
        stores
            One or more slices with names that differ, all with 2 or all with 3 coordinates.
        genes
            (g,) sorted. A slice may lack some, and what else it has is not read.

        Raises
        ------
        InputError
            If a name comes twice, or coordinates differ in number.
        """
        stores = tuple(stores)
        _check_stores(stores)
        columns = np.full((len(stores), len(genes)), -1, dtype=np.int64)
        for i, store in enumerate(stores):
            own = store.genes()
            _, here, there = np.intersect1d(genes, own, return_indices=True)
            columns[i, here] = there
        return cls(
            stores=stores,
            genes=genes,
            mode="union",
            present=columns >= 0,
            offsets=np.concatenate([[0], np.cumsum([store.n for store in stores])]).astype(np.int64),
            _columns=tuple(columns),
        )

    @property
    def n(self) -> int:
        """Spots of all slices."""
        return int(self.offsets[-1])

    def columns(self, i: int) -> NDArray[np.int64]:
        """Column in slice `i` of each vocabulary gene, (g,); -1 where the slice lacks it."""
        return self._columns[i]

    def locate(self, global_ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Slice and row of global ids.

        Parameters
        ----------
        global_ids : (m,) int64
            Ids in ``0 .. n - 1``, any order, repeats allowed.

        Returns
        -------
        slice, row : two (m,) int64
            Position in `stores` and row in that store.

        Raises
        ------
        IndexError
            If an id is outside the collection.
        """
        ids = np.asarray(global_ids, dtype=np.int64)
        if len(ids) and (ids.min() < 0 or ids.max() >= self.n):
            raise IndexError(f"spot ids from {ids.min()} to {ids.max()}; the collection has 0 to {self.n - 1}")
        which = np.searchsorted(self.offsets, ids, side="right") - 1
        return which.astype(np.int64, copy=False), ids - self.offsets[which]

    def gather(self, global_ids: NDArray[np.int64]) -> sparse.csr_matrix:
        """Read any spots, in the order asked for.

        Parameters
        ----------
        global_ids : (m,) int64
            Any order, repeats allowed.

        Returns
        -------
        (m, g) csr_matrix, float32
            In vocabulary order; genes a slice lacks have no entries.

        Raises
        ------
        IndexError
            If an id is outside the collection.
        """
        ids, back = np.unique(np.asarray(global_ids, dtype=np.int64), return_inverse=True)
        if len(ids) == 0:
            return sparse.csr_matrix((0, len(self.genes)), dtype=np.float32)
        which, rows = self.locate(ids)
        # a run ends where the slice changes or the next row is far
        cuts = np.flatnonzero((np.diff(which) != 0) | (np.diff(rows) > GAP)) + 1
        parts = []
        for run in np.split(np.arange(len(ids)), cuts):
            lo = int(rows[run[0]])
            block = self.block(int(which[run[0]]), lo, int(rows[run[-1]]) + 1)
            parts.append(block[rows[run] - lo])
        # `back` is where each asked-for id sits among the sorted ones: indexing with it restores the order
        return sparse.csr_matrix(sparse.vstack(parts, format="csr")[back])

    def block(self, i: int, lo: int, hi: int) -> sparse.csr_matrix:
        """Read the rows `lo` to `hi` of slice `i`.

        Returns
        -------
        (hi - lo, g) csr_matrix, float32
            In vocabulary order, indices sorted; genes the slice lacks have no entries.

        Raises
        ------
        IndexError
            If the range is not inside the slice.
        """
        counts = self.stores[i].counts(lo, hi)
        columns = self._columns[i]
        here = np.flatnonzero(columns >= 0)
        place = np.full(self.stores[i].n_genes, -1, dtype=np.int32)
        place[columns[here]] = here
        indices = place[counts.indices]
        keep = indices >= 0
        kept = np.concatenate([[0], np.cumsum(keep)])
        block = sparse.csr_matrix(
            (counts.data[keep], indices[keep], kept[counts.indptr].astype(counts.indptr.dtype)),
            shape=(hi - lo, len(self.genes)),
        )
        block.sort_indices()
        return block

    def check_counts(self, config: Preprocess) -> None:
        """Refuse slices whose values are not of the announced kind.

        Parameters
        ----------
        config
            `lognormalized` and `fractional` say what is announced: logarithms, amounts that need not be integers, or,
            without either, counts.

        Raises
        ------
        InputError
            Naming the first slice that holds something else, and what it holds.
        """
        for store in self.stores:
            if store.is_counts and config.lognormalized:
                raise InputError(
                    f"slice {store.name!r} holds {store.kind} (max {store.max_value:.3g}, all integers), not "
                    "log-normalised values; leave out --lognormalized or give log-normalised values"
                )
            if store.is_counts or config.fractional or (config.lognormalized and store.lognormalized):
                continue
            way = "--fractional to use such amounts as if they were counts"
            if store.lognormalized:
                way = "--lognormalized (--fractional, if they are no logarithms)"
            raise InputError(
                f"slice {store.name!r} holds {store.kind} (max {store.max_value:.3g}, not integers); give raw counts, "
                f"or pass {way}"
            )

    def notes(self) -> tuple[str, ...]:
        """Say which slices hold counts that were brought back, and which seem to be several slices."""
        several = {s.name: suspected(s) for s in self.stores}
        found = {scale: [s.name for s in self.stores if s.recovered == scale] for scale in TITLES}
        word = dict.fromkeys(TITLES, "--lognormalized") | {"linear": "--fractional with ingest.recover = false"}
        brought = tuple(
            f"{_slices(names, len(self.stores))} {TITLES[scale]}: the counts were brought back ({word[scale]} uses "
            "them as they are)"
            for scale, names in found.items()
            if names
        )
        return brought + tuple(
            f"slice {name!r} seems to be several: spots of different {column!r} lie on each other; --split {column} "
            "makes each a slice of its own"
            for name, column in several.items()
            if column is not None
        )


def _slices(names: list[str], of: int) -> str:
    if len(names) == of:
        return "values were given as"
    return f"values of {len(names)} of {of} slices (first: {names[0]!r}) were given as"


def _check_stores(stores: tuple[SliceStore, ...]) -> None:
    if not stores:
        raise InputError("no slices were given; give at least one")
    seen: dict[str, SliceStore] = {}
    for store in stores:
        if store.name in seen:
            raise InputError(
                f"two slices are called {store.name!r} ({seen[store.name].path} and {store.path}); give each "
                "its own name"
            )
        seen[store.name] = store
        if store.dims != stores[0].dims:
            raise InputError(
                f"slice {store.name!r} has {store.dims} coordinates a spot, slice {stores[0].name!r} has "
                f"{stores[0].dims}; give the same number for all"
            )


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _shared(present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Genes each pair of slices shares, (s, s)."""
    flags = sparse.csr_matrix(present.astype(np.int64))  # sparse: an int matmul in numpy is not blocked
    return np.asarray((flags @ flags.T).todense(), dtype=np.int64)


def _too_few(stores: tuple[SliceStore, ...], present: NDArray[np.bool_], common: int, min_shared: int) -> str:
    pairs = _shared(present)
    np.fill_diagonal(pairs, np.iinfo(np.int64).max)
    a, b = (int(k) for k in np.unravel_index(int(pairs.argmin()), pairs.shape))
    return (
        f"slices {_listed([store.name for store in stores])} share {common} genes, at least {min_shared} are "
        f"needed (fewest: {stores[a].name!r} and {stores[b].name!r} share {pairs[a, b]}); give all slices "
        "the same kind of gene names, leave one out, or lower min_shared_genes"
    )


def _check_linked(stores: tuple[SliceStore, ...], present: NDArray[np.bool_], min_shared: int) -> None:
    """Refuse a union that falls apart: slices without enough genes in common cannot be integrated."""
    shared = _shared(present)
    reached = np.zeros(len(stores), dtype=bool)
    reached[0] = True
    while True:
        more = reached | (shared[reached] >= min_shared).any(axis=0)
        if (more == reached).all():
            break
        reached = more
    if not reached.all():
        apart = int(np.flatnonzero(~reached)[0])
        most = int(shared[apart, reached].max())
        raise InputError(
            f"slice {stores[apart].name!r} shares at most {most} genes with slices "
            f"{_listed([stores[i].name for i in np.flatnonzero(reached)])}, at least {min_shared} are "
            "needed; give all slices the same kind of gene names, leave it out, or lower min_shared_genes"
        )
