"""One trial on a prepared set: train, embed, find domains, score; features and graph are reused."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tissues import Prepared

if TYPE_CHECKING:
    from stscale.analysis.domains import DomainFit
    from stscale.config import Run


def latents(given: Prepared, config: "Run", scratch: Path) -> NDArray[np.float32]:
    """Train the network of a run on a prepared set and embed every spot, (n, d); seconds of training do not count."""
    import torch

    from stscale.training import embed
    from stscale.training.job import Job, prepared

    config = config.replace({"spotscape": {"clusters": config.spotscape.clusters or given.tissue.k}})
    folder = Path(tempfile.mkdtemp(dir=scratch))
    device = torch.device("cpu")
    job = Job(
        config=config,
        features=given.features.path.absolute(),
        graphs=(given.graph_path.absolute(),),
        scratch=folder / "inputs",
        checkpoints=folder / "checkpoints",
        digest="trial",
    )
    training = prepared(job, device, given.features, [given.graph])
    training.run(lambda entry: None)
    z = np.array(embed(training.method, training.inputs, given.graph, folder, device=device).array)
    shutil.rmtree(folder)
    return z


def floor_latents(given: Prepared, scratch: Path, *, rounds: int) -> NDArray[np.float32]:
    """Return the floor's embedding: components averaged over each spot and its neighbours, (n, p)."""
    from stscale.training.inputs import pca_inputs

    folder = Path(tempfile.mkdtemp(dir=scratch))
    z = np.array(pca_inputs(given.features, given.graph, folder, smooth=rounds).array)
    shutil.rmtree(folder)
    return z


def floor_parts(given: Prepared, config: "Run", scratch: Path) -> "list[tuple[NDArray[np.float32], float]]":
    """Return averaged components, and those of wider surroundings where a run puts them beside, (n, p) each.

    The second of a pair is the total variance that domains see of it, in that of the first part.
    """
    from stscale.analysis.scale import spatial_scale

    rounds, graph = config.smooth.rounds, given.graph
    scale = spatial_scale(given.features.pca, graph.indptr, graph.indices, used=rounds, seed=config.seed)
    wider = scale.wider(config.domains.wider)
    parts = [(floor_latents(given, scratch, rounds=rounds), 1.0)]
    if wider is not None:
        parts.append((floor_latents(given, scratch, rounds=wider.rounds), wider.weight))
    return parts


def side_by_side(parts: list[tuple[NDArray[np.float32], float]]) -> NDArray[np.float32]:
    """Put embeddings (n, d_i) beside each other as domains see them: centred, each at the total variance given."""
    columns = []
    for z, variance in parts:
        z = z - z.mean(axis=0)
        size = np.sqrt(np.mean(np.sum(z.astype(np.float64) ** 2, axis=1)) / variance)
        columns.append(z / np.float32(size))
    return np.concatenate(columns, axis=1)


def clustered(given: Prepared, config: "Run", z: NDArray[np.floating]) -> "DomainFit":
    """Find domains in what the mixture sees, (n, d), as a run does; the true K is given."""
    from stscale.analysis.domains import beside_neighbors, cluster

    domains = config.replace({"domains": {"k": given.tissue.k}}).domains
    fit = cluster(z, domains, seed=config.seed)
    if not domains.spatial:
        return fit
    return beside_neighbors(fit, z, given.graph.indptr, given.graph.indices, strength=domains.spatial)


def scored(
    given: Prepared, z: NDArray[np.floating], domains: NDArray[np.integer], *, mixing: bool = True
) -> dict[str, Any]:
    """Score domains and latents against the annotation of a set.

    Returns
    -------
    dict
        ari, nmi, clustering_accuracy, boundary_accuracy, chaos, pas; with `mixing` ilisi, ilisi_elsewhere and, of the
        annotation, clisi (all scaled), batch_asw and ceiling; slice_ari.
    """
    from stscale.analysis.metrics import ari, score
    from stscale.analysis.metrics_mixing import FEW_MORE, LISI_NEIGHBORS, batch_asw, clisi, elsewhere, ilisi, reach
    from stscale.analysis.metrics_spatial import chaos, pas
    from stscale.graphs.neighbors import Neighbors, search

    group, xy, labels = given.features.slice(), given.features.xy(), given.labels
    there = np.array([label is not None for label in labels])
    found: dict[str, Any] = dict(score(labels, domains, indptr=given.plane.indptr, indices=given.plane.indices))
    found["chaos"], found["pas"] = chaos(xy, domains, group), pas(xy, domains, group)
    found["slice_ari"] = {
        name: ari(labels[group == i], domains[group == i])
        for i, name in enumerate(given.features.slice_names)
        if len(set(labels[(group == i) & there])) > 1
    }
    if mixing and given.features.n_slices > 1:
        rows = np.ascontiguousarray(z, np.float32)
        wide = search(rows, rows, min(LISI_NEIGHBORS + FEW_MORE, len(rows) - 1), exclude_self=True)
        near = Neighbors(index=wide.index[:, :LISI_NEIGHBORS], distance=wide.distance[:, :LISI_NEIGHBORS])
        found["ilisi"] = ilisi(near, group, scaled=True)
        found["ilisi_elsewhere"] = ilisi(elsewhere(wide, xy, group, reach(xy, group)), group, scaled=True)
        found["clisi"] = clisi(near, labels, scaled=True)
        found["batch_asw"] = batch_asw(z, group, domains, seed=0)
        found["ceiling"] = ceiling(z, labels, group)
    return found


def ceiling(z: NDArray[np.floating], labels: NDArray[np.object_], group: NDArray[np.integer]) -> float | None:
    """Return the ARI of a linear discriminant that saw the annotation of all slices but the one it labels.

    What latents tell of the annotation at most, for a linear rule; None where fewer than two slices have one.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    from stscale.analysis.metrics import ari

    there = np.array([label is not None for label in labels])
    slices = np.unique(group[there])
    if len(slices) < 2:
        return None
    said = np.full(len(labels), None, dtype=object)
    for s in slices:
        seen, own = there & (group != s), there & (group == s)
        rule = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        said[own] = rule.fit(z[seen], labels[seen].astype(str)).predict(z[own])
    return float(ari(labels[there], said[there]))


def timed(work: Any, *arguments: Any) -> tuple[Any, float]:
    """Return a result and its seconds."""
    start = time.perf_counter()
    return work(*arguments), time.perf_counter() - start
