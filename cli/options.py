"""Options that several commands share, and how they become a configuration."""

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stscale.config import Run, load, preset
from stscale.errors import InputError
from stscale.sections import ACROSS

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Threads = Annotated[int | None, typer.Option("--threads", help="CPU threads; 0 takes all cores.", min=0)]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random choice.", min=0)]
Layer = Annotated[
    str | None, typer.Option("--layer", help="Matrix of an AnnData that is read: X, one of its layers, or raw.")
]
Split = Annotated[
    str | None, typer.Option("--split", help="Column of obs whose values are slices: an input holds several.")
]
Coordinates = Annotated[
    str | None,
    typer.Option("--coordinates", help="Where an AnnData has them: a key of obsm, or columns of obs as x,y."),
]
Lognormalized = Annotated[
    bool | None, typer.Option("--lognormalized", help="The input is log-normalised, and used as it is.")
]
Fractional = Annotated[
    bool | None, typer.Option("--fractional", help="Use amounts that are no integers as if they were counts.")
]
Domains = Annotated[int | None, typer.Option("--domains", "-k", help="Number of domains; else estimated.")]
Vocabulary = Annotated[str | None, typer.Option("--genes", help="Vocabulary: intersection or union.")]
MethodName = Annotated[
    str | None,
    typer.Option("--method", help="Method of the embedding: spotscape, mhal, stmfg, or smooth (nothing is trained)."),
]
MaxRam = Annotated[str | None, typer.Option("--max-ram", help="Memory the run may take, for example 8G.")]
MaxVram = Annotated[str | None, typer.Option("--max-vram", help="GPU memory the run may take, for example 16G.")]

AlignFirst = Annotated[
    bool | None,
    typer.Option("--align/--no-align", help="Lay the slices on each other first; the embedding sees across them."),
]


class Progress(StrEnum):
    """How a run tells what it does."""

    auto = "auto"
    plain = "plain"
    json = "json"


Progressing = Annotated[
    Progress,
    typer.Option("--progress", help="A bar on a terminal, else plain lines; or JSON lines on stdout, for a program."),
]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any option of `stscale config`, as section.name=value; repeatable."),
]


def configured(
    file: Path | None,
    named: str | None,
    settings: list[str] | None,
    given: dict[str, dict[str, Any]],
    *,
    base: Run | None = None,
) -> Run:
    """Join preset, file, `--set` and options, the later winning over the earlier.

    Parameters
    ----------
    file
        TOML file, if any.
    named
        Name of a preset, if any.
    settings
        `section.name=value` texts; the value is TOML, or a bare word.
    given
        {section: {name: value}} of the command's own options; None means not given.
    base
        Where to start without a preset; default: all defaults.
    """
    run = preset(named) if named else (base or Run())
    if file is not None:
        run = load(file, run)
    for text in settings or []:
        run = run.replace(parsed_setting(text))
    kept = {s: {k: v for k, v in values.items() if v is not None} for s, values in given.items()}
    return run.replace({s: values for s, values in kept.items() if values})


def joining(run: Run, align: bool | None) -> Run:
    """Return the options with `graph.across` as `--align` says; a number given otherwise stays."""
    return run if align is None else run.replace({"graph": {"across": (run.graph.across or ACROSS) if align else 0}})


def parsed_setting(text: str) -> dict[str, dict[str, Any]]:
    """Read `section.name=value` as {section: {name: value}}; the value is TOML, or a bare word."""
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise InputError(f"--set {text!r}: expected section.name=value, for example --set train.steps=200")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    return {section: {key: parsed}}
