"""Exact layer-wise embedding: all neighbours, one hop at a time, block by block."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stscale.compute import Compute
from stscale.graphs.csr import Graph
from stscale.models.method import Method
from stscale.training.blocks import Blocks, ClusterBlocks, LocalBlocks, Range
from stscale.training.inputs import ROWS, DenseInputs, Inputs


def embed(
    method: Method,
    inputs: Inputs,
    graphs: Graph | Sequence[Graph],
    folder: Path,
    *,
    device: torch.device,
    remeasure: bool = True,
    compute: Compute | None = None,
) -> DenseInputs:
    """Embed every spot with all its neighbours; nothing is sampled.

    Layer by layer, the features of all spots are mapped block by block into a file mapped into memory; each
    normalisation first measures its statistics on all spots (`remeasure`), because the running ones of
    minibatches are those of the last few batches.

    Parameters
    ----------
    method
        Trained network; its normalisation statistics are replaced when `remeasure`.
    inputs
        (n, g) input rows.
    graphs
        Of all spots, those the method reads.
    folder
        Where the layers' outputs go; the caller removes it.
    device
        Where the network runs.
    remeasure
        Whether normalisation statistics are measured anew.
    compute
        A cluster computes the blocks when `device` is the CPU; a GPU of this process is faster than to send
        them around. The result is the same. Default: this process.

    Returns
    -------
    DenseInputs
        (n, d) float32 latents.
    """
    method.to(device).eval()
    blocks: Blocks
    if compute is not None and compute.remote and device.type == "cpu":
        blocks = ClusterBlocks(method, graphs, folder, compute)
    else:
        blocks = LocalBlocks(method, graphs, device)
    ranges = [(lo, min(lo + ROWS, inputs.n)) for lo in range(0, inputs.n, ROWS)]
    current: Inputs = inputs
    for i in range(method.n_layers):
        if remeasure:
            blocks.measure(i, current, ranges)
        current = _filled(folder / f"layer-{i}.f32", inputs.n, ranges, blocks.rows(i, current, ranges))
    if not isinstance(current, DenseInputs):
        raise TypeError("a method has at least one layer")
    return current


def _filled(path: Path, n: int, ranges: list[Range], blocks: Iterable[NDArray[np.float32]]) -> DenseInputs:
    out: DenseInputs | None = None
    for (lo, _), rows in zip(ranges, blocks, strict=True):
        if out is None:
            out = DenseInputs(path, n, rows.shape[1])
        out.write(lo, rows)
    if out is None:
        raise ValueError("no spots to embed")
    return out
