"""Weighted edges of one layer of a minibatch, and their product with node features."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from stscale.sampling.batch import Batch


class Pattern:
    """Where the entries of a (rows, cols) sparse matrix are, and where they are in its transpose.

    Parameters
    ----------
    indptr, indices
        CSR int64 tensors on one device; the last entry of each row is its self-loop.
    cols
        Number of columns.
    """

    def __init__(self, indptr: Tensor, indices: Tensor, cols: int) -> None:
        self.indptr = indptr
        self.indices = indices
        self.cols = cols

    @cached_property
    def loops(self) -> Tensor:
        """Entries that are self-loops, (rows,) int64."""
        return self.indptr[1:] - 1

    @cached_property
    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row pointers and indices of the transpose, and the entry each of its entries is."""
        from scipy.sparse import csr_matrix

        rows = len(self.indptr) - 1
        entry = np.arange(len(self.indices), dtype=np.int64)
        forward = csr_matrix((entry, self.indices.cpu().numpy(), self.indptr.cpu().numpy()), shape=(rows, self.cols))
        back = forward.tocsc()
        device = self.indices.device
        parts = (back.indptr.astype(np.int64), back.indices.astype(np.int64), back.data)
        indptr, indices, order = (torch.from_numpy(p).to(device) for p in parts)
        return indptr, indices, order


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """Edges into the first nodes of a batch: a sparse (rows, cols) matrix Â.

    Attributes
    ----------
    pattern
        Where its entries are; shared by all views of a batch.
    weight
        (e,) float32 entries.
    """

    pattern: Pattern
    weight: Tensor

    def __matmul__(self, h: Tensor) -> Tensor:
        """Return Â h, (rows, d), for h (cols, d); differentiable in h."""
        return _Product.apply(h, self.weight, self.pattern)  # type: ignore[no-untyped-call]

    def dropped(self, share: float, generator: torch.Generator) -> "Edges":
        """Drop a share of the edges at random and scale the rest by 1 / (1 − share); self-loops stay.

        The expected sum is unchanged, so the weights stay those of the whole graph, whose degrees a minibatch
        could not count anew.
        """
        if share == 0:
            return self
        keep = torch.rand(self.weight.shape, generator=generator, device=self.weight.device) >= share
        factor = keep.to(self.weight.dtype) / (1 - share)
        factor[self.pattern.loops] = 1.0
        return Edges(pattern=self.pattern, weight=self.weight * factor)


def layer_edges(batch: Batch, device: torch.device) -> tuple[Edges, ...]:
    """Cut a batch's adjacency into the edges of each layer, first layer first."""
    layers = len(batch.counts) - 1
    indptr = torch.from_numpy(batch.indptr).to(device)
    indices = torch.from_numpy(batch.indices).to(device)
    weight = torch.from_numpy(batch.weight).to(device)
    out = []
    for i in range(layers):
        rows, cols = batch.counts[layers - i - 1], batch.counts[layers - i]
        entries = int(batch.indptr[rows])
        pattern = Pattern(indptr[: rows + 1], indices[:entries], cols)
        out.append(Edges(pattern=pattern, weight=weight[:entries]))
    return tuple(out)


def _sum_rows(h: Tensor, indptr: Tensor, indices: Tensor, weight: Tensor) -> Tensor:
    # measured on two cores (4 000 rows, 28 000 entries, 256 columns): embedding_bag 0.4 ms, torch CSR 0.6-1.1 ms,
    # scipy 1.4 ms, gather and index_add 18 ms; and it runs on a GPU without another branch
    return embedding_bag(indices, h, indptr, mode="sum", per_sample_weights=weight, include_last_offset=True)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, pattern: Pattern) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(weight)
        return _sum_rows(h, pattern.indptr, pattern.indices, weight.to(h.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None, None
        (weight,) = ctx.saved_tensors
        indptr, indices, order = ctx.pattern.transposed
        grad = grads[0].contiguous()
        return _sum_rows(grad, indptr, indices, weight[order].to(grad.dtype)), None, None
