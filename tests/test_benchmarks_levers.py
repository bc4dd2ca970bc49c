"""The benchmark of levers: gains against the reference, ranks over sets and seeds, sets with their annotation."""

import numpy as np
import pytest

from benchmarks import levers, tissues
from benchmarks.lever_scores import judged, summary
from benchmarks.levers import LEVERS, mean_ranks
from benchmarks.readme_levers import levers as rendered
from benchmarks.trial import ceiling
from stscale.config import Preprocess, Simulate


def runs(*values: float) -> list[dict[str, float]]:
    return [{"seed": seed, "ari": value} for seed, value in enumerate(values)]


def test_gain_is_seed_by_seed() -> None:
    found = summary(runs(0.5, 0.7, 0.9)[1:], runs(0.4, 0.5))
    assert found["ari"] == pytest.approx({"median": 0.8, "min": 0.7, "max": 0.9, "gain": 0.2})
    assert "nmi" not in found
    assert summary(runs(0.5), [])["ari"]["gain"] is None


def test_ranks_are_over_all_sets_and_seeds_or_not_at_all() -> None:
    sets = {
        "a": {"levers": {"default": {"runs": runs(0.5, 0.5)}, "silent": {"runs": runs(0.6, 0.4)}}},
        "b": {"levers": {"default": {"runs": runs(0.2)}, "silent": {"runs": runs(0.2)}, "floor": {"runs": runs(1)}}},
    }
    found = mean_ranks(sets)
    assert found["default"] == pytest.approx({"mean_rank": 1.5, "mean_ari": 0.4})
    assert found["silent"] == pytest.approx({"mean_rank": 1.5, "mean_ari": 0.4})
    assert "floor" not in found  # not measured on "a"


def test_default_is_the_reference_and_levers_are_options() -> None:
    from stscale.config import Run

    assert levers.REFERENCE in LEVERS
    for lever in LEVERS.values():
        Run().replace(lever.changes)
        assert lever.sees in ("learned", "floor", "both")


def test_known_effects_are_those_of_the_simulation(tmp_path, monkeypatch) -> None:
    from stscale.slices import SliceStore

    monkeypatch.setattr(tissues, "SPOTS", 120)
    monkeypatch.setattr(tissues, "GENES", 80)
    known = tissues.prepared("layers-strong", tmp_path, Preprocess(n_pcs=10), true_effects=True)
    made = [
        SliceStore.open(f).var()["batch_log_effect"].to_numpy()
        for f in sorted((tmp_path / "layers-strong").glob("*.zarr"))
    ]
    effect = np.stack(made) - np.mean(made, axis=0)
    # gains are known up to a factor of the whole slice
    rest = np.log(known.features.gain()) + 0.5 * effect
    np.testing.assert_allclose(rest - rest.mean(axis=1, keepdims=True), 0, atol=1e-6)
    measured = tissues.prepared("layers-strong", tmp_path, Preprocess(n_pcs=10))
    assert measured.graph_path != known.graph_path
    agree = np.corrcoef(np.log(measured.features.gain()).ravel(), np.log(known.features.gain()).ravel())[0, 1]
    assert 0.3 < agree < 0.999


def test_cost_of_effects_is_shown_measured_and_known() -> None:
    def held(**aris: float) -> dict:
        names = {"default": "d", "floor-narrow": "u", "floor-true": "t"}
        return {
            "levers": {
                k.replace("_", "-"): {"title": names[k.replace("_", "-")], "runs": runs(v)} for k, v in aris.items()
            }
        }

    sets = {
        "rare-none": held(default=0.9, floor_narrow=0.88),
        "rare-strong": held(default=0.8, floor_narrow=0.79, floor_true=0.81),
        "dlpfc": held(default=0.7, floor_narrow=0.7),
    }
    text = rendered({"sets": sets, "environment": {"date": "2026-01-01"}, "mean_rank": {}})
    assert "| rare | 0.880 | 0.790 | 0.810 |" in text


