"""All options of a run: the sections of its stages, presets, TOML in and out."""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stscale.errors import InputError
from stscale.method_sections import Mhal, Smooth, Spotscape, Stmfg, Views
from stscale.options import Section, build, digest, option
from stscale.sections import (
    Align,
    Domains,
    Graph,
    Ingest,
    Output,
    Preprocess,
    Report,
    Sample,
    Simulate,
    Train,
)
from stscale.size import bytes_of

__all__ = [
    "PRESETS",
    "STEPS",
    "Align",
    "Domains",
    "Graph",
    "Ingest",
    "Mhal",
    "Output",
    "Preprocess",
    "Report",
    "Run",
    "Sample",
    "Simulate",
    "Smooth",
    "Spotscape",
    "Stmfg",
    "Train",
    "Views",
    "check_own",
    "dump",
    "dump_section",
    "load",
    "over",
    "parse",
    "preset",
]

STEPS = {"spotscape": 300, "mhal": 60, "stmfg": 60}
"""Optimiser steps of each method that trains, where `train.steps` is not given."""

OWN = ("align", "seed", "threads")
"""Options that the alignment of a finished run reads."""


@dataclass(frozen=True, kw_only=True)
class Run(Section):
    """One run: method, seed and resources, and the sections of the stages."""

    method: Literal["spotscape", "mhal", "stmfg", "smooth"] = option(
        "spotscape", "method that makes the embedding; smooth trains nothing"
    )
    seed: int = option(0, "seed of every random choice", low=0)
    device: Literal["auto", "cpu", "cuda"] = option("auto", "where training runs")
    threads: int = option(0, "CPU threads; 0 takes all cores", low=0)
    scheduler: str | None = option(None, "Dask scheduler, tcp://host:port; default: threads of this process")
    max_ram: str | None = option(None, "memory a run may take, for example 8G; default: what the machine has free")
    max_vram: str | None = option(None, "GPU memory a run may take, for example 16G; default: what the card has free")
    ingest: Ingest = Ingest()
    preprocess: Preprocess = Preprocess()
    graph: Graph = Graph()
    sample: Sample = Sample()
    spotscape: Spotscape = Spotscape()
    views: Views = Views()
    mhal: Mhal = Mhal()
    stmfg: Stmfg = Stmfg()
    smooth: Smooth = Smooth()
    train: Train = Train()
    domains: Domains = Domains()
    align: Align = Align()
    output: Output = Output()
    report: Report = Report()

    def check(self) -> None:
        """Refuse budgets that are no amounts of memory."""
        for name in ("max_ram", "max_vram"):
            value = getattr(self, name)
            if value is not None:
                bytes_of(value, name)

    def check_sections(self) -> None:
        """Refuse sections that contradict each other; before a run, for options come one after the other.

        Raises
        ------
        InputError
            Naming both options.
        """
        if self.preprocess.lognormalized and self.preprocess.fractional:
            raise InputError(
                "preprocess.lognormalized and preprocess.fractional are both set: values are logarithms, or amounts on "
                "a linear scale; say one"
            )
        if self.preprocess.lognormalized and "zinb" not in getattr(self.network, "without", ("zinb",)):
            raise InputError(
                f"{self.method} reconstructs raw counts and log-normalised input has none; give counts, or leave that "
                f"part out: {self.method}.without = ['zinb']"
            )
        if self.preprocess.lognormalized and self.output.counts:
            raise InputError(
                "output.counts = true, and log-normalised input has no counts; give counts, or set it false"
            )
        if self.graph.across and self.two_views:
            raise InputError(
                f"graph.across = {self.graph.across} (--align) joins the graph of spotscape and smooth; {self.method} "
                "reads two graphs of its own, of each slice: set it 0 and run stscale align on the finished run"
            )
        if self.domains.method == "assignment":
            self._check_assignment()

    def _check_assignment(self) -> None:
        if self.method != "mhal":
            raise InputError(f"domains.method = 'assignment' is for mhal; {self.method} has no prototypes to assign to")
        if "pcl" in self.mhal.without or self.mhal.phi == 1:
            raise InputError("domains.method = 'assignment' needs trained prototypes; they are left out of [mhal]")
        if self.domains.per_slice:
            raise InputError("domains.method = 'assignment' is joint over the slices; set domains.per_slice = false")
        if self.domains.k is None or self.domains.k > self.mhal.prototypes:
            raise InputError(
                f"domains.k = {self.domains.k} and mhal.prototypes = {self.mhal.prototypes}: an assignment merges the "
                "prototypes to domains.k domains; give that many domains (-k), and as many prototypes or more"
            )

    @property
    def ingesting(self) -> Ingest:
        """The options of ingestion: logarithms that are to be used as they are given do not become counts."""
        return dataclasses.replace(self.ingest, recover=self.ingest.recover and not self.preprocess.lognormalized)

    @property
    def budget(self) -> Train:
        """The options of training, with the method's own number of steps where none is given.

        Raises
        ------
        KeyError
            When the method trains nothing.
        """
        return self.train if self.train.steps else dataclasses.replace(self.train, steps=STEPS[self.method])

    @property
    def trains(self) -> bool:
        """Whether the method has anything to train."""
        return self.method in STEPS

    @property
    def two_views(self) -> bool:
        """Whether the method reads the two graphs of `[views]`."""
        return self.method in ("mhal", "stmfg")

    @property
    def network(self) -> Spotscape | Mhal | Stmfg | Smooth:
        """The options of the method itself."""
        network: Spotscape | Mhal | Stmfg | Smooth = getattr(self, self.method)
        return network

    def replace(self, changes: dict[str, dict[str, Any]]) -> "Run":
        """Return a copy with `changes` {section: {name: value}}; the section "run" is the top level.

        Raises
        ------
        InputError
            For an unknown section, an unknown name or a value that does not fit.
        """
        sections = {f.name for f in dataclasses.fields(self) if _is_section(getattr(self, f.name))}
        top: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name, values in changes.items():
            if name == "run":
                plain = [k for k in values if k in sections]
                if plain:
                    raise InputError(f"[run] has no option {plain[0]!r}; write a table [{plain[0]}]")
                top.update(values)
            elif name in sections:
                old = getattr(self, name)
                top[name] = build(type(old), {**_plain(old), **values}, name)
            else:
                raise InputError(f"unknown table [{name}]; known: run, {', '.join(sorted(sections))}")
        return build(Run, top, "run")

    def digest(self, *sections: str) -> str:
        """Hash the named fields (sections or plain options) to 16 hex digits."""
        return digest({name: _jsonable(getattr(self, name)) for name in sections})


