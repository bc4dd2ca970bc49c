"""The run folder trusts only what was finished."""

import json

import numpy as np
import pytest

from stscale import __version__
from stscale.errors import InputError
from stscale.rundir import RunFolder, read_manifest


def events(folder):
    return [json.loads(line) for line in folder.file("events.jsonl").read_text(encoding="utf-8").splitlines()]


def finish(folder, name, digest, **found):
    with folder.stage(name, digest) as record:
        record.update(found)


def test_a_stage_is_finished_for_its_digest_and_while_its_outputs_exist(tmp_path):
    folder = RunFolder(tmp_path / "run")
    output = folder.file("out.npy")
    assert not folder.finished("graph", "d1")
    output.write_text("x", encoding="utf-8")
    finish(folder, "graph", "d1", edges=3)
    for again in (folder, RunFolder(tmp_path / "run")):
        assert again.finished("graph", "d1", output)
        assert not again.finished("graph", "d2", output)
        assert not again.finished("graph", "d1", output, folder.file("other"))
    output.unlink()
    assert not folder.finished("graph", "d1", output)


def test_the_manifest_holds_what_the_stage_found(tmp_path):
    folder = RunFolder(tmp_path / "run")
    finish(folder, "graph", "d1", edges=3)
    manifest = read_manifest(tmp_path / "run")
    assert manifest["stscale"] == __version__
    assert manifest["packages"]["numpy"]
    record = manifest["stages"]["graph"]
    assert (record["digest"], record["edges"]) == ("d1", 3)
    assert record["seconds"] >= 0
    assert record["peak_mb"] > 0
    assert [(e["event"], e["stage"], e["state"]) for e in events(folder)] == [
        ("stage", "graph", "start"),
        ("stage", "graph", "end"),
    ]


def test_an_interrupted_stage_is_not_recorded(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt), folder.stage("graph", "d1"):
        raise KeyboardInterrupt
    assert not RunFolder(tmp_path / "run").finished("graph", "d1")
    assert [e["state"] for e in events(folder)] == ["start"]


def test_a_stage_done_again_and_interrupted_loses_its_old_record(tmp_path):
    """Its outputs may be half replaced: not even the old digest may be trusted, from the start of the stage on."""
    folder = RunFolder(tmp_path / "run")
    finish(folder, "graph", "d1")
    stage = folder.stage("graph", "d2")
    stage.__enter__()
    assert "graph" not in read_manifest(tmp_path / "run")["stages"]  # a kill here leaves exactly this
    error = RuntimeError()
    assert not stage.__exit__(RuntimeError, error, None)
    again = RunFolder(tmp_path / "run")
    assert not again.finished("graph", "d1")
    assert not again.finished("graph", "d2")


def test_reuse_is_announced(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.reuse("graph")
    assert [(e["stage"], e["state"]) for e in events(folder)] == [("graph", "reused")]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, fresh):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(InputError, match="not a run of stscale"):
        RunFolder(tmp_path, fresh=fresh)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_file_is_refused_and_left_alone(tmp_path, fresh):
    path = tmp_path / "notes.txt"
    path.write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="is a file"):
        RunFolder(path, fresh=fresh)
    assert path.read_text(encoding="utf-8") == "x"


def test_an_empty_folder_is_taken(tmp_path):
    RunFolder(tmp_path)
    assert read_manifest(tmp_path)["stages"] == {}


@pytest.mark.parametrize("text", ['{"stages": {"gra', "", "not json", "[]", "{}", '{"stages": 3}'])
def test_a_damaged_manifest_is_refused_and_fresh_helps(tmp_path, text):
    folder = RunFolder(tmp_path / "run")
    finish(folder, "graph", "d1")
    folder.file("manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"damaged.*--fresh") as caught:
        RunFolder(tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not RunFolder(tmp_path / "run", fresh=True).finished("graph", "d1")


def test_fresh_forgets_everything(tmp_path):
    folder = RunFolder(tmp_path / "run")
    finish(folder, "graph", "d1")
    folder.file("graph.npz").write_text("x", encoding="utf-8")
    RunFolder(tmp_path / "run", fresh=True)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["manifest.json"]


def test_no_manifest_is_no_run(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        read_manifest(tmp_path)


def test_a_new_folder_without_a_finished_stage_is_discarded(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.event("note", text="x")
    folder.discard_if_new()
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_finished_stage_is_kept(tmp_path):
    folder = RunFolder(tmp_path / "run")
    finish(folder, "graph", "d1")
    folder.discard_if_new()
    assert RunFolder(tmp_path / "run").finished("graph", "d1")


def test_a_folder_that_was_there_before_is_kept(tmp_path):
    (tmp_path / "run").mkdir()
    RunFolder(tmp_path / "run").discard_if_new()
    assert (tmp_path / "run").exists()


def test_discard_before_a_stage(tmp_path):
    refused, kept = RunFolder(tmp_path / "refused"), RunFolder(tmp_path / "kept")
    finish(refused, "ingest", "d1")
    finish(kept, "ingest", "d1")
    finish(kept, "features", "d2")
    for folder in (refused, kept):
        folder.discard_if_new(before="features")
    assert not refused.path.exists()
    assert kept.path.exists()
    again = RunFolder(tmp_path / "kept")  # it was there before this run
    again.manifest["stages"].clear()
    again.discard_if_new(before="features")
    assert again.path.exists()


def test_freed_memory_is_returned_after_stages_that_took_much(tmp_path, monkeypatch):
    trims = []
    monkeypatch.setattr("stscale.rundir.trim", lambda: trims.append(None))
    run = RunFolder(tmp_path / "run")
    for size, expected in ((1 << 10, 0), (16 << 20, 1), (1 << 10, 1), (32 << 20, 2)):
        with run.stage(f"stage of {size}", "digest"):
            held = np.ones(size)
        del held
        assert len(trims) == expected
