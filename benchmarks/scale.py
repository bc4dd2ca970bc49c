"""From ten thousand to a million spots: time, memory, disk and their exponents → results/scale.json.

Rows are merged into the file as they finish, so sizes can be run one at a time.
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.data import data_root, environment, out_path, read_results, say, write_results
from benchmarks.exponents import exponents
from benchmarks.integration import Simulation, integrated, simulated
from benchmarks.products import products
from benchmarks.steps import step_parts, wait_policy

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
PARTS = ("sizes", "iss", "steps", "products", "wait")
DOMAINS = 7
ISS = "iss_coronal"
ISS_DOMAINS = 12
"""About as many as the coarse divisions of a coronal section of the mouse brain. The set has no annotation of
domains, so this number decides how much the mixture has to do, and nothing is scored."""
STEP_SPOTS, WAIT_SPOTS = 100_000, 30_000
TARGETS = {
    "1 000 000 spots, seconds": 3600.0,
    "1 000 000 spots, peak RSS, GB": 6.0,
    "100 000 spots, seconds": 480.0,
    "100 000 spots, peak RSS, GB": 3.0,
    "exponent of total time, 100 000 … 1 000 000": 1.05,
    "exponent of seconds per step, 100 000 … 1 000 000, absolute": 0.1,
    "peak RSS, 1 000 000 over 100 000 spots": 1.5,
    "iss_coronal, seconds": 600.0,
    **{f"planned against measured peak RSS, {n} spots, relative": 0.25 for n in ("10 000", "100 000", "1 000 000")},
}
GB_PER_MIB = 2**20 / 1e9
WHAT = (
    "`stscale integrate` of simulated slices and of iss_coronal, each in a process of its own; seconds with the "
    "imports; peak_rss_mib is VmHWM of that process, a stage's peak_mib is sampled every 50 ms and both count pages "
    "of mapped files; disk is that of the run folder (left: at the end; peak: sampled every 2 s), MiB of blocks; "
    "simulation is not part of any of it; ari is against the simulated domains"
)


def judged(results: dict[str, Any]) -> dict[str, Any]:
    """Return measured value, target and whether it is met; a target whose rows are missing is left out."""
    rows = results["rows"]
    found: dict[str, float | None] = {}
    for n, title in ((1_000_000, "1 000 000 spots"), (100_000, "100 000 spots")):
        if str(n) in rows:
            cost = rows[str(n)]["integrate"]
            found[f"{title}, seconds"] = cost["seconds"]
            found[f"{title}, peak RSS, GB"] = cost["peak_rss_mib"] * GB_PER_MIB
    if {"100000", "1000000"} <= set(rows):
        large = {name: values["large"] for name, values in results["exponents"].items()}
        peaks = [rows[n]["integrate"]["peak_rss_mib"] for n in ("1000000", "100000")]
        found["exponent of total time, 100 000 … 1 000 000"] = large["total"]
        step = large["step"]
        name = "exponent of seconds per step, 100 000 … 1 000 000, absolute"
        found[name] = None if step is None else abs(step)
        found["peak RSS, 1 000 000 over 100 000 spots"] = peaks[0] / peaks[1]
    for n in ("10 000", "100 000", "1 000 000"):
        share = planned(rows.get(n.replace(" ", ""), {}))
        found[f"planned against measured peak RSS, {n} spots, relative"] = None if share is None else abs(share - 1)
    if ISS in rows:
        found["iss_coronal, seconds"] = rows[ISS]["integrate"]["seconds"]
    return {
        name: {"measured": found[name], "target": target, "met": found[name] <= target}
        for name, target in TARGETS.items()
        if found.get(name) is not None
    }


def planned(row: dict[str, Any]) -> float | None:
    """Return predicted over measured peak memory; None where the run made no plan."""
    plan = row.get("plan") or {}
    return plan["ram_mb"] / row["integrate"]["peak_rss_mib"] if plan.get("ram_mb") else None


def merged(results: dict[str, Any], name: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return the results with one row put in, rows in the order of their size, exponents and targets anew."""
    rows = {**results.get("rows", {}), name: row}
    ordered = dict(sorted(rows.items(), key=lambda item: (item[0] == ISS, item[1]["spots"])))
    out = {**results, "rows": ordered, "exponents": exponents([r for n, r in ordered.items() if n != ISS])}
    return {**out, "targets": judged(out)}


