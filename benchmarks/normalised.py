"""Slices that are given normalised: which counts come back, and what domains are worth → results/normalised.json.

Counts are divided by a size of each spot, and most often a logarithm is taken, in the ways that files come in. Told is
how many counts come back as they were. Domains of `--method smooth` are found in the counts and in the logarithms as
they are given (`--lognormalized`).
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks import tissues
from benchmarks.data import RESULTS, environment, read_results, say, write_results
from benchmarks.levers import LEVERS, by_seed, options
from benchmarks.tissues import Tissue, prepared

if TYPE_CHECKING:
    from anndata import AnnData

SETS = ("dlpfc", "her2st", "layers-mild", "rare-mild", "patches-strong", "gradients-strong")
LEVER = "floor-spatial"
GIVEN = "ln, 10 000 a spot"
NOTES = {
    "counts": "entries of all slices, and how many of them come back other than they were",
    "spots": "whose counts have a common factor, which is lost",
    "ari": "of the domains, K given; `as they are`: logarithms of 10 000 counts a spot, --lognormalized; `corrected`: "
    "a tenth of what a spot of its library has on average is taken off, to 0 at least, --fractional",
}
AMBIENT = 0.1
SEED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How counts are normalised.

    Attributes
    ----------
    size
        Size of each spot from its library and a random generator, (n,).
    scale
        What is done to the counts over the size.
    divided
        Whether sizes differ; else a factor that all counts of a spot share stays.
    """

    size: Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]
    scale: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    divided: bool = True


WAYS = {
    GIVEN: Way(size=lambda library, _: library / 1e4, scale=np.log1p),
    "ln, median a spot": Way(size=lambda library, _: library / np.median(library), scale=np.log1p),
    "ln, not divided": Way(size=lambda library, _: np.ones_like(library), scale=np.log1p, divided=False),
    "log2, sizes of mean 1": Way(size=lambda library, _: library / library.mean(), scale=lambda x: np.log2(1.0 + x)),
    "over a volume": Way(size=lambda library, rng: rng.lognormal(0.0, 0.4, len(library)), scale=lambda x: x),
}


def normalised(counts: sparse.csr_matrix, way: Way, rng: np.random.Generator) -> sparse.csr_matrix:
    """Return counts (n, g) normalised, float32."""
    library = np.asarray(counts.sum(axis=1), np.float64).ravel()
    size = np.where(library > 0, way.size(np.maximum(library, 1.0), rng), 1.0)
    amounts = counts.data.astype(np.float64) / np.repeat(size, np.diff(counts.indptr))
    return sparse.csr_matrix((way.scale(amounts).astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)


def written(name: str, way: str, folder: Path) -> Tissue:
    """Return a set whose slices are given normalised, made under `folder` once."""
    rng = np.random.default_rng(SEED)

    def given(adata: "AnnData", _: int) -> "AnnData":
        adata.X = normalised(adata.X.tocsr(), WAYS[way], rng)
        return adata

    place = folder / "normalised" / f"{name}-{list(WAYS).index(way)}"
    return tissues.altered(tissues.tissue(name, folder), place, given)


def corrected(name: str, folder: Path) -> Tissue:
    """Return a set whose counts have lost what lies around in a slice, amounts now, made under `folder` once."""

    def less(adata: "AnnData", _: int) -> "AnnData":
        counts = adata.X.tocsr().astype(np.float64)
        library = np.asarray(counts.sum(axis=1)).ravel()
        around = np.asarray(counts.sum(axis=0)).ravel() / library.sum()
        taken = AMBIENT * np.repeat(library, np.diff(counts.indptr)) * around[counts.indices]
        counts.data = np.maximum(counts.data - taken, 0.0)
        adata.X = counts.astype(np.float32)
        return adata

    return tissues.altered(tissues.tissue(name, folder), folder / "normalised" / f"{name}-corrected", less)


def back(name: str, way: str, folder: Path) -> dict[str, Any]:
    """Return what ingestion makes of a set given normalised, against its counts."""
    given, plain = written(name, way, folder), tissues.tissue(name, folder)
    total, other, factors, scales = 0, 0, 0, set()
    for source, store in zip(plain.files, tissues.stored(given.files, None), strict=True):
        counts = tissues.read(Path(source)).X.tocsr()[store.input_row()].astype(np.float64)
        counts.sort_indices()
        factor = np.array([max(1, np.gcd.reduce(row.data.astype(np.int64))) for row in counts])
        found = store.counts(0, store.n).astype(np.float64)
        expected = sparse.diags(1.0 / factor) @ counts if WAYS[way].divided else counts
        total, factors = total + counts.nnz, factors + int(np.count_nonzero(factor > 1))
        other += abs(found - expected).nnz
        scales.add(store.recovered)
    return {"counts": total, "other": other, "spots": factors, "scales": sorted(map(str, scales))}


def domains(given: Tissue, changes: dict[str, dict[str, Any]], seeds: list[int], work: Path) -> list[float]:
    """Return the ARI of the domains of each seed."""
    plain = options(LEVERS[LEVER]).replace(changes)
    found = prepared(given.name, work, plain.preprocess, given=given)
    return [score["ari"] for score in by_seed(found, LEVERS[LEVER], plain, seeds, work, mixing=False)]


def main() -> None:
    """Measure the sets asked for and merge them into the result file."""
    from stscale.threads import set_threads

    parser = argparse.ArgumentParser(prog="python -m benchmarks.normalised", description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, required=True, help="slices, features and graphs are kept here")
    parser.add_argument("--out", type=Path, default=RESULTS / "normalised.json", help="sets are merged into it")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    set_threads(1)
    for name in given.sets:
        part: dict[str, Any] = {"seeds": given.seeds, "back": {way: back(name, way, given.work) for way in WAYS}}
        logs = written(name, GIVEN, given.work)
        part["ari"] = {
            "counts": domains(tissues.tissue(name, given.work), {}, given.seeds, given.work),
            "brought back": domains(logs, {}, given.seeds, given.work),
            "as they are": domains(logs, {"preprocess": {"lognormalized": True}}, given.seeds, given.work),
            "corrected": domains(
                corrected(name, given.work), {"preprocess": {"fractional": True}}, given.seeds, given.work
            ),
        }
        results = read_results(given.out)
        results.setdefault("sets", {})[name] = part
        write_results(given.out, results | {"notes": NOTES, "environment": environment(1)})
        say(f"{name}: " + ", ".join(f"{how} {statistics.median(a):.3f}" for how, a in part["ari"].items()))


if __name__ == "__main__":
    main()
