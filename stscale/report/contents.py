"""What a run folder holds, read once and no more of it than the report shows."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError
from stscale.rundir import EVENTS, read_manifest
from stscale.slices import keys

BLOCK = 65_536
"""Rows of the embedding read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spots:
    """The spots of `integrated.zarr`; coordinates and latents stay on disk until asked for.

    Attributes
    ----------
    slices, domains
        Names, in the order of their numbers.
    group
        (n,) slice number of each spot.
    domain
        (n,) domain number of each spot, -1 for a spot left out of the fit.
    root
        The open Zarr group.
    """

    slices: tuple[str, ...]
    domains: tuple[str, ...]
    group: NDArray[np.integer]
    domain: NDArray[np.integer]
    root: Any

    @property
    def n(self) -> int:
        """Number of spots."""
        return len(self.group)

    def rows(self, i: int) -> NDArray[np.int64]:
        """Return the rows of slice `i`, (n_i,) int64 ascending."""
        return np.flatnonzero(self.group == i)

    def coordinates(self, i: int) -> NDArray[np.float64]:
        """Return the coordinates of slice `i`, (n_i, 2 or 3) float64."""
        rows = self.rows(i)
        if not len(rows):
            return np.empty((0, 2))
        # the rows of a slice lie together
        block = np.asarray(self.root["obsm"][keys.SPATIAL][int(rows[0]) : int(rows[-1]) + 1], dtype=np.float64)
        return block[rows - rows[0]]

    def latents(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the embedding of some spots, (m, d) float32, `rows` ascending; read block by block."""
        array = self.root["obsm"][keys.EMBEDDING]
        out = np.empty((len(rows), array.shape[1]), dtype=np.float32)
        for lo in range(0, self.n, BLOCK):
            first, last = np.searchsorted(rows, (lo, lo + BLOCK))
            if last > first:
                out[first:last] = array[lo : lo + BLOCK][rows[first:last] - lo]
        return out

    def counts(self) -> NDArray[np.int64]:
        """Return the spots of each slice and domain, (slices, domains + 1) int64; the last column is left out."""
        k = len(self.domains)
        cell = self.group.astype(np.int64) * (k + 1) + np.where(self.domain < 0, k, self.domain)
        return np.bincount(cell, minlength=len(self.slices) * (k + 1)).reshape(len(self.slices), k + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A finished run as the report needs it.

    Attributes
    ----------
    name
        Name of the run folder.
    manifest
        `manifest.json`.
    config, config_text
        `config.toml`, parsed and verbatim.
    reused
        Stages that the last call reused.
    spots
        The spots.
    """

    name: str
    manifest: dict[str, Any]
    config: dict[str, Any]
    config_text: str
    reused: frozenset[str]
    spots: Spots

    def stage(self, name: str) -> dict[str, Any]:
        """Return what the manifest says about a stage; empty when nothing."""
        found: dict[str, Any] = self.manifest["stages"].get(name, {})
        return found

    def option(self, section: str, name: str) -> Any:
        """Return an option of the run, None when it is not set."""
        return self.config.get(section, {}).get(name)


def read_contents(run: Path) -> Contents:
    """Read a run folder.

    Raises
    ------
    InputError
        When it is not a run folder, or its run is not finished.
    """
    manifest = read_manifest(run)
    if (
        "write" not in manifest["stages"]
        or not (run / "integrated.zarr").is_dir()
        or not (run / "config.toml").is_file()
    ):
        raise InputError(
            f"{run} holds no finished run (its integrated.zarr was not written to the end); "
            "run the same stscale integrate command again"
        )
    text = (run / "config.toml").read_text(encoding="utf-8")
    return Contents(
        name=run.resolve().name,
        manifest=manifest,
        config=tomllib.loads(text),
        config_text=text,
        reused=_reused(run / EVENTS),
        spots=_spots(run / "integrated.zarr"),
    )


def _spots(path: Path) -> Spots:
    import zarr
    from anndata.io import read_elem

    root = zarr.open_group(path, mode="r")
    group = read_elem(root[f"obs/{keys.SLICE}"])
    domain = read_elem(root[f"obs/{keys.DOMAIN}"])
    return Spots(
        slices=tuple(str(c) for c in group.categories),
        domains=tuple(str(c) for c in domain.categories),
        group=np.asarray(group.codes),
        domain=np.asarray(domain.codes),
        root=root,
    )


def _reused(events: Path) -> frozenset[str]:
    """Return the stages whose last event says that they were reused."""
    last: dict[str, str] = {}
    if events.is_file():
        with events.open(encoding="utf-8") as file:
            for line in file:
                # most lines are training steps: parse the few others
                if '"event": "stage"' not in line:
                    continue
                try:
                    event = json.loads(line)
                except json.JSONDecodeError:
                    continue  # a line cut off by an interruption
                last[str(event.get("stage"))] = str(event.get("state"))
    return frozenset(stage for stage, state in last.items() if state == "reused")
