"""integrate --align: slices laid on each other first, one graph over them, then the rest of the run."""

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from stscale_cli.options import joining
from test_pipeline import write_inputs
from test_planning import made
from test_smooth import naive

import stscale
from stscale.config import Run, Simulate
from stscale.errors import InputError
from stscale.graphs import load
from stscale.rundir import read_manifest
from stscale.slices.features import FeatureStore
from stscale.slices.simulate import simulate

SIZES = {"a": 700, "b": 560, "c": 630}
ORDER = ("c", "a", "b")
STAGES = ["ingest", "features", "graph", "join", "embed", "domains", "write", "align", "report"]
CONFIG = Run().replace(
    {
        "run": {"threads": 1, "device": "cpu", "method": "smooth"},
        "preprocess": {"n_hvg": 120, "n_pcs": 12},
        "graph": {"across": 3},
        # what joining does by itself: slices alone gain from wider surroundings too
        "domains": {"k": 5, "n_init": 4, "wider": 0.0},
        "align": {"rotations": 24, "starts": 3},
        "spotscape": {"hidden": 16, "latent": 8},
        "train": {"steps": 20, "log_every": 10},
        "report": {"umap": False, "markers": False, "quality": False},
    }
)
ALONE = CONFIG.replace({"graph": {"across": 0}})


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[Path]:
    """One tissue cut three times, few counts: rows shuffled, a part of each slice missing, one without counts."""
    folder = tmp_path_factory.mktemp("slices")
    noisy = Simulate(kind="layers", domains=5, library=250.0, marker_lfc=0.6, empty_fraction=0.0)
    whole = simulate(folder / "whole", slices=3, spots=720, genes=200, seed=2, config=noisy)
    for number, (name, size) in enumerate(SIZES.items()):
        adata = anndata.read_zarr(whole[number])
        adata = adata[np.random.default_rng(number).permutation(adata.n_obs)[:size]].copy()
        adata.obs_names = [f"{name}-{i}" for i in range(size)]
        adata.obs = adata.obs[["domain", "true_x", "true_y"]]
        if name == "b":
            adata.X = sparse.csr_matrix(adata.X.multiply((np.arange(size) != 5)[:, None]))
        adata.write_h5ad(folder / f"{name}.h5ad")
    return [folder / f"{name}.h5ad" for name in ORDER]


