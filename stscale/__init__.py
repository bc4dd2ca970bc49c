"""stscale: integrate and align many slices of spatial-transcriptomics tissue, at any size.

Slices on disk become a *run*, a folder that holds everything that was found; all functions take paths and give paths,
or a small result that reads the folder. Each does what the command of the same name does, and raises `StscaleError`
with one line where something is wrong with what it was given.

- `simulate`, `ingest` make slices.
- `integrate`, `align` make a run of slices, and lay its slices into one frame. Options are a `Run`; `preset` names
  some.
- `evaluate`, `write_report` score a run, and draw its page anew.
- `map_slices`, `trajectory`, `impute`, `transfer`, `export` use a finished run.
"""

import importlib
import os
from typing import Any

# Threads of one OpenMP runtime (torch) that wait by spinning starve those of the other (FAISS); benchmarks/steps.py
# measures what a step takes either way. Only effective before either is loaded; a value set by the user wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

# Resolved on first use, so that `import stscale` stays light (no torch, no FAISS).
_LAZY = {
    "AlignResult": "stscale.results",
    "MapResult": "stscale.tasks",
    "Result": "stscale.results",
    "Run": "stscale.config",
    "StscaleError": "stscale.errors",
    "align": "stscale.pipeline",
    "evaluate": "stscale.evaluation",
    "export": "stscale.tasks",
    "impute": "stscale.tasks",
    "ingest": "stscale.slices",
    "integrate": "stscale.pipeline",
    "map_slices": "stscale.tasks",
    "preset": "stscale.config",
    "simulate": "stscale.slices",
    "trajectory": "stscale.tasks",
    "transfer": "stscale.tasks",
    "write_report": "stscale.report",
}
__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'stscale' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
