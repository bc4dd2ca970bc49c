"""Options: what is refused, what comes back from TOML, and what a digest stands for."""

import dataclasses
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stscale.config import PRESETS, Domains, Graph, Ingest, Run, Simulate, Spotscape, dump, dump_section, load, preset
from stscale.errors import InputError

SECTIONS = {"run": Run()} | {f.name: getattr(Run(), f.name) for f in dataclasses.fields(Run) if f.metadata == {}}
CHANGED = Run().replace(
    {
        "run": {"seed": 7, "device": "cpu"},
        "graph": {"kind": "radius", "radius": 12.5},
        "sample": {"fan_out": [-1, 3]},
        "spotscape": {"granularities": [1.0, 3.0], "clusters": 4, "center": False},
        "train": {"epochs": 3},
        "domains": {"k": None, "k_min": 3},
    }
)


def refused(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert text.strip() == text != ""
    assert "\n" not in text
    return text


def written(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("meanings", [True, False])
@pytest.mark.parametrize("run", [*(preset(name) for name in PRESETS), CHANGED], ids=[*PRESETS, "changed"])
def test_what_is_dumped_loads_again(tmp_path, run, meanings):
    assert load(written(tmp_path, dump(run, meanings=meanings))) == run


def test_the_presets_differ():
    assert len({preset(name).digest("spotscape", "train") for name in PRESETS}) == len(PRESETS) >= 2


def test_a_dump_is_commented_toml():
    text = dump(Run())
    tables = tomllib.loads(text)
    networks = {"spotscape", "views", "mhal", "stmfg", "smooth"}
    assert (
        set(tables)
        == {"run", "ingest", "preprocess", "graph", "sample", "train", "domains", "align", "output", "report"}
        | networks
    )
    assert "# radius =" in text  # an option that is not set can still be seen
    for section in SECTIONS.values():
        for field in dataclasses.fields(section):
            if field.metadata:
                assert sum(line.endswith(f"# {field.metadata['meaning']}") for line in text.splitlines()) >= 1
    bare = [line for line in dump(Run(), meanings=False).splitlines() if "#" in line]
    assert bare == [line.split("  # ")[0] for line in text.splitlines() if line.startswith("# ")]


@pytest.mark.parametrize("section", [*SECTIONS.values(), Simulate()], ids=lambda s: type(s).__name__)
def test_every_option_has_a_meaning(section):
    for field in dataclasses.fields(section):
        if isinstance(getattr(section, field.name), tuple(type(s) for s in SECTIONS.values())):
            continue  # a section in the run
        meaning = field.metadata["meaning"]
        assert len(meaning) >= 10
        assert "\n" not in meaning


def test_the_options_of_a_simulation_are_toml_too():
    values = tomllib.loads(dump_section("simulate", Simulate()))["simulate"]
    assert Simulate(**values) == Simulate()


def test_options_are_frozen_and_by_keyword():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Graph().k = 3
    with pytest.raises(TypeError):
        Graph("knn")


def test_replace_leaves_the_original_alone():
    run = Run()
    assert run.replace({"train": {"steps": 5}}).train.steps == 5
    assert run == Run()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trian": {"steps": 3}}, ["unknown table [trian]", "train"]),
        ({"train": {"step": 3}}, ["[train] has no option 'step'", "did you mean 'steps'?"]),
        ({"train": {"xyzzy": 3}}, ["[train] has no option 'xyzzy'", "known: steps"]),
        ({"run": {"sede": 3}}, ["[run] has no option 'sede'", "did you mean 'seed'?"]),
        ({"run": {"train": {"steps": 3}}}, ["[run] has no option 'train'", "[train]"]),
        ({"graph": {"kind": "voronoi"}}, ["graph.kind = 'voronoi'", "'knn' | 'radius' | 'delaunay'"]),
        ({"train": {"steps": "many"}}, ["train.steps = 'many'", "an integer"]),
        ({"train": {"steps": 2.5}}, ["train.steps = 2.5", "an integer"]),
        ({"train": {"steps": True}}, ["train.steps = True", "an integer"]),
        ({"train": {"steps": 0}}, ["train.steps = 0", "at least 1"]),
        ({"train": {"lr": 0}}, ["train.lr = 0", "above 0"]),
        ({"train": {"lr": "fast"}}, ["train.lr = 'fast'", "a number"]),
        ({"train": {"lr": float("nan")}}, ["train.lr = nan"]),
        ({"spotscape": {"center": 1}}, ["spotscape.center = 1"]),
        ({"spotscape": {"drop_edge": 1.0}}, ["spotscape.drop_edge = 1.0", "at most 0.95"]),
        ({"sample": {"fan_out": [5, -2]}}, ["sample.fan_out = -2", "at least -1"]),
        ({"sample": {"fan_out": 5}}, ["sample.fan_out = 5", "a list of"]),
        ({"sample": {"fan_out": [5, "x"]}}, ["sample.fan_out", "a list of an integer"]),
        ({"domains": {"k": 0}}, ["domains.k = 0", "at least 1"]),
        ({"domains": {"k": "seven"}}, ["domains.k = 'seven'", "an integer or nothing"]),
        ({"run": {"device": "tpu"}}, ["run.device = 'tpu'", "'cuda'"]),
        ({"run": {"seed": -1}}, ["run.seed = -1", "at least 0"]),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, said):
    text = refused(lambda: Run().replace(changes))
    assert all(part in text for part in said), text


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Ingest(chunk=100, tile=64), "not a multiple of ingest.tile = 64; use 64"),
        (lambda: Ingest(chunk=10, tile=64), "use 64"),
        (lambda: Graph(kind="radius"), "needs graph.radius"),
        (lambda: Graph(radius=3.0), "no effect"),
        (lambda: Graph(kind="delaunay", radius=3.0), "no effect"),
        (lambda: Spotscape(telescope="block", scope="global"), "no global scope"),
        (
            lambda: Spotscape(w_telescope=0.0, w_reconstruction=0.0, w_prototypes=0.0, w_scale=0.0),
            "nothing would train",
        ),
        (lambda: Domains(k_min=5, k_max=4), "domains.k_min = 5 is above domains.k_max = 4"),
    ],
)
def test_contradictions_are_refused(make, said):
    assert said in refused(make)


