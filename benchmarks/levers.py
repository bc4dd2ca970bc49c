"""What each lever does to domain quality on every protocol set → results/levers.json.

A lever is a change of options, or of what the mixture sees, seen without components of wider surroundings, which a run
puts beside where they predict better. It is compared with the row "narrow" of the same set and seeds, the default
without them; the levers that have them, as runs do, with the row "default".
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import RESULTS, environment, read_results, say, write_results
from benchmarks.lever_scores import KEPT, NARROW, REFERENCE, judged, summary
from benchmarks.tissues import SHAPES, Prepared, names, prepared, tissue
from benchmarks.trial import clustered, floor_parts, latents, scored, side_by_side

if TYPE_CHECKING:
    from stscale.config import Run

NOTES = {
    "k": "the true number of domains is given to every lever",
    "labels": "enter after the fit, through the metrics only; her2st's 'undetermined' counts as unlabelled",
    "ilisi, clisi": "scaled to 0 … 1, larger is better; of the latents that the mixture sees, clisi of the annotation",
    "ilisi_elsewhere": "without neighbours that are close in the tissue too: smoothed latents share their noise",
    "ceiling": "ARI of a linear discriminant on what the mixture sees, trained with the other slices' annotation",
    "seconds": "training and embedding, and the domains, one thread, on a machine that others used too",
    "compared with": f"the row {REFERENCE!r} of the same set, seed by seed, where `wider` is true, else {NARROW!r}",
    "weight": "of wider surroundings; where it is 0, a run is the same with and without them and stands for both",
    "mean_rank": "of the ARI among the levers measured on a set with the same seeds; 1 is best",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """One change.

    Attributes
    ----------
    title
        For the table.
    changes
        Of the default options.
    sees
        What the mixture sees: the learned latents, the floor's smoothed components, or both.
    runs
        Trainings whose latents are put side by side: seeds s, s + 100, s + 200, …
    true_effects
        Genes are brought to one height by what the simulation did to them (`tissues.prepared`).
    wider
        Components of wider surroundings are put beside where they predict better.
    """

    title: str
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    sees: str = "both"
    runs: int = 1
    true_effects: bool = False
    wider: bool = False


_SILENT: dict[str, Any] = {"domains": {"spatial": 0.0}}
_AVERAGE: dict[str, Any] = {"average": 0.4}
_SPOTS: dict[str, Any] = {"axes": "spots"}
_POISSON: dict[str, Any] = {"preprocess": {"gain": "poisson"}}
_ROOT: dict[str, Any] = {"preprocess": {"gain": "slice"}}
_GENTLE: dict[str, Any] = {"w_scale": 0.3}
_RECONSTRUCTION = {"w_telescope": 0.0, "w_scale": 0.0, "w_prototypes": 0.0}


def _alone(terms: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Terms changed, and neighbours without a say: what the latents hold themselves."""
    return {"spotscape": terms, **_SILENT}


def _joined(spots: int) -> dict[str, dict[str, Any]]:
    """Slices laid on each other, and each spot joined to so many of the slice beside."""
    return {"graph": {"across": spots}}


