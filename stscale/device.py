"""Where a network runs, and the memory it takes there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stscale.errors import InputError

if TYPE_CHECKING:
    import torch


@contextmanager
def peak_vram(device: "torch.device", found: dict[str, Any]) -> Iterator[None]:
    """Note the peak of GPU memory of a stage, MiB: of tensors, and what the allocator reserved for them."""
    if device.type != "cuda":
        yield
        return
    import torch

    torch.cuda.reset_peak_memory_stats(device)
    yield
    found["vram_mb"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    found["vram_reserved_mb"] = round(torch.cuda.max_memory_reserved(device) / 2**20, 1)


def pick_device(wanted: str) -> "torch.device":
    """Turn auto | cpu | cuda into a device; of several ranks on a machine each takes a GPU of its own.

    Raises
    ------
    InputError
        When cuda is asked for and there is none.
    """
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device; use --device cpu or install a CUDA build of torch")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
