"""How a step is computed: by one process or by ranks that average their gradients, and in which precision."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stscale import ranks
from stscale.models.method import Method, Minibatch


class _Terms(nn.Module):
    """A method's terms as a forward pass, which is what DistributedDataParallel watches."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Minibatch) -> dict[str, Tensor]:
        return self.method.terms(batch)


def shared(method: Method) -> Callable[[Minibatch], dict[str, Tensor]]:
    """Return the method's terms; with several ranks their backward pass averages the gradients over ranks.

    The terms are those of the union of the ranks' seeds (`stscale.ranks`), so the averaged gradients are exactly
    what one process would get for all of them.
    """
    if ranks.count() == 1:
        return method.terms
    wrapper = nn.parallel.DistributedDataParallel
    # buffers are equal by construction; the option that says so was renamed
    known = inspect.signature(wrapper).parameters
    buffers: dict[str, Any] = {
        ("forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"): False
    }
    # a term of weight 0 leaves its parameters unused
    unused = not all(method.weights.values())
    module: Callable[[Minibatch], dict[str, Tensor]] = wrapper(_Terms(method), find_unused_parameters=unused, **buffers)
    return module


@contextmanager
def computing(precision: Literal["float32", "tf32", "bf16"], device: torch.device) -> Iterator[None]:
    """Compute the forward pass in a precision; the terms themselves leave autocast (see the methods)."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        yield
