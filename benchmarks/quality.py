"""Domain quality on real tissue, beside the untrained floors and published figures → results/quality.json.

Every method is given the true number of domains K and a fixed budget; the last epoch counts, never the best.
"""

import argparse
import importlib.util
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.child import call
from benchmarks.data import SETS, UNLABELLED, environment, out_path, read_results, say, slice_files, write_results
from stscale.sections import ACROSS

METRICS = ("ari", "nmi", "clustering_accuracy", "chaos", "pas", "ilisi", "batch_asw", "seconds", "peak_rss_mib")
LABEL = "benchmark_label"
SMOKE_STEPS = 20
EVERY = SETS | UNLABELLED
NOTES = {
    "k": "the true number of domains is given to every method",
    "epoch": "fixed budget, last epoch; labels enter after the fit, through stscale.analysis.metrics only",
    "labels": "ari, nmi and clustering_accuracy are joint over the labelled spots of all slices; "
    "'undetermined' of her2st counts as unlabelled, ari_all_annotations counts it as a class",
    "latents": "ilisi (scaled to 0 … 1) and batch_asw are of the embedding: the latents, or the floor's smoothed PCs",
    "seconds": "wall time of one process from the .h5ad files to the domains, imports included, scoring left out",
    "peak_rss_mib": "largest resident set of that process (VmHWM)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method of the table.

    Attributes
    ----------
    title
        For the table.
    function
        What the child calls.
    arguments
        Its own arguments.
    seeds
        When none are asked for.
    """

    title: str
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)


def table(paper_epochs: int) -> dict[str, Row]:
    """Return the rows by key."""
    rows = {
        "stscale": Row(
            title="stscale, default",
            function="benchmarks.quality:fit",
            arguments={"preset": "default", "changes": {}},
            seeds=(0, 1, 2, 3, 4),
        ),
        "smooth": Row(
            title="stscale, method smooth: nothing is trained",
            function="benchmarks.quality:fit",
            arguments={"preset": "default", "changes": {"run": {"method": "smooth"}}},
            seeds=(0, 1, 2, 3, 4),
        ),
        "joined": Row(
            title="stscale, --align",
            function="benchmarks.quality:fit",
            arguments={"preset": "default", "changes": {"graph": {"across": ACROSS}}},
            seeds=(0, 1, 2, 3, 4),
        ),
        "joined-smooth": Row(
            title="stscale, method smooth, --align",
            function="benchmarks.quality:fit",
            arguments={"preset": "default", "changes": {"run": {"method": "smooth"}, "graph": {"across": ACROSS}}},
            seeds=(0, 1, 2, 3, 4),
        ),
        "paper": Row(
            title=f"stscale, preset paper, {paper_epochs} of its 1000 full-batch epochs",
            function="benchmarks.quality:fit",
            arguments={"preset": "paper", "changes": {"train": {"epochs": paper_epochs}}},
            seeds=(0,),
        ),
    }
    for harmony in (False, True):
        for pca, scale_genes, center in (("default", True, "slice"), ("plain", False, "all")):
            for covariance in ("tied", "shrunk"):
                chosen = {"covariance": covariance, "scale_genes": scale_genes, "center": center, "harmony": harmony}
                name = "scaled PCA of log values" if pca == "default" else "plain PCA of log values"
                rows[f"{'harmony' if harmony else 'floor'}-{pca}-{covariance}"] = Row(
                    title=f"floor: {name}{' + Harmony' if harmony else ''}, smoothed, {covariance} mixture",
                    function="benchmarks.floors:floor",
                    arguments=chosen,
                )
    return rows


def fit(
    files: list[str], out: str, k: int, seed: int, threads: int, preset: str, changes: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Integrate with stscale; runs in the child.

    Returns
    -------
    dict
        Seconds by stage.
    """
    from stscale import integrate
    from stscale import preset as options
    from stscale.rundir import read_manifest

    config = options(preset).replace({"run": {"seed": seed, "threads": threads, "device": "cpu"}, "domains": {"k": k}})
    result = integrate(files, out=out, config=config.replace(changes))
    stages = read_manifest(result.path)["stages"]
    training = {name: stages["train"][name] for name in ("steps", "epochs") if "train" in stages}
    return {"stages": {name: stage["seconds"] for name, stage in stages.items()}, **training}


def score(out: str, unlabelled: list[str], threads: int, *, labelled: bool = True) -> dict[str, Any]:
    """Score a run folder, against the annotation `domain` if there is one; runs in a child, after the fit."""
    import zarr
    from anndata.io import read_elem, write_elem

    from stscale.analysis.metrics import ari
    from stscale.evaluation import evaluate
    from stscale.slices import keys
    from stscale.threads import set_threads

    set_threads(threads)
    if not labelled:
        return {"parts": {**evaluate(Path(out)), "labels": {}}, "ari_all_annotations": None}
    root = zarr.open_group(Path(out) / "integrated.zarr", mode="r+")
    obs = read_elem(root["obs"])
    given = obs["domain"].astype(object)
    obs[LABEL] = given.where(~given.isin(unlabelled), None).astype("category")
    write_elem(root, "obs", obs)
    found = evaluate(Path(out), LABEL)
    everything = ari(given.to_numpy(), obs[keys.DOMAIN].astype(object).to_numpy())
    return {"parts": found, "ari_all_annotations": everything}


def one(name: str, row: Row, seed: int, threads: int) -> dict[str, Any]:
    """Fit and score one method with one seed."""
    tissue = EVERY[name]
    with tempfile.TemporaryDirectory(prefix="stscale-quality-") as folder:
        out = str(Path(folder) / "run")
        common = {"files": slice_files(name), "out": out, "k": tissue.k, "seed": seed, "threads": threads}
        done = call(row.function, {**common, **row.arguments}, threads=threads)
        arguments = {"out": out, "unlabelled": list(tissue.unlabelled), "threads": threads, "labelled": tissue.labelled}
        scored = call("benchmarks.quality:score", arguments, threads=threads).value
    parts = scored["parts"]
    values = {**parts["unsupervised"], **parts["labels"]}
    values |= {"seconds": done.seconds, "peak_rss_mib": done.peak_rss_mib}
    return {
        "seed": seed,
        **{metric: values.get(metric) for metric in METRICS},
        "ari_all_annotations": scored["ari_all_annotations"],
        "labelled": int(values.get("labelled", 0)),
        "slice_ari": {p.removeprefix("slice "): v["ari"] for p, v in parts.items() if p.startswith("slice ")},
        "details": done.value,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return median, min and max over seeds of every metric, and of the ARI of every labelled slice."""

    def spread(values: list[float | None]) -> dict[str, float | None]:
        known = [v for v in values if v is not None and v == v]
        if not known:
            return {"median": None, "min": None, "max": None}
        return {"median": statistics.median(known), "min": min(known), "max": max(known)}

    found: dict[str, Any] = {metric: spread([run[metric] for run in runs]) for metric in METRICS}
    found["slice_ari"] = {s: spread([run["slice_ari"][s] for run in runs]) for s in runs[0]["slice_ari"]}
    return found


def fits(name: str, key: str, row: Row) -> bool:
    """Whether a row is measured on a set: the unlabelled ones have whole runs alone, one slice has none beside it."""
    alone = "graph" in row.arguments.get("changes", {}) and len(slice_files(name)) < 2
    return not alone and (EVERY[name].labelled or (row.function == "benchmarks.quality:fit" and key != "paper"))


def measure(name: str, key: str, row: Row, seeds: list[int], threads: int, smoke: bool) -> dict[str, Any]:
    """Return the entry of one method on one set."""
    entry: dict[str, Any] = {"title": row.title, "settings": row.arguments, "smoke": smoke}
    if key.startswith("harmony") and importlib.util.find_spec("harmonypy") is None:
        say(f"{name} {key}: skipped")
        return {**entry, "skipped": "harmonypy is not installed (GPL, optional: pip install -e '.[bench]')"}
    entry["environment"] = environment(threads)
    runs = []
    for seed in seeds:
        runs.append(one(name, row, seed, threads))
        last = runs[-1]
        cost = f"{last['seconds']:.1f} s, {last['peak_rss_mib']:.0f} MiB"
        shown = [f"{m} {last[m]:.4f}" for m in ("ari", "nmi", "chaos", "pas", "ilisi") if last[m] is not None]
        say(f"{name} {key} seed {seed}: {', '.join(shown)}, {cost}")
    return {**entry, "seeds": seeds, "runs": runs, "summary": summary(runs)}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=list(EVERY), default=list(EVERY))
    parser.add_argument("--rows", nargs="+", choices=list(table(0)), default=list(table(0)))
    parser.add_argument("--seeds", nargs="+", type=int, help="of all rows but the paper preset")
    parser.add_argument("--paper-seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--paper-epochs", type=int, default=60, help="of its 1000, which would take hours")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/quality.json; rows are merged into it")
    parser.add_argument("--smoke", action="store_true", help="20 steps, one paper epoch, seed 0: does it run?")
    return parser.parse_args()


def main() -> None:
    """Run the rows asked for and merge them into the result file, one by one."""
    from stscale.threads import available_cores

    given = arguments()
    path = out_path(given.out, "quality.json", smoke=given.smoke)
    threads = given.threads or available_cores()
    rows = table(1 if given.smoke else given.paper_epochs)
    if given.smoke:
        rows["stscale"].arguments["changes"] = {"train": {"steps": SMOKE_STEPS}}
    for name in given.sets:
        for key in given.rows:
            if not fits(name, key, rows[key]):
                continue
            asked = given.paper_seeds if key == "paper" else given.seeds
            seeds = [0] if given.smoke else list(asked or rows[key].seeds)
            entry = measure(name, key, rows[key], seeds, threads, given.smoke)
            results = read_results(path)  # read anew: another part may have been written meanwhile
            results |= {"notes": NOTES, "environment": environment(threads)}
            tissue = results.setdefault("sets", {}).setdefault(name, {"rows": {}})
            known = {**tissue["rows"], key: entry}
            what = EVERY[name]
            tissue |= {"title": what.title, "k": what.k, "labelled": what.labelled, "published": list(what.published)}
            tissue["rows"] = {k: known[k] for k in rows if k in known}
            write_results(path, results)
    say(f"written: {path}")


if __name__ == "__main__":
    main()
