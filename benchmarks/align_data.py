"""Runs whose slices are laid on each other again: made once, read as views, turned by known amounts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.child import call
from benchmarks.data import data_root, read_results, say, write_results
from benchmarks.integration import integrated

Floats = NDArray[np.float64]

COST = "cost.json"
"""Beside a kept run: what making it cost, written when it is whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A finished run.

    Attributes
    ----------
    path
        The run folder.
    files
        Its slices.
    cost
        Seconds and peak memory of `stscale integrate`, from another call where the run was kept.
    """

    path: Path
    files: tuple[str, ...]
    cost: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Rows of one slice that have an embedding; n spots.

    Attributes
    ----------
    name
        Of the slice.
    xy : (n, 2)
        Positions as given.
    z : (n, d)
        Latents.
    obs
        Table of the spots, for scores only.
    """

    name: str
    xy: Floats
    z: NDArray[np.float32]
    obs: Any


def simulated_run(spec: dict[str, Any], folder: Path, threads: int, words: list[str]) -> Made:
    """Simulate two slices and integrate them, or take what an earlier call left.

    Parameters
    ----------
    spec
        spots (of each slice), genes, seed, and options of [simulate].
    folder
        Where runs stay.
    threads
        Of everything.
    words
        Further words of `stscale integrate`.
    """
    home = folder / "-".join(f"{name}{value}" for name, value in spec.items())
    if not (home / "slices" / "truth.json").exists():
        said = ["simulate", str(home / "slices"), "--slices", "2", "--threads", str(threads), "--quiet"]
        said += [w for name in ("spots", "genes", "seed") for w in (f"--{name}", str(spec[name]))]
        own = {name: value for name, value in spec.items() if name not in ("spots", "genes", "seed")}
        said += [w for name, value in own.items() for w in ("--set", f"simulate.{name}={value}")]
        call("benchmarks.foundation:command", {"words": said}, threads=threads)
    files = sorted(str(p) for p in (home / "slices").glob("*.zarr"))
    return _made(files, home / "run", domains=7, threads=threads, words=words)


def real_run(title: str, folder: Path, threads: int, *, domains: int, words: list[str], name: str) -> Made:
    """Integrate the slices of a real set, or take what an earlier call left under this name.

    Raises
    ------
    SystemExit
        When the set is not there.
    """
    files = sorted(str(p) for p in (data_root() / title).glob("*.h5ad"))
    if not files:
        raise SystemExit(f"no .h5ad in {data_root() / title}; point STSCALE_DATA at the folder that holds {title}")
    return _made(files, folder / f"{title}-{name}" / "run", domains=domains, threads=threads, words=words)


def _made(files: list[str], out: Path, *, domains: int, threads: int, words: list[str]) -> Made:
    kept = out.parent / COST
    if not kept.exists():
        cost = integrated(files, out, domains=domains, threads=threads, words=["--device", "cpu", *words])["integrate"]
        write_results(kept, {name: cost[name] for name in ("seconds", "peak_rss_mib")})
        say(f"{out.parent.name} integrated: {cost['seconds']:.1f} s, {cost['peak_rss_mib']:.0f} MiB")
    return Made(path=out, files=tuple(files), cost=read_results(kept))


def read_slices(run: str, names: Sequence[str] | None = None) -> list[Slice]:
    """Read slices of a run; in the order asked for, else of the run."""
    import zarr
    from anndata.io import read_elem

    from stscale.slices import keys

    root = zarr.open_group(Path(run) / "integrated.zarr", mode="r")
    obs = read_elem(root["obs"])
    xy = np.asarray(read_elem(root[f"obsm/{keys.SPATIAL}"]), np.float64)[:, :2]
    z = np.asarray(read_elem(root[f"obsm/{keys.EMBEDDING}"]), np.float32)
    of, whole = obs[keys.SLICE].astype(str).to_numpy(), np.isfinite(z).all(axis=1)
    found = []
    for name in names or list(dict.fromkeys(of)):
        rows = np.flatnonzero((of == name) & whole)
        found.append(Slice(name=name, xy=xy[rows], z=z[rows], obs=obs.iloc[rows]))
    return found


def drawn_move(*key: int) -> dict[str, Any]:
    """Draw a turn of −180 … 180° and a shift of up to a fifth of the slice from a seed."""
    rng = np.random.default_rng(key)
    return {"degrees": float(rng.uniform(-180, 180)), "shift": rng.uniform(-0.2, 0.2, 2).tolist(), "mirror": False}


def move_parts(move: dict[str, Any], xy: Floats) -> tuple[Floats, Floats]:
    """Return L (2, 2) and t (2,) of a turn about the middle of the spots and a shift by shares of their extent.

    A mirror image is x ↦ (x, −y) before the turn; `scale` multiplies lengths.
    """
    angle = np.deg2rad(move["degrees"])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = float(move.get("scale", 1.0)) * turn @ np.diag([1.0, -1.0 if move["mirror"] else 1.0])
    middle, extent = xy.mean(axis=0), np.ptp(xy, axis=0).max()
    return linear, middle + extent * np.asarray(move["shift"]) - linear @ middle


def true_places(truth: dict[str, Any], source: int, target: int, true_xy: Floats) -> tuple[Floats, Floats]:
    """Say where source spots belong in the target's coordinates.

    Parameters
    ----------
    truth
        `truth.json` of a simulation: spatial = matrix · (p + warp(p)).
    source, target
        Places of the slices in it.
    true_xy
        (n, 2) positions p of the source's spots in the common frame, µm.

    Returns
    -------
    places
        (n, 2) in the target's coordinates.
    matrix
        (3, 3) of the source's coordinates → the target's, warps left out.
    """
    entry = truth["transforms"][target]
    warp, matrix = entry["warp"], np.array(entry["matrix"])
    phase = np.asarray(true_xy) @ np.array(warp["frequency_per_extent"]).T / warp["extent_um"]
    waves = np.sin(2 * np.pi * phase + np.array(warp["phase"]))
    moved = true_xy + waves @ np.array(warp["amplitude_um"])
    places = moved @ matrix[:2, :2].T + matrix[:2, 2]
    return places, matrix @ np.linalg.inv(np.array(truth["transforms"][source]["matrix"]))


def read_truth(made: Made) -> dict[str, Any]:
    """Read `truth.json` beside simulated slices."""
    return json.loads((Path(made.files[0]).parent / "truth.json").read_text(encoding="utf-8"))