def test_what_toml_can_say_becomes_what_the_field_holds():
    run = Run().replace({"spotscape": {"granularities": [1, 2], "tau": 1}, "sample": {"fan_out": [3, 2]}})
    assert run.spotscape.granularities == (1.0, 2.0)
    assert all(type(v) is float for v in (*run.spotscape.granularities, run.spotscape.tau))
    assert run.sample.fan_out == (3, 2)
    same = Run().replace({"spotscape": {"granularities": (1.0, 2.0), "tau": 1.0}, "sample": {"fan_out": (3, 2)}})
    assert run == same
    assert run.digest("spotscape", "sample") == same.digest("spotscape", "sample")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[train\nsteps = 3", "is not TOML"),
        ("steps = 3", "'steps' stands outside a table"),
        ("[train]\nstep = 3", "did you mean 'steps'?"),
        ("[nothing]\nx = 3", "unknown table [nothing]"),
        ('preset = "papers"', "no preset 'papers'; known: default, paper"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, text, said):
    assert said in refused(lambda: load(written(tmp_path, text)))


def test_a_missing_or_binary_file_is_refused(tmp_path):
    assert "cannot read" in refused(lambda: load(tmp_path / "none.toml"))
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    assert "is not TOML" in refused(lambda: load(tmp_path / "x.toml"))


def test_a_file_may_name_a_preset_and_change_it(tmp_path):
    run = load(written(tmp_path, 'preset = "paper"\n[train]\nepochs = 5'))
    assert run == preset("paper").replace({"train": {"epochs": 5}})
    assert run.domains.smoothed == 0  # its own latents alone


def test_a_file_is_read_over_a_base(tmp_path):
    base = Run().replace({"train": {"steps": 9, "lr": 0.5}})
    assert load(written(tmp_path, "[train]\nsteps = 3"), base).train == base.replace({"train": {"steps": 3}}).train


@pytest.mark.parametrize("section", [s for s in SECTIONS if s != "run"])
def test_the_digest_is_of_the_named_sections(section):
    changes = {
        "ingest": {"memory_mb": 99},
        "preprocess": {"n_pcs": 9},
        "graph": {"k": 9},
        "sample": {"fan_out": [9, 9]},
        "spotscape": {"tau": 0.9},
        "views": {"feature_k": 9},
        "mhal": {"hidden": 9},
        "stmfg": {"latent": 9},
        "smooth": {"rounds": 9},
        "train": {"epochs": 9},
        "domains": {"k": 9},
        "align": {"k": 9},
        "output": {"counts": True},
        "report": {"umap": False},
    }
    other = Run().replace({section: changes[section]})
    for name in changes:
        assert (Run().digest(name) == other.digest(name)) == (name != section)
    assert Run().digest("seed", section) != Run().digest("method", section)


def test_the_digest_is_the_same_in_another_process():
    code = "from stscale.config import Run; print(Run().digest('method', 'seed', 'sample', 'spotscape', 'train'))"
    expected = Run().digest("method", "seed", "sample", "spotscape", "train")
    for salt in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": salt},
        )
        assert done.stdout.strip() == expected
