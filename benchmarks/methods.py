"""The three methods and the untrained floor: single and joint slices, ablations, cost → results/methods.json.

Every fit is given the true K, never sees a label, has a fixed budget, and its last step counts. The column "oracle"
is the best kept checkpoint by the true ARI: how this family's public code reports, and nothing a user could have.
"""

import argparse
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.child import call
from benchmarks.data import SETS, environment, out_path, read_results, say, slice_files, write_results
from benchmarks.exponents import exponent
from benchmarks.integration import Simulation, integrated, simulated
from stscale.config import STEPS

METHODS = ("spotscape", "mhal", "stmfg", "smooth")
TITLES = {"spotscape": "Spotscape", "mhal": "MHAL", "stmfg": "stMFG", "smooth": "smooth (nothing trained)"}
FLOOR = {"151673": 0.548, "151674": 0.603, "151675": 0.471, "151676": 0.569}
"""ARI of the untrained floor on single cortex slices: PCA 50, two smoothings, tied mixture on 20 PCs, ten starts."""
PUBLISHED = {"151673": 0.609, "151674": 0.596, "151675": 0.545, "151676": 0.577}
"""ARI of Spatial-MGCN's published assignments, best epoch by the true labels."""
SECTIONS = ("A1", "B1", "C1", "D1")
ABLATED = ("151673", "151674")
SIZES = (10_000, 100_000)
GENES = 2_000
CHECKPOINTS = 4
"""Kept of a training, for the oracle; of the first seed."""
MIXTURE: dict[str, dict[str, Any]] = {"domains": {"spatial": 0.0}}
"""Neighbours have no say: it would smooth out what is compared."""
ALONE: dict[str, dict[str, Any]] = {"domains": {"spatial": 0.0, "smoothed": 0.0}}
"""Ablations look at the latents alone: smoothed components beside them would hide what a term does."""
SMOKE = {"train": {"steps": 10}}
PLAIN = {"report": {"umap": False, "markers": False, "quality": False}}
"""A report that costs next to nothing: it is not what is measured."""
NOTES = {
    "k": "the true number of domains is given to every method",
    "epoch": f"fixed budget, last step; oracle: the best of {CHECKPOINTS} evenly spaced checkpoints of the first seed "
    "by the true ARI, each clustered as the last one, ten starts",
    "domains": "of the mixture alone, neighbours have no say (domains.spatial = 0)",
    "ablations": "of the latents alone, without smoothed components beside them",
    "seconds": "of the method's own stages (graphs of views, training, embedding, domains), on one thread beside "
    "another fit; cost is measured apart",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is fitted together and scored.

    Attributes
    ----------
    name
        In the tables.
    title
        Of the set it belongs to, see `benchmarks.data.SETS`.
    files
        The slices.
    """

    name: str
    title: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A method with some of its parts left out.

    Attributes
    ----------
    title
        For the table.
    method
        Its name.
    changes
        {section: {option: value}} over the defaults.
    """

    title: str
    method: str
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)


def ablations() -> dict[str, Variant]:
    """Return the variants of MHAL and stMFG by key."""
    found = {}
    for method, terms in (("mhal", ("pcl", "psa", "saf", "zinb", "gw")), ("stmfg", ("zinb", "nce", "reg"))):
        found[method] = Variant(title=TITLES[method], method=method, changes=ALONE)
        for term in terms:
            changes = {method: {"without": [term]}, **ALONE}
            title = f"{TITLES[method]} − {term.upper()}"
            found[f"{method}-{term}"] = Variant(title=title, method=method, changes=changes)
    late = {"stmfg": {"fusion": "late"}, **ALONE}
    found["stmfg-late"] = Variant(title="stMFG, late fusion", method="stmfg", changes=late)
    assigned = {"domains": {"method": "assignment", "spatial": 0.0}}
    found["mhal-assignment"] = Variant(title="MHAL, labels from Q", method="mhal", changes=assigned)
    return found


def cases(part: str) -> list[Case]:
    """Return what a part of the table fits."""
    cortex = slice_files("dlpfc")
    if part == "joint":
        return [Case(name="dlpfc, four slices", title="dlpfc", files=tuple(cortex))]
    if part == "cortex":
        return [Case(name=_stem(f), title="dlpfc", files=(f,)) for f in cortex]
    if part == "ablations":
        return [Case(name=_stem(f), title="dlpfc", files=(f,)) for f in cortex if _stem(f) in ABLATED]
    sections = [f for f in slice_files("her2st") if _stem(f) in SECTIONS]
    return [Case(name=_stem(f), title="her2st", files=(f,)) for f in sections]


def _stem(file: str) -> str:
    return Path(file).stem


