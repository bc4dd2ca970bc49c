"""The README shows the numbers that were measured, and the result files are sound."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FILES = sorted(RESULTS.glob("*.json"))
RENDER = [sys.executable, "-m", "benchmarks.readme"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RENDER, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def test_readme_shows_the_measured_numbers() -> None:
    done = run("--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_results_are_valid_json_of_a_real_run(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert {"cores", "threads", "date", "packages"} <= set(found["environment"])
    assert '"smoke": true' not in path.read_text(encoding="utf-8")


def test_missing_results_and_missing_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    names = (
        "quality",
        "card",
        "k",
        "levers",
        "surroundings",
        "panels",
        "composition",
        "foundation",
        "telescope",
        "scale",
        "published",
        "align",
        "methods",
        "downstream",
    )
    readme.write_text("\n".join(f"<!-- {n} -->\nold\n<!-- /{n} -->" for n in names), encoding="utf-8")
    where = ("--readme", str(readme), "--results", str(tmp_path))
    assert run("--check", *where).returncode == 1
    assert run(*where).returncode == 0
    assert readme.read_text(encoding="utf-8").count("Not measured yet") == len(names)
    assert run("--check", *where).returncode == 0
    readme.write_text("no markers", encoding="utf-8")
    assert run(*where).returncode == 1
