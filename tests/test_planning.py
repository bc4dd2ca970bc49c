"""The contract before a run: headers only, options lowered in order, budgets named that hold."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
from test_pipeline import SIZES, TINY, write_inputs

from stscale import integrate
from stscale.config import Run
from stscale.errors import InputError
from stscale.memory import KEPT, Touched, let_go
from stscale.pipeline import plan
from stscale.planning import Header, Machine, make_plan, read_headers
from stscale.rundir import read_manifest
from stscale.size import bytes_of, said
from stscale.slices import SliceStore, ingest
from stscale.slices.sources import Source

GIB = 2**30
MACHINE = Machine(
    threads=2,
    base=330 * 2**20,
    free_ram=20 * GIB,
    total_ram=24 * GIB,
    free_disk=10**12,
    free_vram=None,
    products=1e10,
    counts=5e7,
    steps=100.0,
)
GENES = np.array([f"g{i:04d}" for i in range(2000)])


def headers(n: int, slices: int = 10) -> list[Header]:
    return [
        Header(name=f"s{i}", n=n // slices, stored=390 * n // slices, sorted=0, genes=GENES, columns=3, store=True)
        for i in range(slices)
    ]


def made(n: int, changes: dict | None = None, *, machine: Machine = MACHINE, cuda: bool = False):
    run = Run().replace({"domains": {"k": 7}, **(changes or {})})
    return make_plan(headers(n), run, machine, cuda=cuda, folder=Path("out"))


@pytest.mark.parametrize(
    ("text", "amount"),
    [("8G", 8 * GIB), ("750M", 750 * 2**20), ("1.5 GiB", 1.5 * GIB), ("2gb", 2 * GIB), ("4096", 4096)],
)
def test_amounts_of_memory(text, amount):
    assert bytes_of(text, "max_ram") == amount
    assert bytes_of(said(amount), "max_ram") == pytest.approx(amount, rel=0.01)


@pytest.mark.parametrize("text", ["", "much", "-1G", "0", "8X", "G"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(InputError, match="expected an amount of memory such as 8G"):
        Run().replace({"run": {"max_ram": text}})


def test_headers_are_read_and_no_counts(tmp_path, monkeypatch):
    paths = write_inputs(tmp_path)
    ingest(paths[0], tmp_path / "c.zarr", config=Run().ingest)
    stored = SliceStore.open(tmp_path / "c.zarr").nnz

    def refuse(*_):
        raise AssertionError("counts were read")

    monkeypatch.setattr(SliceStore, "counts", refuse)
    monkeypatch.setattr(Source, "pieces", refuse)
    (given,), (store,) = read_headers(paths[0]), read_headers(tmp_path / "c.zarr")
    assert (given.n, given.stored, given.store) == (SIZES["c"], stored, False)
    assert (store.n, store.stored, store.store, store.columns) == (SIZES["c"], stored, True, given.columns)
    assert sorted(given.genes) == sorted(store.genes)
    found = plan(paths, out=tmp_path / "run", config=TINY)
    assert (found.size.n, found.size.slices, found.size.vocabulary, found.size.genes) == (
        sum(SIZES.values()),
        3,
        80,
        60,
    )
    assert not (tmp_path / "run").exists()


def test_without_a_budget_nothing_is_lowered():
    found = made(1_000_000)
    assert (found.changes, found.notes) == ((), ())
    assert found.run == Run().replace({"domains": {"k": 7}})


def test_memory_hardly_grows_with_spots_and_work_and_disk_do():
    small, large = made(100_000), made(1_000_000)
    assert small.ram < large.ram < 1.5 * small.ram
    assert large.disk > 5 * small.disk
    by_stage = {c.stage: c for c in small.costs}, {c.stage: c for c in large.costs}
    assert by_stage[1]["features"].seconds > 5 * by_stage[0]["features"].seconds
    assert by_stage[1]["train"].seconds < 2 * by_stage[0]["train"].seconds


def test_options_that_change_nothing_but_rounding_go_first():
    wide = {"preprocess": {"block": 8_388_608}, "ingest": {"chunk": 32_768}}
    free = made(300_000, wide)
    tight = made(300_000, {**wide, "run": {"max_ram": said(free.ram * 0.8)}})
    assert tight.ram <= 0.81 * free.ram
    assert [c.option for c in tight.changes] == ["preprocess.block"]
    assert not any(c.result for c in tight.changes)
    assert tight.run.preprocess.block == tight.changes[0].after < tight.changes[0].before == 8_388_608


def test_a_full_batch_is_lowered_and_said_to_change_the_result():
    full = {"sample": {"batch_size": 10_000_000}}
    free = made(300_000, full)
    assert free.ram > 3 * GIB
    tight = made(300_000, {**full, "run": {"max_ram": "2G"}})
    assert tight.ram <= 2 * GIB
    (change,) = [c for c in tight.changes if c.result]
    assert (change.option, change.before, change.after) == (
        "sample.batch_size",
        10_000_000,
        tight.run.sample.batch_size,
    )


@pytest.mark.parametrize("n", [10_000, 1_000_000])
def test_the_budget_named_in_a_refusal_is_enough_and_hardly_more(n):
    with pytest.raises(InputError, match=r"--max-ram 300M is too little memory for .* at the least; give") as refused:
        made(n, {"run": {"max_ram": "300M"}})
    named = re.search(r"give --max-ram (\S+) or more", str(refused.value))[1]
    found = made(n, {"run": {"max_ram": named}})
    assert found.ram <= bytes_of(named, "max_ram")
    with pytest.raises(InputError, match="too little memory"):
        made(n, {"run": {"max_ram": said(bytes_of(named, "") * 0.9)}})


def test_gpu_memory_has_a_budget_of_its_own():
    plenty = dataclasses.replace(MACHINE, free_vram=16 * GIB)
    full = {"sample": {"batch_size": 10_000_000}, "spotscape": {"bank": 65_536}}
    free = made(1_000_000, full, machine=dataclasses.replace(plenty, free_vram=80 * GIB), cuda=True)
    assert free.vram > 10 * GIB > made(1_000_000, machine=plenty, cuda=True).vram > 0
    tight = made(1_000_000, {**full, "run": {"max_vram": "4G"}}, machine=plenty, cuda=True)
    assert tight.vram <= 4 * GIB
    assert {c.option for c in tight.changes} >= {"sample.batch_size"}
    with pytest.raises(InputError, match=r"GPU memory .* this machine has 16G; give --max-vram 16G"):
        made(5_000_000, full, machine=plenty, cuda=True)
    assert made(1_000_000).vram == 0


def test_what_this_machine_cannot_hold_is_refused_without_a_budget_too():
    with pytest.raises(InputError, match=r"this machine has 24G; give --max-ram 24G to lower"):
        made(20_000_000, {"sample": {"batch_size": 20_000_000}})
    tight = dataclasses.replace(MACHINE, free_ram=500 * 2**20)
    (note,) = made(100_000, machine=tight).notes
    assert "500M are free now" in note


def test_a_full_disk_and_too_many_domains_are_refused():
    with pytest.raises(InputError, match=r"would write about .* to out, where 1M are free"):
        made(100_000, machine=dataclasses.replace(MACHINE, free_disk=2**20))
    with pytest.raises(InputError, match=r"domains\.k = 200000 is more than the 100000 spots; lower it"):
        made(100_000, {"domains": {"k": 200_000}})


def test_the_command_prints_a_table_or_json(stscale_, tmp_path):
    paths = write_inputs(tmp_path)
    code, out, err = stscale_("plan", *paths, "--threads", 1)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("3 slices, 350 spots, 80 of 80 genes")
    stages = ["ingest", "features", "graph", "train", "embed", "domains", "write", "quality", "report", "in all"]
    assert [line[:10].strip() for line in out.splitlines()[3:]] == stages
    code, out, _ = stscale_("plan", *paths, "--threads", 1, "--json")
    assert code == 0
    assert list(json.loads(out)["stages"]) == stages[:-1]
    assert stscale_("plan", tmp_path / "none.h5ad")[0] == 2
    for path in paths:
        adata = anndata.read_h5ad(path)
        adata.layers["mine"], adata.X = adata.X, None
        adata.write_h5ad(path)
    code, _, err = stscale_("plan", *paths)
    assert (code, "--layer" in err, "found: mine" in err) == (2, True, True)
    assert stscale_("plan", *paths, "--threads", 1, "--layer", "mine")[1].startswith("3 slices, 350 spots, 80 of 80")


def test_integrate_keeps_the_plan_and_refuses_what_does_not_fit(stscale_, tmp_path):
    paths = write_inputs(tmp_path / "in")
    code, _, err = stscale_("integrate", *paths, "-o", tmp_path / "no", "--max-ram", "50M", "-q")
    assert code == 2
    assert err.startswith("error: --max-ram 50M is too little memory for 350 spots of 3 slices with 80 genes")
    assert err.count("\n") == 1
    assert not (tmp_path / "no").exists()
    events = []
    integrate(paths, out=tmp_path / "run", config=TINY, observer=events.append)
    kept = read_manifest(tmp_path / "run")["plan"]
    assert events[0]["event"] == "plan"
    assert kept["ram_mb"] == events[0]["ram_mb"] == max(s["ram_mb"] for s in kept["stages"].values())
    assert set(kept["stages"]) == set(read_manifest(tmp_path / "run")["stages"])


def resident(path: Path) -> int:
    """Bytes of a mapped file that are resident in this process."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_of_mapped_files_are_let_go(tmp_path):
    path = tmp_path / "x.f32"
    array = np.memmap(path, dtype=np.float32, mode="w+", shape=(2 * KEPT // 1024, 256))
    touched = Touched(array)
    for lo in range(0, len(array), 4096):
        array[lo : lo + 4096] = lo
        touched.add(len(array[lo : lo + 4096]))
    assert resident(path) <= KEPT * 1.1
    assert (np.asarray(array[::4096, 0]) == np.arange(0, len(array), 4096)).all()  # nothing was lost
    let_go(array[5:])
    assert resident(path) == 0
    let_go(np.zeros(3))  # no mapped file: nothing to do
