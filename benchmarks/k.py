"""How many domains: estimators of K on every labelled set, without labels → results/k.json.

Nothing is told the true K: the prototypes of the training keep their default number.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import RESULTS, environment, read_results, say, write_results
from benchmarks.tissues import Prepared, names, prepared
from benchmarks.trial import floor_parts, latents, side_by_side

if TYPE_CHECKING:
    from stscale.analysis import TiedMixture
    from stscale.config import Run

PROTOTYPES = 10
"""What the training takes where the number of domains is not given."""

SILHOUETTE_SPOTS = 3_000
TITLES = {
    "default": "stscale: BIC of the tied mixture, its minimum, or its knee where that is at K = 14 or 15",
    "minimum": "BIC, minimum alone",
    "knee": "BIC, knee alone",
    "icl": "ICL: BIC and the entropy of the responsibilities, minimum",
    "silhouette": "largest mean silhouette of the mixture's domains (3 000 spots)",
    "stability": "largest ARI between the mixtures of two seeds, K above 2",
}
EMBEDDINGS = {"learned": "learned, beside smoothed components (default)", "smooth": "smooth (untrained)"}
NOTES = {
    "labels": "give the true K of a set after everything is estimated; her2st's 'undetermined' is no domain",
    "learned": "what the mixture of a run sees: latents beside smoothed components",
    "range": "central 90 % of the default estimator over resampled tiles, with the curve cut off anywhere in its last "
    "third; mixtures stay as fitted",
}


def embedded(given: Prepared, kind: str, config: "Run", work: Path) -> NDArray[np.float32]:
    """Return an embedding that knows nothing of K, (n, d); what was made before is opened."""
    from stscale.options import digest

    floor = floor_parts(given, config, work)
    if kind == "smooth":
        return side_by_side(floor)
    config = config.replace({"spotscape": {"clusters": PROTOTYPES}})
    sections = config.digest("method", "seed", "preprocess", "sample", "spotscape", "train")
    path = work / "latents-k" / given.tissue.name / f"{digest([sections, given.graph_path.parent.name])}.npy"
    if not path.exists():
        z = latents(given, config, work)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, z)
    return side_by_side([(np.load(path), 1.0), *((part, config.domains.smoothed * share) for part, share in floor)])


def estimates(z: NDArray[np.float32], seed: int) -> dict[str, Any]:
    """Return K by every estimator, and the default's range."""
    from stscale.analysis.estimate import choose, estimate_k
    from stscale.analysis.features import Reduction
    from stscale.analysis.metrics import ari
    from stscale.analysis.metrics_spatial import silhouette
    from stscale.analysis.mixture import fit_mixture
    from stscale.config import Domains

    domains, start = Domains(), time.perf_counter()
    x = Reduction.fit(z, n_components=domains.n_components, l2_normalize=False).apply(z)
    curve = estimate_k(x, k_min=domains.k_min, k_max=domains.k_max, starts=10, seed=seed)
    seconds = time.perf_counter() - start
    fits = [
        [fit_mixture(x, int(k), starts=4, polish=2, seed=seed + 1000 * s + int(k)) for k in curve.k] for s in (1, 2)
    ]
    labels = [[fit.predict(x) for fit in row] for row in fits]
    icl = [fit.bic + 2.0 * _entropy(fit, x) for fit in fits[0]]
    wide = [silhouette(z, found, sample=SILHOUETTE_SPOTS, seed=seed) for found in labels[0]]
    same = [ari(a, b) for a, b in zip(*labels, strict=True)]
    falling = np.append(curve.bic[:-1], min(curve.bic.min(), curve.bic[-1]) - 1e-9)
    return {
        "k": {
            "default": curve.chosen,
            "minimum": int(curve.k[np.argmin(curve.bic)]),
            "knee": choose(curve.k, falling, ceiling=int(curve.k[-1]))[0],
            "icl": int(curve.k[np.argmin(icl)]),
            "silhouette": int(curve.k[np.nanargmax(wide)]),
            "stability": int(curve.k[1 + np.argmax(same[1:])]),
        },
        "rule": curve.rule,
        "range": [curve.low, curve.high],
        "seconds": seconds,
    }


def _entropy(fit: "TiedMixture", x: NDArray[np.float64]) -> float:
    """Entropy of the responsibilities, summed over rows, nats."""
    score = fit.log_density(x)
    score -= score.max(axis=1, keepdims=True)
    share = np.exp(score)
    share /= share.sum(axis=1, keepdims=True)
    return float(-np.sum(share * np.log(np.maximum(share, 1e-300))))


def summary(sets: dict[str, Any]) -> dict[str, Any]:
    """Return the mean |K̂ − K| and mean K̂ − K of every estimator, and how often the default's range holds K."""
    out: dict[str, Any] = {}
    for kind in EMBEDDINGS:
        rows = [(part["k"], part[kind]) for part in sets.values() if kind in part]
        if not rows:
            continue
        gaps = {name: [row["k"][name] - k for k, row in rows] for name in TITLES}
        out[kind] = {
            "sets": len(rows),
            "error": {name: statistics.fmean(map(abs, g)) for name, g in gaps.items()},
            "bias": {name: statistics.fmean(g) for name, g in gaps.items()},
            "within_range": statistics.fmean(row["range"][0] <= k <= row["range"][1] for k, row in rows),
            "range_width": statistics.fmean(row["range"][1] - row["range"][0] for _, row in rows),
        }
    return out


def main() -> None:
    """Estimate on the sets asked for, one by one."""
    from stscale.config import Run
    from stscale.threads import set_threads

    parser = argparse.ArgumentParser(prog="python -m benchmarks.k", description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=names(), default=names(), metavar="SET")
    parser.add_argument("--embeddings", nargs="+", choices=list(EMBEDDINGS), default=list(EMBEDDINGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="features, graphs and latents are kept here")
    parser.add_argument("--out", type=Path, default=RESULTS / "k.json", help="rows are merged into it")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    set_threads(1)
    config = Run().replace({"run": {"seed": given.seed, "threads": 1}})
    for name in given.sets:
        for kind in given.embeddings:
            results = read_results(given.out)
            if kind in results.get("sets", {}).get(name, {}):
                continue
            tissue = prepared(name, given.work, config.preprocess)
            row = estimates(embedded(tissue, kind, config, given.work), given.seed)
            say(f"{name} {kind}: K = {tissue.tissue.k}, estimated {row['k']}, range {row['range']} ({row['rule']})")
            results = read_results(given.out)
            part = results.setdefault("sets", {}).setdefault(name, {"k": tissue.tissue.k})
            part[kind] = row
            results |= {"titles": TITLES, "notes": NOTES, "seed": given.seed, "smoke": False}
            results |= {"environment": environment(1), "summary": summary(results["sets"])}
            write_results(given.out, results)


if __name__ == "__main__":
    main()
