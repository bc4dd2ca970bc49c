"""Slices that do not hold the same tissue: scores around means, or beside kinds → results/composition.json.

Slices are cut along the depth of their layers (a quadratic of the places, fitted to the annotation, which nothing else
here reads): in `halves` every other slice keeps the upper 62 %, the others the lower 62 %; in `two` the first slice
keeps the upper 70 % and the last the lower 60 %; in `one` the first keeps the upper 62 %. To cortex, effects of a slice
on a gene are added by keeping each count with a probability of its own for every gene and slice.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import tissues
from benchmarks.data import RESULTS, environment, read_results, say, write_results
from benchmarks.downstream_fit import changed
from benchmarks.levers import LEVERS, embedding
from benchmarks.surroundings import measured
from benchmarks.tissues import Prepared, Tissue, prepared
from benchmarks.trial import clustered, scored

if TYPE_CHECKING:
    import anndata

    from stscale.config import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A set of the protocol of which slices keep a part.

    Attributes
    ----------
    of
        The set.
    way
        `"halves"`, `"two"`, `"one"` or `"whole"`.
    effect
        Standard deviation of the natural-log effect of a slice on a gene that is added.
    """

    of: str
    way: str
    effect: float = 0.0


CUTS = {
    f"{of}-{way}" + (f"-{effect}" if effect else ""): Cut(of=of, way=way, effect=effect)
    for of, way, effects in (
        ("dlpfc", "halves", (0.0, 0.3, 0.7)),
        ("dlpfc", "two", (0.0, 0.3, 0.7)),
        ("dlpfc", "one", (0.0,)),
        ("dlpfc", "whole", (0.3, 0.7)),
        ("layers-none", "halves", (0.0,)),
        ("layers-strong", "halves", (0.0,)),
        ("patches-none", "halves", (0.0,)),
        ("patches-strong", "halves", (0.0,)),
    )
    for effect in effects
}
TRAINED = ("dlpfc-halves", "dlpfc-two")
MAPPED = ("dlpfc-halves", "dlpfc-halves-0.3", "dlpfc-two")
CENTERS = {
    "kinds": "`kinds` (default)",
    "slice": "`slice`",
    "all": "`all`",
}
PARTS = {"halves": (0.62, 0.38), "two": (0.7, 0.4), "one": (0.62, 0.0)}
SHOWN = ("ari", "ilisi", "ceiling")
ACROSS = 3
"""Spots of the slice beside that each is joined to, as with `--align`."""
NOTES = {
    "cuts": "ARI of the domains of `--method smooth`, and of the default where `trained` is; K given",
    "root": "the same with heights by the root of the share (`preprocess.gain = 'slice'`), where effects were added",
    "gain": "what moves take away of the variance within kinds of pieces left out, mean of nine searches; own: of "
    "one slice at most, the least of nine; slices are moved where the one is over 0.01 or the other over 0.1",
    "whole": "the same of the sets as they are",
    "seeds": "gain by the seed of the components",
    "mapped": "the last slice onto a run (`--method smooth`) of the others: ARI of its domains, and accuracy when a "
    "domain stands for the annotation that most of its spots have in the run; verdicts on it, and on it with the names "
    "of its genes exchanged, among all or among those of like abundance (programmes)",
}
SEED = 7
SEEDED, SEEDS = ("dlpfc", "dlpfc-halves-0.3"), 8
"""The whole and the cut set whose gains are closest to the bound, and over how many seeds they are looked at."""


