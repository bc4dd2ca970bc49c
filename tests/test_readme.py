"""The README shows the numbers that were measured, and the result files are sound."""

import json
import re
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
    names = (
        "quality",
        "card",
        "k",
        "levers",
        "captures",
        "depth",
        "unseen",
        "normalised",
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
    readme, tables = tmp_path / "README.md", tmp_path / "benchmarks" / "RESULTS.md"
    tables.parent.mkdir()
    readme.write_text("<!-- summary -->\nold\n<!-- /summary -->", encoding="utf-8")
    tables.write_text("\n".join(f"<!-- {n} -->\nold\n<!-- /{n} -->" for n in names), encoding="utf-8")
    where = ("--root", str(tmp_path), "--results", str(tmp_path))
    assert run("--check", *where).returncode == 1
    assert run(*where).returncode == 0
    assert tables.read_text(encoding="utf-8").count("Not measured yet") == len(names)
    assert "0 of 0 targets" in readme.read_text(encoding="utf-8")
    assert run("--check", *where).returncode == 0
    tables.write_text("no markers", encoding="utf-8")
    assert run(*where).returncode == 1


def test_every_missed_target_is_in_the_readme() -> None:
    missed = [
        title
        for path in FILES
        for title, part in json.loads(path.read_text(encoding="utf-8")).get("targets", {}).items()
        if not part["met"]
    ]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert missed
    assert [title for title in missed if f"{title} |" not in readme] == []


@pytest.mark.parametrize("name", ["README.md", "benchmarks/RESULTS.md", "benchmarks/README.md"])
def test_links_between_documents_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, target
