"""PASTE (paste-bio 1.4.0, BSD-3) as an external baseline: a pair to files, a process of its own, a plan back."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.align_data import Made, move_parts, read_slices
from benchmarks.child import REPOSITORY, THREAD_VARIABLES, call

TITLE = "PASTE (paste-bio, its defaults)"
ASKED = "import importlib.metadata as m, paste; print(m.version('paste-bio'))"
MATRICES = 14
"""n × n float64 matrices that PASTE holds at its peak, estimated from a run at 3 600 spots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paste:
    """Where PASTE lives and how far it may go.

    Attributes
    ----------
    python
        Interpreter of its environment; None: not installed.
    threads
        Of its BLAS.
    seconds
        Time limit of one pair.
    limit_gb
        Limit on its address space.
    """

    python: str | None
    threads: int
    seconds: float
    limit_gb: float

    def missing(self) -> str | None:
        """Say why it cannot run; None when it can."""
        if self.python is None:
            return "not installed (--paste-python names the interpreter of an environment that has paste-bio)"
        try:
            done = subprocess.run([self.python, "-c", ASKED], capture_output=True, text=True, check=False)
        except OSError as error:
            return f"not installed ({error})"
        return None if done.returncode == 0 else f"not installed ({done.stderr.strip().splitlines()[-1]})"


def needed_mib(n: int, m: int) -> float:
    """Return about what a pair of n and m spots takes, MiB."""
    return MATRICES * max(n, m) ** 2 * 8 / 2**20


def paste_pair(
    paste: Paste, made: Made, source: str, target: str, move: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Align one pair with PASTE.

    Returns
    -------
    dict
        plan (file), seconds, peak_rss_mib; or skipped, did_not_fit or stopped_after.
    """
    missing = paste.missing()
    if missing:
        return {"skipped": missing}
    given = {"run": str(made.path), "files": list(made.files), "source": source, "target": target}
    sizes = call("benchmarks.align_paste:write", {**given, "move": move, "folder": str(folder)}, threads=1).value
    need = needed_mib(*sizes)
    if need * 2**20 > paste.limit_gb * 1e9:
        return {"did_not_fit": f"about {need:.0f} MiB, more than {paste.limit_gb:g} GB", "estimate_mib": need}
    plan, result = folder / "paste.npz", folder / "paste.json"
    script = REPOSITORY / "benchmarks" / "paste_fit.py"
    words = [folder / "source.h5ad", folder / "target.h5ad", plan, result, paste.limit_gb]
    threads = dict.fromkeys(THREAD_VARIABLES, str(paste.threads))
    try:
        done = subprocess.run(
            [str(paste.python), "-I", str(script), *map(str, words)],
            env={**os.environ, **threads},
            capture_output=True,
            text=True,
            timeout=paste.seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"stopped_after": paste.seconds}
    if done.returncode or not result.exists():
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if "MemoryError" in said or done.returncode in (-9, 137):
            return {"did_not_fit": said}
        raise RuntimeError(f"PASTE ended with code {done.returncode}: {said}")
    return {"plan": str(plan), **json.loads(result.read_text(encoding="utf-8"))}


def write(run: str, files: list[str], source: str, target: str, move: dict[str, Any], folder: str) -> list[int]:
    """Write both slices with raw counts and the source moved; runs in the child.

    Returns
    -------
    list
        Spots of source and target.
    """
    import anndata
    import scipy.sparse as sp

    sizes = []
    for end, slice_ in zip(("source", "target"), read_slices(run, (source, target)), strict=True):
        path = next(Path(file) for file in files if Path(file).stem == slice_.name)
        data = anndata.read_h5ad(path) if path.suffix == ".h5ad" else anndata.read_zarr(path)
        data = data[slice_.obs.index]
        xy = slice_.xy
        if end == "source":
            linear, shift = move_parts(move, xy)
            xy = xy @ linear.T + shift
        # only what PASTE reads, in the oldest encoding there is: its environment has an old anndata
        plain = anndata.AnnData(sp.csr_matrix(data.X, dtype=np.float32))
        plain.obs_names, plain.var_names = data.obs_names.astype(str), data.var_names.astype(str)
        plain.obsm["spatial"] = xy
        plain.write_h5ad(Path(folder) / f"{end}.h5ad")
        sizes.append(len(xy))
    return sizes
