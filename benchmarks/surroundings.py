"""Rounds of averaging: what predicts spots best, and what finds their domains → results/surroundings.json.

Beside sets of the protocol, tissue of cells whose domains differ by how often kinds of cells occur: kinds, not domains,
have an expression, and the domains' shares of kinds are drawn from a Dirichlet distribution, apart (its concentration
0.3) or close to each other (1.0).
"""

import argparse
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import tissues
from benchmarks.data import RESULTS, environment, read_results, say, write_results
from benchmarks.tissues import SHAPES, Tissue, prepared
from benchmarks.trial import floor_latents, scored

if TYPE_CHECKING:
    from benchmarks.tissues import Prepared

ROUNDS = (1, 2, 4, 8)
KINDS, CELL_GENES, CELL_LIBRARY, MARKERS = 10, 300, 200.0, 12
CELL_SLICES = 3
CONCENTRATIONS = (0.3, 1.0)
CELLS = {f"cells-{shape}-{c}": (shape, c) for shape in ("layers", "patches") for c in CONCENTRATIONS}
SETS = ("dlpfc", "dlpfc-151673", "her2st", "layers-none", "patches-mild", "rare-strong", *CELLS)
NOTES = {
    "labels": "score the domains of `--method smooth`, K given; what predicts spots best is told without them",
    "losses": "generalised cross-validation of averages over the surroundings, in that of the best number of rounds",
    "advised": "the fewest rounds within 2 % of the best; a run says so where these are more than it averaged",
}


def cells(name: str, folder: Path) -> Tissue:
    """Return a set of cells on the places and domains of a simulated tissue, made under `folder` once."""
    shape, concentration = CELLS[name]
    plain = tissues.tissue(f"{shape}-none", folder)
    files = [folder / "cells" / name / f"{Path(f).stem}.h5ad" for f in plain.files[:CELL_SLICES]]
    if not all(file.exists() for file in files):
        files[0].parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(tissues.TISSUE_SEED)
        profile = _profiles(rng)
        shares = rng.dirichlet(np.full(KINDS, concentration), size=SHAPES[shape]["domains"])
        for source, file in zip(plain.files, files, strict=False):
            _write(source, file, profile, shares, rng)
    return Tissue(name=name, files=tuple(map(str, files)), k=plain.k)


def _profiles(rng: np.random.Generator) -> NDArray[np.float64]:
    """Share of each gene in the counts of each kind, (KINDS, CELL_GENES)."""
    change = 0.2 * rng.standard_normal((KINDS, CELL_GENES))
    for row in change:
        row[rng.choice(CELL_GENES, MARKERS, replace=False)] += rng.normal(2.0, 0.5, MARKERS)
    profile = rng.gamma(1.0, 1.0, CELL_GENES) * np.exp(change)
    return np.asarray(profile / profile.sum(axis=1, keepdims=True))


def _write(
    source: str, file: Path, profile: NDArray[np.float64], shares: NDArray[np.float64], rng: np.random.Generator
) -> None:
    import anndata as ad
    import pandas as pd
    from scipy import sparse

    from stscale.slices import SliceStore

    store = SliceStore.open(Path(source))
    domain = store.obs()["domain"].astype(str).to_numpy()
    number = np.array([int(name.rpartition("-")[2]) - 1 for name in domain])
    kind = np.array([rng.choice(KINDS, p=shares[d]) for d in number])
    library = CELL_LIBRARY * np.exp(0.4 * rng.standard_normal(len(kind)))
    made = ad.AnnData(
        sparse.csr_matrix(rng.poisson(profile[kind] * library[:, None]).astype(np.float32)),
        obs=pd.DataFrame({"domain": domain}, index=[f"{file.stem}_{i}" for i in range(len(kind))]),
        var=pd.DataFrame(index=[f"gene-{i:03d}" for i in range(CELL_GENES)]),
    )
    made.obsm["spatial"] = store.coordinates()
    made.write_h5ad(file)


def measured(given: "Prepared", rounds: int, seed: int, work: Path, *, mixing: bool = False) -> dict[str, Any]:
    """Return the scores of smoothed components, clustered as a run of `--method smooth` does."""
    from stscale.analysis.domains import beside_neighbors, cluster
    from stscale.config import Domains

    domains, z = Domains(k=given.tissue.k), floor_latents(given, work, rounds=rounds)
    fit = cluster(z, domains, seed=seed)
    graph = given.graph
    fit = beside_neighbors(fit, z, graph.indptr, graph.indices, strength=domains.spatial)
    return scored(given, z, fit.labels, mixing=mixing)


def main() -> None:
    """Measure the sets asked for and merge them into the result file."""
    from stscale.analysis.scale import spatial_scale
    from stscale.config import Preprocess
    from stscale.threads import set_threads

    parser = argparse.ArgumentParser(prog="python -m benchmarks.surroundings", description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, metavar="SET")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--work", type=Path, required=True, help="features and graphs are kept here")
    parser.add_argument("--out", type=Path, default=RESULTS / "surroundings.json", help="sets are merged into it")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    set_threads(1)
    for name in given.sets:
        tissue = cells(name, given.work) if name in CELLS else None
        found = prepared(name, given.work, Preprocess(), given=tissue)
        scale = spatial_scale(found.features.pca, found.graph.indptr, found.graph.indices, seed=0)
        aris = {str(r): [float(measured(found, r, seed, given.work)["ari"]) for seed in given.seeds] for r in ROUNDS}
        part: dict[str, Any] = {"k": found.tissue.k, "spots": found.features.n, "seeds": list(given.seeds)}
        part |= {"losses": {str(r): v for r, v in scale.losses.items()}, "advised": scale.rounds, "ari": aris}
        results = read_results(given.out)
        results.setdefault("sets", {})[name] = part
        results |= {"notes": NOTES, "environment": environment(1)}
        write_results(given.out, results)
        mean = {r: round(statistics.fmean(values), 3) for r, values in aris.items()}
        say(f"{name}: {scale.rounds} rounds advised, ARI {mean}")


if __name__ == "__main__":
    main()
