"""How each method is made from a configuration, and what it reads."""

from collections.abc import Callable
from dataclasses import dataclass

from stscale.config import Run
from stscale.models.method import Method
from stscale.models.mhal import Mhal
from stscale.models.smooth import Smooth
from stscale.models.spotscape import Spotscape
from stscale.models.stmfg import Stmfg


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
    expects
        Number of domains that the training itself depends on; None when it does not.
    pairs
        Partners drawn per seed for a term over neighbours and others (`Minibatch.pairs`); 0: no such term.
    standardize
        Whether each column of what `views` reads has variance 1, with these options.
    """

    make: Callable[[Run, Shape], Method]
    views: bool = False
    counts: Callable[[Run], bool] = lambda run: False
    expects: Callable[[Run], int | None] = lambda run: None
    pairs: Callable[[Run], int] = lambda run: 0
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


def _stmfg(run: Run, shape: Shape) -> Method:
    return Stmfg(shape.width, shape.genes, shape.slices, shape.spots, run.stmfg)


def _stmfg_pairs(run: Run) -> int:
    return run.stmfg.draws if run.stmfg.gamma and "reg" not in run.stmfg.without else 0


METHODS: dict[str, Recipe] = {
    "spotscape": Recipe(make=_spotscape, expects=lambda run: run.spotscape.clusters or run.domains.k),
    "mhal": Recipe(
        make=_mhal,
        views=True,
        counts=lambda run: "zinb" not in run.mhal.without,
        standardize=lambda run: run.mhal.standardize,
    ),
    "stmfg": Recipe(
        make=_stmfg,
        views=True,
        counts=lambda run: "zinb" not in run.stmfg.without,
        pairs=_stmfg_pairs,
        standardize=lambda run: run.stmfg.standardize,
    ),
    "smooth": Recipe(make=lambda run, shape: Smooth(run.smooth)),
}
"""Recipes by name, as in `run.method`."""
