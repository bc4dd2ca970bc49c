"""What the top README shows of the result files."""

from typing import Any

from benchmarks.readme_summary import summary


def runs(*values: float) -> dict[str, Any]:
    return {"runs": [{"seed": seed, "ari": value} for seed, value in enumerate(values)]}


def levers(first: tuple[float, ...], second: tuple[float, ...]) -> dict[str, Any]:
    same = {"floor-spatial": runs(0.1, 0.1), "floor-log": runs(0.2, 0.2)}
    sets = {"layers-mild": first, "rare-mild": second}
    return {"sets": {name: {"levers": {"default": runs(*values), **same}} for name, values in sets.items()}}


def test_the_mean_over_sets_is_taken_seed_by_seed_and_over_common_seeds() -> None:
    shown = summary({"levers": levers((0.2, 0.4, 0.9), (0.4, 0.4))})
    assert "| simulated, batch effect mild | 2 | 0.350 (0.300–0.400) | 0.100 (0.100–0.100) |" in shown
    assert "cortex" not in shown


def test_only_missed_targets_are_listed_with_what_they_are_about() -> None:
    part = {"measured": 0.5, "target": 0.6, "at_least": True}
    targets = {"kept": part | {"met": True}, "lost": part | {"met": False}}
    shown = summary({"align": {"targets": targets}, "scale": {}})
    assert "1 of 2 targets are met" in shown
    assert "| alignment: lost | 0.5 | ≥ 0.6 | **no** |" in shown
    assert "kept" not in shown


def test_nothing_missed_needs_no_table() -> None:
    part = {"measured": 0.7, "target": 0.6, "at_least": True, "met": True}
    assert summary({"levers": levers((0.2,), (0.4,)) | {"targets": {"kept": part}}}).endswith("1 of 1 targets are met.")


def test_sizes_are_in_gb_of_a_billion_bytes_and_only_those_measured() -> None:
    rows = {"10000": {"integrate": {"seconds": 61.4, "peak_rss_mib": 1000.0}}, "500": {"integrate": {}}}
    shown = summary({"scale": {"rows": rows, "environment": {"threads": 2}}})
    assert "on 2 threads" in shown
    assert "| 10 000 | 61 | 1.0 |" in shown
    assert "500" not in shown


def test_the_published_terms_are_told_at_the_largest_size_tried() -> None:
    sizes = [{"n": 1000, "time_ratio": 2.0, "memory_ratio": 3.0}, {"n": 20000, "time_ratio": 41.2, "memory_ratio": 9.6}]
    shown = summary({"published": {"sizes": sizes, "settings": {"limit_gb": 20}}})
    assert "41 times as long and 10 times the memory at 20 000 spots" in shown
    assert "under a limit of 20 GB" in shown
