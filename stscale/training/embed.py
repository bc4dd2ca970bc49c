"""Exact layer-wise embedding: all neighbours, one hop at a time, block by block."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from stscale.graphs.csr import Graph
from stscale.models.edges import layer_edges
from stscale.models.layers import MeasuredNorm
from stscale.models.method import Method
from stscale.sampling.batch import Expander
from stscale.training.inputs import ROWS, DenseInputs, Inputs


@torch.no_grad()
def embed(
    method: Method, inputs: Inputs, graph: Graph, folder: Path, *, device: torch.device, remeasure: bool = True
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
    graph
        Spatial graph of all spots.
    folder
        Where the layers' outputs go; the caller removes it.
    device
        Where the network runs.
    remeasure
        Whether normalisation statistics are measured anew.

    Returns
    -------
    DenseInputs
        (n, d) float32 latents.
    """
    method.to(device).eval()
    expander = Expander(graph, 1)
    current: Inputs = inputs
    for i in range(method.n_layers):
        if remeasure:
            _measure(method, i, current, expander, device)
        current = _mapped(method, i, current, expander, folder / f"layer-{i}.f32", device)
    if not isinstance(current, DenseInputs):
        raise TypeError("a method has at least one layer")
    return current


def _measure(method: Method, i: int, inputs: Inputs, expander: Expander, device: torch.device) -> None:
    norms = [m for m in method.modules() if isinstance(m, MeasuredNorm)]
    with ExitStack() as stack:
        for norm in norms:
            stack.enter_context(norm.measuring())
        for lo in range(0, inputs.n, ROWS):
            _block(method, i, inputs, expander, lo, device)


def _mapped(
    method: Method, i: int, inputs: Inputs, expander: Expander, path: Path, device: torch.device
) -> DenseInputs:
    last = i == method.n_layers - 1
    out: DenseInputs | None = None
    for lo in range(0, inputs.n, ROWS):
        h = _block(method, i, inputs, expander, lo, device)
        rows = (method.fuse(h) if last else h).float().cpu().numpy()
        if out is None:
            out = DenseInputs(path, inputs.n, rows.shape[1])
        out.write(lo, rows)
    if out is None:
        raise ValueError("no spots to embed")
    return out


def _block(method: Method, i: int, inputs: Inputs, expander: Expander, lo: int, device: torch.device) -> torch.Tensor:
    batch = expander.expand(np.arange(lo, min(lo + ROWS, inputs.n)))
    x = torch.from_numpy(inputs.rows(batch.nodes)).to(device)
    return method.layer(i, x, layer_edges(batch, device)[0])
