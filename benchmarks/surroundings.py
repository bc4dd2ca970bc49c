"""Rounds of averaging: what predicts spots best, and what finds their domains → results/surroundings.json.

Beside sets of the protocol, tissue of cells whose domains differ by how often kinds of cells occur: kinds, not domains,
have an expression, and the domains' shares of kinds are drawn from a Dirichlet distribution, apart (its concentration
0.3) or close to each other (1.0). The bounds from which on wider surroundings weigh (`stscale.analysis.scale`) were
chosen on these sets and those of the protocol.
"""

import argparse
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import tissues
from benchmarks.data import RESULTS, environment, read_results, say, write_results
from benchmarks.tissues import SHAPES, Tissue, prepared
from benchmarks.trial import clustered, floor_parts, scored, side_by_side

if TYPE_CHECKING:
    from benchmarks.tissues import Prepared
    from stscale.config import Run

ROUNDS = (1, 2, 4, 8)
MARKERS, CELL_SLICES = 12, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """A tissue of mixed cells on the places and domains of a simulated one.

    Attributes
    ----------
    shape
        Of the domains.
    concentration
        Of the domains' shares of kinds: the larger, the more alike.
    kinds, genes, library
        Kinds of cells, genes, and counts of a cell.
    seed
        Of shares, kinds and counts.
    """

    shape: str
    concentration: float
    kinds: int = 10
    genes: int = 300
    library: float = 200.0
    seed: int = tissues.TISSUE_SEED


CELLS = {
    f"cells-{shape}-{c}": Cells(shape=shape, concentration=c) for shape in ("layers", "patches") for c in (0.3, 1.0)
}
CELLS |= {
    "cells-layers-0.5": Cells(shape="layers", concentration=0.5, kinds=16, genes=150, library=150, seed=5),
    "cells-rare-0.5": Cells(shape="rare", concentration=0.5, kinds=8, genes=300, library=150, seed=6),
    "cells-patches-0.7": Cells(shape="patches", concentration=0.7, kinds=6, genes=200, library=100, seed=7),
    "cells-gradients-0.4": Cells(shape="gradients", concentration=0.4, kinds=12, genes=300, library=300, seed=8),
    "cells-layers-0.2": Cells(shape="layers", concentration=0.2, kinds=16, genes=150, library=60, seed=9),
    "cells-patches-0.4": Cells(shape="patches", concentration=0.4, kinds=20, genes=500, library=300, seed=10),
}
SETS = ("dlpfc", "dlpfc-151673", "her2st", "iss", "layers-none", "patches-mild", "rare-strong", *CELLS)
NOTES = {
    "iss": "has no annotation; what predicts its cells is measured alone",
    "labels": "score the domains of `--method smooth`, K given; what predicts spots best is told without them",
    "losses": "generalised cross-validation of averages over the surroundings, in that of the best number of rounds",
    "wider": "rounds and weight of what a run puts beside components averaged twice, the default; null: nothing",
}


def cells(name: str, folder: Path) -> Tissue:
    """Return a set of cells on the places and domains of a simulated tissue, made under `folder` once."""
    made = CELLS[name]
    plain = tissues.tissue(f"{made.shape}-none", folder)
    files = [folder / "cells" / name / f"{Path(f).stem}.h5ad" for f in plain.files[:CELL_SLICES]]
    if not all(file.exists() for file in files):
        files[0].parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(made.seed)
        profile = _profiles(made, rng)
        shares = rng.dirichlet(np.full(made.kinds, made.concentration), size=SHAPES[made.shape]["domains"])
        for source, file in zip(plain.files, files, strict=False):
            _write(source, file, profile, shares, made.library, rng)
    return Tissue(name=name, files=tuple(map(str, files)), k=plain.k)


def _profiles(made: Cells, rng: np.random.Generator) -> NDArray[np.float64]:
    """Share of each gene in the counts of each kind, (kinds, genes)."""
    change = 0.2 * rng.standard_normal((made.kinds, made.genes))
    for row in change:
        row[rng.choice(made.genes, MARKERS, replace=False)] += rng.normal(2.0, 0.5, MARKERS)
    profile = rng.gamma(1.0, 1.0, made.genes) * np.exp(change)
    return np.asarray(profile / profile.sum(axis=1, keepdims=True))


def _write(
    source: str,
    file: Path,
    profile: NDArray[np.float64],
    shares: NDArray[np.float64],
    library: float,
    rng: np.random.Generator,
) -> None:
    import anndata as ad
    import pandas as pd
    from scipy import sparse

    from stscale.slices import SliceStore

    store = SliceStore.open(Path(source))
    domain = store.obs()["domain"].astype(str).to_numpy()
    number = np.array([int(name.rpartition("-")[2]) - 1 for name in domain])
    kind = np.array([rng.choice(len(profile), p=shares[d]) for d in number])
    size = library * np.exp(0.4 * rng.standard_normal(len(kind)))
    made = ad.AnnData(
        sparse.csr_matrix(rng.poisson(profile[kind] * size[:, None]).astype(np.float32)),
        obs=pd.DataFrame({"domain": domain}, index=[f"{file.stem}_{i}" for i in range(len(kind))]),
        var=pd.DataFrame(index=[f"gene-{i:03d}" for i in range(profile.shape[1])]),
    )
    made.obsm["spatial"] = store.coordinates()
    made.write_h5ad(file)


def measured(given: "Prepared", config: "Run", work: Path, *, mixing: bool = False) -> dict[str, Any]:
    """Return the scores of smoothed components, clustered as a run of `--method smooth` does, the true K given."""
    z = side_by_side(floor_parts(given, config, work))
    return scored(given, z, clustered(given, config, z).labels, mixing=mixing)


def main() -> None:
    """Measure the sets asked for and merge them into the result file."""
    from stscale.analysis.scale import spatial_scale
    from stscale.config import Preprocess, Run
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
        options, graph = Run(), found.graph
        used = options.smooth.rounds
        scale = spatial_scale(found.features.pca, graph.indptr, graph.indices, used=used, seed=0)
        wider = scale.wider(options.domains.wider)
        alone = {str(r): {"smooth": {"rounds": r}, "domains": {"wider": 0.0}} for r in ROUNDS}
        aris: dict[str, list[float]] = {}
        annotated = any(label is not None for label in found.labels)
        for way, changes in ({**alone, "run": {}} if annotated else {}).items():
            if way == "run" and wider is None:
                aris[way] = aris[str(used)]
                continue
            configs = [options.replace({**changes, "run": {"seed": seed}}) for seed in given.seeds]
            aris[way] = [float(measured(found, config, given.work)["ari"]) for config in configs]
        part: dict[str, Any] = {"k": found.tissue.k, "spots": found.features.n, "seeds": list(given.seeds)}
        part |= {"losses": {str(r): v for r, v in scale.losses.items()}, "least": scale.rounds, "gain": scale.gain}
        part |= {"wider": asdict(wider) if wider else None, "ari": aris}
        results = read_results(given.out)
        results.setdefault("sets", {})[name] = part
        results |= {"notes": NOTES, "environment": environment(1)}
        write_results(given.out, results)
        mean = {r: round(statistics.fmean(values), 3) for r, values in aris.items()}
        say(f"{name}: {wider}, ARI {mean}")


if __name__ == "__main__":
    main()
