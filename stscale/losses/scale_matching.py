"""Similarity-scale matching: a spot should find equally similar spots in its own slice and in every other."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize


def scale_matching(
    z: Tensor,
    group: Tensor,
    base: Tensor,
    base_group: Tensor,
    *,
    k: int,
    pairs: Literal["all", "pooled"] = "all",
) -> Tensor:
    """Return the squared difference of mean top-k similarities, own slice against others.

    For spot i of slice c and another slice j,
    (mean top-k cos(ẑ_i, ẑ'_{slice c}) − mean top-k cos(ẑ_i, ẑ'_{slice j}))²: averaged over the spots i of c and
    summed over the ordered pairs (c, j) with `pairs="all"`; with "pooled", own slice against all others at once,
    averaged over all i (linear in the number of slices). The indices of the top k are searched without gradient
    (FAISS, one search per slice, so that a masked pair can never win), the values are recomputed with gradient.

    Parameters
    ----------
    z
        (b, d) first view of the seeds.
    group
        (b,) slice of each seed.
    base
        (m, d) second view of the candidates: the same seeds, or a bank of recent latents.
    base_group
        (m,) slice of each candidate.
    k
        Similarities averaged; all of a slice where it has fewer candidates.
    pairs
        "all" ordered pairs of slices or "pooled".

    Returns
    -------
    Tensor
        Scalar; 0 where fewer than two slices have candidates.
    """
    a, b = normalize(z, dim=1), normalize(base, dim=1)
    query, candidates = _numpy(a), _numpy(b)
    slice_of, slice_at = group.cpu().numpy(), base_group.cpu().numpy()
    present = np.unique(slice_at)
    terms = []
    if pairs == "all":
        # (b, s) mean top-k similarity of every seed to every slice
        table = torch.stack(
            [_mean_top_k(a, b, query, candidates, np.flatnonzero(slice_at == j), k) for j in present], dim=1
        )
        for c, own in enumerate(present):
            rows = torch.from_numpy(np.flatnonzero(slice_of == own)).to(z.device)
            if len(rows) and len(present) > 1:
                gap = table[rows, c, None] - table[rows]
                terms.append((gap**2).mean(dim=0).sum())
    else:
        for own in np.unique(slice_of):
            at = np.flatnonzero(slice_of == own)
            mine, others = np.flatnonzero(slice_at == own), np.flatnonzero(slice_at != own)
            if len(mine) and len(others):
                here = torch.from_numpy(at).to(z.device)
                at_home = _mean_top_k(a[here], b, query[at], candidates, mine, k)
                abroad = _mean_top_k(a[here], b, query[at], candidates, others, k)
                terms.append(((at_home - abroad) ** 2).sum() / len(z))
    return torch.stack(terms).sum() if terms else z.sum() * 0.0


def _mean_top_k(
    a: Tensor,
    b: Tensor,
    query: NDArray[np.float32],
    candidates: NDArray[np.float32],
    members: NDArray[np.int64],
    k: int,
) -> Tensor:
    from stscale.graphs.neighbors import search

    k = min(k, len(members))
    near = search(candidates[members], query, k, metric="ip", index="flat").index
    chosen = torch.from_numpy(members[near]).to(a.device)  # (q, k)
    return (a[:, None, :] * b[chosen]).sum(dim=2).mean(dim=1)


def _numpy(x: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(x.detach().float().cpu().numpy())
