"""Agreement of domains with annotated labels. Spots without a label (or a domain) are skipped.

All are functions of the contingency table of labels and domains, which is counted once and kept sparse.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stscale.analysis.labels import contingency, labelled, paired
from stscale.errors import InputError


def ari(labels: ArrayLike, domains: ArrayLike) -> float:
    """Return the adjusted Rand index (Hubert and Arabie 1985): 1 for equal partitions, 0 expected by chance.

    Parameters
    ----------
    labels, domains
        (n,) each; see `labelled` for what counts as missing.

    Raises
    ------
    InputError
        As all functions here: different lengths, or no spot with both.
    """
    table = contingency(*paired(labels, domains))
    n = float(table.data.sum())
    both = _pairs(table.data)
    rows, columns = (_pairs(np.asarray(table.sum(axis=axis)).ravel()) for axis in (1, 0))
    expected = rows * columns / _pairs(np.array([n])) if n > 1 else 0.0
    ceiling = 0.5 * (rows + columns)
    return 1.0 if ceiling == expected else float((both - expected) / (ceiling - expected))


def nmi(labels: ArrayLike, domains: ArrayLike) -> float:
    """Mutual information over the mean of the two entropies, in [0, 1] (two constant partitions: 1)."""
    mutual, of_labels, of_domains = _information(labels, domains)
    mean = 0.5 * (of_labels + of_domains)
    return mutual / mean if mean > 0 else 1.0


def homogeneity(labels: ArrayLike, domains: ArrayLike) -> float:
    """1 − H(labels | domains) / H(labels): 1 when every domain holds one label only."""
    mutual, of_labels, _ = _information(labels, domains)
    return mutual / of_labels if of_labels > 0 else 1.0


def completeness(labels: ArrayLike, domains: ArrayLike) -> float:
    """1 − H(domains | labels) / H(domains): 1 when every label lies in one domain only."""
    mutual, _, of_domains = _information(labels, domains)
    return mutual / of_domains if of_domains > 0 else 1.0


def clustering_accuracy(labels: ArrayLike, domains: ArrayLike) -> float:
    """Share of spots right under the best one-to-one matching of domains to labels (Hungarian algorithm)."""
    from scipy.optimize import linear_sum_assignment

    table = contingency(*paired(labels, domains)).toarray()
    row, column = linear_sum_assignment(table, maximize=True)
    return float(table[row, column].sum() / table.sum())


def boundary(labels: ArrayLike, indptr: NDArray[np.integer], indices: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Mark the labelled spots (n,) that have a spatial neighbour with another label.

    Parameters
    ----------
    labels
        (n,).
    indptr, indices
        (n + 1,) and (E,) the spatial graph in CSR form. Unlabelled neighbours make no boundary.
    """
    mask, codes = labelled(labels)
    if len(indptr) != len(codes) + 1:
        raise InputError(f"graph has {len(indptr) - 1} spots and there are {len(codes)} labels")
    row = np.repeat(np.arange(len(codes)), np.diff(indptr))
    differs = mask[row] & mask[indices] & (codes[row] != codes[indices])
    found = np.zeros(len(codes), bool)
    found[row[differs]] = True
    return found


def boundary_accuracy(
    labels: ArrayLike, domains: ArrayLike, indptr: NDArray[np.integer], indices: NDArray[np.integer]
) -> float:
    """`clustering_accuracy` over the `boundary` spots, matched anew among them; NaN when there are none."""
    edge = boundary(labels, indptr, indices)
    own, predicted = labelled(labels)[1], labelled(domains)[1]
    if len(own) != len(predicted):
        raise InputError(f"{len(own)} labels and {len(predicted)} domains; expected the same spots")
    edge &= predicted >= 0
    return clustering_accuracy(own[edge], predicted[edge]) if edge.any() else float("nan")


def score(
    labels: ArrayLike,
    domains: ArrayLike,
    *,
    indptr: NDArray[np.integer] | None = None,
    indices: NDArray[np.integer] | None = None,
) -> dict[str, float]:
    """Collect the metrics against labels.

    Parameters
    ----------
    labels, domains
        (n,) each.
    indptr, indices
        The spatial graph; with it comes `boundary_accuracy`.

    Returns
    -------
    dict
        `ari`, `nmi`, `clustering_accuracy`, `homogeneity`, `completeness`, `labelled` (spots that count) and,
        given a graph, `boundary_accuracy`.
    """
    a, b = paired(labels, domains)
    found = {
        "ari": ari(a, b),
        "nmi": nmi(a, b),
        "clustering_accuracy": clustering_accuracy(a, b),
        "homogeneity": homogeneity(a, b),
        "completeness": completeness(a, b),
        "labelled": float(len(a)),
    }
    if indptr is not None and indices is not None:
        found["boundary_accuracy"] = boundary_accuracy(labels, domains, indptr, indices)
    return found


def _pairs(count: NDArray[np.float64]) -> float:
    """Σ c (c − 1) / 2 in float64: exact to n ≈ 10⁸, where int64 sums of products would overflow."""
    return float(np.sum(count * (count - 1.0)) / 2.0)


def _information(labels: ArrayLike, domains: ArrayLike) -> tuple[float, float, float]:
    """Mutual information, entropy of the labels, entropy of the domains (nats)."""
    table = contingency(*paired(labels, domains))
    joint = table.data / table.data.sum()
    p, q = (np.asarray(table.sum(axis=axis)).ravel() / table.data.sum() for axis in (1, 0))
    mutual = float(np.sum(joint * (np.log(joint) - np.log(p[table.row]) - np.log(q[table.col]))))
    return max(mutual, 0.0), _entropy(p), _entropy(q)


def _entropy(p: NDArray[np.float64]) -> float:
    """Entropy of a distribution (nats)."""
    positive = p[p > 0]
    return max(float(-np.sum(positive * np.log(positive))), 0.0)
