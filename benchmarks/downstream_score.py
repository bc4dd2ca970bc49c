"""Where the annotation meets what was mapped, ordered and imputed; in processes of their own, after the fits."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEPTH = {"L1": 1, "L2": 2, "L3": 3, "L4": 4, "L5": 5, "L6": 6, "WM": 7}


def run_scores(run: str) -> dict[str, Any]:
    """Return the ARI of a run, over all slices and of each alone."""
    obs = _obs(run, "integrated.zarr")
    labels, domains = (obs[c].astype(object).to_numpy() for c in ("domain", "stscale_domain"))
    from stscale.analysis import ari

    names = obs["stscale_slice"].cat.categories
    own = {n: ari(labels[obs["stscale_slice"] == n], domains[obs["stscale_slice"] == n]) for n in names}
    return {"ari": ari(labels, domains), "slices": own}


def mapped_scores(out: str, joint: str) -> dict[str, float]:
    """Return the ARI of a mapped slice with the annotation, and with the domains that the joint run gave it."""
    from stscale.analysis import ari

    obs, whole = _obs(out, "mapped.zarr"), _obs(joint, "integrated.zarr")
    own = whole[whole["stscale_slice"] == obs["stscale_slice"].iloc[0]]
    if "stscale_name" in own:  # slices share barcodes
        own = own.set_index("stscale_name")
    own = own.loc[obs.index]
    domains = obs["stscale_domain"].astype(object).to_numpy()
    labels = obs["domain"].astype(object).to_numpy()
    return {"ari": ari(labels, domains), "agreement": ari(own["stscale_domain"].astype(object).to_numpy(), domains)}


def root_domain(run: str, layer: str) -> str:
    """Return the domain that holds most spots of a layer: what a user who looks at the slices would choose."""
    obs = _obs(run, "integrated.zarr")
    return str(obs.loc[obs["domain"] == layer, "stscale_domain"].value_counts().idxmax())


def depth_scores(run: str) -> dict[str, Any]:
    """Return Spearman's correlation of pseudotime with the depth of the layers, and each layer's median time."""
    from scipy.stats import spearmanr

    obs = _obs(run, "integrated.zarr")
    depth = obs["domain"].astype(object).map(DEPTH).astype(float).to_numpy()
    time = obs["stscale_pseudotime"].to_numpy()
    known = np.isfinite(depth) & np.isfinite(time)
    slices = obs["stscale_slice"].to_numpy()
    return {
        "spearman": float(spearmanr(time[known], depth[known]).statistic),
        "slices": {
            str(n): float(spearmanr(time[known & (slices == n)], depth[known & (slices == n)]).statistic)
            for n in obs["stscale_slice"].cat.categories
        },
        "median_time": {layer: float(np.median(time[known & (depth == at)])) for layer, at in DEPTH.items()},
        "reached": float(np.isfinite(time).mean()),
    }


def imputed_scores(values: str, file: str, genes: list[str], target_sum: float) -> dict[str, Any]:
    """Correlate imputed genes with what was measured and hidden, spot by spot and averaged over neighbours.

    Parameters
    ----------
    values
        As `benchmarks.downstream_fit.imputed` writes.
    file
        The slice with all its genes.
    genes
        That were hidden.
    target_sum
        Counts per spot after normalisation.

    Returns
    -------
    dict
        {method: {"spots": median Pearson correlation over genes, "smoothed": the same with the measured values
        averaged over neighbours twice, "expressed": of the quarter of the genes with most counts}}.
    """
    import anndata
    from scipy.sparse import csr_matrix

    from stscale.graphs import knn_graph

    adata = anndata.read_h5ad(file)
    library = np.asarray(adata.X.sum(axis=1)).ravel()
    counts = adata[:, genes].X.toarray()
    true = np.log1p(counts / np.maximum(library, 1)[:, None] * target_sum)
    graph = knn_graph(np.asarray(adata.obsm["spatial"], float), 6)
    near = csr_matrix((np.ones(len(graph.indices)), graph.indices, graph.indptr), shape=(graph.n, graph.n))
    near.setdiag(1.0)
    mean = csr_matrix(near.multiply(1.0 / near.sum(axis=1)))
    alone = near.copy()
    alone.setdiag(0.0)
    most = counts.sum(axis=0) >= np.quantile(counts.sum(axis=0), 0.75)
    found = {}
    with np.load(values) as file_:
        rows = file_["rows"]
        made = {name: file_[name] for name in file_.files if name != "rows"}
    # not to be had: the gene's own values at the neighbours
    made["own_neighbours"] = (csr_matrix(alone.multiply(1.0 / alone.sum(axis=1))) @ true)[rows]
    smoothed = (mean @ (mean @ true))[rows]
    for name, guess in made.items():
        spots = _pearson(guess, true[rows])
        apart = None if name == "own_neighbours" else float(np.nanmedian(_pearson(guess, smoothed)))
        found[name] = {
            "spots": float(np.nanmedian(spots)),
            "expressed": float(np.nanmedian(spots[most])),
            "smoothed": apart,
        }
    return found


def _pearson(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Correlate columns; NaN where one is constant."""
    a, b = (np.asarray(x, np.float64) - np.mean(x, axis=0, dtype=np.float64) for x in (a, b))
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.where(size > 0, (a * b).sum(axis=0) / np.where(size > 0, size, 1.0), np.nan)


def _obs(folder: str, store: str) -> Any:
    import zarr
    from anndata.io import read_elem

    return read_elem(zarr.open_group(Path(folder) / store, mode="r")["obs"])