LEVERS = {
    REFERENCE: Lever(
        title="default: learned latents beside smoothed PCA of three times their variance and, where they predict "
        "better, of wider surroundings; neighbours' say 6",
        wider=True,
    ),
    NARROW: Lever(title="default without wider surroundings"),
    "silent": Lever(title="default, neighbours have no say", changes=_SILENT),
    "learned": Lever(title="learned latents alone, neighbours have no say", changes=_SILENT, sees="learned"),
    "floor": Lever(title="smoothed PCA alone, neighbours have no say", changes=_SILENT, sees="floor"),
    "floor-spatial": Lever(
        title="smoothed PCA alone, and of wider surroundings, neighbours' say 6 (method smooth)",
        sees="floor",
        wider=True,
    ),
    "floor-narrow": Lever(title="method smooth without wider surroundings", sees="floor"),
    "floor-log": Lever(
        title="untrained floor: smoothed PCA of log values alone, no moves, no say of neighbours",
        changes={"preprocess": {"transform": "log", **_SPOTS}, "domains": {"spatial": 0.0, "moves": 0}},
        sees="floor",
    ),
    "spots": Lever(title="default, axes of single spots", changes={"preprocess": _SPOTS}),
    "floor-spots": Lever(title="method smooth, axes of single spots", changes={"preprocess": _SPOTS}, sees="floor"),
    "alike": Lever(title="default, genes alike", changes={"preprocess": {"coherence": 0.0}}),
    "floor-alike": Lever(title="method smooth, genes alike", changes={"preprocess": {"coherence": 0.0}}, sees="floor"),
    "floor-uneven": Lever(
        title="method smooth, genes at the height each slice captures",
        changes={"preprocess": {"gain": "all"}},
        sees="floor",
    ),
    "floor-true": Lever(
        title="method smooth, genes at one height by the effects they were simulated with",
        sees="floor",
        true_effects=True,
    ),
    "root": Lever(title="default, genes at one height by the root of their share", changes=_ROOT, wider=True),
    "floor-root": Lever(
        title="method smooth, genes at one height by the root of their share", changes=_ROOT, sees="floor", wider=True
    ),
    "poisson": Lever(title="default, genes at the height of Poisson counts", changes=_POISSON, wider=True),
    "floor-poisson": Lever(
        title="method smooth, genes at the height of Poisson counts", changes=_POISSON, sees="floor", wider=True
    ),
    "learned-root": Lever(title="root, learned latents alone", changes=_SILENT | _ROOT, sees="learned"),
    "scale-0.3": Lever(title="root, scale matching at 0.3", changes={"spotscape": _GENTLE, **_ROOT}, wider=True),
    "learned-scale-0.3": Lever(
        title="learned-root, scale matching at 0.3", changes=_alone(_GENTLE) | _ROOT, sees="learned"
    ),
    "beside-1": Lever(
        title="default, smoothed PCA at the variance of the latents", changes={"domains": {"smoothed": 1.0}}
    ),
    "log": Lever(title="default, components of log values", changes={"preprocess": {"transform": "log"}}),
    "still": Lever(title="default without moves of the mixture", changes={"domains": {"moves": 0}}),
    "spatial-12": Lever(title="default, neighbours' say 12", changes={"domains": {"spatial": 12.0}}),
    "average": Lever(title="default, weights averaged over the last 40 %", changes={"train": _AVERAGE}),
    "reconstruction": Lever(
        title="learned, reconstruction alone (plain graph autoencoder)", changes=_alone(_RECONSTRUCTION), sees="learned"
    ),
    "no-telescope": Lever(title="learned without the telescope", changes=_alone({"w_telescope": 0.0}), sees="learned"),
    "no-reconstruction": Lever(
        title="learned without reconstruction", changes=_alone({"w_reconstruction": 0.0}), sees="learned"
    ),
    "no-prototypes": Lever(title="learned without prototypes", changes=_alone({"w_prototypes": 0.0}), sees="learned"),
    "no-scale": Lever(title="learned without scale matching", changes=_alone({"w_scale": 0.0}), sees="learned"),
    "joined": Lever(
        title="default, joined to 3 spots of each aligned slice beside (--align)", changes=_joined(3), wider=True
    ),
    "joined-smooth": Lever(
        title="method smooth, joined to 3 spots (--align)", changes=_joined(3), sees="floor", wider=True
    ),
    "joined-1": Lever(title="default, joined to 1 spot", changes=_joined(1)),
    "consensus": Lever(title="default, latents of 3 trainings side by side", runs=3),
}


def options(lever: Lever) -> "Run":
    """Return the options of a lever."""
    from stscale.config import Run

    config = Run().replace(lever.changes)
    return config if lever.wider else config.replace({"domains": {"wider": 0.0}})


def embedding(
    given: Prepared, lever: Lever, config: "Run", seed: int, work: Path
) -> tuple[NDArray[np.float32], float, float]:
    """Return what the mixture sees, (n, d), the seconds its trainings took, and the weight of wider surroundings."""
    parts, seconds, weight = [], 0.0, 0.0
    if lever.sees in ("learned", "both"):
        for r in range(lever.runs):
            z, took = learned(given, config.replace({"run": {"seed": seed + 100 * r}}), work)
            parts.append((z, 1.0 / lever.runs))
            seconds += took
    if lever.sees in ("floor", "both"):
        floor = floor_parts(given, config, work)
        parts += [(z, config.domains.smoothed * share) for z, share in floor]
        weight = sum(share for _, share in floor[1:])
    return side_by_side(parts), seconds, weight


def by_seed(
    given: Prepared, lever: Lever, config: "Run", seeds: Sequence[int], work: Path, *, mixing: bool = True
) -> list[dict[str, Any]]:
    """Score a lever on a prepared set, once for each seed."""
    found = []
    for seed in seeds:
        own = config.replace({"run": {"seed": seed}})
        z = embedding(given, lever, own, seed, work)[0]
        found.append(scored(given, z, clustered(given, own, z).labels, mixing=mixing))
    return found


