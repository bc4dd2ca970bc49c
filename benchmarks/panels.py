"""Slices of which some lack half of their genes: all genes, those in common, or none lost → results/panels.json.

In half of a simulated set's slices a random half of the genes is taken away, another half in each.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tissues
from benchmarks.data import RESULTS, environment, read_results, say, write_results
from benchmarks.surroundings import measured
from benchmarks.tissues import Tissue, prepared

SETS = ("layers-none", "rare-mild", "patches-strong")
WAYS = {
    "whole": "every slice has all genes",
    "union": "half of the slices lack half of the genes, `--genes union`",
    "intersection": "the same, genes in common (default)",
}
SHOWN = ("ari", "ilisi_elsewhere")
NOTES = {
    "ari": "of the domains of `--method smooth`, K given",
    "ilisi_elsewhere": "mixing of the slices among neighbours that are not close in the tissue too, 0 apart to 1 even",
}


def lacking(name: str, folder: Path) -> Tissue:
    """Return a set of which the second half of the slices lack genes, made under `folder` once."""
    from stscale.slices import SliceStore

    whole = tissues.tissue(name, folder)
    files = [folder / "panels" / name / f"{Path(f).stem}.h5ad" for f in whole.files]
    rng = np.random.default_rng(tissues.TISSUE_SEED)
    for i, (source, file) in enumerate(zip(whole.files, files, strict=True)):
        store = SliceStore.open(Path(source))
        g = len(store.genes())
        half = np.sort(rng.permutation(g)[: g // 2])
        kept = half if i >= len(files) // 2 else np.arange(g)
        if file.exists():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        tissues.annotated(store)[:, kept].copy().write_h5ad(file)
    return replace(whole, name=f"{name}-lacking", files=tuple(map(str, files)))


def main() -> None:
    """Measure the sets asked for and merge them into the result file."""
    from stscale.config import Preprocess, Run
    from stscale.threads import set_threads

    parser = argparse.ArgumentParser(prog="python -m benchmarks.panels", description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, metavar="SET")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, required=True, help="features and graphs are kept here")
    parser.add_argument("--out", type=Path, default=RESULTS / "panels.json", help="sets are merged into it")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    set_threads(1)
    for name in given.sets:
        part: dict[str, Any] = {}
        for way in WAYS:
            options = Preprocess(genes="union" if way == "union" else "intersection")
            own = None if way == "whole" else lacking(name, given.work)
            found = prepared(own.name if own else name, given.work, options, given=own)
            configs = [Run().replace({"run": {"seed": seed}}) for seed in given.seeds]
            scores = [measured(found, config, given.work, mixing=True) for config in configs]
            part[way] = {"genes": found.features.g} | {key: [s[key] for s in scores] for key in SHOWN}
        results = read_results(given.out)
        results.setdefault("sets", {})[name] = {"seeds": list(given.seeds), "ways": part}
        results |= {"ways": WAYS, "notes": NOTES, "environment": environment(1)}
        write_results(given.out, results)
        say(f"{name}: " + ", ".join(f"{way} {statistics.fmean(p['ari']):.3f}" for way, p in part.items()))


if __name__ == "__main__":
    main()