# The paper as it is written: full batch, genes, ReLU latent, no centring, last-batch statistics aside.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "paper": {
        "sample": {"batch_size": 10_000_000},
        "spotscape": {
            "input": "genes",
            "decoder": "mlp",
            "target_smooth": 0,
            "drop_feature": 0.2,
            "drop_edge_per": "view",
            "pair_mean": False,
            "scale_every": 1,
            "refresh": 1,
            "activation": "relu",
            "center": False,
            "w_telescope": 1.0,
            "w_reconstruction": 0.1,
            "w_prototypes": 0.01,
            "w_scale": 1.0,
        },
        "train": {"epochs": 1000, "lr": 5e-4, "average": 0.0},
        "domains": {"method": "kmeans", "n_init": 10, "smoothed": 0.0},
    },
}


def preset(name: str) -> Run:
    """Return a named set of options: "default", or "paper" (Spotscape exactly as published).

    Raises
    ------
    InputError
        When there is no such preset.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise InputError(f"no preset {name!r}; known: {', '.join(PRESETS)}")
    return Run().replace(PRESETS[name])


def load(path: Path, base: Run | None = None) -> Run:
    """Read options from TOML over `base` (default: all defaults).

    Raises
    ------
    InputError
        When the file is missing, is not TOML, or names something unknown.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    return over(parse(text, str(path)), str(path), base)


def parse(text: str, where: str) -> dict[str, Any]:
    """Read TOML; `where` names it in the error.

    Raises
    ------
    InputError
        When it is not TOML.
    """
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{where} is not TOML: {error}") from error


def over(values: dict[str, Any], where: str, base: Run | None = None) -> Run:
    """Lay tables of options over `base` (default: all defaults), or over the preset that they name.

    Parameters
    ----------
    values
        {table: {option: value}}, and perhaps "preset".
    where
        Where they were given, for the error.
    base
        What they change.

    Raises
    ------
    InputError
        When they name something unknown, or a value does not fit.
    """
    tables = {k: v for k, v in values.items() if k != "preset"}
    start = preset(values["preset"]) if "preset" in values else (base or Run())
    loose = [k for k, v in tables.items() if not isinstance(v, dict)]
    if loose:
        raise InputError(f"{where}: option {loose[0]!r} stands outside a table; put it under [run]")
    return start.replace(tables)


def check_own(run: Run, base: Run) -> None:
    """Refuse options that the alignment of a finished run would not heed.

    Parameters
    ----------
    run
        What was asked for.
    base
        The options of the finished run.

    Raises
    ------
    InputError
        Naming the first table that differs and is not the alignment's.
    """
    for field in dataclasses.fields(run):
        if field.name not in OWN and getattr(run, field.name) != getattr(base, field.name):
            raise InputError(
                f"[{field.name}] of a finished run cannot be changed by align; integrate again with that option"
            )


def dump(run: Run, *, meanings: bool = True) -> str:
    """Write options as TOML, each with its meaning as a comment; unset options are commented out."""
    nested = [(k, v) for k, v in _plain(run).items() if _is_section(v)]
    return "\n".join(dump_section(name, section, meanings=meanings) for name, section in [("run", run), *nested])


def dump_section(name: str, section: Section, *, meanings: bool = True) -> str:
    """Write one section as a TOML table."""
    import tomlkit

    lines = [f"[{name}]" + (f"  # {(type(section).__doc__ or '').strip()}" if meanings else "")]
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if _is_section(value):
            continue
        text = f"# {field.name} =" if value is None else f"{field.name} = {tomlkit.item(_jsonable(value)).as_string()}"
        lines.append(f"{text}  # {field.metadata['meaning']}" if meanings else text)
    return "\n".join(lines) + "\n"


def _is_section(value: Any) -> bool:
    return isinstance(value, Section)


def _plain(section: Section) -> dict[str, Any]:
    return {f.name: getattr(section, f.name) for f in dataclasses.fields(section)}


def _jsonable(value: Any) -> Any:
    if _is_section(value):
        return {k: _jsonable(v) for k, v in _plain(value).items()}
    return list(value) if isinstance(value, tuple) else value
