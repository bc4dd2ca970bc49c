"""Networks: each a `Method`; `METHODS` makes one from a configuration."""

from collections.abc import Callable

from stscale.config import Run
from stscale.models.method import Method, Minibatch
from stscale.models.spotscape import Spotscape

__all__ = ["METHODS", "Method", "Minibatch", "Spotscape"]


def _spotscape(run: Run, n_features: int, n_slices: int, n_spots: int) -> Method:
    expected = run.spotscape.clusters or run.domains.k or 10
    # tiny data: a prototype stands for at least four spots
    clusters = max(1, min(expected, n_spots // 8))
    return Spotscape(n_features, n_slices, clusters, run.spotscape, run.seed)


METHODS: dict[str, Callable[[Run, int, int, int], Method]] = {"spotscape": _spotscape}
"""Makers of methods: (options, width of the input, slices, spots) → an untrained network."""
