"""What is known of slices before any count is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stscale.config import Ingest, Preprocess
from stscale.errors import InputError
from stscale.slices import SliceStore, is_store, open_source
from stscale.slices.split import parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One slice.

    Attributes
    ----------
    name
        Of the slice.
    n
        Spots.
    stored
        Stored counts; of a slice that shares an input, by its share of the spots.
    sorted
        Stored counts of the input, which are sorted together.
    genes
        (g,) gene names.
    columns
        Columns of its obs.
    store
        Whether it is a slice store already.
    """

    name: str
    n: int
    stored: int
    sorted: int
    genes: NDArray[np.str_]
    columns: int
    store: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """All slices together: what cost depends on.

    Attributes
    ----------
    slices, n, largest
        Slices, spots of all, spots of the largest.
    stored, to_ingest, largest_stored
        Stored counts of all, of those that are no slice stores yet, and of the largest input of such.
    vocabulary, genes
        Genes of the vocabulary, and of them kept.
    columns
        Columns of obs over all slices.
    """

    slices: int
    n: int
    largest: int
    stored: int
    to_ingest: int
    largest_stored: int
    vocabulary: int
    genes: int
    columns: int


def read_headers(path: Path, config: Ingest = Ingest()) -> list[Header]:
    """Read names and sizes of what an input holds.

    Parameters
    ----------
    path, config
        As in `open_source`; `split`: column that tells slices of an input apart, None: it is one. A slice store is one
        in any case.

    Returns
    -------
    list of Header
        One for each slice.

    Raises
    ------
    InputError
        As `open_source` and `parts`.
    """
    if is_store(path):
        store = SliceStore.open(path)
        header = Header(
            name=store.name,
            n=store.n,
            stored=store.nnz,
            sorted=0,
            genes=store.genes(),
            columns=len(store.obs_columns()),
            store=True,
        )
        return [header]
    source = open_source(path, config=config)
    split = config.split
    held = {source.name: source.n} if split is None else {p.name: len(p.rows) for p in parts(source, split)}
    return [
        Header(
            name=name,
            n=n,
            stored=round(source.stored * n / source.n) if source.n else source.stored,
            sorted=source.stored,
            genes=source.genes,
            columns=len(source.obs.columns),
            store=False,
        )
        for name, n in held.items()
    ]


def sizes(headers: Sequence[Header], config: Preprocess) -> Size:
    """Add up slices.

    Parameters
    ----------
    headers
        At least one.
    config
        How the vocabulary is made and how many genes are kept.

    Raises
    ------
    InputError
        When there is no slice.
    """
    if not headers:
        raise InputError("no slices given: name at least one")
    names, times = np.unique(np.concatenate([np.unique(h.genes) for h in headers]), return_counts=True)
    vocabulary = len(names) if config.genes == "union" else int((times == len(headers)).sum())
    raw = [h for h in headers if not h.store]
    return Size(
        slices=len(headers),
        n=sum(h.n for h in headers),
        largest=max(h.n for h in headers),
        stored=sum(h.stored for h in headers),
        to_ingest=sum(h.stored for h in raw),
        largest_stored=max((h.sorted for h in raw), default=0),
        vocabulary=max(1, vocabulary),
        genes=max(1, min(config.n_hvg, vocabulary)),
        columns=max(h.columns for h in headers),
    )
