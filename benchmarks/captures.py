"""How unlike slices capture genes, and which height runs take (`preprocess.gain = "auto"`) → results/captures.json."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import tissues
from benchmarks.composition import CUTS, cut
from benchmarks.data import RESULTS, data_root, environment, say, slice_files, write_results

NOTES = {
    "spread": "standard deviation over slices of the natural logarithm of the typical gene's share, free of counting "
    "noise (`stscale.slices.capture.spread`), on the genes that all slices of the set have",
    "height": "poisson where the spread is above the bound, else slice",
}
PATIENTS = "ABCD"


def sets(folder: Path) -> dict[str, Sequence[str]]:
    """Return the slices of every set, simulated and cut ones made under `folder`: sections of one donor first."""
    sections = {p: [f for f in slice_files("her2st") if Path(f).stem.startswith(p)] for p in PATIENTS}
    pairs = [PATIENTS[i] + PATIENTS[j] for i in range(len(PATIENTS)) for j in range(i + 1, len(PATIENTS))]
    found: dict[str, Sequence[str]] = {"dlpfc": slice_files("dlpfc")}
    found["breast"] = sorted(str(f) for f in (data_root() / "breast_st").glob("*.h5ad"))
    found |= {f"her2st, patient {p}": files for p, files in sections.items()}
    found |= {f"her2st, patients {a} and {b}": [*sections[a], *sections[b]] for a, b in pairs}
    found["her2st"] = slice_files("her2st")
    found |= {name: cut(name, folder).files for name in CUTS if name.startswith("dlpfc")}
    for shape in tissues.SHAPES:
        for strength in tissues.STRENGTHS:
            name = f"{shape}-{strength}"
            found[name] = tissues.tissue(name, folder).files
    return found


def told(files: Sequence[str], folder: Path) -> float:
    """Return the spread of a set, whose slices are ingested under `folder`."""
    from stscale.slices import Collection
    from stscale.slices.capture import spread
    from stscale.slices.preprocess import slice_moments

    stores = tissues.stored(files, folder / Path(files[0]).parent.name)
    collection = Collection.build(stores, genes="intersection", min_shared=1)
    return spread(np.stack([slice_moments(collection, i).total for i in range(len(stores))]), collection.present)


def main() -> None:
    """Measure every set."""
    from stscale.slices.capture import UNLIKE

    parser = argparse.ArgumentParser(prog="python -m benchmarks.captures", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="slices are kept here")
    parser.add_argument("--out", type=Path, default=RESULTS / "captures.json")
    given = parser.parse_args()
    found = {}
    for name, files in sets(given.work).items():
        value = told(files, given.work / "captures")
        found[name] = {"slices": len(files), "spread": value, "height": "poisson" if value > UNLIKE else "slice"}
        say(f"{name}: {found[name]}")
    write_results(given.out, {"bound": UNLIKE, "sets": found, "notes": NOTES, "environment": environment(1)})


if __name__ == "__main__":
    main()