def cut(name: str, folder: Path) -> Tissue:
    """Return a cut set, made under `folder` once."""
    made = CUTS[name]
    whole = tissues.tissue(made.of, folder)
    files = [folder / "cut" / name / f"{Path(f).stem}.h5ad" for f in whole.files]
    rng = np.random.default_rng(SEED)
    for i, (source, file) in enumerate(zip(whole.files, files, strict=True)):
        adata = tissues.read(Path(source))
        counts = adata.X.tocsr()
        if made.effect:
            # around e^-effect; of the sixth that would exceed 1 all counts are kept
            kept = np.minimum(np.exp(made.effect * (rng.standard_normal(adata.n_vars) - 1.0)), 1.0)
            counts.data = rng.binomial(np.rint(counts.data).astype(int), kept[counts.indices]).astype(np.float32)
            counts.eliminate_zeros()
            adata.X = counts
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            adata[_kept(adata, made.way, i, len(files))].copy().write_h5ad(file)
    return Tissue(name=name, files=tuple(map(str, files)), k=whole.k, unlabelled=whole.unlabelled)


def _kept(adata: "anndata.AnnData", way: str, i: int, slices: int) -> NDArray[np.bool_]:
    """Say which spots of slice `i` stay."""
    if way == "halves":
        upper = i % 2 == 0
    elif way == "whole" or 0 < i < slices - (way == "two"):
        return np.ones(adata.n_obs, dtype=bool)
    else:
        upper = i == 0
    first, last = PARTS[way]
    share = depth(adata)
    return share < first if upper else share > last


def depth(adata: "anndata.AnnData") -> NDArray[np.float64]:
    """Return the share of spots less deep in the layers, whose names are in the order of depth, (n,) in [0, 1)."""
    from sklearn.linear_model import LinearRegression

    labels = adata.obs["domain"].astype(str).to_numpy()
    names = sorted(set(labels) - {"nan"})
    x, y = np.asarray(adata.obsm["spatial"], dtype=np.float64).T[:2]
    places = np.stack([x, y, x * x, y * y, x * y], axis=1)
    there = labels != "nan"
    fit = LinearRegression().fit(places[there], [names.index(label) for label in labels[there]])
    return np.asarray(np.argsort(np.argsort(fit.predict(places), kind="stable")) / len(labels))


def trained(given: Prepared, config: "Run", work: Path) -> dict[str, Any]:
    """Return the scores of the default, clustered as a run does, the true K given."""
    z = embedding(given, LEVERS["default"], config, config.seed, work)[0]
    return scored(given, z, clustered(given, config, z).labels)


def aligned(name: str, folder: Path, configs: "list[Run]") -> dict[str, list[float]]:
    """Return the scores of `--method smooth --align` by configuration, the true K given."""
    from stscale.config import Graph, Preprocess

    found = prepared(name, folder, Preprocess(), graph=Graph(across=ACROSS), given=cut(name, folder))
    scores = [measured(found, config, folder, mixing=True) for config in configs]
    return {key: [s[key] for s in scores] for key in SHOWN}


def mapped(name: str, center: str, folder: Path, seed: int) -> dict[str, Any]:
    """Map the last slice of a cut set onto a run of the others: how its domains fit, and what is called novel."""
    import anndata as ad
    import pandas as pd

    from stscale import integrate, map_slices
    from stscale.analysis.metrics import ari
    from stscale.config import Run

    own = cut(name, folder)
    *others, last = own.files
    made = folder / "mapped" / name / f"{center}-{seed}"
    options = {"run": {"method": "smooth", "seed": seed, "threads": 1}, "domains": {"k": own.k}}
    integrate(others, out=made / "run", config=Run().replace({**options, "preprocess": {"center": center}}))
    known = ad.read_zarr(made / "run" / "integrated.zarr").obs
    verdicts = {"itself": map_slices(made / "run", [last], out=made / "out", threads=1).slices[0].verdict.verdict}
    for change in ("genes", "programmes"):
        file = made / change / Path(last).name
        changed(last, str(file), change, 1.0)
        found = map_slices(made / "run", [file], out=made / f"out-{change}", threads=1)
        verdicts[change] = found.slices[0].verdict.verdict
    obs = ad.read_zarr(made / "out" / "mapped.zarr").obs
    labels = known["domain"].astype(str).replace("nan", np.nan)
    stands = pd.crosstab(known["stscale_domain"].astype(str), labels).idxmax(axis=1)
    truth, domain = obs["domain"].astype(str).to_numpy(), obs["stscale_domain"].astype(str)
    there = truth != "nan"
    accuracy = float(np.mean(domain.map(stands).to_numpy()[there] == truth[there]))
    return {
        "ari": ari(truth[there].astype(object), domain.to_numpy()[there]),
        "accuracy": accuracy,
        "verdicts": verdicts,
    }