def learned(given: Prepared, config: "Run", work: Path) -> tuple[NDArray[np.float32], float]:
    """Train, or open what was trained with the same options before."""
    from stscale.options import digest

    sections = config.digest("method", "seed", "preprocess", "sample", "spotscape", "train")
    where = [given.graph_path.parent.name, given.tissue.k]
    made = digest([sections, *where] if given.graph is given.plane else [sections, *where, given.graph_path.stem])
    path = work / "latents" / given.tissue.name / f"{made}.npz"
    if not path.exists():
        start = time.perf_counter()
        z = latents(given, config, work)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez(file, z=z, seconds=time.perf_counter() - start)
    with np.load(path) as held:
        return held["z"], float(held["seconds"])


def measure(name: str, lever: Lever, seed: int, work: Path) -> dict[str, Any]:
    """Return the metrics of one lever on one set with one seed."""
    config = options(lever).replace({"run": {"seed": seed, "threads": 1}})
    given = prepared(name, work, config.preprocess, graph=config.graph, true_effects=lever.true_effects)
    z, training, weight = embedding(given, lever, config, seed, work)
    start = time.perf_counter()
    fit = clustered(given, config, z)
    seconds = time.perf_counter() - start
    found = scored(given, z, fit.labels)
    kept = {key: found[key] for key in KEPT if found.get(key) is not None}
    took = {"seconds_training": training, "seconds_domains": seconds}
    kept["weight"] = weight
    return {"seed": seed, **kept, "domains": fit.k, "slice_ari": found["slice_ari"], **took}


def whole(part: dict[str, Any], lever: str) -> bool:
    """Whether a lever was measured on a set with all seeds of the reference."""
    seeds = [{run["seed"] for run in part["levers"].get(key, {"runs": []})["runs"]} for key in (REFERENCE, lever)]
    return bool(seeds[0]) and seeds[0] <= seeds[1]


def mean_ranks(sets: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Rank the levers by ARI within each set and seed and average; ties share their mean rank.

    Only levers measured on every set with all seeds of the reference are ranked.
    """
    from scipy.stats import rankdata

    everywhere = [key for key in LEVERS if all(whole(part, key) for part in sets.values())]
    score: dict[str, list[float]] = {key: [] for key in everywhere}
    for part in sets.values():
        held = {key: {run["seed"]: run["ari"] for run in part["levers"][key]["runs"]} for key in everywhere}
        for seed in sorted(set.intersection(*map(set, held.values()))) if held else []:
            for key in everywhere:
                score[key].append(held[key][seed])
    if not any(score.values()):
        return {}
    table = np.array(list(score.values()))
    ranks = np.apply_along_axis(rankdata, 0, -table).mean(axis=1)
    means = table.mean(axis=1)
    pairs = sorted(zip(score, ranks, means, strict=True), key=lambda row: row[1])
    return {lever: {"mean_rank": float(rank), "mean_ari": float(mean)} for lever, rank, mean in pairs}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.levers", description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=names(), default=names(), metavar="SET")
    parser.add_argument("--levers", nargs="+", choices=list(LEVERS), default=list(LEVERS), metavar="LEVER")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, required=True, help="features, graphs and latents are kept here")
    parser.add_argument("--out", type=Path, default=RESULTS / "levers.json", help="rows are merged into it")
    return parser.parse_args()


def main() -> None:
    """Measure the levers asked for, set by set, and merge every run into the result file."""
    from stscale.threads import set_threads

    given = arguments()
    given.work.mkdir(parents=True, exist_ok=True)
    set_threads(1)
    for name in given.sets:
        for key in given.levers:
            if "graph" in LEVERS[key].changes and len(tissue(name, given.work).files) < 2:
                continue  # there is no slice beside it
            if LEVERS[key].true_effects and name.partition("-")[0] not in SHAPES:
                continue  # nobody knows them
            for seed in given.seeds:
                results = read_results(given.out)
                part = results.setdefault("sets", {}).setdefault(name, {"levers": {}})
                runs = part["levers"].get(key, {"runs": []})["runs"]
                if any(run["seed"] == seed for run in runs):
                    continue
                run = measure(name, LEVERS[key], seed, given.work)
                runs = sorted([*runs, run], key=lambda r: r["seed"])
                part["levers"][key] = {**asdict(LEVERS[key]), "runs": runs}
                mixing = f", iLISI {run['ilisi']:.3f}" if "ilisi" in run else ""
                say(f"{name} {key} seed {seed}: ARI {run['ari']:.4f}{mixing}")
                for lever in part["levers"].values():
                    base = REFERENCE if lever["wider"] else NARROW
                    lever["summary"] = summary(lever["runs"], part["levers"].get(base, {"runs": []})["runs"])
                results |= {"notes": NOTES, "environment": environment(1)}
                results["mean_rank"] = mean_ranks(results["sets"])
                results["targets"] = judged(results["sets"])
                write_results(given.out, results)


if __name__ == "__main__":
    main()
