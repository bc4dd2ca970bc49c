"""Zero-inflated negative binomial: how likely raw counts are under a decoder's output."""

from torch import Tensor


def zinb(
    x: Tensor, dropout_logits: Tensor, log_mean: Tensor, log_theta: Tensor, mask: Tensor | None = None
) -> Tensor:
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
        (g,) or (b, g) log θ.
    mask
        (b, g) bool, true where the gene was measured in the spot's slice; None: everywhere.

    Returns
    -------
    Tensor
        Scalar, the mean over measured entries (0 without any); float64 if `log_mean` is, else float32.
    """
    raise NotImplementedError
