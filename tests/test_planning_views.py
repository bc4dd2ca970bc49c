"""The plan of the two-view methods: their own widths and batches, and budgets that lower them."""

from pathlib import Path

import pytest
from test_planning import GIB, MACHINE, headers

from stscale.config import Run
from stscale.errors import InputError
from stscale.planning import make_plan
from stscale.planning.cost import Cost


def priced(n: int, changes: dict | None = None) -> dict[str, Cost]:
    run = Run().replace({"run": {"method": "mhal"}, "domains": {"k": 7}}).replace(changes or {})
    return {c.stage: c for c in make_plan(headers(n), run, MACHINE, cuda=False, folder=Path("out")).costs}


def test_memory_of_a_training_is_bounded_by_the_batch() -> None:
    small, large = priced(100_000)["train"], priced(1_000_000)["train"]
    assert GIB < small.ram < 2 * GIB  # 1.53 GiB measured
    assert large.ram < 3 * GIB
    assert large.seconds < 3 * small.seconds


def test_what_a_step_holds_costs_memory() -> None:
    base = priced(100_000)["train"]
    for section, name, value in (
        ("mhal", "genes", 0),
        ("mhal", "hidden", 512),
        ("views", "feature_fan_out", [14, 14]),
        ("sample", "batch_size", 8192),
    ):
        assert priced(100_000, {section: {name: value}})["train"].ram > base.ram, name


def test_a_budget_lowers_the_batch_or_is_refused() -> None:
    run = Run().replace({"run": {"method": "mhal", "max_ram": "1200M"}, "domains": {"k": 7}})
    plan = make_plan(headers(100_000), run, MACHINE, cuda=False, folder=Path("out"))
    assert plan.ram < 1200 * 2**20
    assert plan.run.sample.batch_size < run.sample.batch_size
    with pytest.raises(InputError, match="is too little memory"):
        make_plan(headers(100_000), run.replace({"run": {"max_ram": "400M"}}), MACHINE, cuda=False, folder=Path("out"))
