"""Score a finished run; the one place where an annotation meets the domains."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stscale.alignment import Alignment, RunSlices, Transform, plan_path, read_alignment
from stscale.atomic import atomic_path
from stscale.errors import InputError
from stscale.rundir import read_manifest
from stscale.slices import keys


def evaluate(run: str | Path, labels: str | None = None) -> dict[str, dict[str, float]]:
    """Compute the metrics of a run and write them to `metrics.json`.

    Parameters
    ----------
    run
        A finished run folder.
    labels
        obs column of the annotation in `integrated.zarr`; missing values are unlabelled. None: label-free only.

    Returns
    -------
    dict
        "unsupervised": mixing and coherence; with labels also "labels" (all slices jointly) and "slice NAME"
        for each slice with labelled spots. Of an aligned run also "SOURCE on TARGET" for each pair, with labels how
        well they are mapped (`score_pair`), and where truth.json of a simulation lies beside the slices, how far the
        transform is from the true one, without the warp (degrees, µm); "NAME in the frame" says the same of the
        frame.

    Raises
    ------
    InputError
        When the run is not finished, or has no such column or no label in it.
    """
    import zarr
    from anndata.io import read_elem

    from stscale.analysis.labels import labelled
    from stscale.analysis.metrics import score
    from stscale.analysis.metrics_unsupervised import score_unsupervised
    from stscale.config import Graph
    from stscale.graphs import spatial_graph

    run = Path(run)
    if "write" not in read_manifest(run)["stages"]:
        raise InputError(f"{run} is not finished: it has no integrated.zarr yet; run the same command again")
    root = zarr.open_group(run / "integrated.zarr", mode="r")
    obs = read_elem(root["obs"])
    group = obs[keys.SLICE].cat.codes.to_numpy().astype(np.int32)
    domains = obs[keys.DOMAIN].astype(object).to_numpy()
    xy = read_elem(root[f"obsm/{keys.SPATIAL}"])
    fit = obs[keys.DOMAIN].notna().to_numpy()
    z = read_elem(root[f"obsm/{keys.EMBEDDING}"])
    found = {"unsupervised": score_unsupervised(z[fit], group[fit], domains[fit], xy[fit])}
    given = None
    if labels is not None:
        if labels not in obs:
            raise InputError(f"obs has no column {labels!r}; it has {', '.join(obs.columns)}")
        given = obs[labels].astype(object).to_numpy()
        mask, _ = labelled(given)
        if not mask.any():
            raise InputError(f"obs[{labels!r}] has no label: every value is missing")
        offsets = np.flatnonzero(np.r_[True, np.diff(group) != 0, True]).astype(np.int64)
        graph = spatial_graph(xy, offsets, Graph())
        found["labels"] = score(given, domains, indptr=graph.indptr, indices=graph.indices)
        for i, name in enumerate(obs[keys.SLICE].cat.categories):
            mine = group == i
            if len(set(given[mine & mask])) > 1:
                found[f"slice {name}"] = score(given[mine], domains[mine])
    alignment = read_alignment(run)
    if alignment is not None:
        found |= _score_alignment(RunSlices.open(run), alignment, given)
    with atomic_path(run / "metrics.json") as part:
        # JSON knows no NaN: an undefined metric is null
        plain = {p: {k: v if math.isfinite(v) else None for k, v in m.items()} for p, m in found.items()}
        part.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    return found


def _score_alignment(
    slices: RunSlices, alignment: Alignment, labels: NDArray[Any] | None
) -> dict[str, dict[str, float]]:
    """Score each pair, and with the truth also the frame."""
    from stscale.analysis import score_pair
    from stscale.graphs.build import knn_graph
    from stscale.transport import Plan

    found: dict[str, dict[str, float]] = {}
    truth = _truth(slices)
    xy = {name: slices.given(i) * (alignment.um_per_unit[i] or 1.0) for i, name in enumerate(slices.names)}
    for pair in alignment.pairs:
        ends = [slices.names.index(name) for name in (pair.source, pair.target)]
        scores: dict[str, float] = {"inlier_share": pair.inlier_share, "residual": pair.residual}
        if labels is not None:
            rows = [slices.fit_rows(i) for i in ends]
            graph = knn_graph(xy[pair.target][rows[1] - slices.offsets[ends[1]]], 6)
            plan = Plan.load(plan_path(slices.path, pair)).weights
            rng = np.random.default_rng(0)
            scores |= score_pair(plan, labels[rows[0]], labels[rows[1]], graph, rng=rng)
        if truth:
            true = truth[pair.target].compose(truth[pair.source].inverse())
            scores |= _apart(true, pair.transform.matrix, xy[pair.source])
        found[f"{pair.source} on {pair.target}"] = scores
    if truth:
        for name, transform in zip(alignment.names, alignment.transforms, strict=True):
            if name != alignment.reference:
                true = truth[alignment.reference].compose(truth[name].inverse())
                found[f"{name} in the frame"] = _apart(true, transform.matrix, xy[name])
    return {part: scores for part, scores in found.items() if scores}


def _apart(true: Transform, matrix: NDArray[np.float64], xy: NDArray[np.float64]) -> dict[str, float]:
    from stscale.analysis import transform_error

    gap = transform_error(true.linear, true.shift, matrix[:2, :2], matrix[:2, 2], xy=xy)
    return {"error_degrees": gap.degrees, "error_um": gap.distance}


def _truth(slices: RunSlices) -> dict[str, Transform]:
    """Read the true transforms, common frame → slice; empty unless every slice is one of one simulation."""
    from stscale.slices.simulate import FORMAT, TRUTH

    inputs = [Path(entry["path"]) for entry in read_manifest(slices.path).get("inputs", [])]
    path = inputs[0].parent / TRUTH if inputs else Path(TRUTH)
    if not path.is_file():
        return {}
    told = json.loads(path.read_text(encoding="utf-8"))
    if told.get("format") != FORMAT:
        return {}
    true = {t["name"]: Transform(kind="similarity", matrix=np.array(t["matrix"])) for t in told["transforms"]}
    return {name: true[name] for name in slices.names} if set(slices.names) <= set(true) else {}
