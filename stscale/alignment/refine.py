"""From a roughly aligned pair of slices to a sparse plan between their spots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from stscale.alignment.anchor_plan import AnchorPlan, anchor_plan, estimate_overlap
from stscale.alignment.anchors import Anchors, make_anchors
from stscale.alignment.morph import Morph, morph, smoothed, smoother
from stscale.errors import InputError
from stscale.graphs.build import knn_graph
from stscale.transport.plan import Plan
from stscale.transport.sparse_sinkhorn import SparseCoupling, sparse_sinkhorn

Floats = NDArray[np.float64]

FEWEST = 20
"""Spots of a slice, and anchors, that make a shape at all."""
COMPONENTS = 20
"""Principal components of the latents that take part."""
SMOOTHING = 4
"""Rounds of smoothing of the latents that are compared."""
REACH = 3.0
"""Pitches: targets further off are no candidates."""
LEAD = (1.0, 5.0)
"""Distances of neighbouring anchors: the anchors' plan is followed where it leads further than the first, which is
its own resolution, and not further than the second."""
HELD = 0.05
"""A source that gives away less than this share of its mass is unmatched."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refined:
    """Correspondences of two slices; n source, m target spots.

    Attributes
    ----------
    plan
        (n, m) masses; a source gives away most of its 1/n where it finds a good target, and less elsewhere.
    xy
        (n, 2) source positions after the smooth displacement, in the target's frame.
    overlap
        Estimated share of the source that has a counterpart.
    coverage
        Share of source spots with a target.
    anchor_value
        Objective of the anchors' plan; NaN without one.
    error
        Relative error of the local transport.
    notes
        What did not converge, one line each; empty when all did.
    """

    plan: Plan
    xy: Floats
    overlap: float
    coverage: float
    anchor_value: float
    error: float
    notes: tuple[str, ...]


def refine(
    source_xy: Floats,
    target_xy: Floats,
    source_z: NDArray[np.floating],
    target_z: NDArray[np.floating],
    *,
    anchors: int = 300,
    k: int = 16,
    space: float = 1.0,
    latent: float = 1.0,
    epsilon: float = 0.1,
    tau: float = 5.0,
    trusted: float = 0.7,
) -> Refined:
    """Refine an alignment to correspondences, without labels, in O((n + m)·k).

    1. A smooth displacement, held near the given positions, brings the latents into register (`morph`).
    2. The overlap is estimated on anchors, and a partial fused Gromov-Wasserstein plan between anchors says where
       each group of source spots goes.
    3. Each source spot's candidates are the k nearest targets around its position, and around where its anchor's
       plan leads. Entropic transport with relaxed marginals over these pairs, of cost
       `space`·|x − y|²/pitch² + `latent`·δ²/median(δ²), is the plan. δ is the distance of the smoothed latents,
       whitened by the covariance of what the two slices do not agree on.

    Parameters
    ----------
    source_xy, target_xy
        (n, 2) and (m, 2) positions in the target's frame, aligned to within a few pitches.
    source_z, target_z
        (n, d) and (m, d) latents of one embedding.
    anchors
        Groups per slice; 0 leaves the anchors' plan out (the overlap is then the share of source spots over target).
    k
        Candidates per position.
    space, latent
        Weights of the two parts of the cost.
    epsilon, tau
        Of `sparse_sinkhorn`, in units of the cost.
    trusted
        Pitches by which the given positions are expected to be off, see `morph`. Infinite leaves the displacement
        free, for tissue that was torn or bent a lot; slices that overlap in part are then stretched over each other.

    Raises
    ------
    InputError
        Shapes that do not fit, values that are not finite, fewer than 20 spots, slices that do not meet.
    """
    if 0 != anchors < FEWEST or k < 1 or min(space, latent) < 0 or space + latent <= 0 or not trusted > 0:
        raise InputError(
            f"anchors = {anchors}, k = {k}, space = {space}, latent = {latent}, trusted = {trusted}; "
            f"expected 0 or at least {FEWEST} anchors, k of at least 1, weights of at least 0, not both 0; trust > 0"
        )
    source_xy, target_xy, a, b = _checked(source_xy, target_xy, source_z, target_z)
    pitch = _pitch(target_xy)
    field = morph(source_xy, target_xy, a, b, pitch=pitch, trusted=trusted)
    if field.seen == 0:
        raise InputError("no source spot lies within two pitches of the target; align the slices first")
    notes = [] if field.converged else ["the smooth displacement was still moving after its last step"]
    a, b = _compared(field, a, target_xy, b)
    overlap, positions, value = field.seen, [field.xy], float("nan")
    if anchors:
        groups = _anchors(field.xy, a, anchors), _anchors(target_xy, b, anchors)
        overlap, coarse, lead = _anchor_step(groups, field.xy)
        value = coarse.value
        positions.append(lead)
        if not coarse.converged:
            notes.append("the anchors' plan was still improving after its last step")
    cost = _cost(positions, target_xy, a, b, pitch=pitch, k=k, space=space, latent=latent)
    found = sparse_sinkhorn(cost, epsilon=epsilon, tau_rows=tau, tau_columns=tau, tolerance=1e-3)
    if not found.converged:
        notes.append(f"the local transport is off by {found.error:.1e} of its mass")
    plan = _held(found, len(source_xy))
    return Refined(
        plan=plan,
        xy=field.xy,
        overlap=overlap,
        coverage=plan.coverage,
        anchor_value=value,
        error=found.error,
        notes=tuple(notes),
    )


