"""The benchmark of alignment: known moves, known places, judged targets, tables from partial results."""

import json
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from benchmarks import align
from benchmarks.align_data import Made, drawn_move, move_parts, read_slices, read_truth, true_places
from benchmarks.align_made import middle
from benchmarks.align_paste import Paste, needed_mib, paste_pair
from benchmarks.align_score import against_identity, against_labels, against_truth, turned_apart
from benchmarks.data import read_results, write_results
from benchmarks.readme_align import align as render
from benchmarks.readme_align import spread
from stscale.config import Simulate
from stscale.slices import keys
from stscale.slices.simulate import simulate
from stscale.transport import Plan

ROOT = Path(__file__).resolve().parent.parent
MACHINE = {"smoke": False, "environment": {"threads": 2, "date": "2026-01-01"}}


def written(path: Path, parts: dict[str, tuple[np.ndarray, dict[str, object]]], d: int = 4) -> str:
    """Write a run's output: positions and columns by slice, latents drawn; the first spot has none."""
    xy = np.concatenate([xy for xy, _ in parts.values()])
    obs = pd.concat([pd.DataFrame({**columns, keys.SLICE: name}) for name, (_, columns) in parts.items()])
    obs.index = pd.Index([f"spot-{number}" for number in range(len(xy))])
    obs[keys.SLICE] = obs[keys.SLICE].astype("category")
    z = np.random.default_rng(0).normal(size=(len(xy), d)).astype(np.float32)
    z[0] = np.nan
    data = anndata.AnnData(obs=obs, obsm={keys.SPATIAL: xy, keys.EMBEDDING: z})
    data.write_zarr(path / "integrated.zarr")
    return str(path)


def test_a_move_turns_about_the_middle_and_shifts_by_extents() -> None:
    xy = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [0.0, 2.0]])
    linear, shift = move_parts({"degrees": 90.0, "shift": [0.5, 0.0], "mirror": False}, xy)
    # (4, 0) is (2, −1) from the middle, turned (1, 2), from the middle (2, 1) and half an extent further
    assert (xy @ linear.T + shift)[1] == pytest.approx([2 + 1 + 2, 1 + 2])
    linear, shift = move_parts({"degrees": 0.0, "shift": [0.0, 0.0], "mirror": True, "scale": 3.0}, xy)
    assert (xy @ linear.T + shift)[0] == pytest.approx([-4, 4])
    assert np.linalg.det(linear) == pytest.approx(-9)
    first, again, other = drawn_move(1, 2), drawn_move(1, 2), drawn_move(1, 3)
    assert first == again != other
    assert abs(first["degrees"]) <= 180
    assert max(map(abs, first["shift"])) <= 0.2


def test_true_places_are_those_of_the_simulation(tmp_path: Path) -> None:
    config = Simulate(overlap=0.6, warp=0.03, scale=0.2)
    files = simulate(tmp_path / "slices", slices=2, spots=200, genes=50, seed=3, config=config)
    truth = read_truth(Made(path=tmp_path, files=tuple(map(str, files)), cost={}))
    data = [anndata.read_zarr(file) for file in files]
    true = [slice_.obs[["true_x", "true_y"]].to_numpy() for slice_ in data]
    # a slice's own spots belong where they lie
    for i in range(2):
        places, matrix = true_places(truth, i, i, true[i])
        assert places == pytest.approx(data[i].obsm["spatial"], abs=1e-6)
        assert matrix == pytest.approx(np.eye(3))
    places, matrix = true_places(truth, 1, 0, true[1])
    expected = np.array(truth["transforms"][0]["matrix"]) @ np.linalg.inv(truth["transforms"][1]["matrix"])
    assert matrix == pytest.approx(expected)
    assert np.linalg.norm(places - data[1].obsm["spatial"]) > 1


