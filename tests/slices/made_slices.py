"""Slice stores made from matrices, for the tests of pre-processing."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy import sparse

from stscale.slices import SliceStore, StoreWriter


def write_slice(path, X, genes, *, name, chunk=8, tile=4, xy=None, seed=0):
    """Write the rows of X in a shuffled order, as the Hilbert curve would."""
    rng = np.random.default_rng(seed)
    X = sparse.csr_matrix(X, dtype=np.float32)
    n = X.shape[0]
    order = rng.permutation(n)
    with StoreWriter(
        path,
        name=name,
        genes=np.asarray(genes).astype(np.str_),
        names=np.array([f"{name}-{k}" for k in range(n)]),
        coordinates=rng.random((n, 2)) if xy is None else xy,
        order=order,
        obs=pd.DataFrame(index=range(n)),
        var=None,
        config=SimpleNamespace(tile=tile, chunk=chunk),
        source=f"{name}.h5ad",
        source_bytes=1,
        unit=None,
    ) as writer:
        writer.append(X[order])
    return SliceStore.open(path)


def poisson(n, g, *, seed, level=1.0):
    """Counts with three hidden groups of spots and genes of very different means."""
    rng = np.random.default_rng(seed)
    base = rng.gamma(0.7, level, size=g)
    groups = rng.gamma(2.0, 0.5, size=(3, g))
    depth = rng.gamma(8.0, 1 / 8, size=n)
    return rng.poisson(base * groups[rng.integers(0, 3, n)] * depth[:, None]).astype(np.float32)


def crossed(first, last, n, times):
    """Layers of a slice that crosses the layers `first` to `last` some times, in the order of the tissue."""
    at = np.abs(np.linspace(0, times, n) % 2 - 1) * (last - first) + first
    return np.minimum(at.astype(int), last - 1)


def off(rows, group, layer, shared):
    """Mean distance between slices of the layers that all have."""
    found = []
    for k in shared:
        at = np.stack([rows[(group == i) & (layer == k)].mean(axis=0) for i in np.unique(group)])
        found.append(np.linalg.norm(at - at.mean(axis=0), axis=1).mean())
    return float(np.mean(found))


def gene_names(g):
    """Names that are sorted as they are numbered."""
    return np.array([f"g{k:04d}" for k in range(g)])
