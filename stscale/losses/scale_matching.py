"""Similarity-scale matching: a spot should find equally similar spots in its own slice and in every other."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from stscale.graphs.nearest import nearest


def scale_matching(
    z: Tensor,
    group: Tensor,
    base: Tensor,
    base_group: Tensor,
    *,
    k: int,
    pairs: Literal["all", "pooled"] = "all",
    counts: Tensor | None = None,
) -> Tensor:
    """Return the squared difference of mean top-k similarities, own slice against others.

    For spot i of slice c and another slice j,
    (mean top-k cos(ẑ_i, ẑ'_{slice c}) − mean top-k cos(ẑ_i, ẑ'_{slice j}))²: averaged over the spots i of c and
    summed over the ordered pairs (c, j) with `pairs="all"`; with "pooled", own slice against all others at once,
    averaged over all i (linear in the number of slices). The indices of the top k are searched without gradient
    (FAISS, one search per slice, so that a masked pair can never win), the values are computed with gradient.

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
    counts
        (s,) seeds of each slice that the means are over; default: those given. Larger counts make the value a
        part of that of more seeds: the parts of disjoint sets of seeds add up to it.

    Returns
    -------
    Tensor
        Scalar; 0 where fewer than two slices have candidates.
    """
    a, b = normalize(z, dim=1), normalize(base, dim=1)
    s = int(max(group.max(), base_group.max())) + 1
    seeds = torch.bincount(group, minlength=s) if counts is None else counts.to(group.device)
    order = torch.argsort(base_group, stable=True)
    sizes = torch.bincount(base_group, minlength=s).tolist()
    if sum(size > 0 for size in sizes) < 2:
        return z.sum() * 0.0
    members = torch.split(order, sizes)
    if pairs == "pooled":
        return _pooled(a, b, group, members, k) / seeds.sum()
    present = [j for j in range(s) if sizes[j]]
    table = _mean_top_k(a, b, [members[j] for j in present], k)  # (b, s)
    place = torch.full((s,), -1, device=z.device)
    place[present] = torch.arange(len(present), device=z.device)
    column = place[group]
    home = column >= 0  # a seed whose own slice has no candidate has nothing to match
    gap = (table.gather(1, column.clamp(min=0)[:, None]) - table) * home[:, None]
    return ((gap**2).sum(dim=1) / seeds[group]).sum()


def _pooled(a: Tensor, b: Tensor, group: Tensor, members: tuple[Tensor, ...], k: int) -> Tensor:
    """Sum over seeds of (mean top-k at home − mean top-k in all other slices)²."""
    value = a.sum() * 0.0
    for own in torch.unique(group).tolist():
        others = [m for j, m in enumerate(members) if j != own]
        if len(members[own]) and sum(map(len, others)):
            here = (group == own).nonzero().ravel()
            table = _mean_top_k(a[here], b, [members[own], torch.cat(others)], k)
            value = value + ((table[:, 0] - table[:, 1]) ** 2).sum()
    return value


def _mean_top_k(a: Tensor, b: Tensor, members: list[Tensor], k: int) -> Tensor:
    """Mean of the k largest similarities of each query (q, d) to each set of candidates, (q, sets)."""
    chosen, ends = [], [0]
    with torch.no_grad():
        for m in members:
            near = m[nearest(b[m], a, min(k, len(m)))]  # (q, ≤ k)
            chosen.append(near)
            ends.append(ends[-1] + near.shape[1])
        indices = torch.cat(chosen, dim=1)  # (q, Σ k), set after set
    means: Tensor = _MeanOfRows.apply(b, indices, tuple(ends))  # type: ignore[no-untyped-call]
    return torch.einsum("qd,qsd->qs", a, means)


class _MeanOfRows(torch.autograd.Function):
    """Means of the rows of b (m, d) that each query names, set by set: (q, sets, d).

    Its own function because indexing's gradient adds rows one by one (index_put with repeats).
    """

    @staticmethod
    def forward(ctx: Any, b: Tensor, indices: Tensor, ends: tuple[int, ...]) -> Tensor:
        q, width = indices.shape
        starts = torch.tensor(ends[:-1], device=b.device)
        offsets = (torch.arange(q, device=b.device)[:, None] * width + starts).ravel()
        ctx.save_for_backward(indices)
        ctx.ends, ctx.m = ends, len(b)
        return embedding_bag(indices.ravel(), b, offsets, mode="mean").view(q, len(ends) - 1, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (indices,) = ctx.saved_tensors
        q, sets, d = grads[0].shape
        sizes = torch.tensor([hi - lo for lo, hi in zip(ctx.ends[:-1], ctx.ends[1:], strict=True)])
        of_set = torch.repeat_interleave(torch.arange(sets), sizes).to(indices.device)  # (Σ k,)
        scaled = grads[0] / sizes.to(grads[0])[:, None]
        # the transpose: for every candidate the (query, set) pairs that named it, by a counting sort
        named = indices.ravel()
        order = torch.argsort(named, stable=True)
        source = (torch.arange(q, device=named.device)[:, None] * sets + of_set).ravel()[order]
        ends = torch.bincount(named, minlength=ctx.m).cumsum(0)
        offsets = torch.cat([ends.new_zeros(1), ends])
        rows = scaled.reshape(q * sets, d)
        return embedding_bag(source, rows, offsets, mode="sum", include_last_offset=True), None, None