def test_simulated_set_is_scored_by_its_truth(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tissues, "SPOTS", 120)
    monkeypatch.setattr(tissues, "GENES", 80)
    given = tissues.prepared("layers-mild", tmp_path, Preprocess(n_pcs=10))
    assert given.features.n_slices == tissues.SLICES
    assert set(given.labels) == {f"domain-{d}" for d in range(1, 8)}
    assert (given.features.n, given.graph.n, len(given.labels)) == (480, 480, 480)
    again = tissues.prepared("layers-mild", tmp_path, Preprocess(n_pcs=10))
    assert again.graph_path == given.graph_path
    # a simulation of other options is another set of features
    monkeypatch.setitem(tissues.SHAPES, "layers", {"kind": "layers", "domains": 3})
    other = tissues.prepared("layers-mild", tmp_path, Preprocess(n_pcs=10))
    assert other.graph_path != given.graph_path
    assert len(set(other.labels)) == 3
    assert np.isfinite(other.features.pca(0, 10)).all()


def test_gradient_of_a_simulation_is_an_option() -> None:
    from stscale.slices.expression import Expression

    weak, strong = (Expression.build(seed=1, genes=100, config=Simulate(gradient=g)) for g in (0.1, 0.4))
    np.testing.assert_allclose(4 * weak.gradient, strong.gradient)
    np.testing.assert_array_equal(weak.abundance, strong.abundance)


def test_targets_are_of_what_was_measured() -> None:
    def tissue(ari: float, mixed: float) -> dict[str, object]:
        run = {"seed": 0, "ari": ari, "ilisi": 0.2, "ilisi_elsewhere": mixed, "ceiling": ari + 0.1}
        floor = {"runs": [{"seed": 0, "ari": ari - 0.04}, {"seed": 1, "ari": ari - 0.04}]}
        return {"levers": {"default": {"runs": [run]}, "floor-log": floor}}

    found = judged({"layers-none": tissue(0.9, 0.8), "layers-strong": tissue(0.85, 0.7), "her2st": tissue(0.4, 0.3)})
    assert [round(part["measured"], 3) for part in found.values()] == [0.04, 0.04, 0.2, 0.875, 1.0, -0.05]
    assert [part["met"] for part in found.values()] == [False, False, False, True, True, False]
    assert judged({}) == {}


def test_targets_of_the_joint_cortex_and_of_boundaries() -> None:
    def edges(*values: float) -> dict[str, object]:
        return {"runs": [{"seed": i, "ari": 0.5, "boundary_accuracy": v} for i, v in enumerate(values)]}

    default = {"runs": [{"seed": i, "ari": v} for i, v in enumerate((0.64, 0.66, 0.67))]}
    both = {"learned": edges(0.5, 0.6), "reconstruction": edges(0.4, 0.5)}
    found = judged({"dlpfc": {"levers": {"default": default, **both}}, "her2st": {"levers": both}})
    assert [round(part["measured"], 3) for part in found.values()] == [0.66, -0.03, 0.1]
    assert [part["met"] for part in found.values()] == [True, False, True]


def test_levers_of_some_sets_have_a_table_of_their_own() -> None:
    def lever(title: str) -> dict[str, object]:
        return {"title": title, "runs": [{"seed": 0, "ari": 0.5, "boundary_accuracy": 0.25}]}

    whole = {"default": lever("all"), "learned": lever("latents")}
    sets = {"a": {"levers": whole}, "b": {"levers": {**whole, "reconstruction": lever("plain")}}}
    text = rendered({"sets": sets, "mean_rank": mean_ranks(sets), "environment": {"date": "2026-01-02"}})
    assert "| set | seeds | default | learned |" in text
    assert "|  | b |\n| --- | --- |\n| all | 0.500 / 0.250 |\n| latents |" in text
    assert "| plain | 0.500 / 0.250 |" in text


