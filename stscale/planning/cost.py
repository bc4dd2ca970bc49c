"""Memory, disk and time of every stage as functions of the size of the data, the options and the machine.

Bytes are counted from what the code holds: arrays over spots, blocks of counts, batches, pages of mapped files. The
constants beside them (what an allocator keeps, what a library loads on first use) were fitted to runs of 10 000 to
1 000 000 spots; `benchmarks/scale.py` compares prediction and measurement.
"""

from dataclasses import dataclass

from stscale.config import Run, Smooth, Spotscape
from stscale.memory import KEPT
from stscale.planning.cost_views import kept_counts, view_batch, view_step, view_weights
from stscale.planning.headers import Size
from stscale.planning.machine import Machine
from stscale.slices.stream import ENTRIES

MIB = 2**20
ROWS = 8192
"""Rows of a block of the exact embedding."""

# Seconds of work in units of the machine's probe; fitted like the constants of memory.
COUNT_PASSES = 14.0
STEP_UNITS = 2.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one stage takes.

    Attributes
    ----------
    stage
        Its name.
    ram, vram, disk
        Peak bytes of memory and of GPU memory while it runs, bytes it leaves or holds on disk.
    seconds
        Wall time.
    """

    stage: str
    ram: float
    vram: float
    disk: float
    seconds: float


def costs(size: Size, run: Run, machine: Machine, *, steps: int, cuda: bool) -> list[Cost]:
    """Predict every stage.

    Parameters
    ----------
    size
        Of the slices.
    run
        Options.
    machine
        From `probe`.
    steps
        Optimiser steps.
    cuda
        Whether training and embedding run on a GPU.
    """
    return [
        _ingest(size, run, machine),
        _features(size, run, machine),
        _graph(size, run, machine),
        *([_join(size, run, machine)] if run.graph.across else []),
        *([_train(size, run, machine, steps, cuda=cuda)] if run.trains else []),
        _embed(size, run, machine, cuda=cuda),
        _domains(size, run, machine),
        _write(size, run, machine),
        *([_quality(size, run, machine)] if run.report.quality else []),
        *([_align(size, run, machine)] if run.graph.across else []),
        _report(size, run, machine),
    ]


def _ingest(size: Size, run: Run, machine: Machine) -> Cost:
    sorting = min(run.ingest.memory_mb * MIB, 128 * size.largest_stored)
    # names and tables of the slice at hand
    tables = size.largest * (150 + 60 * size.columns) if size.to_ingest else 0
    seconds = 0.05 * size.slices + size.to_ingest * COUNT_PASSES * 3 / machine.counts
    # the store, and 12 bytes an entry of the slice being sorted
    return Cost(
        stage="ingest",
        ram=machine.base + sorting + tables,
        vram=0,
        disk=2.5 * size.to_ingest + 12 * size.largest_stored,
        seconds=seconds,
    )


def _block(size: Size, run: Run) -> float:
    """Count the stored values of the largest block a worker reads."""
    per_row = size.stored / max(size.n, 1)
    return min(
        run.preprocess.block, size.stored, max(run.ingest.chunk, run.ingest.tile) * per_row, size.largest * per_row
    )


def _features(size: Size, run: Run, machine: Machine) -> Cost:
    g, block = size.genes, _block(size, run)
    kept = kept_counts(size)
    gram = 8.0 * g * g * (1 if g > 512 else 3)
    # results wait in order for the one writer: about two blocks a worker, each twice (counts, normalised)
    ram = machine.base + 47 * MIB + gram + 16 * MIB + 52 * block * machine.threads + 200 * size.n
    passes = COUNT_PASSES * (size.stored + kept) / machine.counts / min(machine.threads, 4)
    rows, entries = float(size.n), kept
    if run.preprocess.axes == "surroundings":
        # every fourth average, of 19 spots, and two windows of them at once
        rows, entries = size.n / 4, min(19 * kept, size.n * float(g)) / 4
        ram += 12 * 512 * g
        passes += COUNT_PASSES * 19 / 4 * kept / 2 / machine.counts
    dense = (
        1.5 * rows * g * g / 2 / machine.products if entries > 0.06 * rows * g else entries * g / machine.products * 4
    )
    scores = kept * run.preprocess.n_pcs / machine.products
    return Cost(
        stage="features",
        ram=ram,
        vram=0,
        disk=4.6 * kept + 4 * size.n * run.preprocess.n_pcs + 60 * size.n,
        seconds=1.5 + passes + dense + scores,
    )


def _graph(size: Size, run: Run, machine: Machine) -> Cost:
    k = run.graph.k if run.graph.kind == "knn" else 8
    edges = 1.25 * k * size.n
    if run.two_views:
        edges += 1.3 * (run.views.spatial_k + run.views.feature_k) * size.n
    # distances and indices of the largest slice, then all edges twice while they are joined
    ram = machine.base + 50 * MIB + size.largest * (k + 1) * 48 + 12 * edges + 24 * size.n
    return Cost(stage="graph", ram=ram, vram=0, disk=4 * edges + 8 * size.n, seconds=0.1 + 2.5e-6 * size.n)


def _pairs(size: Size, run: Run) -> int:
    return size.slices * (size.slices - 1) // 2 if run.align.pairs == "all" else size.slices - 1


def _join(size: Size, run: Run, machine: Machine) -> Cost:
    p = run.preprocess.n_pcs
    edges = (run.graph.k + 2.5 * run.graph.across) * size.n
    # components, averaged twice; two slices and what their alignment holds; the edges of one graph and of both
    ram = machine.base + 80 * MIB + 0.9 * _mapped(size, p, p) + 1150 * size.largest + 8 * edges
    seconds = 1 + _pairs(size, run) * (6 + 8e-5 * size.largest)
    disk = 4 * edges + 8 * size.n + 8 * size.n * p
    return Cost(stage="join", ram=ram, vram=0, disk=disk, seconds=seconds)


def _align(size: Size, run: Run, machine: Machine) -> Cost:
    ram = machine.base + 290 * MIB + 3700 * size.largest
    count = _pairs(size, run)
    seconds = 1 + count * (5 + 4.7e-4 * size.largest)
    entries = count * size.largest * (run.align.refine_k if run.align.refine else 1)
    return Cost(stage="align", ram=ram, vram=0, disk=16 * entries + 16 * size.n, seconds=seconds)


def _width(size: Size, run: Run) -> int:
    if run.two_views:
        return 2 * run.preprocess.n_pcs
    if not run.trains:
        return run.preprocess.n_pcs
    return run.preprocess.n_pcs if run.spotscape.input == "pca" else size.genes


def _widths(run: Run) -> tuple[int, int]:
    """Return the widths of the layers before the last, and of the embedding."""
    c = run.network
    return (run.preprocess.n_pcs,) * 2 if isinstance(c, Smooth) else (c.hidden, c.latent)


def _batch(size: Size, run: Run) -> float:
    """Bytes of the tensors of one step, with what the backward pass needs."""
    if run.two_views:
        return view_batch(size, run)
    c, b = run.spotscape, min(run.sample.batch_size, size.n)
    width = _width(size, run)
    # measured on tissue: tiles touch 2.05 b nodes, 1.5 b of them in the first layer; random seeds many more
    grow = (2.05, 1.5) if run.sample.kind == "tile" else (25.0, 6.0)
    if run.graph.across and run.sample.kind == "tile":
        grow = (8.0, 3.9)  # and what lies on them in the slices beside
    nodes, first = (min(f * b, size.n) for f in grow)
    views = 2 * 4 * (2 * nodes * width + 8 * first * c.hidden + 12 * b * c.latent + 4 * b * width)
    candidates = b + c.bank
    matching = 0.0
    if size.slices > 1 and c.w_scale:
        matching = 4 * (3 * b * size.slices * c.latent + 4 * b * size.slices * c.scale_k + 3 * candidates * c.latent)
    blocks = 3 * 4 * 2048 * 2048 * (b / 2048) ** 2 if c.telescope == "block" else 0.0
    held = 4 * c.latent * (c.bank + (c.reservoir if size.slices > 1 else 0))
    waiting = run.train.prefetch * (4 * (nodes + b) * width + 60 * first * 7)
    return views + matching + blocks + held + waiting


def _mapped(size: Size, *widths: float) -> float:
    """Resident pages of mapped (n, width) float32 files."""
    return sum(min(KEPT, 4 * size.n * width) for width in widths)


def _train(size: Size, run: Run, machine: Machine, steps: int, *, cuda: bool) -> Cost:
    c, batch, width = run.network, _batch(size, run), _width(size, run)
    hidden, latent = _widths(run)
    weights: float = 16 * (width * hidden + hidden * latent + latent * width)
    pages, smoothed, factor = _mapped(size, width, width), 1, 1.0
    if isinstance(c, Spotscape):
        smoothed = min(c.smooth, 1) + c.target_smooth + 1
    elif not isinstance(c, Smooth):
        weights, factor = view_weights(size, c), view_step(size, run)
        # counts are unpacked: indices and values of what is kept
        pages += 2 * min(KEPT, 4 * kept_counts(size)) + 24 * size.n * run.views.spatial_k
    ram = machine.base + 147 * MIB + 0.9 * pages + 200 * size.n + weights
    if not cuda:
        ram += batch
    share = (min(run.sample.batch_size, size.n) / 2048) * (width / 50 + 4) / 5
    seconds = 1 + factor * steps * STEP_UNITS * (share if share > 1 else 0.3 + 0.7 * share) / machine.steps
    return Cost(
        stage="train",
        ram=ram,
        vram=(600 * MIB + batch + weights) if cuda else 0,
        disk=4 * size.n * width * smoothed + 30 * MIB,
        seconds=seconds + 3e-6 * size.n,
    )


def _embed(size: Size, run: Run, machine: Machine, *, cuda: bool) -> Cost:
    hidden, latent = _widths(run)
    rows = min(ROWS, size.n)
    # neighbours by features are scattered over the slice: a block reads many times its rows
    grow = min(float(run.views.feature_k), size.n / rows) if run.two_views else 1.3
    block = 4 * rows * grow * (_width(size, run) + 4 * hidden)
    ram = machine.base + 180 * MIB + 0.9 * _mapped(size, _width(size, run), hidden, latent) + 215 * size.n
    layers = run.smooth.rounds * latent if not run.trains else hidden
    return Cost(
        stage="embed",
        ram=ram + (0 if cuda else block),
        vram=600 * MIB + block if cuda else 0,
        disk=4 * size.n * (layers + 2 * latent),
        seconds=0.2 + 8e-6 * size.n,
    )


def _domains(size: Size, run: Run, machine: Machine) -> Cost:
    d, fit = _widths(run)[1], min(size.n, run.domains.max_fit)
    seen = bool(run.domains.smoothed) or not run.trains
    # components averaged lie beside trained latents, and wider averages perhaps: only the run can tell
    beside = (run.trains and seen) + (seen and run.domains.wider > 0)
    averaged = run.preprocess.n_pcs * beside
    d += averaged
    c = min(run.domains.n_components or d, d)
    ram = machine.base + 165 * MIB + fit * (4 * d + 8 * (3 * c + d)) + 65_536 * 8 * (d + c) + 100 * size.n
    if run.domains.spatial:  # densities and responsibilities of every spot
        ram += 12 * size.n * (run.domains.k or run.domains.k_max)
    tried = 1 if run.domains.k else run.domains.k_max - run.domains.k_min + 1
    work = run.domains.n_init * 0.03 + 6e-5 * fit * (run.domains.k or run.domains.k_max) / 7
    work += run.domains.moves * 0.5
    seconds = 1 + work + (tried - 1) * 1.5 + (1e-6 + 1e-5 * beside) * size.n
    disk = 4 * size.n * (1 + averaged + run.preprocess.n_pcs * (beside > 0))
    return Cost(stage="domains", ram=ram, vram=0, disk=disk, seconds=seconds)


def _write(size: Size, run: Run, machine: Machine) -> Cost:
    d = _widths(run)[1]
    ram = machine.base + 160 * MIB + size.n * (170 + 24 * size.columns)
    disk = size.n * (4.2 * d + 30 + 8 * size.columns)
    seconds = 0.3 + 2.5e-6 * size.n
    if run.output.counts:
        # compressed, and the largest slice unpacked beside it; a piece in memory is a few copies of its entries
        disk += 2.5 * size.stored + 8 * size.stored * size.largest / max(size.n, 1)
        ram += 64 * MIB + 32 * ENTRIES
        seconds += COUNT_PASSES * size.stored / machine.counts
    return Cost(stage="write", ram=ram, vram=0, disk=disk, seconds=seconds)


def _quality(size: Size, run: Run, machine: Machine) -> Cost:
    # the floor's rows, smoothed, mixtures of a sample, and windows of what domains tell of
    p = run.preprocess.n_pcs
    ram = machine.base + 280 * MIB + 0.9 * _mapped(size, p, p) + 150 * size.n + 32 * p * min(size.n, 16_384)
    ram += 16 * p * min(size.n, 65_536)
    disk = 8 * size.n * p if run.trains else 0
    return Cost(stage="quality", ram=ram, vram=0, disk=disk, seconds=3 + 1e-5 * size.n)


def _report(size: Size, run: Run, machine: Machine) -> Cost:
    # the compiler behind UMAP, scanpy, and samples of a few thousand spots
    ram = machine.base + 520 * MIB + size.n * 130
    if run.graph.across:  # figures of the pairs
        ram += min(_pairs(size, run), 10) * 14 * MIB
    # markers and their maps read the expression twice at most
    seconds = 15 + 1e-6 * size.n + 1e-7 * size.stored
    return Cost(stage="report", ram=ram, vram=0, disk=6 * MIB, seconds=seconds)
