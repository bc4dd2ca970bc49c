"""The overlap of two slices, and a partial fused Gromov-Wasserstein plan between their anchors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stscale.alignment.anchors import Anchors
from stscale.errors import InputError

Floats = NDArray[np.float64]

PAR = 0.05
"""Upper share of the anchors of one slice that sets the bar: how unlike the likest neighbour may be."""
ALLOWANCE = 1.5
"""The bar for a counterpart in the other slice, over that: two slices differ more than a slice from itself."""
MOST = 1000
"""Anchors per slice that a dense plan is made for at most."""
ROUNDS = 100_000
"""Limit of the solver, for its steps and for the pivots of the linear program in each step alike."""
TOLERANCE = 1e-5
"""Relative fall of the objective in a step at which the solver stops."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnchorPlan:
    """What `anchor_plan` found.

    Attributes
    ----------
    weights
        (m, m') masses between anchors, sum `overlap`.
    position
        (m, 2) where each source anchor goes, in the target's frame: the mean of its targets; NaN without mass.
    value
        Objective of the fused Gromov-Wasserstein problem.
    converged
        The objective stopped falling, and every linear program on the way was solved.
    """

    weights: Floats
    position: Floats
    value: float
    converged: bool


def estimate_overlap(source: Anchors, target: Anchors, whiten: Floats, offset: Floats, *, reach: float) -> float:
    """Estimate the share of the source that has a counterpart in the target, in the present frame.

    The smallest squared latent distance of each source anchor to target anchors within `reach` is compared with the
    same inside the target: the smallest to *other* target anchors within twice the reach. A source anchor counts
    when it is not above `ALLOWANCE` times the upper `PAR` quantile of the target's own.

    Parameters
    ----------
    source, target
        Anchors, positions in one frame.
    whiten, offset
        As in `Morph`: the latents' distance is |(z_a − z_b − offset) whiten|.
    reach
        In the units of the positions; about the distance of neighbouring anchors.

    Returns
    -------
    float
        Share of the source's mass, 0 … 1.
    """
    a, b = (source.z - offset) @ whiten, target.z @ whiten
    across = _least(a, source.xy, b, target.xy, reach, same=False)
    within = _least(b, target.xy, b, target.xy, 2 * reach, same=True)
    known = within[np.isfinite(within)]
    if not len(known):
        raise InputError(f"no two target anchors lie within {2 * reach:g}; raise the reach or the number of anchors")
    return float(source.mass[across <= ALLOWANCE * np.quantile(known, 1 - PAR)].sum())


def anchor_plan(
    source: Anchors,
    target: Anchors,
    whiten: Floats,
    offset: Floats,
    *,
    overlap: float,
    alpha: float = 0.5,
    near: float = 0.5,
) -> AnchorPlan:
    """Match anchors by partial fused Gromov-Wasserstein (POT, dense: at most `MOST` anchors a slice).

    The structures are the distances between anchors of one slice, over the mean of the target's; the cost is the
    squared latent distance over its median, plus `near` times the squared distance in the present frame, over the
    mean squared distance of the target's anchors.

    Parameters
    ----------
    source, target, whiten, offset
        As in `estimate_overlap`.
    overlap
        Mass to move, above 0 and at most 1.
    alpha
        Weight of the structure.
    near
        Weight of the present frame in the cost.

    Raises
    ------
    InputError
        Too many anchors, or an overlap outside 0 … 1.

    References
    ----------
    Chapel, Alaya, Gasso, "Partial optimal transport with applications on positive-unlabeled learning" (NeurIPS 2020).
    """
    import ot

    if max(len(source), len(target)) > MOST or not 0 < overlap <= 1:
        raise InputError(
            f"{len(source)} and {len(target)} anchors, overlap {overlap:g}; expected at most {MOST}, above 0 to 1"
        )
    a, b = (source.z - offset) @ whiten, target.z @ whiten
    features = _squared(a, b)
    inside, inside_target = (np.sqrt(_squared(s.xy, s.xy)) for s in (source, target))
    size = float(inside_target.mean()) or 1.0
    cost = features / (float(np.median(features)) or 1.0) + near * _squared(source.xy, target.xy) / size**2
    log: dict[str, Any]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        weights, log = ot.gromov.partial_fused_gromov_wasserstein(
            cost,
            inside / size,
            inside_target / size,
            source.mass,
            target.mass,
            m=min(overlap, float(source.mass.sum()), float(target.mass.sum())),
            alpha=alpha,
            numItermax=ROUNDS,
            tol=TOLERANCE,
            warn=False,  # it would raise; what the linear programs say is caught here instead
            log=True,
        )
    mass = weights.sum(axis=1)
    held = mass > 1e-3 * source.mass
    position = np.full_like(source.xy, np.nan)
    position[held] = (weights @ target.xy)[held] / mass[held, None]
    loss = log["loss"]
    return AnchorPlan(
        weights=weights,
        position=position,
        value=float(loss[-1]),
        # the solver stops before its limit only when the loss no longer falls
        converged=len(loss) <= ROUNDS and not said,
    )


def _squared(a: Floats, b: Floats) -> Floats:
    from scipy.spatial.distance import cdist

    return cdist(a, b, "sqeuclidean")


def _least(a: Floats, xy_a: Floats, b: Floats, xy_b: Floats, reach: float, *, same: bool) -> Floats:
    """Smallest squared latent distance to the other anchors within reach; infinite without any."""
    distance = _squared(a, b)
    distance[_squared(xy_a, xy_b) > reach**2] = np.inf
    if same:
        np.fill_diagonal(distance, np.inf)
    return distance.min(axis=1)