def test_options_of_several_slices_are_shown_beside_what_they_are_compared_with() -> None:
    def lever(title: str, *aris: float) -> dict[str, object]:
        values = [{"seed": i, "ari": ari, "boundary_accuracy": ari / 2, "ilisi": 0.1} for i, ari in enumerate(aris)]
        return {"title": title, "runs": values}

    def held(*aris: float) -> dict[str, object]:
        more = [ari + 0.1 for ari in aris]
        alone = {"default": lever("all", *aris, 0.0), "floor-spatial": lever("floor", *aris)}
        compared = {"root": lever("root", *aris, 0.0), "floor-root": lever("rooted", *aris)}
        return {
            "levers": {**alone, **compared, "poisson": lever("counts", *more), "floor-poisson": lever("both", *more)}
        }

    sets = {
        "layers-strong": held(0.5, 0.7),
        "rare-strong": held(0.8),
        "her2st": held(0.3),
        "dlpfc-151673": {"levers": {"default": lever("all", 0.6), "floor-spatial": lever("floor", 0.6)}},  # alone
    }
    text = rendered({"sets": sets, "environment": {"date": "2026-01-01"}, "mean_rank": {}})
    assert "- poisson: counts" in text
    assert "| sets | root | poisson | floor-root | floor-poisson |" in text
    assert "1 to 2 seeds" in text
    # over the seeds that both have: (0.6 + 0.8) / 2
    both = "0.700 / 0.350 / 0.100 | 0.800 / 0.400 / 0.100"
    assert f"| simulated, strong (2) | {both} | {both} |" in text
    assert "| her2st | 0.300 / 0.150 / 0.100 | 0.400 / 0.200 / 0.100 |" in text
    assert "Parts of it" not in text


def test_joined_slices_have_a_table_and_targets_of_their_own() -> None:
    def lever(ari: float, **more: object) -> dict[str, object]:
        values = [{"seed": i, "ari": ari, "boundary_accuracy": 0.25, "ilisi": 0.5} for i in range(2)]
        return {"title": f"of {ari}", "runs": values, **more}

    alone, both = lever(0.5), lever(0.75, changes=LEVERS["joined"].changes)
    sets = {
        "layers-none": {"levers": {"default": alone, "joined": lever(0.875, changes=both["changes"])}},
        "layers-strong": {"levers": {"default": alone, "joined": both}},
        "dlpfc-151673": {"levers": {"default": alone}},
    }
    found = {"sets": sets, "mean_rank": {}, "targets": judged(sets), "environment": {"date": "2026-01-02"}}
    text = rendered(found)
    assert "- joined: of 0.75\n" in text
    assert "| layers-strong | 0.500 |  | 0.750 | 0.250 | 0.250 | 0.500 | 0.500 |" in text
    assert "\n| dlpfc-151673 | 0.500 |  |" not in text
    title = "strong batch effect with --align, ARI over that without batch effect, most lost"
    assert found["targets"][title] == {"measured": -0.125, "target": -0.03, "at_least": True, "met": False}


def test_ranks_are_of_levers_with_all_seeds_of_the_reference() -> None:
    more = {"default": {"runs": runs(0.5, 0.5)}, "silent": {"runs": runs(0.6, 0.4, 0.9)}, "floor": {"runs": runs(0.9)}}
    found = mean_ranks({"a": {"levers": more}})
    assert found["default"] == pytest.approx({"mean_rank": 1.5, "mean_ari": 0.5})
    assert list(found) == ["default", "silent"]


