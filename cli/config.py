"""`stscale config`."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Debug, Setting, configured


def config(
    preset: Annotated[str | None, typer.Option("--preset", help="default or paper.")] = None,
    file: Annotated[Path | None, typer.Option("--config", "-c", help="Complete this TOML file.")] = None,
    settings: Setting = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="Print the options of `stscale simulate`.")] = False,
    debug: Debug = False,
) -> None:
    """Print every option with its default and meaning, as TOML for --config."""
    from stscale.config import Simulate, dump, dump_section

    if simulate:
        typer.echo(dump_section("simulate", Simulate()), nl=False)
    else:
        typer.echo(dump(configured(file, preset, settings, {})), nl=False)
