"""Differences of log-gamma functions without cancellation."""

import math

import torch
from torch import Tensor

SHIFT = 8
"""Arguments are raised by this much; from there on Stirling's series below is exact to 1e-13."""


def log_gamma_increment(x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Return log(Γ(x + θ) / (Γ(θ) θ^x)) and its derivative by log θ.

    For an integer x this is Σ_{k<x} log(1 + k/θ), which goes to 0 with θ → ∞, where the two log-gammas are each of
    size θ log θ. With t = θ + 8 and the remainder s of Stirling's series it is
    (x + t − ½) log(1 + x/t) − x + x log(1 + 8/θ) + s(x + t) − s(t) − Σ_{k<8} log((x + θ + k)/(θ + k)).

    Parameters
    ----------
    x
        (m,) float64, ≥ 0.
    theta
        (m,) float64, 1e-30 to 1e30.

    Returns
    -------
    value, by_log_theta
        (m,) float64.
    """
    ends = torch.stack([x + theta, theta])  # (2, m)
    # Π (z + k) over k < 8 and its derivative
    product, product_slope = ends, torch.ones_like(ends)
    for k in range(1, SHIFT):
        factor = ends + k
        product_slope = torch.addcmul(product, product_slope, factor)
        product = product * factor
    n, t = raised = ends + SHIFT
    remainder, slope = _stirling(raised)
    steps = torch.log(product[0] / product[1])
    ratio = torch.log1p(x / t)
    value = (n - 0.5) * ratio - x + x * torch.log1p(SHIFT / theta) + (remainder[0] - remainder[1]) - steps
    # ψ(x + θ) − ψ(θ), digamma being log z − 1/(2z) + s'(z)
    slope = slope - product_slope / product
    digammas = ratio + x / (2 * n * t) + (slope[0] - slope[1])
    return value, theta * digammas - x


def log_factorial(x: Tensor) -> Tensor:
    """Return log Γ(x + 1) for x ≥ 0, (m,) float64."""
    z = x + (1 + SHIFT)
    product = x + 1
    for k in range(2, SHIFT + 1):
        product = product * (x + k)
    return (z - 0.5) * torch.log(z) - z + 0.5 * math.log(2 * math.pi) + _stirling(z)[0] - torch.log(product)


def _stirling(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return s(z) = log Γ(z) − (z − ½) log z + z − ½ log 2π for z ≥ 8, and its derivative."""
    w = 1 / z
    v = w * w
    s = w * (1 / 12 - v * (1 / 360 - v * (1 / 1260 - v * (1 / 1680 - v * (1 / 1188 - v * (691 / 360360))))))
    slope = -v * (1 / 12 - v * (1 / 120 - v * (1 / 252 - v * (1 / 240 - v * (1 / 132 - v * (691 / 32760))))))
    return s, slope
