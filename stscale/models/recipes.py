"""How each method is made from a configuration, and what it reads."""

from collections.abc import Callable
from dataclasses import dataclass

from stscale.config import Run
from stscale.models.method import Method
from stscale.models.mhal import Mhal
from stscale.models.spotscape import Spotscape


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of the data a method is made for.

    Attributes
    ----------
    width
        Columns of the input.
    genes
        Genes of the feature store.
    slices, spots
        Their numbers.
    """

    width: int
    genes: int
    slices: int
    spots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the stages must know of a method.

    Attributes
    ----------
    make
        Makes an untrained network.
    views
        It reads the spatial and the feature graph of `[views]`, and principal components averaged over each of
        them; otherwise the spatial graph of `[graph]` alone, and features.
    counts
        Whether it reconstructs raw counts, with these options.
    standardize
        Whether each column of what `views` reads has variance 1, with these options.
    """

    make: Callable[[Run, Shape], Method]
    views: bool = False
    counts: Callable[[Run], bool] = lambda run: False
    standardize: Callable[[Run], bool] = lambda run: False


def expected_domains(run: Run, spots: int, given: int | None) -> int:
    """Return the number of domains that prototypes stand for, fewer on tiny data."""
    # a prototype stands for at least four spots
    return max(1, min(given or run.domains.k or 10, spots // 8))


def _spotscape(run: Run, shape: Shape) -> Method:
    clusters = expected_domains(run, shape.spots, run.spotscape.clusters)
    return Spotscape(shape.width, shape.slices, clusters, run.spotscape, run.seed)


def _mhal(run: Run, shape: Shape) -> Method:
    # as above, a prototype stands for at least four spots
    prototypes = max(1, min(run.mhal.prototypes, shape.spots // 8))
    return Mhal(shape.width, shape.genes, shape.slices, prototypes, run.mhal)


METHODS: dict[str, Recipe] = {
    "spotscape": Recipe(make=_spotscape),
    "mhal": Recipe(
        make=_mhal,
        views=True,
        counts=lambda run: "zinb" not in run.mhal.without,
        standardize=lambda run: run.mhal.standardize,
    ),
}
"""Recipes by name, as in `run.method`."""
