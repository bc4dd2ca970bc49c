"""The benchmark of domain quality: which rows fit which set, and tables of sets without annotation."""

import pytest

from benchmarks import quality
from benchmarks.quality import METRICS, summary, table
from benchmarks.readme import quality as rendered
from stscale.sections import ACROSS


@pytest.fixture
def two_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "slice_files", lambda name: ["a"] if name == "iss" else ["a", "b"])


def test_rows_fit_sets_that_have_what_they_need(two_slices: None) -> None:
    rows = table(1)
    assert rows["joined"].arguments["changes"]["graph"]["across"] == ACROSS
    fitting = {name: [key for key, row in rows.items() if quality.fits(name, key, row)] for name in quality.EVERY}
    assert fitting["dlpfc"] == list(rows)
    assert fitting["seqfish"] == ["stscale", "smooth", "joined", "joined-smooth"]
    assert fitting["iss"] == ["stscale", "smooth"]


def test_a_set_without_annotation_has_no_columns_of_agreement() -> None:
    run = dict.fromkeys(METRICS, 0.25) | {"ari": None, "nmi": None, "clustering_accuracy": None}
    runs = [{"seed": seed, **run, "slice_ari": {}} for seed in (0, 1)]
    row = {"title": "ours", "smoke": False, "seeds": [0, 1], "runs": runs, "summary": summary(runs)}
    tissue = {"title": "bare", "k": 12, "labelled": False, "published": [], "rows": {"stscale": row}}
    text = rendered({"sets": {"bare": tissue}})
    assert "| method | seeds | CHAOS ↓ | PAS ↓ | iLISI | batch ASW | seconds | peak RSS, MiB |" in text
    assert "| ours | 2 | 0.250 | 0.250 | 0.250 | 0.250 | 0 | 0 |" in text
    assert "ARI" not in text
