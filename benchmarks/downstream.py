"""New slices mapped, trajectories, imputed genes on real cortex → results/downstream.json.

Four slices are integrated jointly, and in four folds three of them, to which the fourth is mapped without training.
Labels enter after the fits, and to name the root of the trajectory, as a user would who looks at the slices.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.child import call
from benchmarks.data import SETS, environment, out_path, read_results, say, slice_files, write_results

SET = "dlpfc"
HIDDEN = 200
"""Genes hidden from one slice."""

SLICE = 1
"""Which slice they are hidden from."""

PANELS = (0.5, 0.2, 0.05)
OTHERS = ("genes", "programmes", "places")
SMOKE = {"train": {"steps": 10}, "domains": {"n_init": 2}}
PARTS = ("map", "trajectory", "impute")
FLOORS = ("pca_15", "pca_50", "smoothed_15", "smoothed_50")
NOTES = {
    "joint": "ARI of the slice in the joint run over all four; the fold's model never saw it",
    "agreement": "ARI of the mapped domains with the joint run's on that slice",
    "restat": "the network's normalisation measured anew on the mapped slice",
    "seconds": "of one process, imports, model and bank included; slice_seconds: from the .h5ad to the labels",
    "impute": f"{HIDDEN} genes drawn by seed are hidden from one slice, the run is over the union of the genes; median "
    "over genes of Pearson's correlation over spots, with the values measured and with these averaged twice over six "
    "neighbours (smoothed); expressed: the quarter of the genes with most counts",
    "floors": "mean over the nearest spots of the other slices, by principal components, by these averaged twice over "
    "neighbours, by latents; spatial: averaged twice over neighbours after that",
    "own_neighbours": "mean of the hidden values over the spot's neighbours: not to be had, for comparison",
}


class Bench:
    """One seed of the benchmark.

    Parameters
    ----------
    work
        Where runs are kept; what is finished there is reused.
    seed, threads
        Of every run.
    changes
        Over the defaults.
    """

    def __init__(self, work: Path, seed: int, threads: int, changes: dict[str, dict[str, Any]]) -> None:
        self.work, self.seed, self.threads, self.changes = work, seed, threads, changes
        self.files = {Path(f).stem: f for f in slice_files(SET)}

    def child(self, function: str, **arguments: Any) -> Any:
        """Call a function in a process of its own."""
        return call(function, arguments, threads=self.threads).value

    def fit(self, name: str, files: list[str], **changes: dict[str, Any]) -> str:
        """Integrate, unless it is done."""
        out = str(self.work / name)
        common = {"files": files, "out": out, "k": SETS[SET].k, "seed": self.seed, "threads": self.threads}
        self.child("benchmarks.quality:fit", **common, preset="default", changes={**self.changes, **changes})
        return out

    def joint(self) -> str:
        """Integrate all slices."""
        return self.fit("joint", list(self.files.values()))

    def map(self) -> dict[str, Any]:
        """Map each slice with the model of the others."""
        joint, folds = self.joint(), []
        whole = self.child("benchmarks.downstream_score:run_scores", run=joint)
        for name, file in self.files.items():
            run = self.fit(f"fold-{name}", [f for n, f in self.files.items() if n != name])
            entry = {"slice": name, "joint": whole["slices"][name]}
            entry["trained"] = self.child("benchmarks.downstream_score:run_scores", run=run)
            for way in ("frozen", "restat"):
                entry[way] = self._mapped(run, file, joint, restat=way == "restat")
            folds.append(entry)
            say(f"{name}: joint {entry['joint']:.3f}, mapped {entry['frozen']['ari']:.3f}")
        name, file = list(self.files.items())[-1]
        panels = [self._changed(run, name, file, joint, "panel", share) for share in PANELS]
        others = [self._changed(run, name, file, joint, change, 1.0) for change in OTHERS]
        return {"joint": whole["ari"], "folds": folds, "panels": panels, "others": others}

    def _mapped(self, run: str, file: str, joint: str, *, restat: bool = False) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="stscale-mapped-") as folder:
            out = str(Path(folder) / "mapped")
            arguments = {"run": run, "file": file, "out": out, "threads": self.threads, "restat": restat}
            found = self.child("benchmarks.downstream_fit:mapped", **arguments)
            return {**found, **self.child("benchmarks.downstream_score:mapped_scores", out=out, joint=joint)}

    def _changed(self, run: str, name: str, file: str, joint: str, change: str, share: float) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="stscale-changed-") as folder:
            out = str(Path(folder) / f"{name}.h5ad")
            self.child("benchmarks.downstream_fit:changed", file=file, out=out, change=change, share=share)
            found = self._mapped(run, out, joint)
        say(f"{name} {change} {share}: {found['verdict']}, ARI {found['ari']:.3f}")
        return {"slice": name, "change": change, "share": share, **found}

    def trajectory(self) -> dict[str, Any]:
        """Order the joint run from the domain of layer 1."""
        run = self.joint()
        root = self.child("benchmarks.downstream_score:root_domain", run=run, layer="L1")
        seconds = self.child("benchmarks.downstream_fit:ordered", run=run, root=root, threads=self.threads)
        return {"root": root, "seconds": seconds, **self.child("benchmarks.downstream_score:depth_scores", run=run)}

    def impute(self) -> dict[str, Any]:
        """Hide genes from one slice and impute them."""
        files = dict(self.files)
        name, file = list(files.items())[SLICE]
        files[name] = str(self.work / "hidden" / f"{name}.h5ad")
        genes = self.child("benchmarks.downstream_fit:hide", file=file, out=files[name], count=HIDDEN, seed=0)
        run = self.fit("impute", list(files.values()), preprocess={"genes": "union"})
        values = str(self.work / "imputed.npz")
        arguments = {"run": run, "genes": genes, "name": name, "out": values, "threads": self.threads}
        done = self.child("benchmarks.downstream_fit:imputed", **arguments)
        arguments = {"values": values, "file": file, "genes": genes, "target_sum": 1e4}
        scores = self.child("benchmarks.downstream_score:imputed_scores", **arguments)
        return {"slice": name, "genes": len(genes), "seconds": done, "methods": scores}


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """Compare with the targets."""

    def part(measured: float, target: float, *, at_least: bool) -> dict[str, Any]:
        met = measured >= target if at_least else measured <= target
        return {"measured": measured, "target": target, "at_least": at_least, "met": met}

    out = {}
    if "map" in found:
        folds = found["map"]["folds"]
        lost = statistics.mean(f["joint"] - f["frozen"]["ari"] for f in folds)
        out["map: ARI below the joint run's, mean of four folds"] = part(lost, 0.05, at_least=False)
        slowest = max(f["frozen"]["seconds"] for f in folds)
        out["map: seconds of the slowest slice"] = part(slowest, 20.0, at_least=False)
    if "trajectory" in found:
        measured = found["trajectory"]["spearman"]
        out["trajectory: Spearman with layer depth"] = part(measured, 0.85, at_least=True)
    if "impute" in found:
        methods = found["impute"]["methods"]
        floor = max(methods[name]["spots"] for name in FLOORS)
        for by in ("regression", "decoder"):
            title = f"impute by {by}: median correlation, at least the best neighbour mean"
            out[title] = part(methods[by]["spots"], floor, at_least=True)
    return out


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.downstream", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--work", type=Path, help="folder of the runs, to be reused; default: removed afterwards")
    parser.add_argument(
        "--out", type=Path, help="default: benchmarks/results/downstream.json; parts are merged into it"
    )
    parser.add_argument("--smoke", action="store_true", help="10 steps: does it run?")
    return parser.parse_args()


def main() -> None:
    """Run the parts asked for and merge them into the result file, one by one."""
    from stscale.threads import available_cores

    given = arguments()
    path = out_path(given.out, "downstream.json", smoke=given.smoke)
    threads = given.threads or available_cores()
    with tempfile.TemporaryDirectory(prefix="stscale-downstream-") as scratch:
        bench = Bench(given.work or Path(scratch), given.seed, threads, SMOKE if given.smoke else {})
        for name in given.parts:
            measured = getattr(bench, name)()
            results = read_results(path)  # read anew: another part may have been written meanwhile
            results |= {"notes": NOTES, "environment": environment(threads), "smoke": given.smoke}
            results |= {"set": SETS[SET].title, "k": SETS[SET].k, "seed": given.seed, name: measured}
            results["targets"] = judged(results)
            write_results(path, results)


if __name__ == "__main__":
    main()
