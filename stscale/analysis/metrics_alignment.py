"""How well spots of one slice are matched to another, and how far a transform is from the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from stscale.analysis.labels import labelled
from stscale.analysis.metrics import ari
from stscale.errors import InputError
from stscale.graphs.csr import Graph


def best_source(plan: sp.spmatrix | sp.sparray | NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the source of largest mass (n_target,) int64 of every target, −1 for targets without mass.

    Parameters
    ----------
    plan
        (n_source, n_target) masses ≥ 0, sparse or dense. Of equal masses the smaller source wins.

    Raises
    ------
    InputError
        Negative masses or masses that are not finite.
    """
    row, column, mass = _entries(plan)
    order = np.lexsort((row, -mass, column))
    target, first = np.unique(column[order], return_index=True)
    best = np.full(plan.shape[1], -1, np.int64)
    best[target] = row[order][first]
    return best


def coverage(plan: sp.spmatrix | sp.sparray | NDArray[np.floating]) -> float:
    """Share of target spots with mass; without it no alignment score means anything."""
    return float(np.mean(best_source(plan) >= 0)) if plan.shape[1] else 0.0


def ltari(
    plan: sp.spmatrix | sp.sparray | NDArray[np.floating], source_labels: ArrayLike, target_labels: ArrayLike
) -> float:
    """Label-transfer ARI: ARI between a target's own label and that of its best source by mass.

    Over the targets with mass of which both labels are known; to be read beside `coverage`.

    Parameters
    ----------
    plan
        (n_source, n_target) masses.
    source_labels, target_labels
        (n_source,), (n_target,).

    Raises
    ------
    InputError
        Lengths that do not fit the plan; no mapped target with both labels.
    """
    source, target = _shared_codes(plan, source_labels, target_labels)
    best = best_source(plan)
    return ari(target, np.where(best >= 0, source[best], -1))


def mapping_accuracy(
    plan: sp.spmatrix | sp.sparray | NDArray[np.floating], source_labels: ArrayLike, target_labels: ArrayLike
) -> float:
    """Share of the mass that joins equal labels, of the mass between labelled spots (NaN without any)."""
    source, target = _shared_codes(plan, source_labels, target_labels)
    row, column, mass = _entries(plan)
    a, b = source[row], target[column]
    known = (a >= 0) & (b >= 0)
    total = float(mass[known].sum())
    return float(mass[known & (a == b)].sum()) / total if total > 0 else float("nan")


def edge_consistency(graph: Graph, labels: ArrayLike) -> float:
    """Share of the graph's edges whose ends have the same label; 1 − the edge inconsistency of PASTE2.

    Over the edges with both ends labelled; NaN without any. With labels carried over from another slice
    (`source_labels[best_source(plan)]`) it says whether the alignment kept domains in one piece, with
    mapped / not mapped as labels whether the overlap is one region. The mean edge consistency of a series is the mean
    over its slices.

    Parameters
    ----------
    graph
        Spatial neighbours of n spots.
    labels
        (n,); missing ones are left out.

    Raises
    ------
    InputError
        Lengths that differ.
    """
    a, b = _labelled_edges(graph, labels)[:2]
    return float(np.mean(a == b)) if len(a) else float("nan")


def spatial_coherence(graph: Graph, labels: ArrayLike, *, rng: np.random.Generator, permutations: int = 200) -> float:
    """Spatial coherence of PASTE (Zeira 2022): how far the labels' edge entropy lies below chance, in sds.

    H = −Σ_{a ≤ b} p_ab log p_ab with p_ab the share of edges that join labels a and b; the score is
    (mean − H) / sd over labels shuffled among the labelled spots. 0 is chance; NaN with one label or no edge.

    Parameters
    ----------
    graph
        Neighbours of n spots, inside a slice or, after alignment, through a stack.
    labels
        (n,); missing ones are left out.
    rng
        Shuffles the labels.
    permutations
        Shuffles, at least 2.

    Raises
    ------
    InputError
        Lengths that differ; fewer than 2 permutations.
    """
    if permutations < 2:
        raise InputError(f"permutations = {permutations}; a spread needs at least 2")
    a, b, codes, row, column = _labelled_edges(graph, labels)
    count = int(codes.max(initial=-1)) + 1
    if not len(a) or count < 2:
        return float("nan")
    known = np.flatnonzero(codes >= 0)
    shuffled = codes.copy()
    chance = np.empty(permutations)
    for turn in range(permutations):
        shuffled[known] = rng.permutation(codes[known])
        chance[turn] = _edge_entropy(shuffled[row], shuffled[column], count)
    spread = float(chance.std())
    return float((chance.mean() - _edge_entropy(a, b, count)) / spread) if spread > 0 else float("nan")


