"""The run folder: what was done, from what, and what can be reused."""

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stscale import __version__
from stscale.atomic import atomic_path
from stscale.errors import InputError
from stscale.memory import trim
from stscale.meter import Meter
from stscale.stopping import Stopped, check

MANIFEST = "manifest.json"
EVENTS = "events.jsonl"
PACKAGES = (
    *("torch", "faiss-cpu", "faiss-gpu", "anndata", "zarr", "numpy", "scipy", "scikit-learn", "dask"),
    *("scanpy", "umap-learn", "matplotlib"),
)


LEFT_MB = 64.0
"""Memory above that after the last trim that stages may leave behind, MiB: to collect takes a quarter of a second."""


class RunFolder:
    """A folder whose manifest names every finished stage and the digest of what went into it.

    A stage is reused when its digest is unchanged and its outputs are there; a stage that was interrupted never
    got into the manifest, so nothing half-written is trusted.

    Parameters
    ----------
    path
        The folder; made when missing.
    fresh
        Forget what an earlier run left there.

    Raises
    ------
    InputError
        When the folder holds other things than a run, or this process may not write there.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        self.existed = path.exists()
        check_place(path)
        if fresh and self.existed:
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        for part in path.rglob(".*.part"):  # what a killed process was writing
            shutil.rmtree(part, ignore_errors=True)
        self._trimmed_mb: float | None = None
        self.manifest: dict[str, Any] = {"stages": {}}
        if (path / MANIFEST).exists():
            self.manifest = read_manifest(path)
        self.manifest.update(stscale=__version__, python=platform.python_version(), packages=_versions())
        self.save()

    def file(self, *parts: str) -> Path:
        """Return a path inside the folder."""
        return self.path.joinpath(*parts)

    def finished(self, stage: str, digest: str, *outputs: Path) -> bool:
        """Whether the stage was finished with this digest and its outputs are still there."""
        record = self.manifest["stages"].get(stage)
        return record is not None and record["digest"] == digest and all(o.exists() for o in outputs)

    @contextmanager
    def stage(self, name: str, digest: str, *, undoes: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
        """Run a stage: measured, announced, and recorded only when it ends well.

        Parameters
        ----------
        name, digest
            Of the stage.
        undoes
            Stages whose outputs this one replaces: they are no longer finished.

        Yields
        ------
        dict
            What the stage wants to have in the manifest besides digest, seconds and peak memory.

        Raises
        ------
        Stopped
            Before the stage, when a stop was asked for.
        """
        check()
        for gone in (name, *undoes):
            self.manifest["stages"].pop(gone, None)
        self.save()
        self.event("stage", stage=name, state="start")
        found: dict[str, Any] = {}
        try:
            with Meter() as meter:
                yield found
        except Stopped as stop:
            self.event("stage", stage=name, state="stopped", signal=stop.name)
            raise
        self._give_back(meter)
        record = {"digest": digest, "seconds": round(meter.seconds, 3), "peak_mb": round(meter.peak_mb, 1), **found}
        self.manifest["stages"][name] = record
        self.save()
        self.event("stage", stage=name, state="end", **{k: v for k, v in record.items() if k != "digest"})

    def _give_back(self, meter: Meter) -> None:
        if self._trimmed_mb is None:
            self._trimmed_mb = meter.first_mb
        if meter.peak_mb - self._trimmed_mb > LEFT_MB:
            trim()
            self._trimmed_mb = meter.resident_mb()

    def forget(self, stage: str) -> None:
        """Take a stage off the manifest: it is no longer part of the run."""
        if self.manifest["stages"].pop(stage, None) is not None:
            self.save()

    def command(self, verb: str) -> None:
        """Note how this process was started, so that the run can be made again: manifest["commands"][verb]."""
        first, *rest = sys.argv or [""]
        # the console script, and `python -m stscale_cli` (whose first word is a file)
        ours = Path(first).stem == "stscale" or Path(first).parent.name in ("stscale_cli", "cli")
        words = ["stscale" if ours else Path(first).name, *rest]
        self.manifest.setdefault("commands", {})[verb] = words
        self.save()

    def reuse(self, name: str) -> None:
        """Announce that a stage is reused."""
        self.event("stage", stage=name, state="reused")

    def event(self, kind: str, **fields: Any) -> None:
        """Append one JSON line to events.jsonl."""
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **fields}, default=str)
        with self.file(EVENTS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def save(self) -> None:
        """Write the manifest, whole or not at all."""
        with atomic_path(self.file(MANIFEST)) as part:
            part.write_text(json.dumps(self.manifest, indent=2, default=str) + "\n", encoding="utf-8")

    def discard_if_new(self, before: str | None = None) -> None:
        """Remove the folder when this run made it and nothing in it is worth keeping.

        Parameters
        ----------
        before
            A stage: what came before it is not worth keeping either. None: any finished stage is.
        """
        finished = self.manifest["stages"]
        if not self.existed and (not finished or (before is not None and before not in finished)):
            shutil.rmtree(self.path, ignore_errors=True)


def check_place(path: Path) -> None:
    """Make sure that `path` is a run folder, or can become one.

    Raises
    ------
    InputError
        When it holds other things than a run, or this process may not write there.
    """
    if path.is_file():
        raise InputError(f"{path} is a file; give a folder for the run with -o")
    if path.exists() and any(path.iterdir()) and not (path / MANIFEST).exists():
        raise InputError(f"{path} is not empty and not a run of stscale; give another folder with -o")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Make sure that this process may make `path`, or change what it holds; nothing is left behind.

    Raises
    ------
    InputError
        Naming the folder in the way, whose it is, and who this process is.
    """
    place = path.absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        owner = f"belongs to user {place.stat().st_uid}, this process is user {os.getuid()}"
        raise InputError(
            f"cannot write to {place} ({error.strerror}; it {owner}); give a folder for the run that this user may "
            "write to, mounted for reading and writing"
        ) from error


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a run folder.

    Raises
    ------
    InputError
        When there is none or it is damaged.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is not a run folder: it has no {MANIFEST}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path / MANIFEST} is damaged ({error}); use --fresh") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("stages"), dict):
        raise InputError(f"{path / MANIFEST} is damaged (it lists no stages); use --fresh")
    return manifest


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