def _checked(
    source_xy: Floats, target_xy: Floats, source_z: NDArray[np.floating], target_z: NDArray[np.floating]
) -> tuple[Floats, Floats, Floats, Floats]:
    """Check the input; return positions and the leading components of the latents."""
    xy, z = [], []
    for name, at, latent in (("source", source_xy, source_z), ("target", target_xy, target_z)):
        at, latent = np.asarray(at, np.float64), np.asarray(latent)
        if at.ndim != 2 or at.shape[1] != 2 or latent.ndim != 2 or len(at) != len(latent) or len(at) < FEWEST:
            raise InputError(
                f"{name} has positions {at.shape} and latents {latent.shape}; expected (n, 2) and (n, d), n ≥ {FEWEST}"
            )
        if not np.isfinite(at).all() or not np.isfinite(latent).all():
            raise InputError(f"{name} holds values that are not finite; drop those spots")
        xy.append(at)
        z.append(latent)
    if z[0].shape[1] != z[1].shape[1]:
        raise InputError(f"latents have {z[0].shape[1]} and {z[1].shape[1]} columns; expected those of one embedding")
    n = len(z[0]) + len(z[1])
    mean = (z[0].sum(axis=0, dtype=np.float64) + z[1].sum(axis=0, dtype=np.float64)) / n
    centred = [part - mean for part in z]
    axes = np.linalg.eigh(sum(part.T @ part for part in centred))[1][:, ::-1][:, :COMPONENTS]
    return xy[0], xy[1], centred[0] @ axes, centred[1] @ axes


def _pitch(xy: Floats) -> float:
    from scipy.spatial import cKDTree

    pitch = float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1]))
    if not pitch > 0:
        raise InputError("most target spots share their position with another; expected one position per spot")
    return pitch


def _compared(field: Morph, a: Floats, target_xy: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Smoothed, whitened latents without the offset between the slices."""
    a = smoothed(smoother(field.xy), a, SMOOTHING)
    b = smoothed(smoother(target_xy), b, SMOOTHING)
    return (a - field.offset) @ field.whiten, b @ field.whiten


def _anchors(xy: Floats, z: Floats, most: int) -> Anchors:
    return make_anchors(xy, z, knn_graph(xy, 6), most=most)


def _anchor_step(groups: tuple[Anchors, Anchors], xy: Floats) -> tuple[float, AnchorPlan, Floats]:
    """Overlap, the anchors' plan, and where it leads each source spot."""
    source, target = groups
    identity, zero = np.eye(source.z.shape[1]), np.zeros(source.z.shape[1])
    spacing = _pitch(target.xy)
    overlap = estimate_overlap(source, target, identity, zero, reach=spacing)
    # with nothing alike there is no plan to make; a tenth keeps the problem well posed and moves little
    plan = anchor_plan(source, target, identity, zero, overlap=max(overlap, 0.1))
    move = plan.position - source.xy
    length = np.linalg.norm(np.nan_to_num(move), axis=1) / spacing
    move[(length < LEAD[0]) | (length > LEAD[1])] = 0.0
    move[np.isnan(move)] = 0.0
    return overlap, plan, xy + move[source.owner]


def _cost(
    positions: list[Floats],
    target_xy: Floats,
    a: Floats,
    b: Floats,
    *,
    pitch: float,
    k: int,
    space: float,
    latent: float,
) -> sp.csr_array:
    """Candidate pairs and their costs, (n, m) CSR."""
    from scipy.spatial import cKDTree

    n, m = len(positions[0]), len(target_xy)
    tree = cKDTree(target_xy)
    keys = []
    for at in positions:
        distance, near = tree.query(at, k=min(k, m), distance_upper_bound=REACH * pitch)
        distance, near = distance.reshape(n, -1), near.reshape(n, -1)
        row, place = np.nonzero(np.isfinite(distance))
        keys.append(row.astype(np.int64) * m + near[row, place])
    pairs = np.unique(np.concatenate(keys))
    row, column = np.divmod(pairs, m)
    # the distance counts from the nearer of the two positions: both say where the spot may be
    apart = np.min([((at[row] - target_xy[column]) ** 2).sum(axis=1) for at in positions], axis=0)
    unlike = np.empty(len(pairs))
    for lo in range(0, len(pairs), 1 << 18):
        part = slice(lo, lo + (1 << 18))
        unlike[part] = ((a[row[part]] - b[column[part]]) ** 2).sum(axis=1)
    cost = space * apart / pitch**2 + latent * unlike / (float(np.median(unlike)) or 1.0)
    ends = np.searchsorted(row, np.arange(n + 1))
    return sp.csr_array((cost, column.astype(np.int32), ends), shape=(n, m))


def _held(found: SparseCoupling, n: int) -> Plan:
    """Leave out sources that gave away next to nothing, and what is negligible in a row."""
    weights = found.plan
    mass = np.asarray(weights.sum(axis=1)).ravel()
    length = np.diff(weights.indptr)
    row = np.repeat(np.arange(n), length)
    kept = (mass[row] >= HELD / n) & (weights.data >= 1e-3 * mass[row])
    return Plan.from_pairs(row[kept], weights.indices[kept], weights.data[kept], shape=weights.shape)
