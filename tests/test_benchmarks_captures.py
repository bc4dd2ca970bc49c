"""How unlike slices capture genes: the effects of a simulation are found again, and the table says what follows."""

import pytest

from benchmarks.captures import told
from benchmarks.readme_captures import captures
from stscale.config import Simulate
from stscale.slices.simulate import simulate


@pytest.mark.parametrize("effect", [0.0, 0.4])
def test_effects_of_a_simulation_are_found_again(effect, tmp_path) -> None:
    config = Simulate(batch_effect=effect, library=2000.0)
    made = simulate(tmp_path / "made", slices=3, spots=300, genes=150, seed=3, config=config)
    assert told([str(path) for path in made], tmp_path / "stores") == pytest.approx(effect, abs=0.06)


def test_the_table_is_in_order_of_the_spread() -> None:
    sets = {
        "far": {"slices": 2, "spread": 0.5, "height": "poisson"},
        "near": {"slices": 4, "spread": 0.0341, "height": "slice"},
    }
    shown = captures({"bound": 0.18, "sets": sets})
    assert "above 0.18" in shown
    assert shown.splitlines()[-2:] == ["| near | 4 | 0.034 | `slice` |", "| far | 2 | 0.500 | `poisson` |"]
