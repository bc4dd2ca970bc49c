"""Weighted edges of one layer of a minibatch, and their product with node features."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from stscale.sampling.batch import Batch, Relation


class Pattern:
    """Where the entries of a (rows, cols) sparse matrix are, and where they are in its transpose.

    Parameters
    ----------
    indptr, indices
        CSR int64 tensors on one device; the last entry of each row is its self-loop.
    cols
        Number of columns.
    names
        (e,) int64, one number per entry that is the same whatever batch holds the edge; None: its position.
    """

    def __init__(self, indptr: Tensor, indices: Tensor, cols: int, names: Tensor | None = None) -> None:
        self.indptr = indptr
        self.indices = indices
        self.cols = cols
        self._names = names

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    @property
    def names(self) -> Tensor:
        """Number of each entry, (e,) int64."""
        if self._names is None:
            return torch.arange(len(self.indices), device=self.indices.device)
        return self._names

    @cached_property
    def loops(self) -> Tensor:
        """Entries that are self-loops, (rows,) int64."""
        return self.indptr[1:] - 1

    @cached_property
    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row pointers and indices of the transpose, and the entry each of its entries is."""
        from scipy.sparse import csr_matrix

        entry = np.arange(len(self.indices), dtype=np.int64)
        forward = csr_matrix(
            (entry, self.indices.cpu().numpy(), self.indptr.cpu().numpy()), shape=(self.rows, self.cols)
        )
        back = forward.tocsc()
        device = self.indices.device
        parts = (back.indptr.astype(np.int64), back.indices.astype(np.int64), back.data)
        indptr, indices, order = (torch.from_numpy(p).to(device) for p in parts)
        return indptr, indices, order


class Stacked(Pattern):
    """The same pattern once per view, block by block along the diagonal."""

    def __init__(self, one: Pattern, views: int) -> None:
        self._one, self._views = one, views
        indptr = _repeated(one.indptr[1:], views, len(one.indices))
        super().__init__(torch.cat([one.indptr[:1], indptr]), _repeated(one.indices, views, one.cols), one.cols * views)

    @cached_property
    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """As of the one pattern, repeated: it is sorted only once."""
        indptr, indices, order = self._one.transposed
        return (
            torch.cat([indptr[:1], _repeated(indptr[1:], self._views, len(indices))]),
            _repeated(indices, self._views, self._one.rows),
            _repeated(order, self._views, len(order)),
        )


def _repeated(values: Tensor, times: int, step: int) -> Tensor:
    """Concatenate values, values + step so on."""
    return torch.cat([values + i * step for i in range(times)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """Edges into the first nodes of a batch: a sparse (rows, cols) matrix Â, or one block of it per view.

    Attributes
    ----------
    pattern
        Where its entries are; shared by all views of a batch.
    weight
        (e,) float32 entries.
    seeds
        How many of a view's rows, the first ones, are seeds; None: all.
    views
        Blocks along the diagonal; rows and columns are those of the first view, then of the second, …
    """

    pattern: Pattern
    weight: Tensor
    seeds: int | None = None
    views: int = 1

    def __matmul__(self, h: Tensor) -> Tensor:
        """Return Â h, (rows, d), for h (cols, d); differentiable in h."""
        return _Product.apply(h, self.weight, self.pattern)  # type: ignore[no-untyped-call]

    def dropped(self, share: float, salt: int) -> "Edges":
        """Drop a share of the edges at random and scale the rest by 1 / (1 − share); self-loops stay.

        Whether an edge is dropped is a function of its name and the salt alone: the same in every layer that has
        the same salt, on every device, and whichever rank of a distributed training holds it. The expected
        sum is unchanged, so the weights stay those of the whole graph, whose degrees a minibatch could not
        count anew.
        """
        if share == 0:
            return self
        keep = _uniform(self.pattern.names, salt) >= share
        factor = keep.to(self.weight.dtype) / (1 - share)
        factor[self.pattern.loops] = 1.0
        return Edges(pattern=self.pattern, weight=self.weight * factor, seeds=self.seeds)


def stacked(views: Sequence[Edges]) -> Edges:
    """Join the views of one batch, which share a pattern, into one block-diagonal matrix."""
    first = views[0]
    if len(views) == 1:
        return first
    pattern = Stacked(first.pattern, len(views))
    return Edges(pattern=pattern, weight=torch.cat([v.weight for v in views]), seeds=first.seeds, views=len(views))


Hop = tuple[Edges, ...]
"""What one layer reads along: edges of each graph, from the same columns to the same rows."""


def layer_edges(batch: Batch, device: torch.device) -> tuple[Hop, ...]:
    """Cut a batch's adjacencies into the edges of each layer, first layer first."""
    by_graph = [_cut(batch, relation, device) for relation in batch.relations]
    return tuple(zip(*by_graph, strict=True))


def _cut(batch: Batch, relation: Relation, device: torch.device) -> list[Edges]:
    layers = len(batch.counts) - 1
    length = np.diff(relation.indptr)
    # both ends in one number: global ids are below 2³¹
    names = (np.repeat(batch.nodes[: len(length)], length) << 32) | batch.nodes[relation.indices]
    arrays = (relation.indptr, relation.indices, relation.weight, names)
    indptr, indices, weight, name = (on_device(a, device) for a in arrays)
    out = []
    for i in range(layers):
        rows, cols = batch.counts[layers - i - 1], batch.counts[layers - i]
        entries = int(relation.indptr[rows])
        pattern = Pattern(indptr[: rows + 1], indices[:entries], cols, name[:entries])
        out.append(Edges(pattern=pattern, weight=weight[:entries], seeds=batch.n_seeds))
    return out


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Make a tensor; to a GPU through pinned memory, so that the copy overlaps with computing."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        with torch.cuda.device(device):  # a thread starts on the first card, whichever its process trains on
            return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _uniform(names: Tensor, salt: int) -> Tensor:
    """Hash numbers (e,) int64 with a salt to float32 in [0, 1): the finaliser of SplitMix64 in wrapping int64."""
    x = names ^ salt
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    # bits 38 to 61: what float32 holds exactly, all of them well mixed
    return ((x >> 38) & 0xFFFFFF).to(torch.float32) / (1 << 24)


def _sum_rows(h: Tensor, indptr: Tensor, indices: Tensor, weight: Tensor) -> Tensor:
    # the fastest of five forms on a CPU (benchmarks/products.py), and a GPU needs no other branch
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