def checked(results: dict[str, Any], settings: dict[str, Any], *, smoke: bool) -> dict[str, Any]:
    """Return the results, with their settings; rows of different settings do not go into one file.

    Raises
    ------
    SystemExit
        When the file was made with others.
    """
    if results and (results["settings"], results["smoke"]) != (settings, smoke):
        raise SystemExit(f"the file holds rows of {results['settings']}, not {settings}: give another one with --out")
    return {"what": WHAT, "smoke": smoke, "settings": settings, "rows": {}, **results}


def row(given: argparse.Namespace, name: str, folder: Path, threads: int) -> dict[str, Any]:
    """Measure one row: simulated spots (`name` is their number), or the real set."""
    words = ["--device", "cpu", *(["--set", "train.steps=20"] if given.smoke else [])]
    words += ["--set", f"run.max_ram={given.max_ram}"] if given.max_ram else []
    if name == ISS:
        files, domains = sorted(str(p) for p in (data_root() / ISS).glob("*.h5ad")), ISS_DOMAINS
        if not files:
            raise SystemExit(f"no .h5ad in {data_root() / ISS}; point STSCALE_DATA at the folder that holds {ISS}")
        cost = None
    else:
        domains = DOMAINS
        what = Simulation(spots=int(name), slices=given.slices, genes=given.genes, seed=given.seed)
        files, cost = simulated(what, folder, threads)
    before = environment(threads)
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as home:
        done = integrated(files, Path(home) / "run", domains=domains, threads=threads, words=words)
    then = {name: before[name] for name in ("date", "threads", "load_before")}
    return {"environment": then, "domains": domains, "simulate": cost, **done}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="simulated spots, in all slices")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only-iss", action="store_const", dest="only", const=["iss"], help="the real set alone")
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=7, help="of the simulation; integrate keeps its default")
    parser.add_argument("--max-ram", help="budget given to integrate, for example 6G; default: none given")
    parser.add_argument("--keep", type=Path, help="folder where simulated slices stay and are looked for")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/scale.json; rows are merged into it")
    parser.add_argument("--smoke", action="store_true", help="two small sizes and 20 steps: does it run?")
    given = parser.parse_args()
    if given.smoke:
        given.slices, given.genes, given.sizes = 3, 100, [600, 1200]
        given.only = [part for part in given.only if part != "iss"]
    return given


def main() -> None:
    """Measure what is asked for and merge it into the result file, piece by piece."""
    from stscale.threads import available_cores

    given = arguments()
    path = out_path(given.out, "scale.json", smoke=given.smoke)
    threads = given.threads or available_cores()
    settings = {name: getattr(given, name) for name in ("slices", "genes", "seed", "max_ram")}
    checked(read_results(path), settings, smoke=given.smoke)

    def keep(change: dict[str, Any], name: str | None = None) -> None:
        # read anew: another part may have been written meanwhile
        results = checked(read_results(path), settings, smoke=given.smoke)
        results = merged(results, name, change) if name else {**results, **change}
        write_results(path, {**results, "environment": environment(threads)})

    with ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stscale-scale-")))
        folder.mkdir(parents=True, exist_ok=True)
        names = [str(n) for n in given.sizes] if "sizes" in given.only else []
        for name in [*names, *([ISS] if "iss" in given.only else [])]:
            found = row(given, name, folder, threads)
            keep(found, name)
            cost, ari = found["integrate"], found["ari"]
            scored = "" if ari is None else f", ARI {ari:.3f}"
            say(f"{name}: {cost['seconds']:.1f} s, {cost['peak_rss_mib']:.0f} MiB{scored}")
        small = {"slices": given.slices, "genes": given.genes, "seed": given.seed}
        if "steps" in given.only:
            what = Simulation(spots=given.sizes[0] if given.smoke else STEP_SPOTS, **small)
            keep({"steps": step_parts(what, folder, DOMAINS, threads, steps=20 if given.smoke else 100)})
        if "wait" in given.only:
            what = Simulation(spots=given.sizes[0] if given.smoke else WAIT_SPOTS, **small)
            shape = {"steps": 30 if given.smoke else 100, "repeats": 1 if given.smoke else 3}
            keep({"wait_policy": wait_policy(what, folder, DOMAINS, threads, **shape)})
        if "products" in given.only:
            keep({"products": products(threads, smoke=given.smoke)})
    say(f"written: {path}")


if __name__ == "__main__":
    main()
