"""The plain top-k inside a training step: exact, unordered, on whatever device the latents are."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from stscale.errors import StscaleError
from stscale.graphs.neighbors import GPU_MAX_K, backend, load_faiss

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PAIRS = 1 << 26
"""Similarities held at once where torch compares (256 MiB in float32)."""


def nearest(base: Tensor, query: Tensor, k: int) -> Tensor:
    """Find the k base rows of largest inner product with each query row.

    On the CPU by FAISS; on a GPU by FAISS where its build has one, else by torch. All compare every pair.

    Parameters
    ----------
    base
        (m, d) float32.
    query
        (q, d) float32 on the same device.
    k
        1 to m.

    Returns
    -------
    Tensor
        (q, k) int64 rows of `base`, in no particular order.

    Raises
    ------
    StscaleError
        When values are not finite.
    """
    import torch

    if not bool(torch.isfinite(query.sum() + base.sum())):
        raise StscaleError("latents are not finite: lower train.lr")
    if base.device.type == "cpu":
        arrays = [x.detach().float().contiguous().numpy() for x in (query, base)]
        return torch.from_numpy(load_faiss().knn(*arrays, k, metric=_inner())[1])
    if backend("cuda") == "gpu" and k <= GPU_MAX_K:
        return _by_gpu(base, query, k)
    return by_blocks(base, query, k)


def chosen(device: torch.device) -> str:
    """Say who answers `nearest` on a device."""
    if device.type == "cpu":
        return "FAISS on the CPU"
    return "FAISS on the GPU" if backend("cuda") == "gpu" else "torch on the GPU (this FAISS build has no GPU)"


def by_blocks(base: Tensor, query: Tensor, k: int) -> Tensor:
    """Do the same by torch alone, `PAIRS` similarities at a time."""
    import torch

    rows = max(1, PAIRS // len(base))
    return torch.cat([(part @ base.T).topk(k, dim=1, sorted=False).indices for part in torch.split(query, rows)])


def _by_gpu(base: Tensor, query: Tensor, k: int) -> Tensor:
    import faiss.contrib.torch_utils  # lets FAISS read and write GPU tensors in place

    q, b = (x.detach().float().contiguous() for x in (query, base))
    return faiss.knn_gpu(_resources(), q, b, k, metric=_inner())[1]


@lru_cache(maxsize=1)
def _resources() -> Any:
    # made once: each reserves GPU memory of its own
    return load_faiss().StandardGpuResources()


def _inner() -> int:
    kind: int = load_faiss().METRIC_INNER_PRODUCT
    return kind