def _gain(found: Prepared) -> dict[str, Any]:
    kinds = found.features.kinds()
    return {"gain": kinds.gain, "own": float(np.nanmax(kinds.own)), "moved": kinds.moved}


def over_seeds(name: str, folder: Path, seeds: int) -> list[float]:
    """Return the gain on a set, cut or whole, by the seed of its components."""
    from stscale.config import Preprocess

    own = cut(name, folder) if name in CUTS else None
    found = (prepared(name, folder, Preprocess(), given=own, seed=seed) for seed in range(seeds))
    return [part.features.kinds().gain for part in found]


def main() -> None:
    """Measure the sets asked for and merge them into the result file."""
    from stscale.config import Preprocess, Run
    from stscale.threads import set_threads

    whole = [name for name in [*tissues.names(), "seqfish"] if not name.startswith("dlpfc-")]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.composition", description=__doc__)
    parser.add_argument("--sets", nargs="*", choices=CUTS, default=list(CUTS), metavar="SET")
    parser.add_argument("--whole", nargs="*", choices=whole, default=whole, metavar="SET")
    parser.add_argument("--map", action=argparse.BooleanOptionalAction, default=True, help="map a slice, too")
    parser.add_argument("--train", action=argparse.BooleanOptionalAction, default=True, help="train, too")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, required=True, help="features and graphs are kept here")
    parser.add_argument("--out", type=Path, default=RESULTS / "composition.json", help="sets are merged into it")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    set_threads(1)

    def keep(kind: str, name: str, part: Any) -> None:
        results = read_results(given.out)
        results.setdefault(kind, {})[name] = part
        write_results(given.out, results | {"centers": CENTERS, "notes": NOTES, "environment": environment(1)})
        say(f"{kind} {name}: {part}")

    configs = [Run().replace({"run": {"seed": seed, "threads": 1}}) for seed in given.seeds]
    for name in given.sets:
        own = cut(name, given.work)
        part: dict[str, Any] = {"seeds": list(given.seeds), "k": own.k, "smooth": {}, "trained": {}}
        for center in CENTERS:
            found = prepared(name, given.work, Preprocess(center=center), given=own)
            scores = [measured(found, config, given.work, mixing=True) for config in configs]
            part["smooth"][center] = {key: [s[key] for s in scores] for key in SHOWN}
            if center == "kinds":
                part |= _gain(found)
            if given.train and name in TRAINED and center != "all":
                scores = [trained(found, config, given.work) for config in configs]
                part["trained"][center] = {key: [s[key] for s in scores] for key in SHOWN}
        if given.train and name in TRAINED:
            part["joined"] = aligned(name, given.work, configs)
        if CUTS[name].effect:
            found = prepared(name, given.work, Preprocess(gain="slice"), given=own)
            scores = [measured(found, config, given.work, mixing=True) for config in configs]
            part["root"] = {key: [s[key] for s in scores] for key in SHOWN}
        keep("cuts", name, part)
    for name in given.whole:
        keep("whole", name, _gain(prepared(name, given.work, Preprocess())))
    for name in SEEDED if given.whole else ():
        keep("seeds", name, over_seeds(name, given.work, SEEDS))
    for name in MAPPED if given.map else ():
        for center in ("kinds", "slice"):
            scores = [mapped(name, center, given.work, seed) for seed in given.seeds]
            keep(
                "mapped", f"{name}/{center}", {key: [s[key] for s in scores] for key in ("ari", "accuracy", "verdicts")}
            )


if __name__ == "__main__":
    main()
