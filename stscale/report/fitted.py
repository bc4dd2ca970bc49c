"""What the run keeps of its fit: features, embedding and domains, in the order of the feature store."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.slices.features import FeatureStore

BLOCK = 8192
"""Rows of expression read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The n spots that took part in the fit.

    Attributes
    ----------
    features
        The feature store.
    latents
        (n, d) float32, mapped from disk.
    domain
        (n,) domain numbers.
    graph
        File of the spatial graph.
    symbols
        Symbol of a gene by its name in the store, where the slices tell another one.
    """

    features: FeatureStore
    latents: NDArray[np.float32]
    domain: NDArray[np.integer]
    graph: Path
    symbols: dict[str, str]

    def normalised(self, rows: NDArray[np.integer]) -> sparse.csr_matrix:
        """Return the log-normalised expression of some spots, (m, g) float32, `rows` ascending; block by block."""
        parts = [sparse.csr_matrix((0, self.features.g), dtype=np.float32)]
        for lo in range(0, self.features.n, BLOCK):
            first, last = np.searchsorted(rows, (lo, lo + BLOCK))
            if last > first:
                hi = min(lo + BLOCK, self.features.n)
                parts.append(self.features.normalised(lo, hi)[rows[first:last] - lo])
        return sparse.vstack(parts, format="csr")

    def columns(self, i: int, genes: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the log-normalised expression of some genes in slice `i`, (n_i, genes) float32; block by block."""
        start, end = (int(v) for v in self.features.offsets()[i : i + 2])
        out = np.empty((end - start, len(genes)), dtype=np.float32)
        for lo in range(start, end, BLOCK):
            hi = min(lo + BLOCK, end)
            out[lo - start : hi - start] = self.features.normalised(lo, hi)[:, genes].toarray()
        return out

    def uncorrected(self, rows: NDArray[np.integer], *, centred_per_slice: bool) -> NDArray[np.float32]:
        """Return the principal components of some spots before any correction, (m, p) float32, `rows` ascending.

        Scores y = W (x − c_i) + d_i that were centred per slice lose what moved the slice to its kinds, d_i, and get
        the shift of their slice back, W (c_i − c) with the means c_i of what each slice captured (before
        `preprocess.gain`, whose effect on the spread is not put back) and their common mean c; genes that a slice lacks
        stay at 0.
        """
        f = self.features
        out = np.empty((len(rows), f.p), dtype=np.float32)
        for lo in range(0, f.n, BLOCK):
            first, last = np.searchsorted(rows, (lo, lo + BLOCK))
            if last > first:
                out[first:last] = f.pca(lo, min(lo + BLOCK, f.n))[rows[first:last] - lo]
        out -= f.kinds().move[f.slice()[rows]].astype(np.float32)
        if centred_per_slice:
            mask, means = f.mask(), f.captured_mean()
            weight = mask * np.array(f.n_spots)[:, None]
            common = (weight * means).sum(axis=0) / np.maximum(weight.sum(axis=0), 1)
            shift = np.where(mask, means - common, 0.0) @ f.pca_components().T
            out += shift[f.slice()[rows]].astype(np.float32)
        return out

    def smoothed(self, rows: NDArray[np.integer], *, centred_per_slice: bool) -> NDArray[np.float32]:
        """Return `uncorrected`, averaged twice over each spot and its neighbours in the spatial graph, (m, p) float32.

        Only the spots within two steps of `rows` are read.
        """
        from stscale.graphs import load

        graph = load(self.graph)
        ones = np.ones(len(graph.indices), dtype=np.float32)
        joined = sparse.csr_matrix((ones, graph.indices, graph.indptr), shape=(graph.n, graph.n))
        within = [np.asarray(rows)]
        for _ in range(2):
            within.append(np.union1d(within[-1], joined[within[-1]].indices))
        x = self.uncorrected(within[2], centred_per_slice=centred_per_slice)
        for inner, outer in ((within[1], within[2]), (within[0], within[1])):
            mean = joined[inner][:, outer]
            own = x[np.searchsorted(outer, inner)]
            degree = np.asarray(mean.sum(axis=1), dtype=np.float32)
            x = np.asarray((mean @ x + own) / (degree.reshape(-1, 1) + 1), dtype=np.float32)
        return x


def read_fitted(run: Path) -> Fitted | None:
    """Read what a run folder keeps of its fit; None when a part of it was taken away.

    Raises
    ------
    InputError
        When the feature store is damaged.
    """
    latents, domain, graph, features = (run / n for n in ("latents.npy", "domains.npy", "graph.npz", "features.zarr"))
    if not (latents.is_file() and domain.is_file() and graph.is_file() and features.is_dir()):
        return None
    return Fitted(
        features=FeatureStore.open(features),
        latents=np.load(latents, mmap_mode="r"),
        domain=np.load(domain),
        graph=graph,
        symbols=_symbols(run / "slices"),
    )


SYMBOLS = ("symbol", "gene_symbol", "gene_symbols", "gene_name", "gene_names", "feature_name")
"""var columns that name genes to people where the index holds identifiers."""


def _symbols(slices: Path) -> dict[str, str]:
    import zarr
    from anndata.io import read_elem

    found: dict[str, str] = {}
    for path in sorted(slices.glob("*.zarr")):
        var = read_elem(zarr.open_group(path, mode="r")["var"])
        column = next((c for c in SYMBOLS if c in var), None)
        if column is not None:
            # the first slice that names a gene wins
            found = {str(k): str(v) for k, v in var[column].dropna().items() if str(v)} | found
    return found


def sampled(n: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw at most `most` of `n` rows, ascending."""
    return np.sort(rng.choice(n, size=most, replace=False)) if n > most else np.arange(n)
