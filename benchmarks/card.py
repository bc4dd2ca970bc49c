"""Does the label-free verdict of a run agree with the labels? → results/card.json.

Each case is a pair of embeddings of one set: the learned one against the floor, and, as a check that the rule can say
yes, and no, the floor against the same components without smoothing, and components smoothed far wider against the
floor, which is better for mixed cells (`cells-`) and worse where spots show their domain. Domains are those of whole
runs (60 starts, true K).
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import RESULTS, environment, read_results, say, slice_files, write_results
from benchmarks.levers import learned
from benchmarks.surroundings import CELLS, cells
from benchmarks.tissues import Prepared, names, prepared
from benchmarks.trial import floor_latents

if TYPE_CHECKING:
    from stscale.config import Run

PAIRS = {"learned": ("learned", "smooth"), "smooth": ("smooth", "components"), "wide": ("wide", "smooth")}
ROUNDS = {"components": 0, "smooth": 2, "wide": 8}
"""Of averaging over neighbours, of what is not learned."""
MARGIN = 0.02
"""ARI by which an embedding must be better to count as better."""

NOTES = {
    "ari": "of whole runs' domains, 60 starts, K given; the card itself never sees a label",
    "agrees": f"the verdict is 'better' exactly where the ARI is higher by more than {MARGIN}",
    "measures": "of the first and the second embedding of the pair; mean over mixture seeds, never over trainings",
}


def embedding(given: Prepared, kind: str, config: "Run", work: Path) -> NDArray[np.float32]:
    """Return one embedding of a set, (n, d)."""
    if kind == "learned":
        return learned(given, config, work)[0]
    return floor_latents(given, work, rounds=ROUNDS[kind])


def true_ari(given: Prepared, kind: str, z: NDArray[np.float32], config: "Run", seed: int, work: Path) -> float:
    """Return the ARI of a run's domains on an embedding; what was computed before is read."""
    from stscale.analysis.domains import cluster
    from stscale.analysis.metrics import ari

    path = work / "ari" / f"{given.tissue.name}-{seed}-{kind}.json"
    if not path.exists():
        domains = config.replace({"domains": {"k": given.tissue.k}}).domains
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(float(ari(given.labels, cluster(z, domains, seed=seed).labels))), encoding="utf-8")
    return float(json.loads(path.read_text(encoding="utf-8")))


def case(name: str, seed: int, pair: str, work: Path) -> dict[str, Any]:
    """Return measures, verdict and truth of one pair."""
    from stscale.analysis.card import Sample, measure
    from stscale.analysis.told import Surroundings
    from stscale.analysis.verdict import judge
    from stscale.config import Run

    config = Run().replace({"domains": {"spatial": 0.0}, "run": {"seed": seed, "threads": 1}})
    given = prepared(name, work, config.preprocess, given=cells(name, work) if name in CELLS else None)
    xy, group = given.features.xy(), given.features.slice()
    sample = Sample.draw(len(xy), seed=seed)
    around = Surroundings(given.features.pca, given.graph.indptr, given.graph.indices)
    found, aris = [], []
    for kind in PAIRS[pair]:
        z = embedding(given, kind, config, work)
        n_components = config.domains.n_components
        found.append(measure(z, xy, group, sample, around, k=given.tissue.k, n_components=n_components, seed=seed))
        aris.append(true_ari(given, kind, z, config, seed, work))
    verdict = judge(found[0], found[1]).verdict
    better = aris[0] - aris[1] > MARGIN
    return {
        "set": name,
        "seed": seed,
        "pair": pair,
        "ari": aris,
        "measures": [asdict(m) for m in found],
        "verdict": verdict,
        "better": better,
        "agrees": (verdict == "better") == better,
    }


def summary(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Count verdicts against truth, and correlate each measure's difference with the ARI's."""
    from scipy.stats import spearmanr

    out: dict[str, Any] = {}
    for pair in PAIRS:
        rows = [c for c in cases if c["pair"] == pair]
        if not rows:
            continue
        said = [c["verdict"] == "better" for c in rows]
        gaps = [c["ari"][0] - c["ari"][1] for c in rows]
        table = {
            f"said {'better' if s else 'not better'}, is {'better' if b else 'not better'}": sum(
                x == s and c["better"] == b for x, c in zip(said, rows, strict=True)
            )
            for s in (True, False)
            for b in (True, False)
        }
        rank = {}
        for key in ("told", "seeds", "halves", "gain", "chaos", "pas", "ilisi"):
            known = [(c["measures"], g) for c, g in zip(rows, gaps, strict=True) if c["measures"][0][key] is not None]
            gaps_of = [m[0][key] - m[1][key] for m, _ in known]
            if len(known) > 2 and len(set(gaps_of)) > 1:
                rank[key] = float(spearmanr(gaps_of, [g for _, g in known])[0])
        out[pair] = {
            "cases": len(rows),
            "agree": sum(c["agrees"] for c in rows),
            "table": table,
            "median_gap": {
                word: statistics.median(g for g, x in zip(gaps, said, strict=True) if x == is_said)
                for word, is_said in (("better", True), ("not better", False))
                if is_said in said
            },
            "spearman_with_ari": rank,
        }
    return out


def cost(work: Path) -> dict[str, float]:
    """Return the processor seconds of a whole run on dlpfc_br8100 with one thread, and those of its card."""
    from stscale import integrate
    from stscale.config import Run

    marks: list[tuple[str, float]] = []

    def observe(event: dict[str, Any]) -> None:
        if event["event"] == "stage":
            marks.append((event["stage"], time.process_time()))

    with tempfile.TemporaryDirectory(dir=work) as folder:
        config = Run().replace({"run": {"threads": 1, "device": "cpu"}, "domains": {"k": 7}})
        start = time.process_time()
        integrate(slice_files("dlpfc"), out=Path(folder) / "run", config=config, observer=observe)
        end = time.process_time()
    ends = [at for _, at in marks[1:]] + [end]
    own = sum(after - at for (stage, at), after in zip(marks, ends, strict=True) if stage == "quality")
    rest = end - start - own
    return {"quality": own, "rest": rest, "share": own / rest}


def main() -> None:
    """Judge the cases asked for, one by one."""
    from stscale.threads import set_threads

    parser = argparse.ArgumentParser(prog="python -m benchmarks.card", description=__doc__)
    sets = [*names(), *CELLS]
    parser.add_argument("--sets", nargs="+", choices=sets, default=sets, metavar="SET")
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--cost", action="store_true", help="also time a whole run with its card")
    parser.add_argument("--work", type=Path, required=True, help="features, graphs, latents and ARI are kept here")
    parser.add_argument("--out", type=Path, default=RESULTS / "card.json", help="cases are merged into it")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    set_threads(1)
    for name in given.sets:
        for seed in given.seeds:
            for pair in given.pairs:
                row = case(name, seed, pair, given.work)
                a, b = row["ari"]
                say(f"{name} seed {seed} {pair}: {row['verdict']}; ARI {a:.3f} against {b:.3f}")
                results = read_results(given.out)
                known = {(c["set"], c["seed"], c["pair"]): c for c in results.get("cases", [])}
                known[name, seed, pair] = row
                results |= {"notes": NOTES, "margin": MARGIN, "smoke": False, "environment": environment(1)}
                results |= {"cases": list(known.values()), "summary": summary(list(known.values()))}
                write_results(given.out, results)
    if given.cost:
        results = read_results(given.out)
        results |= {"environment": environment(1), "smoke": False, "cost": cost(given.work)}
        write_results(given.out, results)


if __name__ == "__main__":
    main()
