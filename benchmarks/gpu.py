"""Half a million spots on one GPU: time per stage, GPU memory, host memory → results/gpu.json.

Exits 2, with one line, where torch sees no CUDA device.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.child import call
from benchmarks.data import environment, out_path, say, write_results
from benchmarks.integration import Simulation, integrated, simulated

DOMAINS = 7
WHAT = (
    "`stscale integrate --device cuda` in a process of its own; seconds by stage; peak_rss_mib is that process's "
    "VmHWM on the host; vram_mb and vram_reserved_mb of a stage, where the manifest has them, are torch's peak of "
    "allocated and reserved GPU memory, MiB. published: records of others on the same class of card"
)
PUBLISHED = (
    {"title": "CellCharter", "seconds": 621, "host_gb": 33, "source": "public benchmark record, 500 000 spots"},
    {"title": "STAGATE", "seconds": 2755, "host_gb": None, "source": "public benchmark record, 500 000 spots"},
)


def card() -> dict[str, Any] | None:
    """Describe the first CUDA device; None where torch sees none. Runs in the child."""
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return {"name": found.name, "memory_mib": found.total_memory / 2**20, "cuda": torch.version.cuda}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--spots", type=int, default=500_000, help="in all slices")
    parser.add_argument("--slices", type=int, default=13)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=7, help="of the simulation; integrate keeps its default")
    parser.add_argument("--keep", type=Path, help="folder where simulated slices stay and are looked for")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu.json")
    parser.add_argument("--smoke", action="store_true", help="3 × 400 × 200 and 20 steps on the CPU: does it run?")
    given = parser.parse_args()
    if given.smoke:
        given.slices, given.spots, given.genes = 3, 1_200, 200
    return given


def main() -> int:
    """Run and write the result file."""
    from stscale.threads import available_cores

    given = arguments()
    path = out_path(given.out, "gpu.json", smoke=given.smoke)
    threads = given.threads or available_cores()
    device = None if given.smoke else call("benchmarks.gpu:card", {}, threads=threads).value
    if device is None and not given.smoke:
        print(
            "no CUDA device: torch sees none, so nothing was measured (--smoke runs this on the CPU)", file=sys.stderr
        )
        return 2
    words = ["--device", "cpu", "--set", "train.steps=20"] if given.smoke else ["--device", "cuda"]
    with tempfile.TemporaryDirectory(prefix="stscale-gpu-") as name:
        folder = given.keep or Path(name)
        size = Simulation(spots=given.spots, slices=given.slices, genes=given.genes, seed=given.seed)
        files, cost = simulated(size, folder, threads)
        before = environment(threads)
        found = integrated(files, Path(name) / "run", domains=DOMAINS, threads=threads, words=words)
    settings = {key: getattr(given, key) for key in ("spots", "slices", "genes", "seed")}
    results = {"what": WHAT, "environment": before, "smoke": given.smoke, "settings": settings, "device": device}
    write_results(path, {**results, "simulate": cost, "published": list(PUBLISHED), **found})
    stages = ", ".join(f"{stage} {part['seconds']:.1f} s" for stage, part in found["integrate"]["stages"].items())
    vram = max((part.get("vram_mb") or 0 for part in found["integrate"]["stages"].values()), default=0)
    where = "CPU (smoke run)" if device is None else device["name"]
    say(
        f"{found['spots']} spots on {where}: {found['integrate']['seconds']:.1f} s ({stages}), GPU memory "
        f"{f'{vram:.0f} MiB' if vram else 'not recorded'}, host {found['integrate']['peak_rss_mib']:.0f} MiB, "
        f"ARI {found['ari']:.3f}; written: {path}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
