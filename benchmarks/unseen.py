"""Cortex that no choice was made on → results/unseen.json.

The sample data of PASTE2: parts of the same four cortex slices, cropped so that they overlap in part, with many more
genes (10 629 to 12 381 a slice) and counts than the slices in `../shared/data`. They come with its source archive (`pip
download paste2==1.0.1 --no-deps --no-binary :all:`); `--data` is its folder `sample_data`.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import RESULTS, environment, read_results, say, write_results
from benchmarks.levers import LEVERS, by_seed, options
from benchmarks.tissues import Tissue, prepared

SLICES = ("151673", "151674", "151675", "151676")
LABEL = "layer_guess_reordered_short"
K = 7
WAYS = {"floor": "floor-log", "smooth": "floor-spatial", "default": "default"}
"""The lever (`benchmarks.levers`) of each way."""
SHOWN = ("ari", "nmi", "clustering_accuracy", "ilisi")
NOTES = {
    "labels": "enter after the fit; K is given",
    "ceiling": "ARI of a linear discriminant on what the mixture sees, trained with the other slices' annotation",
}


def sets(data: Path, folder: Path) -> list[Tissue]:
    """Return the slices together and each alone, written under `folder` once with their annotation as `domain`."""
    import anndata as ad
    from scipy import sparse

    files = [folder / "unseen" / f"{name}.h5ad" for name in SLICES]
    for name, file in zip(SLICES, files, strict=True):
        if file.exists():
            continue
        given = ad.read_h5ad(data / f"{name}.h5ad")
        plain = ad.AnnData(sparse.csr_matrix(given.X, dtype=np.float32), obsm={"spatial": given.obsm["spatial"]})
        plain.obs_names, plain.var_names = given.obs_names, given.var_names
        plain.obs["domain"] = given.obs[LABEL].astype(str).to_numpy()
        file.parent.mkdir(parents=True, exist_ok=True)
        plain.write_h5ad(file)
    alone = [Tissue(name=f"unseen-{file.stem}", files=(str(file),), k=K) for file in files]
    return [Tissue(name="unseen", files=tuple(map(str, files)), k=K), *alone]


def measured(given: Tissue, way: str, seeds: list[int], work: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return scores by seed and what is known of the set."""
    lever = LEVERS[WAYS[way]]
    plain = options(lever)
    found = prepared(given.name, work, plain.preprocess, given=given)
    scores = by_seed(found, lever, plain, seeds, work)
    said = {"spots": found.features.n, "genes": found.features.g, "counts": float(np.mean(found.features.library()))}
    said["notes"] = list(found.features.notes)
    return {key: [s.get(key) for s in scores] for key in SHOWN} | {"ceiling": scores[0].get("ceiling")}, said


def main() -> None:
    """Measure all sets and merge them into the result file."""
    from stscale.threads import set_threads

    parser = argparse.ArgumentParser(prog="python -m benchmarks.unseen", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="`sample_data` of the source archive of PASTE2 1.0.1")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, required=True, help="slices, features, graphs and latents are kept here")
    parser.add_argument("--out", type=Path, default=RESULTS / "unseen.json", help="sets are merged into it")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    set_threads(1)
    for own in sets(given.data, given.work):
        part: dict[str, Any] = {"seeds": given.seeds, "ways": {}}
        for way in WAYS:
            part["ways"][way], said = measured(own, way, given.seeds, given.work)
            part |= said
        results = read_results(given.out)
        results.setdefault("sets", {})[own.name] = part
        write_results(given.out, results | {"notes": NOTES, "environment": environment(1)})
        say(f"{own.name}: " + ", ".join(f"{way} {statistics.median(p['ari']):.3f}" for way, p in part["ways"].items()))


if __name__ == "__main__":
    main()
