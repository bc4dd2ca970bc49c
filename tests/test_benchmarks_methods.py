"""The benchmark of the three methods: the oracle sees what the run saw, targets are judged, tables render."""

import json
from pathlib import Path

import pytest

from benchmarks.methods import FLOOR, ablations, judged
from benchmarks.methods_fit import fit, oracle
from benchmarks.readme_methods import methods as render
from stscale.config import Run, Simulate
from stscale.slices.simulate import simulate

MACHINE = {"smoke": False, "environment": {"threads": 2, "date": "2026-01-01"}}


def test_the_last_checkpoint_scores_what_the_run_scored(tmp_path: Path) -> None:
    from stscale.evaluation import evaluate

    simulate(tmp_path / "slices", slices=1, spots=300, genes=80, config=Simulate(domains=4), seed=0)
    files = sorted(str(p) for p in (tmp_path / "slices").glob("*.zarr"))
    out = str(tmp_path / "run")
    changes = {"train": {"steps": 6}, "domains": {"n_init": 4}, "preprocess": {"n_pcs": 10}}
    done = fit(files, out, 4, 0, 1, changes, 2)
    assert done["steps"] == 6
    assert done["k"] == 4
    found = oracle(out, [], 1)
    assert [entry["step"] for entry in found] == [2, 4, 6]
    assert found[-1]["ari"] == pytest.approx(evaluate(Path(out), "domain")["labels"]["ari"], abs=1e-9)
    assert len({entry["ari"] for entry in found}) > 1


def test_every_ablation_is_a_valid_run() -> None:
    for variant in ablations().values():
        run = Run().replace({"run": {"method": variant.method}, **variant.changes})
        assert run.method == variant.method


def rows(aris: list[float]) -> list[dict[str, object]]:
    return [{"seed": i, "ari": a, "seconds": 9.0, "oracle": {"step": 50, "ari": a + 0.1}} for i, a in enumerate(aris)]


def results(ari: float, seconds: float) -> dict[str, object]:
    cost = {"10000": {"seconds": 60.0, "peak_rss_mib": 900.0, "ari": 0.9}}
    cost["100000"] = {"seconds": seconds, "peak_rss_mib": 1500.0, "ari": 0.9}
    entry = {"title": "MHAL", "cases": {name: rows([ari, ari, ari]) for name in FLOOR}}
    found = {**MACHINE, "cortex": {"mhal": entry}, "cost": {"mhal": cost}}
    return {**found, "targets": judged(found)}


def test_targets_are_judged() -> None:
    met = {part["met"] for part in judged(results(0.56, 300.0)).values()}
    assert met == {True}
    missed = judged(results(0.54, 1000.0))
    assert [part["met"] for part in missed.values()] == [False, False, True, False, True]


def test_tables_render(tmp_path: Path) -> None:
    text = render(json.loads(json.dumps(results(0.56, 300.0))))
    assert "| MHAL | 0.560 [0.660] |" in text
    assert "untrained floor" in text
    assert "300" in text