def test_known_errors_are_found(tmp_path: Path) -> None:
    simulate(tmp_path / "slices", slices=2, spots=200, genes=50, seed=3, config=Simulate(overlap=0.7))
    files = sorted((tmp_path / "slices").glob("*.zarr"))
    data = [anndata.read_zarr(file) for file in files]
    parts = {
        f"slice-0{i}": (d.obsm["spatial"], {c: d.obs[c].to_numpy() for c in ("true_x", "true_y", "domain")})
        for i, d in enumerate(data)
    }
    run = written(tmp_path, parts)
    truth = read_truth(Made(path=tmp_path, files=tuple(map(str, files)), cost={}))
    target, source = read_slices(run, ["slice-00", "slice-01"])
    assert (len(target.xy), len(source.xy)) == (199, 200)
    move = {"degrees": 30.0, "shift": [0.1, 0.0], "mirror": False}
    own = np.eye(3)
    own[:2, :2], own[:2, 2] = move_parts(move, source.xy)
    exact = true_places(truth, 1, 0, source.obs[["true_x", "true_y"]].to_numpy())
    found = {"matrix": (exact[1] @ np.linalg.inv(own)).tolist()}
    np.savez(tmp_path / "places-0.npz", rigid=exact[0] + np.array([60.0, 80.0]), refined=exact[0])
    best = np.argmin(((exact[0][:, None] - target.xy) ** 2).sum(axis=2), axis=1)
    Plan.from_pairs(np.arange(200), best, shape=(200, 199)).save(tmp_path / "plan-0.npz")
    names = ["slice-00", "slice-01"]
    (row,) = against_truth(run, names, truth, [move], [found], str(tmp_path))
    assert row["degrees"] == pytest.approx(0, abs=1e-6)
    assert row["rigid"] == pytest.approx(1.0)
    assert row["refined"] == pytest.approx(0, abs=1e-6)
    assert row["within_pitch"] == 1.0
    assert 0.5 < row["overlap"] < 0.9
    # laid back where it came from, up to (0.3, 0.4) of a neighbour distance
    found["matrix"] = np.linalg.inv(own).tolist()
    np.savez(tmp_path / "places-0.npz", rigid=source.xy + np.array([30.0, 40.0]))
    (row,) = against_identity(run, "slice-01", "slice-00", [move], [found], str(tmp_path))
    assert row["degrees"] == pytest.approx(0, abs=1e-6)
    assert (row["rigid"], row["middle"]) == pytest.approx((0.5, 0.5))
    mirrored = np.diag([1.0, -1.0, 1.0])
    assert turned_apart(np.eye(3), mirrored) == float("inf")


def test_accuracy_counts_labelled_sources_with_a_match(tmp_path: Path) -> None:
    xy = np.arange(8.0).reshape(4, 2)
    labels = {"a": ["x", "x", "y", "", "y"], "b": ["x", "y", "y", "x"]}
    first = np.vstack([xy, [[9.0, 9.0]]])
    run = written(tmp_path, {"a": (first, {"l": labels["a"]}), "b": (xy, {"l": labels["b"]})})
    # the first spot of "a" has no embedding: sources are x, y, unlabelled, y
    plan = Plan.from_pairs([0, 0, 1, 2], [0, 1, 2, 0], [0.6, 0.4, 1.0, 1.0], shape=(4, 4))
    plan.save(tmp_path / "plan.npz")
    score = against_labels(run, "a", "b", {"plan": str(tmp_path / "plan.npz")}, "l")["plan"]
    assert score["accuracy"] == 1.0
    assert score["mass_accuracy"] == pytest.approx(1.6 / 2.0)
    assert score["coverage"] == pytest.approx(2 / 3)


def test_paste_that_is_not_there_is_said(tmp_path: Path) -> None:
    made = Made(path=tmp_path, files=(), cost={})
    for python, said in ((None, "--paste-python"), ("/nowhere/python", "not installed"), (sys.executable, "paste")):
        paste = Paste(python=python, threads=1, seconds=1.0, limit_gb=1.0)
        assert said in paste_pair(paste, made, "a", "b", {}, tmp_path)["skipped"]
    assert needed_mib(10, 2**10) == 8 * needed_mib(2**10, 2**10) / 8


def fit(**more: object) -> dict[str, object]:
    return {"mirror": False, "seconds": 1.0, "refine_seconds": 2.0, "coverage": [0.9, 0.9], "overlap": 0.8, **more}


def case(degrees: float, rigid: float, *, mirror: bool = False) -> dict[str, object]:
    rows = [
        {"angle": 0.0, "degrees": d, "rigid": rigid, "overlap": 1.0, "fit": fit(mirror=mirror)} for d in (0.1, degrees)
    ]
    return {"title": "case", "spots": 2000, "rows": rows}


