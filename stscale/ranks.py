"""The processes that train together: how many, which one is this, and sums and gathers over them.

Alone, every function returns what it got, unchanged. Together, all ranks compute the same total loss; the gradient
of a collective is the sum over ranks of the incoming gradients, so that the mean of all ranks' parameter gradients
(what DistributedDataParallel takes) is the gradient of that loss.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def count() -> int:
    """Return the number of ranks; 1 when this process trains alone."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """Return this process's rank, from 0."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def total(value: Tensor) -> Tensor:
    """Sum a tensor of one shape over ranks; differentiable."""
    if count() == 1:
        return value
    summed: Tensor = _sum_function().apply(value)
    return summed


@lru_cache(maxsize=1)
def _sum_function() -> Any:
    """Make the autograd function on first use: `import stscale` loads no torch."""
    import torch
    import torch.distributed as dist

    def summed(value: Tensor) -> Tensor:
        out = value.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(out)
        return out

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: Tensor) -> Tensor:
            return summed(value)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return summed(grads[0])

    return Sum


def mean(value: Tensor, weight: float) -> Tensor:
    """Average over ranks with weights (rows, as a rule), so that means of parts become the mean of the whole.

    Parameters
    ----------
    value
        This rank's mean, any shape, the same on all ranks.
    weight
        What it is a mean over; the sum over ranks must be positive.
    """
    if count() == 1:
        return value
    import torch

    weights = total(torch.tensor(float(weight), dtype=torch.float64, device=value.device))
    return total(value * float(weight)) / weights.item()


def gathered(rows: Tensor) -> Tensor:
    """Stack the rows (b_r, …) of all ranks, in rank order; differentiable, and b_r may differ.

    Returns
    -------
    Tensor
        (Σ b_r, …), the same on every rank.
    """
    if count() == 1:
        return rows
    import torch

    ends = _ends(rows)
    # every rank adds its rows at its own place: one sum serves for parts of unequal length
    before = rows.new_zeros(ends[number()], *rows.shape[1:])
    after = rows.new_zeros(ends[-1] - ends[number() + 1], *rows.shape[1:])
    return total(torch.cat([before, rows, after]))


def before(rows: Tensor) -> int:
    """Return how many rows the lower ranks hold: the place of this rank's first row among all."""
    return 0 if count() == 1 else _ends(rows)[number()]


def _ends(rows: Tensor) -> list[int]:
    import torch

    sizes = torch.zeros(count(), dtype=torch.int64, device=rows.device)
    sizes[number()] = len(rows)
    return [0, *total(sizes).cumsum(0).tolist()]


def largest(value: int) -> int:
    """Return the largest of the ranks' numbers on every rank; on the CPU, so that no GPU is waited for."""
    if count() == 1:
        return value
    import torch
    import torch.distributed as dist

    box = torch.tensor([value], dtype=torch.int64)
    dist.all_reduce(box, op=dist.ReduceOp.MAX)
    return int(box.item())


def agreed(value: Any) -> Any:
    """Return rank 0's value of a picklable object on every rank; waits for rank 0."""
    if count() == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
