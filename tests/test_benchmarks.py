"""The benchmarks measure what they say: exponents, merging, the dense reference, the parts of a step."""

import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from benchmarks import epochs, published, scale, steps
from benchmarks.baselines import rings
from benchmarks.child import ChildError, call
from benchmarks.data import read_results, write_results
from benchmarks.dense import dense_scale_matching, dense_telescope
from benchmarks.exponents import exponent, exponents
from benchmarks.integration import DiskWatch, Simulation, disk_mib, simulated, training
from benchmarks.products import TITLES
from benchmarks.readme_scale import published as render_published
from benchmarks.readme_scale import scale as render_scale
from stscale.losses import scale_matching, telescope_gram
from stscale.training import fit


def row(n: int, seconds: float, *, step: float = 0.1, peak: float = 1000.0, plan: float | None = None) -> Any:
    stages = {"features": {"seconds": seconds / 2}, "train": {"seconds": 30.0}}
    return {
        "spots": n,
        "domains": 7,
        "integrate": {"seconds": seconds, "peak_rss_mib": peak, "stages": stages},
        "training": {"seconds_per_step": step, "us_per_spot_and_step": step / 2048 * 1e6},
        "plan": None if plan is None else {"ram_mb": plan},
        "disk": {"left_mib": 1.0, "peak_mib": 2.0},
        "ari": 0.9,
    }


def test_exponents_of_a_known_power() -> None:
    sizes = [100, 1000, 5000]
    assert exponent(sizes, [3 * n**1.3 for n in sizes]) == pytest.approx(1.3)
    assert exponent(sizes, [2.0, None, 2.0]) == pytest.approx(0.0)
    # a stage too short for the clock says nothing
    assert exponent(sizes, [0.0, None, 2.0]) is None
    assert exponent([100, 100], [1.0, 2.0]) is None


def test_large_exponents_leave_small_sizes_out() -> None:
    rows = [row(n, cost) for n, cost in ((1_000_000, 1000.0), (10_000, 50.0), (100_000, 100.0))]
    found = exponents(rows)
    assert found["total"]["large"] == pytest.approx(1.0)
    assert 0 < found["total"]["all"] < 1
    assert found["train"] == pytest.approx({"all": 0.0, "large": 0.0})
    assert found["features"]["large"] == pytest.approx(1.0)


def test_rows_are_merged_by_size_and_judged() -> None:
    results = scale.checked({}, {"genes": 5}, smoke=False)
    for name, entry in (
        ("1000000", row(1_000_000, 3000.0, peak=1400.0, plan=1700.0)),
        (scale.ISS, row(161_421, 700.0)),
        ("100000", row(100_000, 100.0, plan=1100.0)),
        ("100000", row(100_000, 200.0, plan=1400.0)),
    ):
        results = scale.merged(results, name, entry)
    assert list(results["rows"]) == ["100000", "1000000", scale.ISS]
    assert results["rows"]["100000"]["integrate"]["seconds"] == 200.0
    targets = {name: (part["measured"], part["met"]) for name, part in results["targets"].items()}
    assert targets["1 000 000 spots, seconds"] == (3000.0, True)
    assert targets["iss_coronal, seconds"] == (700.0, False)
    assert targets["peak RSS, 1 000 000 over 100 000 spots"] == (pytest.approx(1.4), True)
    exact = math.log10(15)
    assert targets["exponent of total time, 100 000 … 1 000 000"] == (pytest.approx(exact), False)
    assert targets["planned against measured peak RSS, 100 000 spots, relative"] == (pytest.approx(0.4), False)
    assert targets["planned against measured peak RSS, 1 000 000 spots, relative"][1]
    assert set(targets) <= set(scale.TARGETS)
    assert "planned against measured peak RSS, 10 000 spots, relative" not in targets


def test_rows_of_other_settings_are_refused() -> None:
    results = scale.checked({}, {"genes": 5}, smoke=False)
    with pytest.raises(SystemExit, match="--out"):
        scale.checked(results, {"genes": 6}, smoke=False)
    with pytest.raises(SystemExit, match="--out"):
        scale.checked(results, {"genes": 5}, smoke=True)


def test_training_costs_are_of_the_loop(tmp_path: Path) -> None:
    lines = ['{"event": "step", "seconds_per_step": 0.2}', '{"event": "step", "seconds_per_step": 0.1}']
    (tmp_path / "events.jsonl").write_text("\n".join([*lines, '{"event": "stage"}']), encoding="utf-8")
    stages = {"train": {"steps": 300, "epochs": 6.0}, "features": {"fit_spots": 100_000}}
    found = training(stages, tmp_path / "events.jsonl")
    assert found["spots_per_step"] == pytest.approx(2000)
    assert found["us_per_spot_and_step"] == pytest.approx(50)


