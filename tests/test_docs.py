"""The tutorial runs and says what is so; the API pages build and name everything public."""

import re
import runpy
from pathlib import Path

import anndata
import pytest

import stscale

pytestmark = pytest.mark.figures
DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    drawn: list[Path] = []

    def write_report(run: Path, real=stscale.write_report) -> Path:
        # the first two are drawn over by the last
        drawn.append(run)
        return real(run) if len(drawn) == 3 else run / "report.html"

    monkeypatch.setattr("stscale.report.write_report", write_report)
    monkeypatch.setattr("sys.argv", ["tutorial.py", str(tmp_path)])
    runpy.run_path(str(DOCS / "tutorial.py"), run_name="__main__")
    said = capsys.readouterr().out
    score = re.search(r"adjusted Rand index, all slices jointly: (\d\.\d\d)", said)
    assert score is not None
    assert float(score[1]) > 0.4
    moved = re.search(r"(\d+) µm away before, (\d+) µm after", said)
    assert moved is not None
    assert int(moved[2]) < 0.6 * int(moved[1])  # a spot's pitch is 100 µm
    assert "slice-03: mapped" in said
    adata = anndata.read_zarr(tmp_path / "run" / "integrated.zarr")
    assert adata.n_vars == 200
    assert "spatial_aligned" in adata.obsm
    assert (len(drawn), (tmp_path / "run" / "report.html").is_file()) == (3, True)


def test_the_api_pages_name_everything_public(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="pdoc is not installed (make docs)")
    build = runpy.run_path(str(DOCS / "build.py"))["build"]
    assert build(tmp_path) == []
    page = (tmp_path / "stscale.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'id="([\w.]+)"', page))
    assert set(stscale.__all__) <= shown
    assert {"Run.preprocess", "Result.adata", "AlignResult.alignment"} <= shown
    # what is said of a parameter is there
    assert "Slice stores, AnnData (.h5ad or .zarr)" in page
    options = (tmp_path / "stscale" / "sections.html").read_text(encoding="utf-8")
    assert 'id="Preprocess.n_hvg"' in options
    assert not (tmp_path / "stscale" / "report.html").exists()  # nothing that is not meant to be used
