"""Writes that are either whole or absent."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stscale.stopping import deferred


@contextmanager
def atomic_path(path: Path, *, holder_in: Path | None = None) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; what is written there takes its place only on success.

    Parameters
    ----------
    path
        The final file or directory. Its parent is created when missing.
    holder_in
        Directory of the temporary sibling, on the same file system; default: the parent of `path`. For a path
        inside a folder that others list.

    Yields
    ------
    Path
        A path that does not exist yet, on the same file system. Create a file or a directory there.
        On an exception it is removed and `path` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkdtemp makes the name ours even when two processes write the same target
    holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=holder_in or path.parent))
    part = holder / path.name
    try:
        yield part
        with deferred():
            if path.is_dir() and not path.is_symlink():
                # a directory cannot be replaced in one call: move the old one aside first, delete it last
                path.replace(holder / "old")
            part.replace(path)
    finally:
        shutil.rmtree(holder, ignore_errors=True)
