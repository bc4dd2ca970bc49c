"""The files of a run folder that may be fetched."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from stscale.serving.schemas import Artefact

REPORT = "report.html"


def artefacts(folder: Path) -> list[Artefact]:
    """Return the plain files of a run folder, sorted; links, hidden files and what is half written are left out."""
    return sorted(_walk(folder, ""), key=lambda a: a.path)


def artefact(folder: Path, path: str) -> Path | None:
    """Return where a file of `artefacts` is, None when it is none of them."""
    parts = path.split("/")
    if folder.resolve() != folder or not all(map(_open, parts)):
        return None
    here = folder
    for number, part in enumerate(parts, start=1):
        here = here / part
        try:
            mode = here.lstat().st_mode
        except OSError:
            return None
        if not (stat.S_ISREG(mode) if number == len(parts) else stat.S_ISDIR(mode)):
            return None
    return here


def _open(name: str) -> bool:
    """Whether a name is nobody's own and can be said in a URL."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return bool(name) and "\0" not in name and not name.startswith(".") and not name.endswith(".part")


def _walk(folder: Path, prefix: str) -> Iterator[Artefact]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # a run that is being written moves folders about
        return
    for entry in entries:
        if not _open(entry.name):
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield Artefact(path=prefix + entry.name, size=entry.stat(follow_symlinks=False).st_size)
        except FileNotFoundError:
            continue
