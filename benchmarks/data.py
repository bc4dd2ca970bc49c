"""What the benchmarks read and write: the real slices, published figures, the machine, the result files."""

import json
import math
import os
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.child import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"
PACKAGES = ("stscale", "torch", "faiss-cpu", "numpy", "scipy", "scikit-learn", "anndata", "zarr", "harmonypy")


@dataclass(frozen=True, slots=True, kw_only=True)
class TissueSet:
    """Real slices that are integrated together.

    Attributes
    ----------
    title
        For the tables.
    k
        Number of domains, given to every method.
    unlabelled
        Annotations that say the annotator could not tell; they count as missing.
    published
        Figures of others on the same slices, for comparison.
    labelled
        Whether there is an annotation of domains; else mixing and coherence alone are measured.
    """

    title: str
    k: int
    unlabelled: tuple[str, ...] = ()
    published: tuple[dict[str, Any], ...] = ()
    labelled: bool = True


_DLPFC_FIGURES: tuple[dict[str, Any], ...] = (
    {
        "title": "Spotscape, k-means",
        "kind": "published",
        "ari": 0.57,
        "nmi": 0.70,
        "clustering_accuracy": 0.67,
        "source": "Spotscape, ICML 2025 (arXiv 2506.15698), joint over 151673-151676",
    },
    {"title": "STAligner", "kind": "published", "ari": 0.604, "source": "iSTBench 2025, joint over 151673-151676"},
    {"title": "Banksy", "kind": "published", "ari": 0.588, "source": "iSTBench 2025, joint over 151673-151676"},
    {
        "title": "smoothed PCA + tied mixture, measured before stscale",
        "kind": "earlier measurement",
        "ari": 0.581,
        "nmi": 0.715,
        "source": "shared/data/README.md, one seed",
    },
)

SETS = {
    "dlpfc": TissueSet(title="dlpfc_br8100", k=7, published=_DLPFC_FIGURES),
    "her2st": TissueSet(title="her2st", k=6, unlabelled=("undetermined",)),
}
UNLABELLED = {
    "seqfish": TissueSet(title="seqfish_embryo2", k=12, labelled=False),
    "iss": TissueSet(title="iss_coronal", k=12, labelled=False),
}


def data_root() -> Path:
    """Return the folder of the real slices: `STSCALE_DATA`, else `../shared/data` beside the repository."""
    given = os.environ.get("STSCALE_DATA")
    return Path(given) if given else REPOSITORY.parent / "shared" / "data"


def slice_files(name: str) -> list[str]:
    """Return the files of a set, sorted.

    Raises
    ------
    SystemExit
        When they are not there.
    """
    folder = data_root() / (SETS | UNLABELLED)[name].title
    files = sorted(str(p) for p in folder.glob("*.h5ad"))
    if not files:
        raise SystemExit(f"no .h5ad in {folder}; point STSCALE_DATA at the folder that holds {folder.name}")
    return files


def environment(threads: int) -> dict[str, Any]:
    """Describe the machine and the software, with the load at this moment: timings on shared cores need it."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "omp_wait_policy": "PASSIVE",
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": versions,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def read_results(path: Path) -> dict[str, Any]:
    """Return a result file's content; empty when there is none yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_results(path: Path, values: dict[str, Any]) -> None:
    """Write a result file, whole or not at all; what is not a finite number becomes null."""
    from stscale.atomic import atomic_path

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        text = json.dumps(_rounded(values), indent=2, allow_nan=False, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8")


def say(text: str) -> None:
    """Print a line of progress on stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def out_path(given: Path | None, default: str, *, smoke: bool) -> Path:
    """Return where results go; a smoke run never writes among the real ones.

    Raises
    ------
    SystemExit
        When a smoke run names no file, or one in `benchmarks/results`.
    """
    path = (given or RESULTS / default).resolve()
    if smoke and path.is_relative_to(RESULTS):
        raise SystemExit(f"a smoke run does not measure: give --out a file outside {RESULTS}")
    return path


def _rounded(value: Any) -> Any:
    """Six significant digits: more would be noise."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
