"""`python -m stscale.serving.examine`: the heavy part of checking a submission, in a process that ends.

Reads an order as JSON on stdin; prints {"planned": …}, or {"code": …, "error": one line}, the command line's own.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stscale.config import Run, load
from stscale.rundir import read_manifest
from stscale.verdict import verdict


def examine(order: dict[str, Any]) -> dict[str, float | None]:
    """Find out whether an order can be done, and what it will take: MiB and seconds.

    Parameters
    ----------
    order
        command, slices, run, out, toml (the path of a file), threads, labels, genes.

    Raises
    ------
    StscaleError
        As the command itself would say it.
    """
    slices, out = [Path(path) for path in order["slices"]], Path(order["out"])
    run = Path(order["run"]) if order["run"] else None
    base = load(run / "config.toml") if run is not None and order["command"] == "align" else None
    config = load(Path(order["toml"]), base)
    if not config.threads:
        config = config.replace({"run": {"threads": order["threads"]}})
    if order["command"] == "map" and run is not None:
        return _mapping(run, slices, out, split=config.ingest.split)
    if run is not None:
        from stscale.pipeline import check_align

        check_align(run, config, order["labels"], order["genes"])
        return _of_run(run)
    return _integration(slices, out, config, align=order["command"] == "align")


def _integration(slices: Sequence[Path], out: Path, config: Run, *, align: bool) -> dict[str, float | None]:
    from stscale.pipeline import check_unaligned, plan

    if align:
        check_unaligned(list(slices), config)
    found = plan(slices, out=out, config=config, idle=True).record()
    return {name: found[name] for name in ("ram_mb", "vram_mb", "disk_mb", "seconds")}


def _mapping(run: Path, slices: Sequence[Path], out: Path, *, split: str | None) -> dict[str, float | None]:
    from stscale.downstream.finished import Finished
    from stscale.downstream.mapping import check_mappable, check_out
    from stscale.inputs import check_inputs
    from stscale.planning import read_headers
    from stscale.rundir import check_writable

    finished = Finished.open(run)
    check_mappable(finished)
    paths = check_inputs(slices)
    for path in paths:
        read_headers(path, replace(finished.config.ingest, split=split))
    check_out(out, run, paths)
    check_writable(out)
    return _of_run(run)


def _of_run(run: Path) -> dict[str, float | None]:
    """Return what the run's own plan says, or what its stages took where that was more."""
    manifest = read_manifest(run)
    planned = manifest.get("plan", {})
    taken = [stage.get("peak_mb", 0.0) for stage in manifest["stages"].values()]
    return {"ram_mb": max(planned.get("ram_mb", 0.0), *taken, 0.0), "vram_mb": planned.get("vram_mb", 0.0)}


def main() -> None:
    """Examine the order on stdin."""
    try:
        told: dict[str, Any] = {"planned": examine(json.load(sys.stdin))}
    except Exception as error:
        code, text = verdict(error)
        told = {"code": code, "error": text}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