def test_targets_are_judged_by_the_worst_run() -> None:
    results = {
        "simulated": {"full": {**case(0.6, 0.4), "title": "full"}, "mirror": case(float("inf"), 9.0, mirror=True)}
    }
    found = {name: (part["measured"], part["met"]) for name, part in align.judged(results).items()}
    assert found == {
        "full: degrees, at worst": (0.6, False),
        "full: shift in pitches, at worst": (0.4, True),
        "share of mirrored slices reported": (1.0, True),
        "share of other slices called mirrored": (0.0, True),
    }
    size = {"seconds": 20.0, "integrate": {"seconds": 30.0}, "peak_rss_mib": 5000.0}
    results = {
        "sizes": {"10000": size, "100000": size},
        "paste": {"10000": {"stopped_after": 600.0}, "1000": {"seconds": 1}},
    }
    found = {name: (part["measured"], part["met"]) for name, part in align.judged(results).items()}
    assert found["2 × 10 000 spots: PASTE's time limit over integrate, align and refine"] == (12.0, True)
    assert found["2 × 100 000 spots: peak RSS, GB"] == (pytest.approx(5.24, abs=0.01), False)
    scores = {name: {"accuracy": 0.9, "coverage": 0.96, "ltari": 0.8} for name in ("rigid", "plan")}
    rows = [{"pair": pair, "seed": 0, "scores": scores, "fit": fit()} for pair in align.WANTED]
    found = align.judged({"cortex": {"rows": rows}})
    assert [part["met"] for part in found.values()] == [True, True, True, False, True, True, True, True, True]


def test_tables_are_rendered_from_partial_results(tmp_path: Path) -> None:
    simulated = {"full": case(0.4, 0.3), "mirror": case(float("inf"), 9.0, mirror=True)}
    results = {**MACHINE, "simulated": simulated}
    results["targets"] = align.judged({"simulated": simulated})
    write_results(tmp_path / "x.json", results)
    text = render(read_results(tmp_path / "x.json"))
    assert "| case | 2 | 0.25 (0.10–0.40) | 0.30 | – | – | 1.00 | 0.90 | 0.80 | – | 3.0 |" in text
    assert "| case | 2 | reported in 2 |" in text
    assert "PASTE" not in text
    size = {"integrate": {"seconds": 9.0}, "align_seconds": 2.0, "refine_seconds": None, "seconds": 3.0}
    size |= {"peak_rss_mib": 1000.0, "degrees": 0.1, "rigid": 0.2}
    results = {
        **MACHINE,
        "sizes": {"5000": size},
        "paste": {"5000": {"skipped": "not installed"}, "9": {"stopped_after": 5}},
    }
    text = render(results)
    assert "| 2 × 5 000 | 9.0 | 2.0 |  | 3.0 | 1.05 | 0.100 | 0.20 | not installed |  |" in text
    assert "| 2 × 9 |  |  |  |  |  |  |  | stopped after 5 |  |" in text
    scores = {"plan": {"accuracy": 0.9, "coverage": 1.0, "ltari": 0.8}}
    rows = [{"pair": "151673-151674", "seed": s, "scores": scores, "fit": fit()} for s in (0, 1)]
    cortex = {"title": "cortex", "methods": {"plan": "ours", "paste": "PASTE"}, "rows": rows}
    text = render({**MACHINE, "cortex": cortex})
    assert "| ours | 0.900 / 1.000 / 0.800 |" in text
    assert "| PASTE | – |" in text
    assert "0.895" in text
    assert spread([None], 2) == "–"


def test_a_smoke_run_from_end_to_end(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.align", "--smoke", "--only", "simulated", "--threads", "1"]
    done = subprocess.run(
        [*words, "--out", str(tmp_path / "x.json")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["smoke"]
    rows = found["simulated"]["full"]["rows"]
    assert [row["angle"] for row in rows] == [0.0, 15.0]
    # how well 20 steps on 400 spots align is no matter; where the truth lies does not depend on the angle
    assert rows[0]["overlap"] == rows[1]["overlap"] > 0.9
    assert "smoke run" in render(found)


def test_sizes_are_the_medians_of_their_runs():
    def row(integrate, align):
        parts = {"align_seconds": align / 2, "refine_seconds": align / 4}
        return {"spots": 9, "seconds": align, **parts, "integrate": {"seconds": integrate, "n": 3}, "rigid": integrate}

    rows = [row(40.0, 8.0), row(200.0, 16.0), row(60.0, 12.0)]
    found = middle(rows)
    assert (found["seconds"], found["align_seconds"], found["refine_seconds"]) == (12.0, 6.0, 3.0)
    assert found["integrate"] == {"seconds": 60.0, "n": 3}
    assert (found["spots"], found["rigid"]) == (9, 40.0)
    assert found["runs"][1] == {"integrate": 200.0, "align": 16.0}
    assert rows[0]["integrate"]["seconds"] == 40.0
