"""Block functions of pre-processing: what is done to a few rows of counts, and the ranking that needs a pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.compute import Scheduler
from stscale.config import Preprocess
from stscale.errors import InputError
from stscale.slices.capture import PRIOR, UNLIKE, Capture, captured, spread
from stscale.slices.collection import Collection
from stscale.slices.hvg import (
    GeneRanking,
    clip_limits,
    normalised_variance,
    rank_by_variance,
    rank_genes,
    trend,
)
from stscale.slices.moments import Moments
from stscale.slices.stream import Block, reduce_blocks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranked:
    """The genes kept and what is known of them.

    Attributes
    ----------
    ranking
        Over the whole vocabulary, (g,).
    mean
        (g,) float64, mean value over the spots of the slices that have the gene, in the unit of the values.
    notes
        What the user should know, one sentence each.
    """

    ranking: GeneRanking
    mean: NDArray[np.float64]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Features of one block: only spots with a count on the vocabulary.

    Attributes
    ----------
    block
        Where the rows come from.
    kept
        (m,) int64, rows of the store that are kept.
    left_out
        (hi - lo - m,) int64, rows of the store without a count on the vocabulary.
    library
        (m,) float32, sum over the vocabulary in counts; 1 for log-normalised values.
    counts
        (m, h) float32 counts of the chosen genes (log-normalised input: its values).
    normalised
        (m, h) float32, log1p(counts / library · target_sum), or the log-normalised values as given.
    """

    block: Block
    kept: NDArray[np.int64]
    left_out: NDArray[np.int64]
    library: NDArray[np.float32]
    counts: sparse.csr_matrix
    normalised: sparse.csr_matrix


def slice_moments(collection: Collection, i: int) -> Moments:
    """Moments of slice `i` on the vocabulary, from what ingestion stored: no look at the counts.

    Spots without any count in the slice are not counted. (A spot whose only counts are outside the vocabulary
    still is: telling it apart would take a pass of its own.)
    """
    columns = collection.columns(i)
    here = columns >= 0
    total, squares = np.zeros(len(columns)), np.zeros(len(columns))
    sums, sums_of_squares = collection.stores[i].gene_sums()
    total[here], squares[here] = sums[columns[here]], sums_of_squares[columns[here]]
    return Moments(n=int(np.count_nonzero(collection.stores[i].totals())), total=total, squares=squares)


def slice_capture(collection: Collection, mean: NDArray[np.float64], config: Preprocess) -> Capture:
    """Return what the slices capture of each gene of the vocabulary; no look at the counts.

    Parameters
    ----------
    collection
        The slices.
    mean : (v,) float64
        Mean counts of a spot, of all slices that set the height.
    config
        `gain`, `transform` and `lognormalized` are read: logarithms have no height, slices are alike.
    """
    if config.gain == "all" or config.transform == "log" or config.lognormalized:
        return Capture.alike(collection.present)
    totals = np.stack([slice_moments(collection, i).total for i in range(len(collection.stores))])
    kind, apart = config.gain, float("nan")
    if kind == "auto":
        apart = spread(totals, collection.present)
        kind = "poisson" if apart > UNLIKE else "slice"
    share = captured(totals, mean, collection.present, prior=PRIOR[kind])
    return replace(Capture.of(share, mean, collection.present, kind=kind), spread=apart)


def rank_collection(
    collection: Collection,
    blocks: Sequence[Block],
    *,
    config: Preprocess,
    workers: int,
    scheduler: Scheduler | None = "threads",
) -> Ranked:
    """Rank the vocabulary in one pass over the counts (none for log-normalised values).

    Parameters
    ----------
    collection
        The slices.
    blocks
        Row ranges that cover it.
    config
        `n_hvg`, `hvg_span` and `lognormalized` are read.
    workers, scheduler
        See `reduce_blocks`.

    Raises
    ------
    InputError
        If a slice's trend cannot be fitted and there are more genes than `n_hvg`.
    """
    s, g = collection.present.shape
    moments = [slice_moments(collection, i) for i in range(s)]
    counted = np.array([part.n for part in moments]) @ collection.present
    mean = np.sum([part.total for part in moments], axis=0) / np.maximum(counted, 1)
    if config.lognormalized:
        ranking = rank_by_variance(moments, collection.present, n_top=config.n_hvg)
        return Ranked(ranking=ranking, mean=mean, notes=())
    deviation, notes = np.ones((s, g)), []
    for i, part in enumerate(moments):
        name = collection.stores[i].name
        try:
            deviation[i] = trend(part, collection.present[i], span=config.hvg_span, name=name)
        except InputError:
            if g > config.n_hvg:
                raise
            # every gene is kept, so the order is for information only
            notes.append(f"slice {name!r}: no trend of variance on mean, its genes are ranked by variance")
    limits = np.stack([clip_limits(part, deviation[i]) for i, part in enumerate(moments)])
    clipped = reduce_blocks(
        partial(_clipped_block, collection, limits), blocks, _merge_slices, workers=workers, scheduler=scheduler
    )
    variance = np.stack([normalised_variance(moments[i], clipped[i], deviation[i]) for i in range(s)])
    ranking = rank_genes(variance, collection.present, n_top=config.n_hvg)
    return Ranked(ranking=ranking, mean=mean, notes=tuple(notes))


def _clipped_block(collection: Collection, limits: NDArray[np.float64], block: Block) -> dict[int, Moments]:
    counts = collection.block(block.slice, block.lo, block.hi)
    return {block.slice: Moments.of(counts, limit=limits[block.slice])}


def _merge_slices(parts: Sequence[dict[int, Moments]]) -> dict[int, Moments]:
    slices = sorted(set().union(*parts))
    return {i: Moments.merge([part[i] for part in parts if i in part]) for i in slices}


def feature_rows(
    collection: Collection, columns: NDArray[np.int64], block: Block, *, target_sum: float, lognormalized: bool
) -> Rows:
    """Normalise one block.

    Parameters
    ----------
    collection
        The slices.
    columns : (h,) int64
        Genes kept, ascending columns of the vocabulary.
    block
        Rows to read.
    target_sum
        Counts per spot after normalisation.
    lognormalized
        Take the values as they are.
    """
    values = collection.block(block.slice, block.lo, block.hi)
    has = np.diff(values.indptr) > 0
    kept = np.flatnonzero(has)
    if len(kept) < len(has):
        values = values[kept]
    total = np.asarray(values.sum(axis=1, dtype=np.float64)).ravel()
    library = np.ones_like(total) if lognormalized else total
    chosen = values if len(columns) == values.shape[1] else values[:, columns]
    chosen.sort_indices()
    normalised = chosen
    if not lognormalized:
        scale = np.repeat(target_sum / library, np.diff(chosen.indptr))
        data = np.log1p(chosen.data * scale).astype(np.float32)
        normalised = sparse.csr_matrix((data, chosen.indices, chosen.indptr), shape=chosen.shape)
    return Rows(
        block=block,
        kept=kept.astype(np.int64) + block.lo,
        left_out=np.flatnonzero(~has).astype(np.int64) + block.lo,
        library=library.astype(np.float32),
        counts=chosen,
        normalised=normalised,
    )
