"""Reconstruction of the input."""

from torch import Tensor


def masked_mse(x: Tensor, x_hat: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean squared error over the entries that were measured.

    Parameters
    ----------
    x, x_hat
        (b, g) input and its reconstruction.
    mask
        (b, g) bool, true where the gene was measured in the spot's slice; None: everywhere.

    Returns
    -------
    Tensor
        Scalar.
    """
    squared = (x - x_hat) ** 2
    if mask is None:
        return squared.mean()
    return (squared * mask).sum() / mask.sum().clamp(min=1)
