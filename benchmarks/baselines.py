"""Methods of others on simulated slices, from slice stores to domains: what a run costs and how well it does.

CellCharter and BANKSY are written from their descriptions, on stscale's features and graphs; they are their *style*,
not their packages.
"""

import importlib.util
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.child import call
from benchmarks.data import environment, say
from benchmarks.floors import features_of
from benchmarks.integration import Simulation, integrated, simulated

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from stscale.slices import FeatureStore

DOMAINS = 7
HOPS = 3
CELLCHARTER_PCS = 20
BANKSY_NEIGHBOURS = 15
BANKSY_LAMBDA = 0.8
BANKSY_PCS = 20
KMEANS_STARTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A method to compare with.

    Attributes
    ----------
    title
        For the table.
    function
        What the child calls with files, out, k, seed and threads; None: stscale itself.
    arguments
        Its own arguments.
    package
        What it needs beyond stscale's own packages.
    """

    title: str
    function: str | None
    arguments: dict[str, Any] = field(default_factory=dict)
    package: str | None = None


BASELINES = {
    "stscale": Baseline(title="stscale, default, with report", function=None),
    "harmony": Baseline(
        title="Harmony on PCA, mean over neighbours twice, shrunk mixture",
        function="benchmarks.floors:floor",
        arguments={"covariance": "shrunk", "scale_genes": False, "center": "all", "harmony": True},
        package="harmonypy",
    ),
    "cellcharter": Baseline(
        title=f"CellCharter's style: {CELLCHARTER_PCS} of the default's PCs beside their means over {HOPS} rings, "
        "Gaussian mixture with full covariances (scikit-learn)",
        function="benchmarks.baselines:style",
        arguments={"name": "cellcharter"},
        package="sklearn",
    ),
    "banksy": Baseline(
        title=f"BANKSY's style: the default's PCs beside their weighted mean over {BANKSY_NEIGHBOURS} neighbours "
        f"(λ = {BANKSY_LAMBDA:g}, no azimuthal Gabor filter), PCA, k-means (scikit-learn)",
        function="benchmarks.baselines:style",
        arguments={"name": "banksy"},
        package="sklearn",
    ),
}


def compared(key: str, n: int, folder: Path, threads: int, *, smoke: bool) -> dict[str, Any]:
    """Run one method on simulated slices, in a child, and score it in another."""
    baseline = BASELINES[key]
    if baseline.package is not None and importlib.util.find_spec(baseline.package) is None:
        say(f"{n} spots, {key}: {baseline.package} is not installed")
        return {"title": baseline.title, "skipped": f"{baseline.package} is not installed"}
    size = {"slices": 3, "genes": 100} if smoke else {"slices": 10, "genes": 2_000}
    files, _ = simulated(Simulation(spots=n, seed=7, **size), folder, threads)
    load = environment(threads)["load_before"]
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as home:
        out = Path(home) / "run"
        if baseline.function is None:
            words = ["--device", "cpu", *(["--set", "train.steps=20"] if smoke else [])]
            row = integrated(files, out, domains=DOMAINS, threads=threads, words=words)
            cost, score = row["integrate"], row["ari"]
            seconds, peak = cost["seconds"], cost["peak_rss_mib"]
        else:
            common = {"files": files, "out": str(out), "k": DOMAINS, "seed": 0, "threads": threads}
            done = call(baseline.function, {**common, **baseline.arguments}, threads=threads)
            score = call("benchmarks.integration:agreement", {"out": str(out)}, threads=threads).value
            seconds, peak = done.seconds, done.peak_rss_mib
    say(f"{n} spots, {key}: {seconds:.1f} s, {peak:.0f} MiB, ARI {score:.3f}")
    return {"title": baseline.title, "seconds": seconds, "peak_rss_mib": peak, "ari": score, "load_before": load}


def style(files: list[str], out: str, k: int, seed: int, threads: int, name: str) -> dict[str, Any]:
    """Write a finished run folder with the embedding and domains of a method; runs in the child.

    The components are the default's: genes scaled, around each slice's mean, which takes off the simplest batch
    effect as those methods' own preprocessing does.
    """
    from stscale.config import preset
    from stscale.output import write_integrated
    from stscale.rundir import RunFolder
    from stscale.threads import set_threads

    set_threads(threads)
    config = preset("default").replace({"run": {"seed": seed, "threads": threads}})
    run = RunFolder(Path(out))
    collection, features = features_of(files, run, config)
    z = {"cellcharter": cellcharter, "banksy": banksy}[name](features, features.pca(0, features.n), seed)
    labels = {"cellcharter": _mixture, "banksy": _kmeans}[name](z, k, seed)
    with run.stage("write", "baseline"):
        write_integrated(run.file("integrated.zarr"), collection, features, z, labels, {})
    return {"width": z.shape[1]}


def cellcharter(features: "FeatureStore", pcs: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Put the means over the spots exactly 1, 2 and 3 hops away beside a spot's own components (no randomness).

    References
    ----------
    CellCharter, Varrone et al., Nature Genetics 2024.
    """
    pcs = pcs[:, :CELLCHARTER_PCS]
    return np.hstack([pcs, *(ring @ pcs for ring in rings(_adjacency(features, 6), HOPS))]).astype(np.float32)


