"""Build the API pages with pdoc: `python docs/build.py build/docs`. A warning of pdoc is an error."""

import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

import stscale

MODULES = (
    "stscale",
    "stscale.config",
    "stscale.sections",
    "stscale.method_sections",
    "stscale.errors",
    "stscale.results",
    "stscale.alignment",
    "stscale.transport",
    "stscale.slices",
    "stscale.graphs",
)
"""What a user may import; pages of everything below them are left out."""


def build(out: Path) -> list[str]:
    """Write the pages; return what pdoc warned of."""
    for name in stscale.__all__:  # resolved on first use, which pdoc does not know
        setattr(stscale, name, getattr(stscale, name))
    pdoc.render.configure(docformat="numpy", show_source=False, footer_text="stscale")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc(*MODULES, "!stscale\\..*\\..*", output_directory=out)
    return [str(w.message) for w in caught if "pdoc" in Path(w.filename).parts]


if __name__ == "__main__":
    faults = build(Path(sys.argv[1]))
    print(*faults, sep="\n", end="\n" * bool(faults), file=sys.stderr)
    sys.exit(1 if faults else 0)
