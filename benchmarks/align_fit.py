"""Alignments in child processes: stscale's own, and the trivial ones it has to beat. No label is read here."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.align_data import move_parts, read_slices

Floats = NDArray[np.float64]

BASELINES = {
    "upright": "both slices centred, never turned, nearest spot (the angle is given away)",
    "centred": "turned slice centred, nearest spot",
    "latent": "nearest latent (cosine), no positions",
}


def fit(
    run: str,
    source: str,
    target: str,
    moves: list[dict[str, Any]],
    settings: dict[str, Any],
    folder: str,
    threads: int,
    *,
    refined: bool,
) -> list[dict[str, Any]]:
    """Align a source that was moved in known ways; runs in the child.

    Parameters
    ----------
    run
        Run folder.
    source, target
        Names of the slices.
    moves
        See `move_parts`; one alignment each.
    settings
        Of [align].
    folder
        Gets `plan-<i>.npz` and `places-<i>.npz` (where spots come to lie: by the transform, after warp or
        refinement).
    threads
        Of everything.
    refined
        Make correspondences too.

    Returns
    -------
    list of dict
        For each move: matrix, seconds, refine_seconds, overlap, mirror, credible, notes, …
    """
    from stscale.alignment import SliceView, Transform, align_pair
    from stscale.config import Align
    from stscale.threads import set_threads

    set_threads(threads)
    config = Align(**settings)
    first, second = read_slices(run, (source, target))
    found = []
    for number, move in enumerate(moves):
        own = Transform.from_parts(*move_parts(move, first.xy), "similarity")
        xy = own.apply(first.xy)
        start = time.perf_counter()
        views = SliceView.build(source, xy, first.z), SliceView.build(target, second.xy, second.z)
        pair = align_pair(*views, config)
        seconds = time.perf_counter() - start
        places = {"rigid": pair.transform.apply(xy)}
        if pair.warp is not None:
            places["warped"] = pair.warp.apply(places["rigid"])
        entry = {
            "matrix": pair.transform.matrix.tolist(),
            "seconds": seconds,
            "score": pair.score,
            "agreement": pair.agreement,
            "coverage": list(pair.coverage),
            "mirror": pair.mirror,
            "credible": pair.credible,
            "notes": list(pair.notes),
        }
        if refined:
            last = places.get("warped", places["rigid"])
            entry |= _refined(last, second.xy, first.z, second.z, Path(folder) / f"plan-{number}.npz", places)
        np.savez(Path(folder) / f"places-{number}.npz", **places)
        found.append(entry)
    return found


def _refined(
    xy: Floats,
    target_xy: Floats,
    z: NDArray[np.float32],
    target_z: NDArray[np.float32],
    path: Path,
    places: dict[str, Floats],
) -> dict[str, Any]:
    from stscale.alignment import refine
    from stscale.errors import InputError

    start = time.perf_counter()
    try:
        found = refine(xy, target_xy, z, target_z)
    except InputError as error:  # nothing meets after a wrong transform: that is a result
        return {"refine_error": str(error)}
    seconds = time.perf_counter() - start
    found.plan.save(path)
    places["refined"] = found.xy
    return {
        "refine_seconds": seconds,
        "overlap": found.overlap,
        "plan_coverage": found.coverage,
        "refine_notes": list(found.notes),
    }


def trivial(
    run: str, source: str, target: str, move: dict[str, Any], matrix: list[list[float]], folder: str
) -> dict[str, str]:
    """Write the plans of the baselines and of our transform with the nearest spot; runs in the child.

    Returns
    -------
    dict
        Plan file by method: `BASELINES` and "rigid".
    """
    from scipy.spatial import cKDTree

    from stscale.graphs.neighbors import search
    from stscale.transport import Plan

    first, second = read_slices(run, (source, target))
    linear, shift = move_parts(move, first.xy)
    xy, tree = first.xy @ linear.T + shift, cKDTree(second.xy)
    found, middle = np.array(matrix), second.xy.mean(axis=0)
    latents = [slice_.z - slice_.z.mean(axis=0) for slice_ in (first, second)]
    best = {
        "upright": tree.query(first.xy - first.xy.mean(axis=0) + middle)[1],
        "centred": tree.query(xy - xy.mean(axis=0) + middle)[1],
        "latent": search(latents[1], latents[0], 1, metric="cosine").index[:, 0],
        "rigid": tree.query(xy @ found[:2, :2].T + found[:2, 2])[1],
    }
    paths = {}
    for name, column in best.items():
        paths[name] = str(Path(folder) / f"{name}.npz")
        plan = Plan.from_pairs(np.arange(len(column)), column, shape=(len(first.xy), len(second.xy)))
        plan.save(Path(paths[name]))
    return paths
