"""Domains that agree with their spatial neighbours: a Potts prior on the labels of a mixture, by mean field.

With log densities ℓ_ic of spot i in component c and the neighbours N(i) of the spatial graph, the responsibilities
solve

    q_ic ∝ exp(a ℓ_ic + β · mean_{j ∈ N(i)} q_jc),

the mean-field equations of a hidden Markov random field (Zhang, Brady and Smith 2001; Celeux, Forbes and
Peyrard 2003). a < 1 because latents of neighbours are averages over common neighbourhoods: their densities repeat
the same evidence. The mean over neighbours, not the sum, makes β the same for every graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

EVIDENCE = 0.25
"""a: share of a spot's log density that counts as its own."""

ROUNDS = 50
TOLERANCE = 1e-4
"""Rounds end when the responsibilities change by less than this on average over spots and components."""

ROWS = 65_536
"""Spots renewed at once."""


def spatial_responsibilities(
    log_density: NDArray[np.floating], indptr: NDArray[np.integer], indices: NDArray[np.integer], *, strength: float
) -> NDArray[np.float32]:
    """Solve the mean-field equations by rounds over blocks of spots, starting without the prior.

    Each round costs O((n + E) K); a spot without neighbours keeps its own evidence.

    Parameters
    ----------
    log_density
        (n, K) log w_c p(x_i | c), up to a constant per row.
    indptr, indices
        (n + 1,) and (E,) the spatial graph in CSR form.
    strength
        β, nats a component gains where all neighbours lie in it; 0 leaves the mixture's own posterior, tempered.

    Returns
    -------
    NDArray
        (n, K) float32, rows sum to 1.
    """
    n = len(log_density)
    degree = np.maximum(np.diff(indptr), 1)
    own = np.asarray(log_density, np.float32) * np.float32(EVIDENCE)
    del log_density  # with a million spots it counts
    own -= own.max(axis=1, keepdims=True)
    q = _softmax(own.copy())
    for _ in range(ROUNDS if strength else 0):
        change = 0.0
        # later blocks see what earlier ones became: one array, and faster than all at once
        for lo in range(0, n, ROWS):
            hi = min(lo + ROWS, n)
            start, stop = int(indptr[lo]), int(indptr[hi])
            weight = np.repeat(np.float32(strength) / degree[lo:hi].astype(np.float32), np.diff(indptr[lo : hi + 1]))
            near = csr_matrix((weight, indices[start:stop], indptr[lo : hi + 1] - start), shape=(hi - lo, n))
            new = _softmax(own[lo:hi] + near @ q)
            change += float(np.abs(new - q[lo:hi]).sum(dtype=np.float64))
            q[lo:hi] = new
        if change < TOLERANCE * q.size:
            break
    return q


def _softmax(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows (m, K) of log weights → rows that sum to 1, in place."""
    rows -= rows.max(axis=1, keepdims=True)
    np.exp(rows, out=rows)
    rows /= rows.sum(axis=1, keepdims=True)
    return rows
