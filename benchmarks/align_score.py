"""Alignments judged: against a known truth, against labels, by the tissue's own coherence. After the fit only."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.align_data import move_parts, read_slices, true_places

Floats = NDArray[np.float64]

CLUSTERS = (3, 4, 5, 6)
"""Numbers of expression clusters that coherence is averaged over: no single choice decides."""


def against_truth(
    run: str,
    names: list[str],
    truth: dict[str, Any],
    moves: list[dict[str, Any]],
    found: list[dict[str, Any]],
    folder: str,
) -> list[dict[str, Any]]:
    """Judge alignments of simulated slice 1 on slice 0; runs in the child.

    Returns
    -------
    list of dict
        degrees; for rigid, warped, refined: root mean square distance from the true place over the spots of the
        true overlap, in pitches of the target; overlap (true share of the source within a pitch of a target spot);
        within_pitch (share of the overlap's spots whose best target lies within one pitch of their true place).
    """
    from scipy.spatial import cKDTree

    source, target = read_slices(run, (names[1], names[0]))
    true = [slice_.obs[["true_x", "true_y"]].to_numpy(np.float64) for slice_ in (source, target)]
    pitch_um = float(truth["config"]["pitch_um"])
    shared = cKDTree(true[1]).query(true[0])[0] <= pitch_um
    places, matrix = true_places(truth, 1, 0, true[0])
    pitch = pitch_um * float(truth["transforms"][0]["scale"])
    judged = []
    for number, (move, entry) in enumerate(zip(moves, found, strict=True)):
        own = np.eye(3)
        own[:2, :2], own[:2, 2] = move_parts(move, source.xy)
        row = {"overlap": float(shared.mean()), "degrees": turned_apart(matrix @ np.linalg.inv(own), entry["matrix"])}
        with np.load(Path(folder) / f"places-{number}.npz") as lie:
            for stage in lie.files:
                gap = np.linalg.norm(lie[stage][shared] - places[shared], axis=1)
                row[stage] = float(np.sqrt(np.mean(gap**2))) / pitch
        plan = Path(folder) / f"plan-{number}.npz"
        if plan.exists():
            row["within_pitch"] = _within(plan, target.xy, places, shared, pitch)
        judged.append(row)
    return judged


def _within(path: Path, target_xy: Floats, places: Floats, shared: NDArray[np.bool_], pitch: float) -> float:
    from stscale.transport import Plan

    best = Plan.load(path).best()[0]
    near = np.linalg.norm(target_xy[best] - places, axis=1) <= pitch
    return float(np.mean((near & (best >= 0))[shared]))


def turned_apart(true: Any, found: Any) -> float:
    """Degrees between two (3, 3) transforms; infinite when one is a mirror image and the other is not."""
    from stscale.analysis import transform_error

    a, b = np.asarray(true, np.float64), np.asarray(found, np.float64)
    return transform_error(a[:2, :2], a[:2, 2], b[:2, :2], b[:2, 2]).degrees


def against_identity(
    run: str,
    source: str,
    target: str,
    moves: list[dict[str, Any]],
    found: list[dict[str, Any]],
    folder: str,
) -> list[dict[str, float]]:
    """Judge alignments of slices that share a frame: the move must be undone; runs in the child.

    Distances are root mean squares over all source spots, in median distances of neighbouring target spots.
    """
    from scipy.spatial import cKDTree

    first, second = read_slices(run, (source, target))
    unit = float(np.median(cKDTree(second.xy).query(second.xy, k=2)[0][:, 1]))
    judged = []
    for number, (move, entry) in enumerate(zip(moves, found, strict=True)):
        own = np.eye(3)
        own[:2, :2], own[:2, 2] = move_parts(move, first.xy)
        with np.load(Path(folder) / f"places-{number}.npz") as lie:
            gap = {stage: lie[stage] - first.xy for stage in lie.files}
        row = {"degrees": turned_apart(np.linalg.inv(own), entry["matrix"])}
        row |= {stage: float(np.sqrt((part**2).sum(axis=1).mean())) / unit for stage, part in gap.items()}
        row["middle"] = float(np.linalg.norm(gap["rigid"].mean(axis=0))) / unit
        judged.append(row)
    return judged


def against_labels(run: str, source: str, target: str, plans: dict[str, str], label: str) -> dict[str, Any]:
    """Judge plans by an annotation; runs in the child.

    Returns
    -------
    dict
        By method: accuracy (share of labelled source spots with a match, by the heaviest target, whose label is the
        same), mass_accuracy (by mass), coverage (share of labelled source spots with a match), ltari.
    """
    from stscale.analysis import labelled, ltari, mapping_accuracy
    from stscale.transport import Plan

    first, second = read_slices(run, (source, target))
    a, b = (slice_.obs[label].astype(object).to_numpy() for slice_ in (first, second))
    known = labelled(a)[0]
    scores = {}
    for method, path in plans.items():
        plan = Plan.load(Path(path))
        best = plan.best()[0]
        held = known & (best >= 0)
        scores[method] = {
            "accuracy": float(np.mean(a[held] == b[best[held]])),
            "mass_accuracy": mapping_accuracy(plan.weights, a, b),
            "coverage": float(held.sum() / known.sum()),
            "ltari": ltari(plan.weights, a, b),
        }
    return scores


def against_coherence(run: str, files: list[str], source: str, target: str, plans: dict[str, str]) -> dict[str, Any]:
    """Judge plans between slices without labels, by clusters of expression alone; runs in the child.

    Library size 1e4, log1p, 20 principal components of the shared genes around each slice's mean, k-means; neither
    positions nor stscale's embedding take part. Averages over `CLUSTERS`.

    Returns
    -------
    dict
        By method: edge_consistency (of the source's clusters carried to the target, on the target's six nearest
        neighbours), agreement (share of the plan's mass between equal clusters), coverage (share of targets with
        mass), sources (distinct best sources over targets with mass: a plan that sends all from one spot is
        consistent and worthless). "own" is the target's own clusters.
    """
    from sklearn.cluster import KMeans

    from stscale.analysis import best_source, edge_consistency, mapping_accuracy
    from stscale.graphs.build import knn_graph
    from stscale.transport import Plan

    first, second = read_slices(run, (source, target))
    scores = _expression(files, (first, second))
    graph, n = knn_graph(second.xy, 6), len(first.xy)
    loaded = {method: Plan.load(Path(path)).weights for method, path in plans.items()}
    best = {method: best_source(weights) for method, weights in loaded.items()}
    rows: dict[str, dict[str, list[float]]] = {method: {} for method in ("own", *plans)}
    for k in CLUSTERS:
        codes = KMeans(k, n_init=10, random_state=0).fit_predict(scores)
        a, b = codes[:n], codes[n:]
        rows["own"].setdefault("edge_consistency", []).append(edge_consistency(graph, b))
        for method, heaviest in best.items():
            carried = np.where(heaviest >= 0, a[heaviest], -1)
            rows[method].setdefault("edge_consistency", []).append(edge_consistency(graph, carried))
            rows[method].setdefault("agreement", []).append(mapping_accuracy(loaded[method], a, b))
    for method, heaviest in best.items():
        held = heaviest[heaviest >= 0]
        rows[method]["coverage"] = [len(held) / len(heaviest)]
        rows[method]["sources"] = [len(np.unique(held)) / max(1, len(held))]
    return {method: {name: float(np.mean(v)) for name, v in row.items()} for method, row in rows.items()}


def _expression(files: list[str], slices: tuple[Any, Any]) -> Floats:
    """Principal components of both slices' expression, one above the other."""
    import anndata
    import scipy.sparse as sp
    from sklearn.decomposition import PCA

    parts, genes = [], None
    for slice_ in slices:
        data = anndata.read_h5ad(next(file for file in files if Path(file).stem == slice_.name))
        parts.append(data[slice_.obs.index])
        genes = data.var_names if genes is None else genes.intersection(data.var_names)
    values = []
    for part in parts:
        x = np.asarray(sp.csr_matrix(part[:, genes].X).todense(), np.float64)
        x = np.log1p(x * (1e4 / np.maximum(x.sum(axis=1, keepdims=True), 1)))
        values.append(x - x.mean(axis=0))
    return PCA(20, random_state=0).fit_transform(np.concatenate(values))
