"""Spots with few counts: what domains are worth as counts are taken away → results/depth.json.

Of every count of a set a share is kept, drawn from a binomial distribution: the same of all slices, or (`uneven`) all,
0.3, 0.1 and 0.5 of one slice after another.
"""

import argparse
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import tissues
from benchmarks.data import RESULTS, environment, read_results, say, write_results
from benchmarks.levers import LEVERS, by_seed, options
from benchmarks.tissues import Tissue, prepared

if TYPE_CHECKING:
    from anndata import AnnData

UNEVEN = (1.0, 0.3, 0.1, 0.5)
SETS: dict[str, tuple[str, tuple[float, ...]]] = {
    **{f"dlpfc, {share:g}": ("dlpfc", (share,)) for share in (1.0, 0.3, 0.1, 0.05, 0.03)},
    "dlpfc, uneven": ("dlpfc", UNEVEN),
    "her2st, 0.1": ("her2st", (0.1,)),
    "layers-none, 0.2": ("layers-none", (0.2,)),
    "layers-mild, 0.2": ("layers-mild", (0.2,)),
    "rare-mild, 1": ("rare-mild", (1.0,)),
    "rare-mild, 0.2": ("rare-mild", (0.2,)),
    "patches-strong, 0.2": ("patches-strong", (0.2,)),
}
"""The set, and the share of counts kept of one slice after another."""
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "floor": ("floor", "floor-log", {}),
    "alike": ("`smooth`, rare genes as much as others", "floor-spatial", {"preprocess": {"rare": "alike"}}),
    "less": ("`smooth`, rare genes less", "floor-spatial", {"preprocess": {"rare": "less"}}),
    "smooth": ("`smooth`", "floor-spatial", {}),
    "default": ("default", "default", {}),
}
"""Title, lever (`benchmarks.levers`) and changes of its options."""
SHOWN = ("ari", "ilisi", "ilisi_elsewhere", "ceiling")
NOTES = {
    "counts": "of a spot on average, after counts were taken away",
    "ari": "of the domains, K given",
    "seeds": "of the fits; counts are taken away once",
}
SEED = 7


def thinned(name: str, folder: Path) -> Tissue:
    """Return a set with counts taken away, made under `folder` once."""
    of, shares = SETS[name]
    rng = np.random.default_rng(SEED)

    def fewer(adata: "AnnData", i: int) -> "AnnData":
        counts = adata.X.tocsr()
        kept = rng.binomial(np.rint(counts.data).astype(int), shares[i % len(shares)])
        counts.data = kept.astype(np.float32)
        counts.eliminate_zeros()
        adata.X = counts
        return adata

    return tissues.altered(tissues.tissue(of, folder), folder / "thinned" / name.replace(", ", "-"), fewer)


def measured(
    way: str, given: Tissue, seeds: list[int], work: Path, known: dict[tuple[str, bytes], dict[str, list[float]]]
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Return the scores by seed, and what the features of the set are.

    Where genes weigh what they do in another way of the same lever, its scores in `known` are the same.
    """
    _, lever, changes = WAYS[way]
    plain = options(LEVERS[lever]).replace(changes)
    found = prepared(given.name, work, plain.preprocess, given=given)
    features = {"spots": found.features.n, "counts": float(np.mean(found.features.library()))}
    same = lever, found.features.pca_inverse().tobytes()
    if same not in known:
        scores = by_seed(found, LEVERS[lever], plain, seeds, work)
        known[same] = {key: [s[key] for s in scores] for key in SHOWN}
    return known[same], features | {"notes": list(found.features.notes)}


def main() -> None:
    """Measure the sets asked for and merge them into the result file."""
    from stscale.threads import set_threads

    parser = argparse.ArgumentParser(prog="python -m benchmarks.depth", description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), metavar="SET")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, required=True, help="features, graphs and latents are kept here")
    parser.add_argument("--out", type=Path, default=RESULTS / "depth.json", help="sets are merged into it")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    set_threads(1)
    for name in given.sets:
        own = thinned(name, given.work)
        part: dict[str, Any] = {"of": SETS[name][0], "shares": SETS[name][1], "seeds": given.seeds, "ways": {}}
        known: dict[tuple[str, bytes], dict[str, list[float]]] = {}
        for way in WAYS:
            part["ways"][way], features = measured(way, own, given.seeds, given.work, known)
        part |= features
        results = read_results(given.out)
        results.setdefault("sets", {})[name] = part
        titles = {way: title for way, (title, _, _) in WAYS.items()}
        write_results(given.out, results | {"ways": titles, "notes": NOTES, "environment": environment(1)})
        say(f"{name}: " + ", ".join(f"{way} {statistics.median(p['ari']):.3f}" for way, p in part["ways"].items()))


if __name__ == "__main__":
    main()