def test_levers_with_fewer_seeds_stand_beside_the_default_with_the_same() -> None:
    both = {"default": {"title": "all", "runs": runs(0.5, 0.7)}, "floor": {"title": "less", "runs": runs(0.25)}}
    found = {"sets": {"a": {"levers": both}}, "mean_rank": mean_ranks({"a": {"levers": both}})}
    text = rendered({**found, "environment": {"date": "2026-01-02"}})
    assert "| a | 2 | 0.600 |" in text
    assert "| set | seeds | default | floor |\n| --- | --- | --- | --- |\n| a | 1 | 0.500 | 0.250 |" in text
    assert mean_ranks({}) == {}
    # changes are seen without wider surroundings: they stand beside the default without these
    both["narrow"] = {"title": "as it was", "runs": runs(0.45, 0.75)}
    text = rendered({**found, "mean_rank": mean_ranks(found["sets"]), "environment": {"date": "2026-01-02"}})
    assert "| set | seeds | narrow | floor |\n| --- | --- | --- | --- |\n| a | 1 | 0.450 | 0.250 |" in text


def test_ceiling_is_of_slices_it_did_not_see() -> None:
    rng = np.random.default_rng(0)
    label, group = np.tile([0, 1], 60), np.repeat([0, 1, 2], 40)
    z = 4 * label[:, None] + rng.normal(size=(120, 3))
    names = np.array(["a", "b"], dtype=object)[label]
    assert ceiling(z, names, group) > 0.9
    turned = np.where(group == 2, names[::-1], names).astype(object)  # one slice with the other names
    assert ceiling(z, turned, group) < 0.6
    alone = np.where(group == 0, names, None)
    assert ceiling(z, alone, group) is None


def test_sets_of_mixed_cells_are_made_once_and_measured(tmp_path, monkeypatch) -> None:
    from benchmarks import surroundings
    from benchmarks.readme_levers import surroundings as shown
    from stscale.analysis.scale import FROM, FULL, LITTLE

    monkeypatch.setattr(tissues, "SPOTS", 150)
    monkeypatch.setattr(tissues, "GENES", 80)
    made = surroundings.cells("cells-layers-0.3", tmp_path)
    assert len(made.files) == 3
    given = tissues.prepared(made.name, tmp_path, Preprocess(n_pcs=10), given=made)
    assert given.features.n == 450
    assert set(given.labels) == {f"domain-{d}" for d in range(1, 8)}
    assert surroundings.cells("cells-layers-0.3", tmp_path) == made
    monkeypatch.setattr(
        "sys.argv",
        [
            "surroundings",
            "--work",
            str(tmp_path),
            "--out",
            str(tmp_path / "x.json"),
            "--sets",
            "cells-layers-0.3",
            "--seeds",
            "0",
        ],
    )
    monkeypatch.setattr(surroundings, "ROUNDS", (2, 4))
    surroundings.main()
    found = levers.read_results(tmp_path / "x.json")
    part = found["sets"]["cells-layers-0.3"]
    assert all(-0.5 < value <= 1 for values in part["ari"].values() for value in values)
    assert min(part["losses"].values()) == 1.0
    assert set(part["ari"]) == {"2", "4", "run"}
    assert (part["wider"] is None) == (part["gain"] < FROM + LITTLE * (FULL - FROM))
    assert "| cells-layers-0.3 |" in shown(found)


def test_slices_lacking_genes_are_measured_three_ways(tmp_path, monkeypatch) -> None:
    from benchmarks import panels
    from benchmarks.readme_levers import panels as shown

    monkeypatch.setattr(tissues, "SPOTS", 150)
    monkeypatch.setattr(tissues, "GENES", 240)
    made = panels.lacking("rare-mild", tmp_path)
    assert panels.lacking("rare-mild", tmp_path) == made
    words = f"panels --work {tmp_path} --out {tmp_path / 'x.json'} --sets rare-mild --seeds 0"
    monkeypatch.setattr("sys.argv", words.split())
    panels.main()
    found = levers.read_results(tmp_path / "x.json")
    genes = {way: part["genes"] for way, part in found["sets"]["rare-mild"]["ways"].items()}
    assert genes["whole"] == genes["union"] == 240
    assert 50 <= genes["intersection"] < 90
    assert shown(found).count("| rare-mild |") == 3
