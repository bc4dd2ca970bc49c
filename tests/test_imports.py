"""The house: who may import whom, what loads at the start, and how long a file may be."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# the second part of the dotted name → floor; a module imports its own folder and lower floors
FLOORS = {
    0: (
        "__init__",
        "atomic",
        "cluster",
        "compute",
        "config",
        "device",
        "errors",
        "fingerprint",
        "inputs",
        "memory",
        "meter",
        "method_sections",
        "options",
        "ranks",
        "rundir",
        "sections",
        "size",
        "stopping",
        "telling",
        "threads",
        "verdict",
    ),
    1: ("slices", "graphs", "transport"),
    2: ("planning", "sampling", "losses"),
    3: ("models",),
    4: ("training",),
    5: ("alignment", "analysis"),
    6: ("output", "evaluation", "report", "results"),
    7: ("aligning", "downstream", "integrating"),
    8: ("pipeline", "tasks"),
    9: ("serving",),
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
CLI = 10
HEAVY = ("torch", "torch_geometric", "faiss", "scanpy", "anndata", "dask", "zarr", "sklearn", "matplotlib", "pandas")
FILES = sorted([*(ROOT / "stscale").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "cli" if parts[0] == "cli" else parts[1]


def floor_of(room: str) -> int:
    return CLI if room == "cli" else FLOOR[room]


def imported(tree: ast.AST, package: tuple[str, ...]) -> set[str]:
    """Rooms that a file imports, anywhere in it."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{module}.{alias.name}" for alias in node.names]
    rooms = set()
    for name in names:
        top, _, rest = name.partition(".")
        if top == "stscale":
            first = rest.split(".")[0]
            rooms.add(first if first in FLOOR else "__init__")
        elif top == "stscale_cli":
            rooms.add("cli")
    return rooms


def wrong(room: str, rooms: set[str]) -> list[str]:
    floor = floor_of(room)
    return sorted(r for r in rooms if r != room and not (floor_of(r) < floor or floor_of(r) == floor == 0))


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function; its docstring says things and does none, so it is not counted."""
    first = function.body[0]
    said = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) is not None else 0
    return function.end_lineno - function.lineno + 1 - said


def test_every_room_has_a_floor():
    rooms = {room_of(p) for p in FILES}
    assert rooms - {"cli"} <= set(FLOOR)
    assert {"slices", "graphs", "sampling", "losses", "models", "training", "analysis", "pipeline"} <= rooms


@pytest.mark.parametrize(
    ("room", "code", "expected"),
    [
        ("slices", "from stscale.graphs import load", ["graphs"]),
        ("graphs", "def f():\n    import stscale.training.fit", ["training"]),
        ("analysis", "from stscale import pipeline", ["pipeline"]),
        ("models", "from stscale.losses import telescope\nfrom stscale.models.edges import Edges", []),
        ("pipeline", "import stscale_cli.app", ["cli"]),
    ],
)
def test_the_walk_sees_a_wrong_import(room, code, expected):
    assert wrong(room, imported(ast.parse(code), ("stscale", room))) == expected


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_floor_imports_only_lower_floors(path):
    package = path.relative_to(ROOT).parts[:-1]
    assert wrong(room_of(path), imported(ast.parse(path.read_text(encoding="utf-8")), package)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {f.name: code_lines(f) for f in functions if code_lines(f) > 60} == {}


@pytest.mark.parametrize(
    "arguments",
    [
        None,
        ["--help"],
        ["--version"],
        ["integrate", "--help"],
        ["align", "--help"],
        ["metrics", "--help"],
        ["map", "--help"],
        ["export", "--help"],
        ["impute", "--help"],
        ["trajectory", "--help"],
        ["transfer", "--help"],
        ["serve", "--help"],
        ["config"],
    ],
    ids=lambda a: "import" if a is None else " ".join(a),
)
def test_the_start_is_light(arguments):
    command = (
        "import stscale"
        if arguments is None
        else f"import sys; sys.argv = ['stscale', *{arguments!r}]\n"
        "from stscale_cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    script = f"{command}\nimport json, sys\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout.splitlines()[-1]) == []
