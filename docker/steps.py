"""Do in a virtual environment what the Dockerfile does in an image: its own lines are read and run.

    python docker/steps.py /tmp/stscale                       # base cpu
    python docker/steps.py /tmp/stscale --build-arg TORCH_CPU=file:///mirror/simple
    python docker/steps.py /tmp/stscale --base cuda --dry-run # says what it would run

It follows the stages that the image's environment is made in, with ARG, ENV, WORKDIR, COPY and RUN, and ends with the
image's entry point. What needs root (system packages, the user) is left out, and named. Needs `dockerfile-parse`.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docker" / "Dockerfile"
HOME = "ENVIRONMENT"
"""The variable that says where the image keeps its environment; here it is the folder that is asked for."""
NEEDS_ROOT = re.compile(r"\b(apt-get|useradd|groupadd)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction: its word, and the text after it with continued lines joined."""

    word: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """From one FROM to the next."""

    name: str
    parent: str
    instructions: list[Instruction] = field(default_factory=list)


class Recipe:
    """A Dockerfile with its build arguments.

    Parameters
    ----------
    path
        The Dockerfile.
    given
        Build arguments, as `--build-arg`.
    """

    def __init__(self, path: Path, given: dict[str, str]) -> None:
        with path.open("rb") as file:
            structure = DockerfileParser(fileobj=file).structure
        self.given = given
        self.arguments: dict[str, str] = {}
        self.stages: dict[str, Stage] = {}
        stage: Stage | None = None
        for part in structure:
            word, text = part["instruction"].upper(), part["value"]
            if word == "COMMENT":
                continue
            if word == "FROM":
                parent, _, name = expanded(text, self.arguments).partition(" AS ")
                stage = Stage(name=name, parent=parent)
                self.stages[name] = stage
            elif stage is None:
                self.arguments |= self.argument(text, {})
            else:
                stage.instructions.append(Instruction(word=word, text=text))

    def argument(self, text: str, known: dict[str, str]) -> dict[str, str]:
        """Return what an ARG sets: what was given, else its default, else the global one."""
        name, _, default = text.partition("=")
        value = expanded(default.strip('"'), known) or self.arguments.get(name, "")
        return {name: self.given.get(name, value)}

    @property
    def last(self) -> Stage:
        """The stage that becomes the image."""
        return list(self.stages.values())[-1]

    def environment(self) -> list[Instruction]:
        """Return the instructions that make what the last stage copies from another one, from its base on."""
        copied = [re.match(r"--from=(\S+)", i.text) for i in self.last.instructions if i.word == "COPY"]
        name = next(m.group(1) for m in copied if m)
        chain = []
        while name in self.stages:
            chain.append(self.stages[name])
            name = self.stages[name].parent
        return [i for stage in reversed(chain) for i in stage.instructions]

    def entry(self) -> list[str]:
        """Return the command of the image: entry point and default arguments."""
        words = {i.word: i.text for i in self.last.instructions}
        return [*json.loads(words["ENTRYPOINT"]), *json.loads(words.get("CMD", "[]"))]


def expanded(text: str, values: dict[str, str]) -> str:
    """Replace `$NAME` and `${NAME}` of ARG, ENV, WORKDIR and FROM."""
    return re.sub(r"\$(\w+)|\$\{(\w+)\}", lambda m: values.get(m[1] or m[2], ""), text)


def assigned(text: str, values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield name and value of each assignment of an ENV."""
    for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|(\S+))', text):
        yield name, expanded(quoted or plain, values)


def commands(recipe: Recipe, target: Path, work: Path, values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each step as (kind, text): ``run`` a shell line, ``copy`` sources and place, ``left out``.

    `values` is the environment of the steps and changes as ENV and ARG come by.
    """
    for i in recipe.environment():
        if i.word == "ARG":
            values |= recipe.argument(i.text, values)
        elif i.word == "ENV":
            values |= dict(assigned(i.text, values))
            if HOME in dict(assigned(i.text, values)):
                values[HOME] = str(target)
        elif i.word == "WORKDIR":
            work.mkdir(exist_ok=True)
        elif i.word == "COPY":
            yield "copy", i.text
        elif i.word == "RUN":
            yield ("left out" if NEEDS_ROOT.search(i.text) else "run"), i.text
        else:
            raise ValueError(f"{i.word} has no meaning here; teach docker/steps.py what to do with it")


def copy(text: str, work: Path) -> None:
    """Copy files or folders of the project, as COPY does (a folder's content, not the folder)."""
    *sources, place = text.split()
    for source in sources:
        goal = work / place
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, goal, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / source, goal / source if place.endswith("/") else goal)


def main() -> None:
    """Build the environment and run the entry point in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", type=Path, help="folder of the environment; must not exist")
    parser.add_argument("--base", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--dry-run", action="store_true", help="only say what would run")
    options = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in options.build_arg)
    recipe = Recipe(FILE, {**given, "BASE": options.base})
    target = options.target.absolute()
    if target.exists():
        parser.error(f"{target} exists; name a new folder")
    # without the variables of the environment that this runs in
    values = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "VIRTUAL_ENV"}
    values["PATH"] = os.pathsep.join([str(Path(sys.base_prefix) / "bin"), values["PATH"]])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "build"
        for kind, text in commands(recipe, target, work, values):
            print(f"{kind}: {text}", flush=True)
            if options.dry_run:
                continue
            if kind == "copy":
                copy(text, work)
            elif kind == "run":
                subprocess.run(["bash", "-c", text], env=values, cwd=work, check=True)
        print(f"entry: {' '.join(recipe.entry())}", flush=True)
        if not options.dry_run:
            subprocess.run(recipe.entry(), env=values, cwd=work, check=True)


if __name__ == "__main__":
    main()
