"""The transforms found from a real embedding of simulated slices, at several angles."""

import json

import anndata
import numpy as np
import pytest
from made_views import errors, rotation

from stscale import integrate
from stscale.alignment import PairList, SliceView, Transform, align_pair, solve_stack
from stscale.config import Align, Run, Simulate
from stscale.slices.simulate import simulate

SHORT = Run().replace(
    {
        "run": {"threads": 1, "device": "cpu"},
        "train": {"steps": 100},
        "domains": {"k": 7, "n_init": 2},
        "report": {"umap": False, "markers": False, "quality": False},
    }
)


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    paths = simulate(folder / "slices", slices=3, spots=2000, genes=300, seed=1, config=Simulate())
    adata = anndata.read_zarr(integrate(paths, out=folder / "run", config=SHORT).path / "integrated.zarr")
    told = json.loads((folder / "slices" / "truth.json").read_text())["transforms"]
    made = []
    for entry in told:
        rows = (adata.obs["stscale_slice"] == entry["name"]).to_numpy()
        view = SliceView.build(entry["name"], adata.obsm["spatial"][rows], adata.obsm["X_stscale"][rows])
        made.append((view, Transform(kind="rigid", matrix=np.array(entry["matrix"]))))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("turn", [0, 60, 120, 180])
def test_rotation_and_shift(tissue, turn):
    (a, to_a), (b, to_b) = tissue[0], tissue[1]
    own = Transform.from_parts(rotation(turn), (500.0, -200.0))
    turned = SliceView.build("turned", own.apply(b.xy), b.z)
    found = align_pair(turned, a, Align())
    degrees, pitches = errors(found.transform, to_a.compose(own.compose(to_b).inverse()), turned)
    assert degrees <= 0.5
    assert pitches <= 0.5


@pytest.mark.slow
def test_a_stack_of_three(tissue):
    views = [view for view, _ in tissue]
    pairs = PairList.build([view.name for view in views], "all")
    found = [align_pair(views[s], views[t], Align(rotations=36, starts=6)) for s, t in pairs.pairs]
    boxes = [[view.xy.min(axis=0), view.xy.max(axis=0)] for view in views]
    stack = solve_stack(pairs, [pair.transform for pair in found], boxes, weights=[pair.score for pair in found])
    for (view, to_slice), transform in zip(tissue, stack.transforms, strict=True):
        degrees, pitches = errors(transform, tissue[0][1].compose(to_slice.inverse()), view)
        assert degrees <= 0.5
        assert pitches <= 0.5
    assert stack.weights.min() > 0.5