def rings(adjacency: "csr_matrix", hops: int) -> "list[csr_matrix]":
    """Return for each distance 1 … hops the matrix that averages over the nodes exactly that many steps away."""
    from scipy.sparse import identity

    adjacency = adjacency.astype(np.int32)  # counts of paths must not wrap round to 0
    seen = identity(adjacency.shape[0], dtype=np.int32, format="csr")
    front, found = seen, []
    for _ in range(hops):
        front = (front @ adjacency).astype(bool).astype(np.int32)
        front = front - front.multiply(seen)  # what was met at a shorter distance is not of this ring
        front.eliminate_zeros()
        seen = seen + front
        found.append(_averaging(front.astype(np.float32)))
    return found


def banksy(features: "FeatureStore", pcs: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Put sqrt(λ) times the weighted neighbour mean beside sqrt(1 − λ) times the spot's own, and reduce by PCA.

    Weights fall with distance as a Gaussian whose width is the median distance.

    References
    ----------
    BANKSY, Singhal et al., Nature Genetics 2024.
    """
    from sklearn.decomposition import PCA

    adjacency = _adjacency(features, BANKSY_NEIGHBOURS).astype(np.float32)
    xy = features.xy()
    row = np.repeat(np.arange(features.n), np.diff(adjacency.indptr))
    distance = np.linalg.norm(xy[row] - xy[adjacency.indices], axis=1)
    adjacency.data[:] = np.exp(-((distance / np.median(distance)) ** 2) / 2)
    around = _averaging(adjacency) @ pcs
    both = np.hstack([np.sqrt(1 - BANKSY_LAMBDA) * pcs, np.sqrt(BANKSY_LAMBDA) * around])
    width = min(BANKSY_PCS, both.shape[1], features.n - 1)
    return PCA(width, random_state=seed).fit_transform(both).astype(np.float32)


def _adjacency(features: "FeatureStore", k: int) -> "csr_matrix":
    from scipy.sparse import csr_matrix

    from stscale.config import Graph
    from stscale.graphs import spatial_graph

    graph = spatial_graph(features.xy(), features.offsets(), Graph(k=k))
    one = np.ones(graph.n_edges, dtype=np.int8)
    return csr_matrix((one, graph.indices, graph.indptr), shape=(graph.n, graph.n))


def _averaging(weights: "csr_matrix") -> "csr_matrix":
    """Divide every row by its sum; an empty row stays empty."""
    from scipy.sparse import diags

    total = np.asarray(weights.sum(axis=1)).ravel()
    return (diags(1 / np.where(total > 0, total, 1)) @ weights).tocsr().astype(np.float32)


def _mixture(z: NDArray[np.float32], k: int, seed: int) -> NDArray[np.int32]:
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(k, random_state=seed, reg_covar=1e-4).fit_predict(z).astype(np.int32)


def _kmeans(z: NDArray[np.float32], k: int, seed: int) -> NDArray[np.int32]:
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=KMEANS_STARTS, random_state=seed).fit_predict(z).astype(np.int32)
