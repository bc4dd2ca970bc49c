"""What a trained run is asked to do, each in a process of its own; no label is read here."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def mapped(run: str, file: str, out: str, threads: int, *, restat: bool) -> dict[str, Any]:
    """Map a slice; return what mapped.json says of it, and the seconds with the imports and the bank."""
    from stscale import map_slices

    start = time.perf_counter()
    result = map_slices(run, [file], out=out, restat=restat, threads=threads)
    found = result.slices[0]
    verdict = {name: getattr(found.verdict, name) for name in found.verdict.__slots__}
    return {
        "seconds": time.perf_counter() - start,
        "slice_seconds": found.seconds,
        "genes_shared": found.genes_shared,
        "information": found.information,
        **verdict,
    }


def changed(file: str, out: str, change: str, share: float) -> None:
    """Write a slice that lacks genes or is another tissue.

    Parameters
    ----------
    file, out
        The slice, and where the changed one goes.
    change
        `"panel"`: a share of the genes is kept. `"genes"`: their names are permuted. `"programmes"`: they are permuted
        among 50 genes of like abundance. `"places"`: positions are permuted.
    share
        Of the genes that are kept.
    """
    import anndata

    adata, rng = anndata.read_h5ad(file), np.random.default_rng(0)
    names = np.array(adata.var_names.tolist())
    if change == "panel":
        adata = adata[:, np.sort(rng.permutation(len(names))[: int(share * len(names))])].copy()
    elif change == "genes":
        adata.var_names = rng.permutation(names)
    elif change == "programmes":
        order = np.argsort(np.asarray(adata.X.mean(axis=0)).ravel(), kind="stable")
        new = names.copy()
        for part in np.array_split(order, max(1, len(order) // 50)):
            new[part] = names[rng.permutation(part)]
        adata.var_names = new
    elif change == "places":
        adata.obsm["spatial"] = rng.permutation(adata.obsm["spatial"])
    else:
        raise ValueError(f"no change {change!r}")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(out)


def hide(file: str, out: str, count: int, seed: int) -> list[str]:
    """Write a slice without some genes; return their names. What is there already is kept."""
    import anndata

    adata = anndata.read_h5ad(file)
    names = np.array(adata.var_names.tolist())
    hidden = sorted(np.random.default_rng(seed).choice(sorted(names), size=count, replace=False).tolist())
    if not Path(out).exists():
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        adata[:, ~np.isin(names, hidden)].copy().write_h5ad(out)
    return hidden


def ordered(run: str, root: str, threads: int) -> float:
    """Order a run from a root domain; return the seconds."""
    from stscale import trajectory

    start = time.perf_counter()
    trajectory(run, root, threads=threads)
    return time.perf_counter() - start


def imputed(run: str, genes: list[str], name: str, out: str, threads: int) -> dict[str, float]:
    """Impute genes that a slice lacks, by both ways and by what they must beat; write {method: (spots, genes)}.

    Parameters
    ----------
    run
        Integrated over the union of the genes.
    genes
        Kept by the run.
    name
        Of the slice.
    out
        npz: an array per method, and `rows`, the rows of the input they belong to.
    threads
        Of everything.

    Returns
    -------
    dict
        seconds of each way.
    """
    import anndata

    from stscale import impute
    from stscale.slices import SliceStore
    from stscale.slices.features import FeatureStore

    features = FeatureStore.open(Path(run) / "features.zarr")
    i = features.slice_names.index(name)
    lo, hi = (int(v) for v in features.offsets()[i : i + 2])
    rows = SliceStore.open(Path(run) / "slices" / f"{name}.zarr").input_row()[features.row()[lo:hi]]
    made, seconds = {}, {}
    for by in ("decoder", "regression"):
        start = time.perf_counter()
        path = impute(run, genes, by=by, threads=threads)
        seconds[by] = time.perf_counter() - start
        found = anndata.read_zarr(path)
        made[by] = found.X[(found.obs["stscale_slice"] == name).to_numpy()][rows]
    np.savez(out, rows=rows, **made, **_floors(Path(run), features, genes, lo, hi))
    return seconds


def _floors(run: Path, features: Any, genes: list[str], lo: int, hi: int) -> dict[str, NDArray[np.float32]]:
    """Mean of the measured values over the nearest spots of the other slices."""
    from scipy.sparse import csr_matrix

    from stscale.graphs import load
    from stscale.graphs.neighbors import search

    values = features.normalised(0, features.n)[:, np.searchsorted(features.genes(), genes)].toarray()
    others = np.r_[0:lo, hi : features.n]
    graph = load(run / "graph.npz")
    near = csr_matrix((np.ones(len(graph.indices)), graph.indices, graph.indptr), shape=(graph.n, graph.n))
    near.setdiag(1.0)
    mean = csr_matrix(near.multiply(1.0 / near.sum(axis=1)))
    inside = mean[lo:hi, lo:hi]
    scores = features.pca(0, features.n)
    spaces = {"pca": scores, "smoothed": mean @ (mean @ scores), "latent": np.load(run / "latents.npy")}
    made = {}
    for space, z in spaces.items():
        z = np.asarray(z, np.float32)
        for k in (15, 50):
            index = search(z[others], z[lo:hi], k).index
            made[f"{space}_{k}"] = values[others][index].mean(axis=1).astype(np.float32)
        made[f"{space}_50_spatial"] = (inside @ (inside @ made[f"{space}_50"])).astype(np.float32)
    return made
