"""`stscale metrics`: the only command that reads labels."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from .options import Debug, Threads


def metrics(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    labels: Annotated[str | None, typer.Option("--labels", help="obs column of the annotation.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Score a run: against an annotation where --labels names one, and without labels (mixing, coherence).

    Of an aligned run also its pairs, and its transforms against the true ones where the slices were simulated. The
    numbers are also written to RUN/metrics.json.
    """
    from stscale.evaluation import evaluate
    from stscale.threads import set_threads

    set_threads(threads or 0)
    found = evaluate(run, labels)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for part, values in found.items():
        typer.echo(f"{part}:")
        for name, value in values.items():
            whole = math.isfinite(value) and value == int(value)
            typer.echo(f"  {name:<22} {int(value) if whole else format(value, '.4f')}")
