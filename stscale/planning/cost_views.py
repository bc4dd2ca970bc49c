"""What a training step of the two-view methods holds."""

from stscale.config import Mhal, Run, Stmfg
from stscale.planning.headers import Size

VIEW_STEP = 3.0
"""Time of a step in steps of Spotscape, where a batch is most of the data: two graphs, and likelihoods of counts."""


def kept_counts(size: Size) -> float:
    """Estimate the stored counts of the genes kept: those chosen have more than their share."""
    return size.stored * size.genes / max(size.vocabulary, 1) ** 0.5 / max(size.genes, 1) ** 0.5


def view_weights(size: Size, c: Mhal | Stmfg) -> float:
    """Bytes of parameters, gradients and both moments of Adam; the heads of the decoder are nearly all of it."""
    hidden: int = getattr(c, "decoder", c.hidden)
    return 16 * (2 * hidden * size.genes + 4 * c.hidden * c.hidden + 8 * c.latent * c.latent)


def view_batch(size: Size, run: Run) -> float:
    """Bytes of the tensors of one step, with what the backward pass needs.

    Seeds in tiles share their spatial neighbours, of which a fan-out takes any; neighbours by features are scattered,
    each a node of its own until the data run out.
    """
    c = run.mhal if run.method == "mhal" else run.stmfg
    b = min(run.sample.batch_size, size.n)
    spatial, feature = (min(f[0], k) if f[0] >= 0 else k for f, k in _fans(run))
    first, nodes = _touched(size, run)
    width = 2 * run.preprocess.n_pcs
    edges = 1.2 * (first * (spatial + feature + 2))
    network = 4 * (2 * nodes * width + 8 * nodes * c.hidden + 30 * first * c.latent + 40 * b * c.latent)
    drawn: int = getattr(c, "genes", 0) or size.genes
    # counts as they are read, and of the genes drawn three heads, their gradients and what the likelihood holds
    counts = 4 * b * size.genes * (2 + run.train.prefetch) + 4 * 9 * b * min(drawn, size.genes)
    waiting = (1 + run.train.prefetch) * (4 * nodes * width + 60 * edges)
    return network + counts + waiting


def view_step(size: Size, run: Run) -> float:
    """Time of a step in steps of Spotscape: more where the neighbours by features are other nodes."""
    _, nodes = _touched(size, run)
    return VIEW_STEP * (0.9 + 0.06 * nodes / min(run.sample.batch_size, size.n))


def _touched(size: Size, run: Run) -> tuple[float, float]:
    """Nodes that the seeds reach in one hop, and in two."""
    b = min(run.sample.batch_size, size.n)
    fans, k = run.views.feature_fan_out, run.views.feature_k
    here, later = (min(fan, k) if fan >= 0 else k for fan in (fans[0], fans[-1]))
    first = min(size.n, b * (1.5 + here))
    return first, min(size.n, first * (1.5 + later))


def _fans(run: Run) -> tuple[tuple[tuple[int, ...], int], tuple[tuple[int, ...], int]]:
    v = run.views
    return (v.spatial_fan_out, v.spatial_k), (v.feature_fan_out, v.feature_k)
