"""From submissions to command lines."""

import json
from pathlib import Path

import pytest
from made_service import settings

from stscale.config import Run, dump, load
from stscale.errors import InputError
from stscale.serving.orders import Order
from stscale.serving.places import Places
from stscale.serving.schemas import Submission


@pytest.fixture
def places(tmp_path) -> Places:
    given = settings(tmp_path)
    run = tmp_path / "runs" / "done"
    run.mkdir()
    stages = {"write": {"digest": "x", "peak_mb": 70.0}, "report": {"digest": "y", "peak_mb": 10.0}}
    (run / "manifest.json").write_text(
        json.dumps({"stages": stages, "plan": {"ram_mb": 50.0, "vram_mb": 5.0}}), "utf-8"
    )
    (run / "config.toml").write_text(dump(Run().replace({"domains": {"k": 5}})), encoding="utf-8")
    return Places(given.slices, given.runs)


def order(places: Places, **given) -> Order:
    return Order.read(Submission(**given), places, "default")


def test_integrate_writes_what_was_given_as_toml_and_the_command_reads_the_same(places, tmp_path):
    tables = {
        "preset": "paper",
        "run": {"seed": 3},
        "domains": {"k": 4},
        "align": {"z": [0, 1.5]},
        "graph": {"kind": "knn"},
    }
    for config in (tables, 'preset = "paper"\nrun.seed = 3\ndomains.k = 4\nalign.z = [0, 1.5]\ngraph.kind = "knn"\n'):
        found = order(places, command="integrate", slices=["s1", "s0"], config=config)
        (tmp_path / "config.toml").write_text(found.toml, encoding="utf-8")
        assert load(tmp_path / "config.toml") == found.config
        assert (found.config.domains.k, found.config.train.epochs, found.config.seed) == (4, 1000, 3)
    words = found.words(tmp_path / "config.toml", 2)
    assert words == [
        "integrate",
        *(str(places.slices[0] / name) for name in ("s1", "s0")),
        *("--out", str(places.runs / "default"), "--threads", "2", "--progress", "json"),
        *("--config", str(tmp_path / "config.toml")),
    ]


def test_a_run_is_aligned_in_place_over_its_own_options(places, tmp_path):
    pairs = tmp_path / "slices" / "pairs.csv"
    pairs.touch()
    found = order(
        places,
        command="align",
        run="done",
        config={"align": {"pairs": "pairs.csv"}, "run": {"threads": 3}},
        transfer_labels=["layer", "--odd"],
        transfer_genes=["A", "B"],
    )
    assert (found.config.domains.k, found.config.align.pairs) == (5, str(pairs))
    assert found.out == places.runs / "done"
    assert found.words(Path("c"), 8) == [
        *("align", str(places.runs / "done"), "--threads", "3", "--progress", "json", "--config", "c"),
        *("--transfer-labels=layer", "--transfer-labels=--odd", "--transfer-genes=A,B"),
    ]


def test_what_a_finished_run_does_not_heed_is_the_line_of_the_command(places, stscale_):
    with pytest.raises(InputError) as refused:
        order(places, command="align", run="done", config={"domains": {"k": 6}})
    code, _, error = stscale_("align", places.runs / "done", "--set", "domains.k=6")
    assert (code, error) == (2, f"error: {refused.value}\n")


def test_map_takes_seed_and_threads_alone(places):
    given = {"command": "map", "run": "done", "slices": ["s2"], "out": "mapped"}
    found = order(places, **given, config={"run": {"seed": 4}}, restat=True)
    assert found.words(Path("c"), 8) == [
        *("map", str(places.runs / "done"), str(places.slices[0] / "s2"), "--out", str(places.runs / "mapped")),
        *("--threads", "8", "--progress", "json", "--seed", "4", "--restat"),
    ]
    assert found.reads == [str(places.slices[0] / "s2"), str(places.runs / "done")]
    assert order(places, **given, config={"ingest": {"split": "-x"}}).words(Path("c"), 8)[-3:-1] == [
        "--split=-x",
        "--seed",
    ]
    others = ({"domains": {"k": 3}}, {"run": {"device": "cpu"}}, {"preset": "paper"}, {"ingest": {"layer": "counts"}})
    for config in others:
        with pytest.raises(InputError, match="map takes all options but"):
            order(places, **given, config=config)


def test_a_run_counts_with_its_plan_or_what_it_took(places):
    from stscale.serving.examine import _of_run

    assert _of_run(places.runs / "done") == {"ram_mb": 70.0, "vram_mb": 5.0}
