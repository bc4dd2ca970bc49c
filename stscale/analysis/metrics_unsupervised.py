"""All metrics that need no annotation, from latents, slices, domains and coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stscale.analysis.labels import labelled
from stscale.analysis.metrics_mixing import (
    FEW_MORE,
    LISI_NEIGHBORS,
    PERPLEXITY,
    batch_asw,
    clisi,
    elsewhere,
    graph_connectivity,
    ilisi,
    kbet,
    reach,
)
from stscale.analysis.metrics_spatial import chaos, pas, silhouette
from stscale.errors import InputError
from stscale.graphs.neighbors import Neighbors, search

MIXING_SPOTS = 100_000
"""Spots the neighbour metrics are computed on, drawn by the seed."""

CONNECTIVITY_NEIGHBORS = 15


def score_unsupervised(
    z: NDArray[np.floating],
    slice_: NDArray[np.integer],
    domains: ArrayLike,
    xy: NDArray[np.floating],
    *,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, float]:
    """Collect the metrics that need no annotation.

    Parameters
    ----------
    z
        (n, d) latents.
    slice_
        (n,) slice numbers.
    domains
        (n,); spots without one are left out of everything.
    xy
        (n, 2|3) coordinates, each slice in its own frame.
    seed
        Of the samples: silhouettes on 10 000 spots, neighbour metrics on 100 000 at most.
    device
        Of the neighbour search.

    Returns
    -------
    dict
        `chaos`, `pas` (on all spots), `silhouette`, `clisi` (scaled), `graph_connectivity` and, with two slices
        or more, `ilisi`, `ilisi_elsewhere` (both scaled; the latter without neighbours that are close in the tissue,
        see `elsewhere`), `kbet`, `batch_asw`. NaN where a metric is not defined.
    """
    mask, codes = labelled(domains)
    slice_ = np.asarray(slice_)
    if not len(z) == len(slice_) == len(codes) == len(xy):
        raise InputError(
            f"{len(z)} latents, {len(slice_)} slice numbers, {len(codes)} domains, {len(xy)} coordinates; "
            "expected one of each per spot"
        )
    found = {"chaos": chaos(xy, codes, slice_), "pas": pas(xy, codes, slice_)}
    rows = np.flatnonzero(mask)
    found["silhouette"] = silhouette(z, codes, seed=seed)
    several = len(np.unique(slice_[rows])) > 1
    if several:
        found["batch_asw"] = batch_asw(z, slice_, codes, seed=seed)
    if len(rows) > MIXING_SPOTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, size=MIXING_SPOTS, replace=False))
    k = min(LISI_NEIGHBORS, len(rows) - 1)
    if k < 3:
        return found
    latents = np.ascontiguousarray(z[rows], np.float32)
    more = min(LISI_NEIGHBORS + FEW_MORE, len(rows) - 1) if several else k
    wide = search(latents, latents, more, exclude_self=True, device=device, seed=seed)
    near = Neighbors(index=wide.index[:, :k], distance=wide.distance[:, :k])
    perplexity = min(PERPLEXITY, k / 3)
    found["clisi"] = clisi(near, codes[rows], perplexity=perplexity, scaled=True)
    few = slice(0, CONNECTIVITY_NEIGHBORS)
    closest = Neighbors(index=near.index[:, few], distance=near.distance[:, few])
    found["graph_connectivity"] = graph_connectivity(closest, codes[rows])
    if several:
        found["ilisi"] = ilisi(near, slice_[rows], perplexity=perplexity, scaled=True)
        far = elsewhere(wide, np.asarray(xy)[rows], slice_[rows], reach(np.asarray(xy), slice_)[rows], k=k)
        found["ilisi_elsewhere"] = ilisi(far, slice_[rows], perplexity=perplexity, scaled=True)
        found["kbet"] = kbet(near, slice_[rows])
    return found
