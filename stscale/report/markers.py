"""Genes that mark each domain."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stscale.report.fitted import Fitted

PER_DOMAIN = 1000
"""Spots of a domain that are compared, drawn by the run's seed."""

FEWEST = 10
"""Spots below which a domain has no markers."""

LISTED = 10
"""Markers of a domain in the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A gene that a domain has more of.

    Attributes
    ----------
    gene, symbol
        Its name in the store and its name for people; often the same.
    column
        Its column in the feature store.
    change
        log₂ of the ratio of the mean normalised expression inside to that outside.
    inside, outside
        Share of the spots with any, in the domain and in the others.
    """

    gene: str
    symbol: str
    column: int
    change: float
    inside: float
    outside: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Markers:
    """Markers by domain number, best first; a domain that was too small, or has none, is missing.

    Attributes
    ----------
    of
        The markers.
    spots
        Spots compared.
    genes
        Genes compared: those of the feature store that every slice has.
    sampled
        Whether some domain has more spots than were compared.
    """

    of: dict[int, tuple[Marker, ...]]
    spots: int
    genes: int
    sampled: bool

    def leading(self) -> dict[int, Marker]:
        """Return one marker a domain, the best that no earlier domain shows (the best of all when each does)."""
        taken: set[str] = set()
        chosen = {}
        for k, markers in self.of.items():
            chosen[k] = next((m for m in markers if m.gene not in taken), markers[0])
            taken.add(chosen[k].gene)
        return chosen


def find_markers(fitted: Fitted, *, seed: int) -> Markers | None:
    """Rank genes by Welch's t between a domain and all others (scanpy's `rank_genes_groups`).

    Every domain counts with at most `PER_DOMAIN` spots, so that large ones do not drown the others. The domains were
    found from the same genes: the order means something, p values do not, and none is given.

    Parameters
    ----------
    fitted
        The fit.
    seed
        Of the sample.

    Returns
    -------
    Markers or None
        None with fewer than two domains of `FEWEST` spots, or when no gene is in every slice.
    """
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(fitted.domain == k) for k in range(int(fitted.domain.max(initial=-1)) + 1)]
    large = [g for g in groups if len(g) >= FEWEST]
    columns = np.flatnonzero(fitted.features.mask().all(axis=0))
    if len(large) < 2 or not len(columns):
        return None
    drawn = [g if len(g) <= PER_DOMAIN else rng.choice(g, size=PER_DOMAIN, replace=False) for g in large]
    rows = np.sort(np.concatenate(drawn))
    table = _ranked(fitted.normalised(rows)[:, columns], fitted.domain[rows], fitted.features.genes()[columns])
    place = {gene: int(c) for gene, c in zip(fitted.features.genes()[columns].tolist(), columns, strict=True)}
    of = {}
    for k, entries in table.items():
        of[k] = tuple(
            Marker(gene=gene, symbol=fitted.symbols.get(gene, gene), column=place[gene], change=c, inside=i, outside=o)
            for gene, c, i, o in entries
        )
    return Markers(
        of={k: m for k, m in of.items() if m},
        spots=len(rows),
        genes=len(columns),
        sampled=any(len(g) > PER_DOMAIN for g in large),
    )


def _ranked(
    X: Any, domain: NDArray[np.integer], genes: NDArray[np.str_]
) -> dict[int, list[tuple[str, float, float, float]]]:
    """Return (gene, log₂ change, share inside, share outside) of the best genes by domain."""
    import anndata
    import pandas as pd

    with warnings.catch_warnings():
        # scanpy announces changes of its defaults, and divides by the spread of genes without any
        warnings.simplefilter("ignore")
        from scanpy.tools import rank_genes_groups

        numbers = [str(k) for k in np.unique(domain)]
        obs = pd.DataFrame({"domain": pd.Categorical(domain.astype(str), categories=numbers)})
        obs.index = obs.index.astype(str)
        data = anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=pd.Index(genes.tolist())))
        rank_genes_groups(data, "domain", method="t-test", n_genes=LISTED, pts=True)
    found = data.uns["rank_genes_groups"]
    table = {}
    for k in numbers:
        names = [str(g) for g in found["names"][k]]
        inside, outside = (found[part].loc[names, k] for part in ("pts", "pts_rest"))
        entries = zip(names, found["logfoldchanges"][k], found["scores"][k], inside, outside, strict=True)
        table[int(k)] = [(g, float(c), float(i), float(o)) for g, c, score, i, o in entries if c > 0 and score > 0]
    return table