def _labelled_edges(
    graph: Graph, labels: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Codes at both ends of each edge (once), the codes of all spots, and the edges' ends."""
    given = np.asarray(labels)
    if len(given) != graph.n:
        raise InputError(f"{len(given)} labels for a graph of {graph.n} spots")
    codes = labelled(given)[1]
    row, column = np.repeat(np.arange(graph.n), graph.degree()), graph.indices.astype(np.int64)
    held = (row < column) & (codes[row] >= 0) & (codes[column] >= 0)
    row, column = row[held], column[held]
    return codes[row], codes[column], codes, row, column


def _edge_entropy(a: NDArray[np.int64], b: NDArray[np.int64], count: int) -> float:
    pairs = np.bincount(np.minimum(a, b) * count + np.maximum(a, b))
    share = pairs[pairs > 0] / len(a)
    return float(-(share * np.log(share)).sum())


def score_pair(
    plan: sp.spmatrix | sp.sparray,
    source_labels: ArrayLike,
    target_labels: ArrayLike,
    target_graph: Graph,
    *,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Judge the correspondences of two annotated slices.

    Parameters
    ----------
    plan
        (n_source, n_target) masses.
    source_labels, target_labels
        (n_source,), (n_target,); missing ones are left out.
    target_graph
        Spatial neighbours of the target's spots.
    rng
        For `spatial_coherence`.

    Returns
    -------
    dict
        `accuracy`: of the labelled source spots whose likeliest target is labelled, the share with the same label;
        `matched`: share of source spots with a target. `ltari` and `coverage` (of the target). `edge_consistency` and
        `spatial_coherence` of the labels carried to the target by each spot's best source. NaN where undefined.
    """
    source, target = _shared_codes(plan, source_labels, target_labels)
    likeliest, best = best_source(plan.T), best_source(plan)
    reached = np.where(likeliest >= 0, target[likeliest], -1)
    known = (source >= 0) & (reached >= 0)
    carried = np.where(best >= 0, source[best], -1)
    both = (carried >= 0) & (target >= 0)
    return {
        "accuracy": float(np.mean(source[known] == reached[known])) if known.any() else float("nan"),
        "matched": float(np.mean(likeliest >= 0)),
        "ltari": ari(target, carried) if both.any() else float("nan"),
        "coverage": float(np.mean(best >= 0)),
        "edge_consistency": edge_consistency(target_graph, carried),
        "spatial_coherence": spatial_coherence(target_graph, carried, rng=rng),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformError:
    """How far an estimated transform is from the true one.

    Attributes
    ----------
    degrees
        Angle of the rotation that is left, 0 … 180; infinite when one is a mirror image and the other is not.
    distance
        In the units of the coordinates: root mean square displacement over the points, or the difference of
        the translations when none were given.
    """

    degrees: float
    distance: float


def transform_error(
    R_true: NDArray[np.floating],
    t_true: NDArray[np.floating],
    R: NDArray[np.floating],
    t: NDArray[np.floating],
    *,
    xy: NDArray[np.floating] | None = None,
) -> TransformError:
    """Compare x ↦ x Rᵀ + t with the truth.

    Parameters
    ----------
    R_true, R
        (d, d), d 2 or 3. Scale and shear are left out of the angle (polar decomposition), not of the distance.
    t_true, t
        (d,).
    xy
        (n, d) points to measure the distance at. Without them translations are compared, which depends on
        where the origin is.

    Raises
    ------
    InputError
        Shapes that do not fit; a singular matrix.
    """
    true, found = np.asarray(R_true, np.float64), np.asarray(R, np.float64)
    d = len(true)
    shapes = (true.shape, found.shape, np.shape(t_true), np.shape(t))
    if d not in (2, 3) or shapes != ((d, d), (d, d), (d,), (d,)):
        raise InputError(f"transforms have shapes {shapes}; expected (d, d), (d, d), (d,), (d,) with d 2 or 3")
    rotations = [_rotation(true), _rotation(found)]
    if np.linalg.det(rotations[0]) * np.linalg.det(rotations[1]) < 0:
        degrees = float("inf")
    else:
        # ‖A − B‖_F = 2√2 sin(θ/2) in two and three dimensions; unlike arccos it is exact for small angles
        chord = np.linalg.norm(rotations[0] - rotations[1]) / (2 * np.sqrt(2.0))
        degrees = float(np.degrees(2.0 * np.arcsin(min(chord, 1.0))))
    shift = np.asarray(t, np.float64) - np.asarray(t_true, np.float64)
    if xy is None:
        return TransformError(degrees=degrees, distance=float(np.linalg.norm(shift)))
    moved = np.asarray(xy, np.float64) @ (found - true).T + shift
    return TransformError(degrees=degrees, distance=float(np.sqrt(np.mean(np.sum(moved**2, axis=1)))))


def _rotation(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthogonal factor (d, d) of the polar decomposition; keeps a mirror image a mirror image."""
    u, s, vt = np.linalg.svd(matrix)
    if s[-1] <= 1e-12 * s[0] or not np.isfinite(s).all():
        raise InputError("transform is singular; expected an invertible matrix")
    rotation: NDArray[np.float64] = u @ vt
    return rotation


def _entries(
    plan: sp.spmatrix | sp.sparray | NDArray[np.floating],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Row, column and mass of the entries with mass, duplicates summed."""
    entries = sp.coo_matrix(plan)
    entries.sum_duplicates()
    mass = np.asarray(entries.data, np.float64)
    if not np.isfinite(mass).all() or (mass < 0).any():
        raise InputError("plan has negative masses or masses that are not finite; expected masses ≥ 0")
    held = mass > 0
    return entries.row[held].astype(np.int64), entries.col[held].astype(np.int64), mass[held]


def _shared_codes(
    plan: sp.spmatrix | sp.sparray | NDArray[np.floating], source_labels: ArrayLike, target_labels: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Codes of both slices' labels in one numbering."""
    source, target = np.asarray(source_labels), np.asarray(target_labels)
    if (len(source), len(target)) != tuple(plan.shape):
        raise InputError(f"plan is {tuple(plan.shape)} for {len(source)} source and {len(target)} target labels")
    codes = labelled(np.concatenate([source.astype(object), target.astype(object)]))[1]
    return codes[: len(source)], codes[len(source) :]