@pytest.fixture(scope="module")
def alone(paths, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    stscale.integrate(paths, out=out, config=ALONE)
    return out


@pytest.fixture(scope="module")
def joined(paths, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    stscale.integrate(paths, out=out, config=CONFIG)
    return out


@pytest.fixture
def no_page(monkeypatch):
    """The test does not look at the report."""
    write = lambda run: (run / "report.html").write_text("", encoding="utf-8")  # noqa: E731
    monkeypatch.setattr("stscale.report.write_report", write)


@pytest.fixture
def copy(joined, tmp_path) -> Path:
    return Path(shutil.copytree(joined, tmp_path / "copy"))


def states(paths, out, config, **options) -> dict[str, str]:
    """Integrate; return what became of each stage."""
    seen: list[dict] = []
    stscale.integrate(paths, out=out, config=config, observer=seen.append, **options)
    return {e["stage"]: e["state"] for e in seen if e["event"] == "stage"}


def begins_at(paths, out, config) -> str:
    """Integrate up to the first stage that is not reused; return its name."""
    seen: list[str] = []

    def stop(event):
        if event["event"] == "stage" and event["state"] == "start":
            seen.append(event["stage"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stscale.integrate(paths, out=out, config=config, observer=stop)
    return seen[0]


def true_places(run: Path) -> np.ndarray:
    """Where the spots of the fit were cut from the tissue, (n, 2)."""
    adata = anndata.read_zarr(run / "integrated.zarr")
    return adata.obs.loc[np.isfinite(adata.obsm["X_stscale"]).all(axis=1), ["true_x", "true_y"]].to_numpy()


def score(run: Path) -> float:
    obs = anndata.read_zarr(run / "integrated.zarr").obs
    held = obs["stscale_domain"].notna()
    return adjusted_rand_score(obs.loc[held, "domain"], obs.loc[held, "stscale_domain"])


def test_links_join_spots_that_lie_on_each_other(joined):
    assert list(read_manifest(joined)["stages"]) == STAGES
    plane, graph = load(joined / "graph.npz"), load(joined / "joined.npz")
    graph.validate()
    features = FeatureStore.open(joined / "features.zarr")
    group, row = features.slice(), np.repeat(np.arange(graph.n), graph.degree())
    within = group[row] == group[graph.indices]
    # what is inside a slice is its own graph
    np.testing.assert_array_equal(np.bincount(row[within], minlength=graph.n), plane.degree())
    np.testing.assert_array_equal(graph.indices[within], plane.indices)
    at = true_places(joined)
    gaps = np.linalg.norm(at[row[~within]] - at[graph.indices[~within]], axis=1)
    spacing = np.median(np.linalg.norm(at[row[within]] - at[graph.indices[within]], axis=1))
    assert np.quantile(gaps, 0.95) < 3 * spacing
    # c – a and a – b are beside each other, c – b are not
    names = np.array(features.slice_names)
    assert names.tolist() == list(ORDER)
    beside = {tuple(sorted(pair)) for pair in zip(group[row[~within]], group[graph.indices[~within]], strict=True)}
    assert beside == {(0, 1), (1, 2)}
    found = read_manifest(joined)["stages"]["join"]
    assert found["edges"] == graph.n_edges // 2
    across = np.bincount(row[~within], minlength=graph.n)
    assert found["unjoined"] == int((across == 0).sum()) < 0.1 * graph.n


def test_the_embedding_averages_over_the_slices_beside(joined):
    shown = shutil.copytree(joined, joined.parent / "shown")
    shutil.copyfile(shown / "joined.npz", shown / "graph.npz")  # what `naive` reads
    rounds = CONFIG.smooth.rounds
    np.testing.assert_allclose(np.load(joined / "latents.npy"), naive(shown, rounds), atol=2e-6)


def test_domains_are_better_than_of_slices_by_themselves(joined, alone):
    assert score(joined) > score(alone) + 0.01


def test_the_run_is_aligned_too(joined):
    adata = anndata.read_zarr(joined / "integrated.zarr")
    at, true = adata.obsm["spatial_aligned"], adata.obs[["true_x", "true_y"]].to_numpy()
    held = np.isfinite(at).all(axis=1)
    fit = np.linalg.lstsq(np.c_[true[held], np.ones(held.sum())], at[held], rcond=None)
    rest = at[held] - np.c_[true[held], np.ones(held.sum())] @ fit[0]
    assert np.sqrt(np.mean(rest**2)) < 0.02 * np.ptp(at[held], axis=0).max()
    page = (joined / "report.html").read_text(encoding="utf-8")
    assert "Slices were laid on each other before the embedding" in page
    assert "slices laid on each other and joined" in page


def test_training_sees_the_joined_graph(paths, copy, no_page):
    config = CONFIG.replace({"run": {"method": "spotscape"}})
    seen = states(paths, copy, config)
    assert {s: seen[s] for s in ("graph", "join", "train", "embed", "align")} == {
        "graph": "reused",
        "join": "reused",
        "train": "start",
        "embed": "start",
        "align": "start",
    }
    z = np.load(copy / "latents.npy")
    plain = copy.parent / "plain"
    states(paths, plain, config.replace({"graph": {"across": 0}}))
    assert np.abs(z - np.load(plain / "latents.npy")).max() > 0.01
    assert set(states(paths, copy, config).values()) == {"reused"}
    stscale.impute(copy, genes=[str(FeatureStore.open(copy / "features.zarr").genes()[0])], by="decoder")
    mapped = stscale.map_slices(copy, paths[:1], out=copy.parent / "mapped", threads=1).adata()
    own = anndata.read_zarr(copy / "integrated.zarr").obs
    own = own.loc[own["stscale_slice"] == "c", "stscale_domain"].astype(str).to_numpy()
    assert adjusted_rand_score(own, mapped.obs["stscale_domain"].astype(str)) > 0.5


def test_the_same_again_reuses_everything_and_turning_it_off_takes_it_back(paths, copy, alone):
    assert states(paths, copy, CONFIG) == dict.fromkeys(STAGES, "reused")
    seen = states(paths, copy, ALONE)
    assert (seen["graph"], seen["embed"]) == ("reused", "start")
    assert not {"join", "align"} & set(read_manifest(copy)["stages"])
    np.testing.assert_array_equal(np.load(copy / "latents.npy"), np.load(alone / "latents.npy"))
    assert "spatial_aligned" not in anndata.read_zarr(copy / "integrated.zarr").obsm
    assert "Slices were laid on" not in (copy / "report.html").read_text(encoding="utf-8")
    assert begins_at(paths, copy, CONFIG) == "join"


def test_refinement_and_heights_do_not_join_anew(paths, copy, no_page):
    assert begins_at(paths, copy, CONFIG.replace({"align": {"refine_k": 8, "spacing": 10.0}})) == "align"
    for changes in ({"align": {"pairs": "star"}}, {"align": {"kind": "affine"}}, {"graph": {"across": 1}}):
        assert begins_at(paths, copy, CONFIG.replace(changes)) == "join"


def test_killed_between_pairs(paths, joined, tmp_path, no_page):
    out, seen = tmp_path / "run", []

    def kill(event):
        if event["event"] == "pair":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stscale.integrate(paths, out=out, config=CONFIG, observer=kill)
    assert "join" not in read_manifest(out)["stages"]
    stscale.integrate(paths, out=out, config=CONFIG, observer=seen.append)
    of_join = [e["state"] for e in seen if e["event"] == "pair"][:2]
    assert of_join == ["reused", "done"]
    assert (out / "joined.npz").read_bytes() == (joined / "joined.npz").read_bytes()
    np.testing.assert_array_equal(np.load(out / "latents.npy"), np.load(joined / "latents.npy"))
    assert not (out / "joins").exists()
    assert not (out / "scratch").exists()


def test_slices_of_other_tissue_are_not_joined(paths, alone, tmp_path):
    other = anndata.read_h5ad(paths[2])
    rng = np.random.default_rng(0)
    other.X = other.X[rng.permutation(other.n_obs)]  # the same spots in no order
    other.write_h5ad(tmp_path / "b.h5ad")
    seen: list[dict] = []
    result = stscale.integrate(
        [*paths[:2], tmp_path / "b.h5ad"], out=tmp_path / "run", config=CONFIG, observer=seen.append
    )
    notes = [e["text"] for e in seen if e["event"] == "note"]
    assert "'b' and 'a' are not joined: the domains see each by itself" in notes
    graph, plane = load(result.path / "joined.npz"), load(result.path / "graph.npz")
    last = FeatureStore.open(result.path / "features.zarr").offsets()[2]
    np.testing.assert_array_equal(graph.degree()[last:], plane.degree()[last:])
    assert graph.n_edges > plane.n_edges
    page = (result.path / "report.html").read_text(encoding="utf-8")
    assert "are not joined: the domains see each by itself." in page


def three_dimensions(name: str, adata: anndata.AnnData) -> anndata.AnnData:
    adata.obsm["spatial"] = np.c_[adata.obsm["spatial"], np.zeros(adata.n_obs)]
    return adata


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("one", "1 slice given; alignment needs at least two"),
        ("method", "--align) joins the graph of spotscape and smooth; mhal reads two graphs of its own"),
        ("flat", "has 3 coordinates per spot; alignment works in the plane"),
        ("pairs", "expected sequential, star, all, or a file .toml or .csv"),
        ("small", "has 12 embedded spots; alignment needs at least 20"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(case, said, tmp_path, stscale_):
    change = (
        three_dimensions if case == "flat" else (lambda name, adata: adata[: 12 if case == "small" else None].copy())
    )
    inputs = write_inputs(tmp_path / "in", change)
    words = {"method": ["--method", "mhal"], "pairs": ["--set", "align.pairs=round"]}.get(case, ["--method", "smooth"])
    given = inputs[:1] if case == "one" else inputs
    code, out, err = stscale_("integrate", *given, "-o", tmp_path / "run", "-k", 3, "--align", "--quiet", *words)
    assert (code, out) == (2, "")
    assert said in err.replace("\n", " ")
    # a slice too small is met after the features are made, which a repaired option can reuse
    assert not (tmp_path / "run").exists() or case == "small"


def test_the_command_line(paths, joined, tmp_path, stscale_, no_page):
    settings = [
        "preprocess.n_hvg=120",
        "preprocess.n_pcs=12",
        "domains.n_init=4",
        "align.rotations=24",
        "align.starts=3",
    ]
    settings += ["report.umap=false", "report.markers=false", "report.quality=false"]
    words = ["--method", "smooth", "-k", "5", "--threads", "1", *(w for s in settings for w in ("--set", s))]
    code, out, _ = stscale_("integrate", *paths, "-o", tmp_path / "run", "--align", *words)
    assert code == 0
    assert out.count(": turned") == 2
    assert "a on c: turned" in out
    assert (tmp_path / "run" / "joined.npz").read_bytes() == (joined / "joined.npz").read_bytes()
    kept = (tmp_path / "run" / "config.toml").read_text(encoding="utf-8")
    assert "across = 3" in kept
    code, out, _ = stscale_("integrate", *paths, "-o", tmp_path / "run", "--no-align", *words)
    assert code == 0
    assert ": turned" not in out
    code, out, _ = stscale_("plan", *paths, "--align", "--method", "smooth")
    assert code == 0
    assert out.index("\ngraph ") < out.index("\njoin ") < out.index("\nembed ") < out.index("\nalign ")


def test_the_flag_leaves_a_number_of_spots_as_it_is():
    assert [joining(Run(), flag).graph.across for flag in (None, True, False)] == [0, 3, 0]
    more = Run().replace({"graph": {"across": 2}})
    assert [joining(more, flag).graph.across for flag in (None, True, False)] == [2, 2, 0]


def test_the_plan_counts_it():
    alone, joined = made(100_000), made(100_000, {"graph": {"across": 3}})
    stages = [c.stage for c in joined.costs]
    assert [s for s in stages if s not in [c.stage for c in alone.costs]] == ["join", "align"]
    assert stages.index("graph") + 1 == stages.index("join")
    by_name = {c.stage: c for c in alone.costs}
    for cost in joined.costs:
        if cost.stage == "train":
            assert cost.ram > by_name["train"].ram
    assert joined.seconds > alone.seconds
    json.dumps(joined.record())


def test_three_spots_across_are_refused_below_zero():
    with pytest.raises(InputError, match="across"):
        Run().replace({"graph": {"across": -1}})
