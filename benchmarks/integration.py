"""One `stscale integrate` in a child process: seconds, memory and disk, as a row of a table."""

import json
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.child import call
from benchmarks.data import say, write_results

MIB = 2**20
COST = "simulated.json"
"""Beside kept slices: what making them cost, written when they are whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Slices to simulate.

    Attributes
    ----------
    spots
        In all; a slice has `spots // slices`.
    slices, genes, seed
        Of `stscale simulate`.
    """

    spots: int
    slices: int
    genes: int
    seed: int


def simulated(what: Simulation, folder: Path, threads: int) -> tuple[list[str], dict[str, Any]]:
    """Simulate, or take what is there from an earlier call.

    Returns
    -------
    files
        The slice stores.
    cost
        Seconds and peak memory of the simulation, and whether it was made by an earlier call.
    """
    home = folder / f"simulated-{what.spots}-{what.slices}-{what.genes}-{what.seed}"
    kept = home / COST
    files = sorted(str(p) for p in (home / "slices").glob("*.zarr"))
    if kept.exists() and len(files) == what.slices:
        return files, {**json.loads(kept.read_text(encoding="utf-8")), "reused": True}
    size = {"slices": what.slices, "spots": what.spots // what.slices, "genes": what.genes, "seed": what.seed}
    words = ["simulate", str(home / "slices"), *(w for k, v in size.items() for w in (f"--{k}", str(v)))]
    words += ["--threads", str(threads), "--quiet"]
    done = call("benchmarks.foundation:command", {"words": words}, threads=threads)
    cost = {"seconds": done.seconds, "peak_rss_mib": done.peak_rss_mib}
    write_results(kept, cost)
    say(f"{what.spots} spots simulated: {done.seconds:.1f} s, {done.peak_rss_mib:.0f} MiB")
    return sorted(str(p) for p in (home / "slices").glob("*.zarr")), {**cost, "reused": False}


def integrated(files: list[str], out: Path, *, domains: int, threads: int, words: list[str]) -> dict[str, Any]:
    """Run `stscale integrate` in a child and read what it left.

    Parameters
    ----------
    files
        Slices.
    out
        Run folder, new.
    domains
        K.
    threads
        Of everything.
    words
        Further words of the command line.

    Returns
    -------
    dict
        integrate (seconds, peak memory, stages), disk, spots and slices, training, plan (None where the manifest
        has none) and ari (None where the slices have no annotation `domain`).
    """
    said = ["integrate", *files, "--domains", str(domains), "--out", str(out), "--threads", str(threads), "--quiet"]
    with DiskWatch(out) as disk:
        done = call("benchmarks.foundation:command", {"words": [*said, *words]}, threads=threads)
    found = call("benchmarks.integration:read", {"out": str(out)}, threads=threads).value
    stages = found.pop("stages")
    return {
        "integrate": {"seconds": done.seconds, "peak_rss_mib": done.peak_rss_mib, "stages": stages},
        "disk": {"left_mib": disk_mib(out), "peak_mib": disk.peak_mib},
        **found,
    }


def read(out: str) -> dict[str, Any]:
    """Read a finished run folder: stages, training, plan, ARI; runs in a child of its own."""
    from stscale.rundir import read_manifest

    manifest = read_manifest(Path(out))
    stages = manifest["stages"]
    kept = ("vram_mb", "vram_reserved_mb", "device")
    return {
        "spots": stages["features"]["spots"],
        "fit_spots": stages["features"]["fit_spots"],
        "slices": len(manifest["inputs"]),
        "genes_used": stages["features"]["genes_used"],
        "stages": {
            name: {"seconds": s["seconds"], "peak_mib": s["peak_mb"], **{k: s[k] for k in kept if k in s}}
            for name, s in stages.items()
        },
        "training": training(stages, Path(out) / "events.jsonl"),
        "plan": manifest.get("plan"),
        "ari": agreement(out),
    }


def training(stages: dict[str, Any], events: Path) -> dict[str, float]:
    """Return steps, seeds per step, seconds per step and µs per seed and step.

    The seconds per step are the loop's own mean, from the last `step` event: checkpoints count, the reading of
    inputs before the first step does not.
    """
    lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    seconds = [line["seconds_per_step"] for line in lines if line["event"] == "step"][-1]
    steps, epochs = stages["train"]["steps"], stages["train"]["epochs"]
    seeds = stages["features"]["fit_spots"] * epochs / steps
    return {
        "steps": steps,
        "spots_per_step": seeds,
        "seconds_per_step": seconds,
        "us_per_spot_and_step": seconds / seeds * 1e6,
    }


def agreement(out: str) -> float | None:
    """Return the ARI of the domains with the annotation `domain`; None where there is none."""
    import zarr
    from anndata.io import read_elem

    from stscale.analysis.metrics import ari
    from stscale.slices import keys

    obs = read_elem(zarr.open_group(Path(out) / "integrated.zarr", mode="r")["obs"])
    if "domain" not in obs or obs["domain"].isna().all():
        return None
    return ari(obs["domain"].astype(object).to_numpy(), obs[keys.DOMAIN].astype(object).to_numpy())


def disk_mib(folder: Path) -> float:
    """Return what the files in a folder take on disk, MiB: blocks, so that holes in files do not count."""
    total = 0
    for home, _, names in os.walk(folder):  # unlike a glob it does not mind folders that go meanwhile
        for name in names:
            with suppress(OSError):
                total += os.lstat(Path(home, name)).st_blocks * 512
    return total / MIB


class DiskWatch:
    """Follow the size of a folder while something else writes into it.

    Parameters
    ----------
    folder
        Need not exist yet.
    interval
        Seconds between two looks.

    Attributes
    ----------
    peak_mib
        Largest size seen, MiB.
    """

    def __init__(self, folder: Path, interval: float = 2.0) -> None:
        self.peak_mib = 0.0
        self._folder = folder
        self._interval = interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stscale-disk", daemon=True)

    def __enter__(self) -> "DiskWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak_mib = max(self.peak_mib, disk_mib(self._folder))

    def _watch(self) -> None:
        while not self._done.wait(self._interval):
            self.peak_mib = max(self.peak_mib, disk_mib(self._folder))