def test_kept_slices_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    what = Simulation(spots=600, slices=2, genes=50, seed=7)
    home = tmp_path / "simulated-600-2-50-7"
    for i in range(2):
        (home / "slices" / f"slice-{i}.zarr").mkdir(parents=True)
    write_results(home / "simulated.json", {"seconds": 3.0, "peak_rss_mib": 5.0})
    files, cost = simulated(what, tmp_path, 1)
    assert [Path(f).name for f in files] == ["slice-0.zarr", "slice-1.zarr"]
    assert cost == {"seconds": 3.0, "peak_rss_mib": 5.0, "reused": True}

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("simulates anew")

    monkeypatch.setattr("benchmarks.integration.call", refuse)
    (home / "slices" / "slice-1.zarr").rmdir()
    with pytest.raises(RuntimeError, match="anew"):
        simulated(what, tmp_path, 1)


def test_the_peak_of_a_folder_outlives_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with DiskWatch(folder, interval=0.01) as watch:
        folder.mkdir()
        (folder / "scratch").write_bytes(os.urandom(3 * 2**20))
        end = time.perf_counter() + 5
        while watch.peak_mib < 3 and time.perf_counter() < end:
            time.sleep(0.01)
        (folder / "scratch").unlink()
    assert watch.peak_mib >= 3
    assert disk_mib(folder) == 0


