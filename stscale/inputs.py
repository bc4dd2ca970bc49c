"""What is given as slices: paths that exist, each once."""

import glob
from collections.abc import Sequence
from pathlib import Path

from stscale.errors import InputError


def check_inputs(slices: Sequence[str | Path]) -> list[Path]:
    """Return the paths of slices.

    Raises
    ------
    InputError
        If there is none, one does not exist, or one is given twice.
    """
    paths = [Path(s) for s in slices]
    if not paths:
        raise InputError("no slices given: name at least one .zarr, .h5ad or 10x Visium folder")
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist")
    if len({p.resolve() for p in paths}) < len(paths):
        twice = next(p for p in paths if sum(q.resolve() == p.resolve() for q in paths) > 1)
        raise InputError(f"{twice} is given more than once")
    return paths


def matched(paths: list[Path]) -> list[Path]:
    """Replace patterns (`*`, `?`, `[…]`) by what they match, sorted: where no shell does so, as in a container.

    Raises
    ------
    InputError
        When a pattern matches nothing.
    """
    found = []
    for path in paths:
        if path.exists() or not glob.has_magic(str(path)):
            found.append(path)
            continue
        some = sorted(map(Path, glob.glob(str(path))))  # noqa: PTH207  # pathlib has no pattern with a folder of its own
        if not some:
            raise InputError(f"nothing matches {path}")
        found += some
    return found
