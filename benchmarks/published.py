"""The same model with the terms as published (dense, full batch) against stscale's own form → results/published.json.

Per epoch, one pass over all spots, up to the largest size whose dense form fits the memory limit; and, per whole
run, methods of others where their packages are installed.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.baselines import BASELINES, compared
from benchmarks.child import ChildError, call
from benchmarks.data import environment, out_path, read_results, say, write_results

SIZES = (1_000, 2_000, 5_000, 10_000, 15_000, 20_000, 25_000, 30_000, 35_000, 40_000)
LIMIT_GB = 24.0
MATRICES = 7
"""n × n float32 matrices that the dense form is taken to need until a size has been measured."""
WARM_UP_TO = 5_000
REPEATS = 5
RESERVE_MIB = 1024
"""Left to the system when the limit is cut to what is available."""
TARGETS = {"time": 50.0, "memory": 10.0}
WHAT = (
    "seconds per epoch (one pass over all spots), median of the repeats, and peak RSS (VmHWM), each size and form in "
    "a process of its own, through the same training loop; random features (50 columns) and points; one warm-up "
    f"epoch up to {WARM_UP_TO} spots. published: full batch, one n × n similarity matrix with gradient shared by both "
    "terms, top k by masking that matrix per slice, k-means of the prototypes every epoch. own: the default options. "
    "Prototypes from the first step in both. memory_ratio compares peak RSS, memory_ratio_above_imports what is "
    "above the peak after imports and a tiny training"
)


def estimate_mib(n: int, measured: list[dict[str, Any]]) -> float:
    """Predict the dense form's peak memory: from the largest size measured, else from the number of matrices.

    Parameters
    ----------
    n
        Spots.
    measured
        Finished sizes, each with n and the published form's peak and baseline.
    """
    known = [row for row in measured if "peak_rss_mib" in row.get("published", {}) and row["n"] >= WARM_UP_TO]
    if not known:
        return MATRICES * 4 * n**2 / 2**20
    last = max(known, key=lambda row: row["n"])
    form = last["published"]
    above = max(form["peak_rss_mib"] - form["baseline_mib"], 0.0)
    return form["baseline_mib"] + above * (n / last["n"]) ** 2


def limit_mib(limit_gb: float) -> float:
    """Return the memory limit, cut to what the machine has available, MiB."""
    import psutil

    return min(limit_gb * 1e9 / 2**20, psutil.virtual_memory().available / 2**20 - RESERVE_MIB)


def timed(n: int, form: str, repeats: int, given: argparse.Namespace, threads: int, limit: float) -> dict[str, Any]:
    """Measure one form at one size in a child."""
    arguments = {"n": n, "form": form, "slices": given.slices, "warm": int(n <= WARM_UP_TO), "epochs": repeats}
    done = call("benchmarks.epochs:measure", {**arguments, "threads": threads, "limit_mib": limit}, threads=threads)
    value = done.value
    # no growth above the baseline can be measured below a page cache's noise: at least 1 MiB
    above = max(done.peak_rss_mib - value["baseline_mib"], 1.0)
    found = {**value, "median": statistics.median(value["seconds"]), "peak_rss_mib": done.peak_rss_mib}
    say(f"n {n} {form}: {found['median']:.4g} s per epoch, {done.peak_rss_mib:.0f} MiB")
    return {**found, "above_baseline_mib": above}


def size(n: int, given: argparse.Namespace, threads: int, limit: float) -> dict[str, Any]:
    """Measure both forms at one size; the published one may not fit."""
    entry: dict[str, Any] = {"n": n, "own": timed(n, "own", given.repeats, given, threads, limit)}
    try:
        repeats = given.repeats if n <= WARM_UP_TO else max(1, given.repeats // 2) if n <= 2 * WARM_UP_TO else 1
        dense = timed(n, "published", repeats, given, threads, limit)
    except ChildError as error:
        if not error.out_of_memory:
            raise
        say(f"n {n} published: did not fit {limit:.0f} MiB")
        return {**entry, "published": {"did_not_fit": f"more than {limit:.0f} MiB"}}
    own = entry["own"]
    return {
        **entry,
        "published": dense,
        "time_ratio": dense["median"] / own["median"],
        "memory_ratio": dense["peak_rss_mib"] / own["peak_rss_mib"],
        "memory_ratio_above_imports": dense["above_baseline_mib"] / own["above_baseline_mib"],
    }


def judged(sizes: list[dict[str, Any]]) -> dict[str, Any]:
    """Judge the ratios at the largest size whose published form fitted."""
    fitted = [row for row in sizes if "time_ratio" in row]
    if not fitted:
        return {}
    last = max(fitted, key=lambda row: row["n"])
    pairs = (
        ("time per epoch", "time_ratio", TARGETS["time"]),
        ("peak RSS", "memory_ratio", TARGETS["memory"]),
        ("peak RSS above the imports", "memory_ratio_above_imports", TARGETS["memory"]),
    )
    return {
        f"{name}, published over own, {last['n']} spots": {
            "measured": last[key],
            "target": target,
            "at_least": True,
            "met": last[key] >= target,
        }
        for name, key, target in pairs
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published", description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--only", nargs="+", choices=("sizes", "baselines"), default=["sizes", "baselines"])
    parser.add_argument("--baselines", nargs="+", choices=list(BASELINES), default=list(BASELINES))
    parser.add_argument("--baseline-sizes", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--slices", type=int, default=4, help="of the random spots of the epochs")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="epochs; fewer for the larger dense ones")
    parser.add_argument("--limit-gb", type=float, default=LIMIT_GB, help="memory of the dense form, GB = 1e9 bytes")
    parser.add_argument("--keep", type=Path, help="folder where simulated slices stay and are looked for")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/published.json; parts are merged into it")
    parser.add_argument("--smoke", action="store_true", help="small sizes: does it run?")
    given = parser.parse_args()
    if given.smoke:
        given.sizes, given.repeats, given.baseline_sizes = [300, 600], 1, [600]
    return given


def main() -> None:
    """Measure and write after every size."""
    from stscale.threads import available_cores

    given = arguments()
    path = out_path(given.out, "published.json", smoke=given.smoke)
    threads = given.threads or available_cores()

    def keep(change: dict[str, Any]) -> None:
        old = {"what": WHAT, "smoke": given.smoke, **read_results(path)}
        if old["smoke"] != given.smoke:
            raise SystemExit(f"{path} is of a smoke run, or this one is: give another file with --out")
        write_results(path, {**old, "environment": environment(threads), **change})

    def keep_sizes(rows: dict[int, dict[str, Any]], shape: dict[str, Any]) -> None:
        sizes = [rows[n] for n in sorted(rows)]
        keep({"settings": shape, "sizes": sizes, "targets": judged(sizes)})

    if "sizes" in given.only:
        shape: dict[str, Any] = {"slices": given.slices, "limit_gb": given.limit_gb}
        old = read_results(path)
        same = {name: old.get("settings", {}).get(name) for name in shape} == shape
        rows = {row["n"]: row for row in old.get("sizes", [])} if same else {}
        for n in sorted(given.sizes):
            limit = limit_mib(given.limit_gb)
            wanted = estimate_mib(n, [row for m, row in rows.items() if m < n])
            if wanted > limit:
                say(f"n {n}: the published form would take about {wanted:.0f} MiB of {limit:.0f}; stopping here")
                shape["next"] = {"n": n, "estimate_mib": wanted, "limit_mib": limit}
                break
            rows[n] = size(n, given, threads, limit)
            keep_sizes(rows, shape)
            if "did_not_fit" in rows[n]["published"]:
                break
        keep_sizes(rows, shape)
    if "baselines" in given.only:
        with tempfile.TemporaryDirectory(prefix="stscale-published-") as name:
            folder = given.keep or Path(name)
            folder.mkdir(parents=True, exist_ok=True)
            for n in given.baseline_sizes:
                for key in given.baselines:
                    found = compared(key, n, folder, threads, smoke=given.smoke)
                    known = read_results(path).get("baselines", {})
                    keep({"baselines": {**known, str(n): {**known.get(str(n), {}), key: found}}})
    say(f"written: {path}")


if __name__ == "__main__":
    main()