def one(case: Case, variant: Variant, seed: int, kept: bool, smoke: bool) -> dict[str, Any]:
    """Fit and score one variant with one seed, on one thread."""
    tissue = SETS[case.title]
    every = max(1, STEPS[variant.method] // CHECKPOINTS) if kept and variant.method in STEPS else 0
    changes = {"run": {"method": variant.method}, **PLAIN, **MIXTURE, **variant.changes, **(SMOKE if smoke else {})}
    with tempfile.TemporaryDirectory(prefix="stscale-methods-") as folder:
        out = str(Path(folder) / "run")
        common = {"files": list(case.files), "out": out, "k": tissue.k, "seed": seed, "threads": 1}
        done = call("benchmarks.methods_fit:fit", {**common, "changes": changes, "every": every}, threads=1)
        arguments = {"out": out, "unlabelled": list(tissue.unlabelled), "threads": 1}
        scored = call("benchmarks.quality:score", arguments, threads=1).value["parts"]["labels"]
        seen = call("benchmarks.methods_fit:oracle", arguments, threads=1).value if every else []
    best = max(seen, key=lambda entry: entry["ari"], default=None)
    row = {"seed": seed, **done.value, "peak_rss_mib": done.peak_rss_mib}
    row |= {name: scored[name] for name in ("ari", "nmi", "clustering_accuracy")}
    say(f"{case.name} {variant.title} seed {seed}: ARI {row['ari']:.3f}, oracle {best and round(best['ari'], 3)}")
    return {**row, "oracle": best, "checkpoints": seen}


def measured(part: str, variants: dict[str, Variant], given: argparse.Namespace) -> dict[str, Any]:
    """Fit every variant on every case of a part, several at a time."""
    kept = part != "ablations"
    wanted = [(case, key, seed) for case in cases(part) for key in variants for seed in given.seeds]
    with ThreadPoolExecutor(given.workers) as pool:
        rows = list(
            pool.map(lambda w: one(w[0], variants[w[1]], w[2], kept and w[2] == given.seeds[0], given.smoke), wanted)
        )
    found: dict[str, Any] = {}
    for (case, key, _), row in zip(wanted, rows, strict=True):
        entry = found.setdefault(key, {"title": variants[key].title, "cases": {}})
        entry["cases"].setdefault(case.name, []).append(row)
    return found


def cost(method: str, spots: int, folder: Path, threads: int, smoke: bool) -> dict[str, Any]:
    """Measure one integration of ten simulated slices."""
    what = Simulation(spots=spots, slices=10, genes=100 if smoke else GENES, seed=7)
    files, _ = simulated(what, folder, threads)
    words = ["--method", method, *(["--set", "train.steps=10"] if smoke else [])]
    with tempfile.TemporaryDirectory(prefix="stscale-methods-") as out:
        found = integrated(files, Path(out) / "run", domains=7, threads=threads, words=words)
    done = found["integrate"]
    say(f"{method} {spots} spots: {done['seconds']:.0f} s, {done['peak_rss_mib']:.0f} MiB, ARI {found['ari']}")
    return {"seconds": done["seconds"], "peak_rss_mib": done["peak_rss_mib"], "ari": found["ari"], **found}


def judged(results: dict[str, Any]) -> dict[str, Any]:
    """Compare with the targets, by title."""
    found: dict[str, Any] = {}
    floor = statistics.mean(FLOOR.values())
    for entry in (entry for key, entry in results.get("cortex", {}).items() if key != "smooth"):
        mean = statistics.mean(row["ari"] for rows in entry["cases"].values() for row in rows)
        title = f"{entry['title']}: mean ARI over single cortex slices and seeds, last step"
        found[title] = {"measured": mean, "target": floor, "at_least": True, "met": mean > floor}
    for method, sizes in results.get("cost", {}).items():
        if len(sizes) > 1:
            for name, said in (("seconds", "seconds"), ("peak_rss_mib", "memory")):
                grown = exponent([int(n) for n in sizes], [row[name] for row in sizes.values()])
                title = f"{TITLES[method]}: exponent of {said} over the number of spots"
                met = grown is not None and grown <= 1.1
                found[title] = {"measured": grown, "target": 1.1, "at_least": False, "met": met}
        if "100000" in sizes and method in ("mhal", "stmfg"):
            row = sizes["100000"]
            for value, target, said in ((row["seconds"], 900.0, "s"), (row["peak_rss_mib"] * 2**20 / 1e9, 4.0, "GB")):
                title = f"{TITLES[method]}: 10 × 10 000 simulated spots, {said}"
                found[title] = {"measured": value, "target": target, "at_least": False, "met": value <= target}
    return found


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parts = ("cortex", "joint", "sections", "ablations", "cost")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--variants", nargs="+", choices=list(ablations()), default=list(ablations()))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="spots of the cost part")
    parser.add_argument("--workers", type=int, default=2, help="fits at a time, one thread each")
    parser.add_argument("--threads", type=int, default=0, help="of the cost part; 0: all cores")
    parser.add_argument("--keep", type=Path, help="folder where simulated slices stay and are looked for")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/methods.json; parts are merged into it")
    parser.add_argument("--smoke", action="store_true", help="10 steps, seed 0, few spots: does it run?")
    given = parser.parse_args()
    if given.smoke:
        given.seeds, given.sizes = [0], [1_000]
    return given


def main() -> None:
    """Measure what is asked for and merge it into the result file, piece by piece."""
    from stscale.threads import available_cores

    given = arguments()
    path = out_path(given.out, "methods.json", smoke=given.smoke)
    threads = given.threads or available_cores()

    def keep(part: str, found: dict[str, Any]) -> None:
        results = {"notes": NOTES, "smoke": given.smoke, **read_results(path)}
        results[part] = {**results.get(part, {}), **found}
        results |= {"environment": environment(threads)}
        results["targets"] = judged(results)
        write_results(path, results)

    for part in (p for p in given.only if p != "cost"):
        known = {m: Variant(title=TITLES[m], method=m) for m in given.methods}
        if part == "ablations":
            known = {key: v for key, v in ablations().items() if key in given.variants}
        for key, variant in known.items():
            keep(part, measured(part, {key: variant}, given))
    if "cost" in given.only:
        with tempfile.TemporaryDirectory(prefix="stscale-methods-") as scratch:
            folder = given.keep or Path(scratch)
            for method in given.methods:
                found = {str(n): cost(method, n, folder, threads, given.smoke) for n in given.sizes}
                before = read_results(path).get("cost", {}).get(method, {})
                keep("cost", {method: {**before, **found}})
    say(f"written: {path}")


if __name__ == "__main__":
    main()
