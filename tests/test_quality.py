"""quality.json of runs: what is in it, when it is made anew, and who shows it."""

import json
import shutil
from dataclasses import asdict
from html import escape
from pathlib import Path

import numpy as np
import pytest
from test_pipeline import SMALL, TINY, stages, write_inputs

from stscale import integrate
from stscale.analysis.card import Measures, Sample, measure
from stscale.analysis.told import Surroundings
from stscale.analysis.verdict import judge
from stscale.graphs import load
from stscale.rundir import read_manifest
from stscale.slices.features import FeatureStore
from stscale.training import pca_inputs

CONFIG = TINY.replace({"report": {"quality": True}})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> list[Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    integrate(inputs, out=out, config=CONFIG)
    return out


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def card(run: Path) -> dict:
    return json.loads((run / "quality.json").read_text(encoding="utf-8"))


def test_the_card_holds_the_embedding_and_the_floor_on_the_same_spots(finished, tmp_path):
    found = card(finished)
    features = FeatureStore.open(finished / "features.zarr")
    graph = load(finished / "graph.npz")
    floor = np.array(pca_inputs(features, graph, tmp_path, smooth=2).array)
    around = Surroundings(features.pca, graph.indptr, graph.indices)
    sample, given = Sample.draw(features.n, seed=0), {"k": 3, "n_components": 6, "seed": 0}
    for name, z in (("embedding", np.load(finished / "latents.npy")), ("floor", floor)):
        expected = asdict(measure(z, features.xy(), features.slice(), sample, around, **given))
        assert {key: found[name][key] for key in expected} == pytest.approx(expected)
        assert all(value is not None for value in expected.values())
    assert found["floor"]["rounds"] == 2
    assert found["components"]["ilisi"] is not None
    assert (found["method"], found["k"], found["spots"]) == ("spotscape", 3, 350)
    assert set(found["meanings"]) == {*found["embedding"], "scale"}
    said = judge(*(Measures(**{key: found[part][key] for key in expected}) for part in ("embedding", "floor")))
    assert (found["verdict"], found["sentence"]) == (said.verdict, said.sentence)
    assert found["embedding"]["told"] != found["floor"]["told"]  # the other way round would be another sentence
    assert read_manifest(finished)["stages"]["quality"]["verdict"] == found["verdict"]
    assert not (finished / "scratch").exists()


def test_wider_surroundings_are_told_where_they_predict_better(finished, inputs, tmp_path, monkeypatch):
    from stscale.analysis import scale

    found = card(finished)["scale"]
    assert found["used"] == 2
    assert set(found["losses"]) == {str(r) for r in scale.TRIED}
    assert ("sentence" in found) == (found["wider"] is not None)

    def far(*_args, used, **_options):
        return scale.Scale(used=used, losses={used: 1.02, 16: 1.0}, rounds=16)

    monkeypatch.setattr(scale, "spatial_scale", far)
    out = tmp_path / "far"
    integrate(inputs, out=out, config=CONFIG)
    told = card(out)["scale"]
    assert told["wider"] == {"rounds": 16, "weight": pytest.approx(0.5)}
    assert read_manifest(out)["stages"]["domains"]["wider"] == told["wider"]
    assert "16 rounds of neighbours predict spots 2.0% better than those over 2" in told["sentence"]
    assert "at 0.50 of the others' variance" in told["sentence"]
    assert escape(told["sentence"]) in (out / "report.html").read_text(encoding="utf-8")
    monkeypatch.undo()
    without = tmp_path / "without"
    integrate(inputs, out=without, config=CONFIG.replace({"domains": {"wider": 0.0}}))
    assert card(without)["scale"]["wider"] is None
    assert card(without)["scale"]["losses"] == found["losses"]


@pytest.mark.parametrize("method", ["spotscape", "smooth"])
def test_rounds_reach_the_components_beside_latents(finished, tmp_path, method):
    from stscale.analysis.beside import beside_components
    from stscale.analysis.scale import Wider

    features, graph = FeatureStore.open(finished / "features.zarr"), load(finished / "graph.npz")
    latents = np.load(finished / "latents.npy")
    for rounds in (1, 5):
        config = CONFIG.replace({"run": {"method": method}, "smooth": {"rounds": rounds}})
        for wider in (None, Wider(rounds=7, weight=0.5)):
            folder = tmp_path / f"{rounds}-{wider is None}"
            beside = beside_components(config, features, graph, latents, folder, wider=wider)
            trains = [rounds] if method == "spotscape" else []
            smooth = [*trains, *([7] if wider else [])]
            assert beside.parts[0] is latents
            assert beside.variances == (1.0, *[3.0] * len(trains), *([1.5 if trains else 0.5] if wider else []))
            for part, r in zip(beside.parts[1:], smooth, strict=True):
                expected = pca_inputs(features, graph, tmp_path / "plain", smooth=r).array
                np.testing.assert_array_equal(part, expected)
            # a round needs the one before, no longer the first: two files at most lie there
            assert len(list(folder.rglob("*.f32"))) == len(smooth)


@pytest.mark.parametrize("changes", [{"smoothed": 0.0}, {"method": "assignment"}])
def test_latents_looked_at_alone_stay_alone(finished, tmp_path, changes):
    from stscale.analysis.beside import beside_components
    from stscale.analysis.scale import Wider

    features, graph = FeatureStore.open(finished / "features.zarr"), load(finished / "graph.npz")
    config = CONFIG.replace({"domains": changes, **({"run": {"method": "mhal"}} if "method" in changes else {})})
    wider = Wider(rounds=3, weight=1.0)
    beside = beside_components(config, features, graph, np.load(finished / "latents.npy"), tmp_path, wider=wider)
    assert len(beside.parts) == 1


def test_other_rounds_are_another_embedding_of_the_domains(finished, copy, inputs):
    integrate(inputs, out=copy, config=CONFIG.replace({"smooth": {"rounds": 5}}))
    assert card(copy)["scale"]["used"] == 5
    assert card(copy)["floor"]["rounds"] == 5
    before, after = (read_manifest(run)["stages"]["domains"]["digest"] for run in (finished, copy))
    assert before != after
    assert (np.load(copy / "latents.npy") == np.load(finished / "latents.npy")).all()  # training does not see them


def test_the_page_shows_it_first(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert page.index('id="summary"') < page.index('id="quality"') < page.index('id="domains"')
    assert "the embedding is not trained again" in page
    assert "Smoothed PCA (2 rounds)" in page


def test_it_is_made_anew_only_when_what_it_reads_changes(copy, inputs):
    assert set(stages(inputs, copy, CONFIG).values()) == {"reused"}
    done = stages(inputs, copy, CONFIG.replace({"smooth": {"rounds": 1}}))
    # domains are found beside the same components
    assert {s for s, state in done.items() if state == "start"} == {"domains", "write", "quality", "report"}
    assert card(copy)["floor"]["rounds"] == 1
    before = (copy / "latents.npy").stat().st_mtime_ns
    done = stages(inputs, copy, CONFIG.replace({"domains": {"k": 2}}))
    assert {s for s, state in done.items() if state == "start"} == {"domains", "write", "quality", "report"}
    assert card(copy)["k"] == 2
    assert (copy / "latents.npy").stat().st_mtime_ns == before
    (copy / "quality.json").unlink()
    done = stages(inputs, copy, CONFIG.replace({"domains": {"k": 2}}))
    assert {s for s, state in done.items() if state == "start"} == {"quality", "report"}


def test_a_card_of_another_format_is_made_anew(copy, inputs, monkeypatch):
    from stscale.integrating import quality

    monkeypatch.setattr(quality, "FORMAT", "another")
    assert {s for s, state in stages(inputs, copy, CONFIG).items() if state == "start"} == {"quality", "report"}
    assert card(copy)["format"] == "another"


def test_it_can_be_left_out(copy, inputs):
    done = stages(inputs, copy, TINY)
    assert "quality" not in done
    assert done["report"] == "start"
    assert not (copy / "quality.json").exists()
    assert "quality" not in read_manifest(copy)["stages"]
    assert 'id="quality"' not in (copy / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "k", "verdict"),
    [
        ({"domains": {"k": 1}}, 1, "unknown"),
        ({"run": {"method": "smooth"}}, 3, "floor"),
        ({"domains": {"per_slice": True}}, 3, "not better"),
    ],
    ids=["one domain", "the floor itself", "each slice alone"],
)
def test_what_cannot_be_compared_is_said(inputs, tmp_path, changes, k, verdict):
    integrate(inputs[:1], out=tmp_path / "run", config=CONFIG.replace(changes))
    found = card(tmp_path / "run")
    assert (found["k"], found["verdict"]) == (k, verdict)
    assert found["embedding"]["ilisi"] is None  # one slice
    assert found["run"]["pas"] >= 0
    assert (found["floor"] is None) == (verdict == "floor")
    assert found["sentence"] in (tmp_path / "run" / "report.html").read_text(encoding="utf-8").replace("&#x27;", "'")


def test_the_command_line_says_it_and_how_sure_k_is(inputs, tmp_path, stscale_):
    settings = [
        f"--set={section}.{name}={str(value).lower()}"
        for section in ("preprocess", "spotscape", "sample", "train", "report")
        for name, value in SMALL[section].items()
        if name != "quality"
    ]
    words = ["integrate", *inputs, "-o", tmp_path / "run", "--threads", "1", "--device", "cpu", *settings]
    words += ["--set=domains.n_init=2", "--set=domains.k_max=5"]
    code, said, told = stscale_(*words)
    assert code == 0, told
    curve = read_manifest(tmp_path / "run")["stages"]["domains"]["curve"]
    assert f"{curve['chosen']} domains (estimated; resampled tissue gives {curve['low']} to {curve['high']})" in said
    found = card(tmp_path / "run")
    tell = " / ".join(f"{found[part]['told']:.3f}" for part in ("embedding", "floor"))
    assert f"without labels (this embedding / smoothed PCA): neighbours tell {tell}" in said
    assert said.splitlines()[-1] == found["sentence"]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"resampled tissue gives {curve['low']} to {curve['high']}" in page
    code, said, _ = stscale_(*words, "--progress", "json")
    done = json.loads(said.splitlines()[-1])
    assert code == 0
    assert (done["verdict"], done["domains_range"]) == (found["verdict"], [curve["low"], curve["high"]])
