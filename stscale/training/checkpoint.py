"""Checkpoints: one file each, whole or absent, refused for another configuration or version."""

import shutil
from pathlib import Path
from typing import Any

import torch

from stscale import __version__
from stscale.atomic import atomic_path
from stscale.errors import StscaleError

FORMAT = 1
KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any], digest: str) -> Path:
    """Write the state after `step` steps and remove all but the two newest checkpoints.

    Parameters
    ----------
    folder
        `run/checkpoints`.
    step
        Steps done.
    state
        Tensors, numbers and texts in dicts and lists.
    digest
        Of configuration and inputs; only the same may continue.
    """
    path = folder / f"step-{step:07d}.pt"
    content = {"format": FORMAT, "version": __version__, "digest": digest, "step": step, "state": state}
    with atomic_path(path) as part:
        torch.save(content, part)
    for old in sorted(folder.glob("step-*.pt"))[:-KEPT]:
        old.unlink()
    return path


def claim(folder: Path, digest: str) -> None:
    """Make `folder` hold checkpoints of this digest only: those of another configuration are removed."""
    mark = folder / "digest"
    if not mark.exists() or mark.read_text(encoding="utf-8") != digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        mark.write_text(digest, encoding="utf-8")


def latest(folder: Path) -> Path | None:
    """Return the newest checkpoint, if any."""
    return max(folder.glob("step-*.pt"), default=None)


def load(path: Path, digest: str, device: torch.device) -> tuple[int, dict[str, Any]]:
    """Read a checkpoint.

    Returns
    -------
    step, state
        As they were saved.

    Raises
    ------
    StscaleError
        When it is damaged, of another format or version, or of another configuration.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise StscaleError(f"{path} is not a readable checkpoint ({type(error).__name__}); use --fresh") from error
    if not isinstance(content, dict) or not {"format", "version", "digest", "step", "state"} <= content.keys():
        raise StscaleError(f"{path} is not a checkpoint of stscale; use --fresh")
    if content["format"] != FORMAT or content["version"] != __version__:
        raise StscaleError(
            f"{path} was written by stscale {content['version']} (format {content['format']}); "
            f"this is {__version__} (format {FORMAT}): use --fresh"
        )
    if content["digest"] != digest:
        raise StscaleError(f"{path} belongs to another configuration or other slices: use --fresh or another folder")
    return content["step"], content["state"]
