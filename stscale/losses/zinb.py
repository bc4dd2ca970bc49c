"""Zero-inflated negative binomial: how likely raw counts are under a decoder's output."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from stscale.errors import InputError
from stscale.losses.log_gamma import log_factorial, log_gamma_increment
from stscale.losses.precision import full

ENTRIES = {"cpu": 1 << 17, "cuda": 1 << 24}
"""Entries computed at once: on a CPU they stay in its cache, on a GPU they fill it."""


def zinb(x: Tensor, dropout_logits: Tensor, log_mean: Tensor, log_theta: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean negative log-likelihood of counts, log-gamma terms included.

    p(x) = π [x = 0] + (1 − π) NB(x; μ, θ), with
    NB(x; μ, θ) = Γ(x + θ) / (Γ(θ) x!) · (θ/(θ + μ))^θ · (μ/(θ + μ))^x: variance μ + μ²/θ. π → 0 is the negative
    binomial, θ → ∞ the zero-inflated Poisson.

    Parameters
    ----------
    x
        (b, g) raw counts ≥ 0, integer or float.
    dropout_logits
        (b, g) logits of π.
    log_mean
        (b, g) log μ. The library size of a spot is an offset here: log μ = log(library) + log(rate).
    log_theta
        (g,) or (b, g) log θ. With log μ, within ±60: beyond that μ and θ leave float32.
    mask
        (b, g) bool, true where the gene was measured in the spot's slice; None: everywhere.

    Returns
    -------
    Tensor
        Scalar, the mean over measured entries (0 without any); float64 if `log_mean` is, else float32. Parts of
        several ranks combine by `ranks.mean(…, measured entries)`.

    Raises
    ------
    InputError
        Shapes that do not fit.

    Notes
    -----
    Value and gradients are computed together, in blocks of rows, so that the backward pass only scales what is held:
    one array per input that needs a gradient. Log-gammas are needed where x > 0 only, a tenth of the entries as a
    rule, and are taken there in float64 (`log_gamma_increment`). There is no second derivative.
    """
    shape = tuple(log_mean.shape)
    given = {"x": x, "dropout_logits": dropout_logits, "log_theta": log_theta, "mask": mask}
    for name, tensor in given.items():
        fits = tensor is None or tuple(tensor.shape) in ((shape, shape[1:]) if name == "log_theta" else (shape,))
        if len(shape) != 2 or not fits:
            found = shape if tensor is None else tuple(tensor.shape)
            raise InputError(f"{name} has shape {found} and log_mean {shape}; expected (b, g) for both")
    with torch.autocast(log_mean.device.type, enabled=False):
        value: Tensor = _Zinb.apply(x, full(dropout_logits), full(log_mean), full(log_theta), mask)  # type: ignore[no-untyped-call]
    return value


class _Zinb(torch.autograd.Function):
    """The mean over measured entries, its gradients by dropout_logits, log_mean and log_theta held from the start."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, logits: Tensor, log_mean: Tensor, log_theta: Tensor, mask: Tensor | None
    ) -> Tensor:
        b, g = log_mean.shape
        total = torch.zeros((), dtype=torch.float64, device=log_mean.device)
        measured = torch.as_tensor(float(b * g) if mask is None else mask.sum(), device=log_mean.device)
        measured = measured.to(log_mean).clamp(min=1)
        needed = ctx.needs_input_grad[1:4]
        per_gene = log_theta.ndim == 1
        grads = [torch.zeros_like(t) if n else None for t, n in zip((logits, log_mean, log_theta), needed, strict=True)]
        rows = max(1, ENTRIES.get(log_mean.device.type, ENTRIES["cuda"]) // max(1, g))
        for i in range(0, b, rows):
            part = slice(i, i + rows)
            theta_part = log_theta.expand(min(rows, b - i), g) if per_gene else log_theta[part]
            value, slopes = _block(x[part], logits[part], log_mean[part], theta_part, with_slopes=any(needed))
            if mask is not None:
                value = value * mask[part]
                slopes = [s * mask[part] for s in slopes]
            total += value.sum(dtype=torch.float64)
            for k, slope in enumerate(slopes):
                held = grads[k]
                if held is not None and k == 2 and per_gene:
                    held += slope.sum(dim=0)
                elif held is not None:
                    held[part] = slope
        ctx.save_for_backward(measured, *grads)
        return (total / measured).to(log_mean.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        measured, *grads = ctx.saved_tensors
        scale = outer[0] / measured
        return None, *(None if held is None else held * scale for held in grads), None


def _block(
    x: Tensor, logits: Tensor, log_mean: Tensor, log_theta: Tensor, *, with_slopes: bool
) -> tuple[Tensor, list[Tensor]]:
    """Negative log-likelihood of each entry, (r, g), and its slopes by logits, log μ and log θ."""
    theta = torch.exp(log_theta)
    ratio = log_mean - log_theta  # log μ/θ
    spread = softplus(ratio)  # log((θ + μ)/θ)
    log_zero = -theta * spread  # log NB(0)
    value = softplus(logits) - torch.logaddexp(logits, log_zero)
    slopes = []
    if with_slopes:
        share = torch.sigmoid(ratio)  # μ/(θ + μ)
        dropped = torch.sigmoid(logits - log_zero)  # probability that a zero is a dropout
        counted = torch.sigmoid(log_zero - logits)
        # the difference of the two σ, without their cancellation
        by_logits = dropped * torch.sigmoid(-logits) * torch.expm1(log_zero)
        slopes = [by_logits, counted * theta * share, counted * theta * (spread - share)]
    at = x.reshape(-1).nonzero().ravel()
    if len(at):
        above, above_slopes = _counted(*(t.reshape(-1)[at] for t in (x, logits, log_mean, log_theta)))
        value.view(-1)[at] = above.to(value.dtype)
        for slope, new in zip(slopes, above_slopes, strict=False):
            slope.view(-1)[at] = new.to(slope.dtype)
    return value, slopes


def _counted(x: Tensor, logits: Tensor, log_mean: Tensor, log_theta: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the same for entries x > 0, (m,) float64.

    −log p = log(1 + e^logit) − D(x, θ) + log x! − x log μ + (x + θ) log(1 + μ/θ), D of `log_gamma_increment`.
    """
    x, logits, log_mean, log_theta = (t.double() for t in (x, logits, log_mean, log_theta))
    theta = torch.exp(log_theta)
    ratio = log_mean - log_theta
    spread, share = softplus(ratio), torch.sigmoid(ratio)
    increment, increment_slope = log_gamma_increment(x, theta)
    value = softplus(logits) - increment + log_factorial(x) - x * log_mean + (x + theta) * spread
    by_mean = (torch.exp(log_mean) - x) * torch.sigmoid(-ratio)
    by_theta = theta * spread - (x + theta) * share - increment_slope
    return value, [torch.sigmoid(logits), by_mean, by_theta]
