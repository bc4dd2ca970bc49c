"""Exponents of cost in the number of spots: slopes of straight lines through log-log points."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

LARGE = (100_000, 1_000_000)
"""Sizes between which the targets of scale hold."""


def exponent(sizes: Sequence[float], costs: Sequence[float | None]) -> float | None:
    """Fit cost = a n^p by least squares of logarithms and return p.

    Parameters
    ----------
    sizes
        Spots.
    costs
        Of each size; None and what is not positive is left out.

    Returns
    -------
    float or None
        None where fewer than two different sizes remain.
    """
    points = [(math.log(n), math.log(c)) for n, c in zip(sizes, costs, strict=True) if c is not None and c > 0]
    if len({x for x, _ in points}) < 2:
        return None
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    across = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return across / sum((x - mean_x) ** 2 for x, _ in points)


def exponents(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Fit total time, every stage's time, seconds per step and peak memory over simulated rows.

    Parameters
    ----------
    rows
        Rows of `benchmarks.integration.integrated`, any order.

    Returns
    -------
    dict
        {what: {"all": exponent over all sizes, "large": over 10⁵ … 10⁶ spots}}.
    """
    rows = sorted(rows, key=lambda row: row["spots"])
    names = dict.fromkeys(name for row in rows for name in row["integrate"]["stages"])
    costs = {
        "total": [row["integrate"]["seconds"] for row in rows],
        **{name: [row["integrate"]["stages"].get(name, {}).get("seconds") for row in rows] for name in names},
        "step": [row["training"]["seconds_per_step"] for row in rows],
        "peak_rss": [row["integrate"]["peak_rss_mib"] for row in rows],
    }
    sizes = [row["spots"] for row in rows]
    large = [i for i, n in enumerate(sizes) if LARGE[0] <= n <= LARGE[1]]
    return {
        name: {"all": exponent(sizes, values), "large": exponent([sizes[i] for i in large], [values[i] for i in large])}
        for name, values in costs.items()
    }
