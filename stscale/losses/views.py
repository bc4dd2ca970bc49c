"""Agreement of two views of the same spots: squared distance, and contrast against all other spots."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from stscale.errors import InputError
from stscale.losses.precision import full


def view_mse(z1: Tensor, z2: Tensor) -> Tensor:
    """Return the mean over entries of (Z1 − Z2)², the alignment of two views.

    Parameters
    ----------
    z1, z2
        (b, d) latents of the two views; not normalised here.

    References
    ----------
    MHAL (CVPR 2026), L_PSA.
    """
    return mse_loss(full(z1), full(z2))


def info_nce(
    z_s: Tensor,
    z_f: Tensor,
    temperature: float,
    *,
    base_s: Tensor | None = None,
    base_f: Tensor | None = None,
    first: int = 0,
    block: int = 512,
) -> Tensor:
    """Return the symmetric contrast of two views: a spot's own other view against all other spots of both views.

    ½ (ℓ(s → f) + ℓ(f → s)), ℓ(s → f) = mean_i −log( e^{c_ii/τ} / (Σ_j e^{c_ij/τ} + Σ_{j≠i} e^{w_ij/τ}) ) with cosines
    c_ij = cos(z_i^s, z_j^f) across views and w_ij = cos(z_i^s, z_j^s) within.

    Parameters
    ----------
    z_s, z_f
        (b, d) latents of the anchors in the spatial and the feature view; rows are L2-normalised here.
    temperature
        τ > 0.
    base_s, base_f
        (m, d) candidates in both views, the anchors among them; default: the anchors. With several ranks the union
        of their latents (`ranks.gathered`); gradients reach anchors and candidates.
    first
        Row of the candidates that is the first anchor: anchor i is candidate first + i (`ranks.before`).
    block
        Anchors whose similarities are held at once.

    Returns
    -------
    Tensor
        Scalar, the mean over anchors; parts of several ranks combine by `ranks.mean(…, b)`.

    Raises
    ------
    InputError
        τ or block not above 0, one base without the other, or anchors outside the candidates.

    Notes
    -----
    O(b m d) time and O(m d + block · m) memory. The gradients are made in the same pass as the value, block by
    block, so the backward pass holds no similarities at all. There is no second derivative.

    References
    ----------
    stMFG (arXiv 2512.16188), inter-view contrast.
    """
    if not temperature > 0 or block < 1:
        raise InputError(f"temperature = {temperature}, block = {block}; expected numbers above 0")
    if (base_s is None) != (base_f is None):
        raise InputError("one of base_s and base_f is missing; expected both, or none")
    with torch.autocast(z_s.device.type, enabled=False):
        own_s, own_f = normalize(full(z_s), dim=1), normalize(full(z_f), dim=1)
        all_s = own_s if base_s is None else normalize(full(base_s), dim=1)
        all_f = own_f if base_f is None else normalize(full(base_f), dim=1)
        b, m = len(own_s), len(all_s)
        if own_f.shape != own_s.shape or all_f.shape != all_s.shape or not 0 <= first <= m - b:
            raise InputError(
                f"anchors {tuple(own_s.shape)}, {tuple(own_f.shape)} from row {first} of candidates "
                f"{tuple(all_s.shape)}, {tuple(all_f.shape)}; expected anchors of one shape among the candidates"
            )
        settings = (1 / temperature, first, block)
        forward: Tensor = _Contrast.apply(own_s, all_f, all_s, *settings)  # type: ignore[no-untyped-call]
        reverse: Tensor = _Contrast.apply(own_f, all_s, all_f, *settings)  # type: ignore[no-untyped-call]
        return (forward + reverse) / 2


class _Contrast(torch.autograd.Function):
    """Mean over anchors of log(Σ_j e^{κ a_i·c_j} + Σ_{j≠i} e^{κ a_i·w_j}) − κ a_i·c_i, its gradients held.

    a (b, d) anchors, c (m, d) candidates across views, w (m, d) within; κ = 1/τ.
    """

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, across: Tensor, within: Tensor, scale: float, first: int, block: int
    ) -> Tensor:
        b, m = len(anchors), len(across)
        candidates = torch.cat([across, within])  # (2m, d)
        own = across[first : first + b]
        slopes = any(ctx.needs_input_grad[:3])
        by_anchor, by_candidate = torch.empty_like(anchors), torch.zeros_like(candidates)
        total = torch.zeros((), dtype=torch.float64, device=anchors.device)
        for i in range(0, b, block):
            a = anchors[i : i + block]
            rows = torch.arange(len(a), device=a.device)
            similar = (a * scale) @ candidates.T  # (block, 2m)
            similar[rows, m + first + i + rows] = -torch.inf
            largest = similar.amax(dim=1, keepdim=True)
            positive = similar[rows, first + i + rows]
            share = similar.sub_(largest).exp_()
            sums = share.sum(dim=1, keepdim=True)
            total += ((largest + sums.log()).ravel() - positive).sum(dtype=torch.float64)
            if slopes:
                torch.mm(share, candidates, out=by_anchor[i : i + block])
                by_anchor[i : i + block] /= sums
                by_candidate.addmm_(share.T, a / sums)
        if slopes:
            by_anchor -= own
            by_candidate[first : first + b] -= anchors
        ctx.save_for_backward(by_anchor, by_candidate)
        ctx.factor = scale / b
        return (total / b).to(anchors.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        by_anchor, by_candidate = ctx.saved_tensors
        factor = outer[0] * ctx.factor
        across, within = (by_candidate * factor).chunk(2)
        return by_anchor * factor, across, within, None, None, None
