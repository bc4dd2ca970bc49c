"""`stscale simulate`, then `stscale integrate`, measured from end to end → results/foundation.json."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.child import call
from benchmarks.data import environment, out_path, say, write_results

TARGETS = {"seconds": 600.0, "peak_rss_gb": 3.0, "domain_ari": 0.9}
GB_PER_MIB = 2**20 / 1e9


def command(words: list[str]) -> None:
    """Run the command line `stscale …` itself; runs in the child."""
    from stscale_cli.app import app

    app(words, standalone_mode=False)


def score(out: str, threads: int) -> dict[str, Any]:
    """Score the run against the simulated domains, and read its stages; runs in the child."""
    from stscale.evaluation import evaluate
    from stscale.rundir import read_manifest
    from stscale.threads import set_threads

    set_threads(threads)
    parts = evaluate(Path(out), "domain")
    stages = read_manifest(Path(out))["stages"]
    return {
        "metrics": {part: parts[part] for part in ("labels", "unsupervised")},
        "stages": {k: {"seconds": s["seconds"], "peak_mib": s["peak_mb"]} for k, s in stages.items()},
    }


def run(given: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Simulate, integrate and score in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="stscale-foundation-") as name:
        folder = Path(name)
        size = ["--slices", given.slices, "--spots", given.spots, "--genes", given.genes, "--seed", given.seed]
        words = ["simulate", str(folder / "slices"), *map(str, size), "--threads", str(threads), "--quiet"]
        made = call("benchmarks.foundation:command", {"words": words}, threads=threads)
        say(f"simulated: {made.seconds:.1f} s, {made.peak_rss_mib:.0f} MiB")
        files = sorted(str(p) for p in (folder / "slices").glob("*.zarr"))
        out = str(folder / "run")
        words = ["integrate", *files, "--domains", str(given.domains), "--out", out, "--threads", str(threads)]
        words += ["--device", "cpu", "--quiet"]
        if given.smoke:
            words += ["--set", "train.steps=20"]
        done = call("benchmarks.foundation:command", {"words": words}, threads=threads)
        say(f"integrated: {done.seconds:.1f} s, {done.peak_rss_mib:.0f} MiB")
        scored = call("benchmarks.foundation:score", {"out": out, "threads": threads}, threads=threads).value
    return {
        "simulate": {"seconds": made.seconds, "peak_rss_mib": made.peak_rss_mib},
        "integrate": {"seconds": done.seconds, "peak_rss_mib": done.peak_rss_mib, "stages": scored["stages"]},
        "metrics": scored["metrics"],
    }


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """Return measured value, target and whether it is met; both commands count for time and memory."""
    both = (found["simulate"], found["integrate"])
    seconds = sum(part["seconds"] for part in both)
    peak = max(part["peak_rss_mib"] for part in both) * GB_PER_MIB
    ari = found["metrics"]["labels"]["ari"]
    return {
        "seconds": {"measured": seconds, "target": TARGETS["seconds"], "met": seconds <= TARGETS["seconds"]},
        "peak_rss_gb": {"measured": peak, "target": TARGETS["peak_rss_gb"], "met": peak <= TARGETS["peak_rss_gb"]},
        "domain_ari": {"measured": ari, "target": TARGETS["domain_ari"], "met": ari >= TARGETS["domain_ari"]},
    }


def main() -> None:
    """Run and write the result file."""
    from stscale.threads import available_cores

    parser = argparse.ArgumentParser(prog="python -m benchmarks.foundation", description=__doc__)
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--spots", type=int, default=10_000, help="of a slice")
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=7, help="of the simulation; integrate keeps its default")
    parser.add_argument("--domains", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/foundation.json")
    parser.add_argument("--smoke", action="store_true", help="3 × 400 × 200 and 20 steps: does it run?")
    given = parser.parse_args()
    path = out_path(given.out, "foundation.json", smoke=given.smoke)
    if given.smoke:
        given.slices, given.spots, given.genes = 3, 400, 200
    threads = given.threads or available_cores()
    names = ("slices", "spots", "genes", "seed", "domains")
    results: dict[str, Any] = {
        "environment": environment(threads),
        "smoke": given.smoke,
        "settings": {name: getattr(given, name) for name in names},
    }
    found = run(given, threads)
    results |= {"targets": judged(found), **found}
    write_results(path, results)
    labels = found["metrics"]["labels"]
    say(f"ARI {labels['ari']:.3f}, NMI {labels['nmi']:.3f}; written: {path}")


if __name__ == "__main__":
    main()