def test_dense_terms_and_their_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    group = torch.tensor([2, 0, 0, 7] * 20)[torch.randperm(80, generator=generator)]
    # 20 spots of a slice are fewer than k for two of the three
    k = 25
    values, gradients = [], []
    for dense in (False, True):
        generator.manual_seed(1)
        z, other = (torch.randn(80, 6, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
        m = torch.nn.functional.normalize(z, dim=1) @ torch.nn.functional.normalize(other, dim=1).T
        pair = (
            (dense_telescope(m), dense_scale_matching(m, group, k))
            if dense
            else (telescope_gram(z, other), scale_matching(z, group, other, group, k=k))
        )
        sum(pair).backward()
        values.append([value.item() for value in pair])
        gradients.append(torch.cat([z.grad, other.grad]))
    assert values[1] == pytest.approx(values[0], rel=1e-9)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-12)


def test_the_published_form_has_the_full_batch_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stscale.config import Train

    losses = []
    for form in ("own", "published"):
        task, method = epochs.setting(300, form, 3, tmp_path / form)
        assert task.sampler.batches_per_epoch == 1
        method.config = replace(method.config, scale_every=1)  # all seeds, as the published form has it
        found: list[dict[str, Any]] = []
        if form == "published":  # and it is not stscale's own form by another name
            monkeypatch.delattr("stscale.models.spotscape.gram_value")
            monkeypatch.delattr("stscale.models.spotscape.scale_matching")
        fit(method, task, Train(steps=1, log_every=1), tmp_path / f"{form}-checkpoints", found.append)
        losses.append({k: v for k, v in found[0].items() if k in {"loss", *method.weights}})
    assert set(losses[0]) == {"loss", "telescope", "reconstruction", "scale", "prototypes"}
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_an_epoch_is_a_pass_over_all_spots() -> None:
    found = epochs.measure(500, "own", slices=2, warm=1, epochs=2, threads=1)
    assert len(found["seconds"]) == 2
    assert all(s > 0 for s in found["seconds"])
    assert found["steps_per_epoch"] == 1
    assert math.isfinite(found["loss"])


def test_the_estimate_follows_what_was_measured() -> None:
    assert published.estimate_mib(2**10, []) == published.MATRICES * 4
    small = {"n": 1000, "published": {"peak_rss_mib": 400.0, "baseline_mib": 300.0}}
    assert published.estimate_mib(2**10, [small]) == published.MATRICES * 4
    large = {"n": 10_000, "published": {"peak_rss_mib": 1300.0, "baseline_mib": 300.0}}
    assert published.estimate_mib(20_000, [small, large]) == pytest.approx(300 + 4 * 1000)
    assert published.estimate_mib(20_000, [large, {"n": 30_000, "published": {"did_not_fit": "…"}}]) == 4300


def test_ratios_are_judged_at_the_largest_size_that_fitted() -> None:
    ratios = {"time_ratio": 60.0, "memory_ratio": 9.0, "memory_ratio_above_imports": 30.0}
    sizes = [{"n": 10, **dict.fromkeys(ratios, 1.0)}, {"n": 20, **ratios}, {"n": 30, "published": {"did_not_fit": "…"}}]
    found = published.judged(sizes)
    assert [part["met"] for part in found.values()] == [True, False, True]
    assert all("20 spots" in name for name in found)
    assert published.judged(sizes[-1:]) == {}


def test_every_part_of_a_step_is_found() -> None:
    lost = [name for name, part in steps.PARTS.items() if not any(map(steps.located, part.places))]
    assert lost == []
    assert {part.of for part in steps.PARTS.values()} - {None} <= set(steps.PARTS)
    assert steps.located("stscale.training.fit:nothing") is None
    assert steps.located("stscale.nothing:nothing") is None


def test_the_clock_counts_the_outermost_call_inside_its_part() -> None:
    clock = steps.Clock()

    def search(depth: int) -> None:
        time.sleep(0.002)
        if depth:
            inner(depth - 1)

    inner = clock.wrapped(search, "its search", "scale matching")
    outer = clock.wrapped(lambda: inner(1), "scale matching", None)
    last = clock.ends_step(clock.wrapped(lambda: inner(0), "optimiser", None))
    for i in range(steps.WARM + 4):
        if i % 2:
            outer()
        last()
    table = {part["part"]: part for part in clock.table()}
    assert set(table) == {"step", "scale matching", "its search", "optimiser"}
    assert table["its search"]["calls_per_step"] == table["its search"]["share_of_steps"] == 0.5
    assert 4 <= table["its search"]["median_ms"] <= table["scale matching"]["median_ms"]
    assert table["its search"]["mean_ms"] < table["its search"]["median_ms"]
    assert table["step"]["median_ms"] >= table["optimiser"]["median_ms"] >= 2


def test_rings_hold_the_nodes_of_one_distance() -> None:
    path = np.diag(np.ones(4), 1) + np.diag(np.ones(4), -1)
    found = [ring.toarray() for ring in rings(csr_matrix(path.astype(np.int8)), 3)]
    assert found[0][1].tolist() == [0.5, 0, 0.5, 0, 0]
    assert found[1][1].tolist() == [0, 0, 0, 1, 0]
    assert found[2][0].tolist() == [0, 0, 0, 1, 0]
    assert found[2][2].tolist() == [0, 0, 0, 0, 0]


def test_all_product_forms_agree() -> None:
    # in a child: torch warns once per process that its sparse tensors are new
    given = {"n": 600, "widths": [5], "repeats": 1, "threads": 1}
    found = call("benchmarks.products:measure", given, threads=1).value
    assert [form["form"] for form in found["forms"]] == list(TITLES)
    for form in found["forms"]:
        assert form["difference"] < 1e-5
        assert form["both_ms"] > 0


def test_a_child_has_its_own_environment() -> None:
    given = {"key": "OMP_WAIT_POLICY"}
    assert call("os:getenv", given, threads=1).value == "PASSIVE"
    assert call("os:getenv", given, threads=1, environment={"OMP_WAIT_POLICY": "ACTIVE"}).value == "ACTIVE"
    with pytest.raises(ChildError) as failed:
        call("os:getenv", {}, threads=1)
    assert failed.value.code == 1
    assert not failed.value.out_of_memory
    assert ChildError("f", -9, "").out_of_memory
    assert ChildError("f", 1, "DefaultCPUAllocator: can't allocate memory").out_of_memory


def test_tables_are_rendered_from_partial_results(tmp_path: Path) -> None:
    settings = {"slices": 10, "genes": 2000, "seed": 7, "max_ram": None}
    machine = {"environment": {"threads": 2, "date": "2026-01-01"}}
    results = scale.merged({**scale.checked({}, settings, smoke=False), **machine}, "100000", row(100_000, 200.0))
    text = render_scale(results)
    assert "| 100 000 | 200.0 | 100.0 | 30.0 | 100.0 | 48.8 | 1.05 |" in text
    assert "exponent" not in text.split("\n\n")[1]
    parts = [("step", None, 9.0, 1.0), ("terms", None, 8.0, 1.0), ("prototypes", "terms", 2.0, 0.5)]
    names = ("part", "of", "median_ms", "share_of_steps")
    part_rows = [dict(zip(names, part, strict=True)) for part in parts]
    more = {"steps": {"spots": 5000, "parts": part_rows, "seconds_per_step_prefetched": 0.007}}
    more |= {"wait_policy": {"spots": 5000, "seconds_per_step": {"PASSIVE": 0.004}}}
    forms = [{"form": "a", "d": 8, "forward_ms": 1.0, "both_ms": None, "difference": 1e-7}]
    forms.append({"form": "b", "d": 8, "skipped": "not installed"})
    more |= {"products": {"rows": 4, "entries": 9, "titles": {"a": "A", "b": "B"}, "forms": forms}}
    text = render_scale({**results, **more})
    assert "9.0 = terms 8.0 (prototypes 2.0 (in 50% of the steps))." in text
    assert "a step takes 7.0 ms" in text
    assert "`PASSIVE` 4.0 ms" in text
    assert "| A | 1.00 / – | 1e-07 |" in text
    assert "| B | not installed |  |" in text
    own = {"median": 0.5, "peak_rss_mib": 400.0}
    sizes = [{"n": 40_000, "own": own, "published": {"did_not_fit": "more than 9 MiB"}}]
    text = render_published({**machine, "smoke": False, "settings": {"slices": 4, "limit_gb": 24.0}, "sizes": sizes})
    assert "| 40 000 | 0.5 | did not fit |" in text
    write_results(tmp_path / "x.json", results)
    assert read_results(tmp_path / "x.json")["rows"]["100000"]["spots"] == 100_000
