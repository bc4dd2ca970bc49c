"""Agreement of two views of the same spots: squared distance, and contrast against all other spots."""

from torch import Tensor


def view_mse(z1: Tensor, z2: Tensor) -> Tensor:
    """Return the mean over entries of (Z1 − Z2)², MHAL's primary structure alignment.

    Parameters
    ----------
    z1, z2
        (b, d) latents of the two views; not normalised here.
    """
    raise NotImplementedError


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
    c_ij = cos(z_i^s, z_j^f) across views and w_ij = cos(z_i^s, z_j^s) within. Memory is O(m d + block · m), the
    backward pass included.

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
    """
    raise NotImplementedError
