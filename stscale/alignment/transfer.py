"""Labels and values carried from the slices that a slice was laid on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from stscale.errors import InputError
from stscale.transport.plan import Plan


def transfer_labels(
    plans: Sequence[Plan], codes: Sequence[NDArray[np.int64]], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give each source spot the label that most of its mass leads to, every plan weighing the same.

    p_il = mean over the plans that match i of Σ_j W_ij [label j = l] / Σ_j W_ij; the label is argmax_l p_il. Mass on
    unlabelled targets lowers p.

    Parameters
    ----------
    plans
        (n, m_k) of one source slice.
    codes
        (m_k,) label numbers 0 … count − 1 of each plan's targets, −1 for none.
    count
        Number of labels.

    Returns
    -------
    (n,) int64, (n,) float64
        Label, −1 without any; its p, NaN without any.

    Raises
    ------
    InputError
        No plan, or lengths that do not fit.
    """
    if not plans or len(plans) != len(codes):
        raise InputError(f"{len(plans)} plans and labels of {len(codes)} slices; expected as many, at least one")
    n = plans[0].shape[0]
    total, matched = sp.csr_array((n, count)), np.zeros(n)
    for plan, code in zip(plans, codes, strict=True):
        if plan.shape != (n, len(code)):
            raise InputError(f"plan is {plan.shape}; expected {(n, len(code))}")
        known = np.flatnonzero(code >= 0)
        onehot = sp.csr_array((np.ones(len(known)), (known, code[known])), shape=(len(code), count))
        total = total + plan.pull(onehot)
        matched += np.diff(plan.weights.indptr) > 0
    total.eliminate_zeros()
    best, _ = Plan(weights=total).best()
    p = np.full(n, np.nan)
    p[best >= 0] = sp.csr_matrix(total).max(axis=1).toarray().ravel()[best >= 0] / matched[best >= 0]
    return best, p


def transfer_values(plans: Sequence[Plan], values: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Give each source spot the mean over the plans that match it of Σ_j W_ij y_j / Σ_j W_ij.

    Parameters
    ----------
    plans
        (n, m_k) of one source slice.
    values
        (m_k, g) of each plan's targets; a column of NaN where the slice does not measure it.

    Returns
    -------
    (n, g) float32
        NaN where nothing was carried over.
    """
    total = np.zeros((plans[0].shape[0], values[0].shape[1]))
    held = np.zeros(total.shape, np.int64)
    for plan, given in zip(plans, values, strict=True):
        pulled = plan.pull(given)
        known = np.isfinite(pulled)
        total[known] += pulled[known]
        held += known
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / held).astype(np.float32)
