"""Score a finished run; the one place where an annotation meets the domains."""

import json
import math
from pathlib import Path

import numpy as np

from stscale.atomic import atomic_path
from stscale.errors import InputError
from stscale.rundir import read_manifest
from stscale.slices import keys


def evaluate(run: Path, labels: str | None = None) -> dict[str, dict[str, float]]:
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
        for each slice with labelled spots.

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
    with atomic_path(run / "metrics.json") as part:
        # JSON knows no NaN: an undefined metric is null
        plain = {p: {k: v if math.isfinite(v) else None for k, v in m.items()} for p, m in found.items()}
        part.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    return found
