"""align() end to end on three simulated slices of unequal size, given in a shuffled order."""

import json
import shutil
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr

import stscale
from stscale.alignment import RunSlices, Transform, read_alignment, transfer_labels, transfer_values
from stscale.config import Ingest, Run, Simulate, load
from stscale.errors import InputError
from stscale.evaluation import evaluate
from stscale.output import MatchTable, add_obs, add_obsm, drop_obs
from stscale.rundir import read_manifest
from stscale.slices import SliceStore, ingest
from stscale.slices.simulate import FORMAT, simulate
from stscale.transport import Plan, sparse_sinkhorn

SIZES = {"a": 420, "b": 380, "c": 340}
ORDER = ("c", "a", "b")  # not its own inverse
EMPTY = 4  # spots of slice a without a count
PX = 0.5  # µm per unit of slice b's coordinates; the others are in µm
SMALL = {
    "run": {"threads": 1, "device": "cpu"},
    "preprocess": {"n_hvg": 80, "n_pcs": 10},
    "spotscape": {"hidden": 16, "latent": 8, "clusters": 3, "refresh": 4, "reservoir": 64},
    "sample": {"batch_size": 512},
    "train": {"steps": 6, "log_every": 3},
    "domains": {"k": 3, "n_init": 1, "n_components": 6},
    "report": {"umap": False, "markers": False, "quality": False},
    "align": {"rotations": 24, "starts": 3},
}
TINY = Run().replace(SMALL)
pytestmark = pytest.mark.figures


def write_slices(folder: Path) -> list[Path]:
    """Write slice stores of one tissue, rows shuffled, some spots missing, and the truth beside them."""
    simulated = simulate(folder / "whole", slices=3, spots=450, genes=90, seed=1, config=Simulate(empty_fraction=0.0))
    told = json.loads((folder / "whole" / "truth.json").read_text(encoding="utf-8"))["transforms"]
    stores, truth = folder / "stores", []
    for number, (name, size) in enumerate(SIZES.items()):
        whole = anndata.read_zarr(simulated[number])
        rows = np.random.default_rng(number).permutation(whole.n_obs)[:size]
        adata = whole[rows].copy()
        if name == "a":
            adata.X = adata.X.multiply((np.arange(size) >= EMPTY)[:, None]).tocsr()
        if name == "b":
            adata.obsm["spatial"] = adata.obsm["spatial"] / PX
        adata.obs = adata.obs[["domain", "true_x", "true_y"]]
        adata.obs_names = [f"{name}-{k}" for k in range(size)]
        adata.write_h5ad(folder / f"{name}.h5ad")
        ingest(folder / f"{name}.h5ad", stores / f"{name}.zarr", config=Ingest())
        described = json.loads((stores / f"{name}.zarr" / "zarr.json").read_text(encoding="utf-8"))
        described["attributes"]["stscale"]["um_per_unit"] = PX if name == "b" else 1.0
        (stores / f"{name}.zarr" / "zarr.json").write_text(json.dumps(described), encoding="utf-8")
        truth.append({"name": name, "matrix": told[number]["matrix"]})
    (stores / "truth.json").write_text(json.dumps({"format": FORMAT, "transforms": truth}), encoding="utf-8")
    return [stores / f"{name}.zarr" for name in ORDER]


def surrogate(run: Path) -> None:
    """Put latents into a run as a well-trained network would give: a code per domain, a drift along the tissue."""
    adata = anndata.read_zarr(run / "integrated.zarr")
    rng, size = np.random.default_rng(7), adata.obsm["X_stscale"].shape[1]
    codes = rng.standard_normal((7, size))[adata.obs["domain"].cat.codes]
    at = adata.obs[["true_x", "true_y"]].to_numpy()
    at = (at - at.mean(axis=0)) / at.std(axis=0)
    z = codes + np.sin(1.5 * at) @ rng.standard_normal((2, size)) * 0.5 + 0.2 * rng.standard_normal(codes.shape)
    held = np.isfinite(adata.obsm["X_stscale"]).all(axis=1)
    root = zarr.open_group(run / "integrated.zarr", mode="r+")
    root["obsm/X_stscale"][:] = np.where(held[:, None], z, np.nan).astype(np.float32)


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[Path]:
    return write_slices(tmp_path_factory.mktemp("slices"))


@pytest.fixture(scope="module")
def integrated(paths, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    stscale.integrate(paths, out=out, config=TINY)
    surrogate(out)
    return out


@pytest.fixture(scope="module")
def aligned(integrated, tmp_path_factory) -> Path:
    """An aligned run with everything carried over; tests that change it work on a copy."""
    out = Path(shutil.copytree(integrated, tmp_path_factory.mktemp("aligned") / "run"))
    genes = stscale.slices.features.FeatureStore.open(out / "features.zarr").genes()[[3, 0]].tolist()
    stscale.align(out, transfer_labels=["domain"], transfer_genes=genes)
    return out


@pytest.fixture
def no_figures(monkeypatch):
    """For tests that align more than once and do not look at the page."""
    monkeypatch.setattr(
        "stscale.report.write_report", lambda run: (run / "report.html").write_text("", encoding="utf-8")
    )


@pytest.fixture
def plain(integrated, tmp_path) -> Path:
    return Path(shutil.copytree(integrated, tmp_path / "run"))


@pytest.fixture
def copy(aligned, tmp_path) -> Path:
    return Path(shutil.copytree(aligned, tmp_path / "run"))


def states(run: Path, **options) -> dict[str, str]:
    seen: list[dict] = []
    stscale.align(run, observer=seen.append, **options)
    kept = {e["stage"]: e["state"] for e in seen if e["event"] == "stage"}
    return kept | {f"{e['source']} on {e['target']}": e["state"] for e in seen if e["event"] == "pair"}


def with_align(run: Path, **values) -> Run:
    return load(run / "config.toml").replace({"align": values})


def read_matches(run: Path) -> pd.DataFrame:
    if (run / "matches.parquet").exists():
        return pd.read_parquet(run / "matches.parquet")
    return pd.read_csv(run / "matches.csv.gz")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows_of(adata: anndata.AnnData, name: str) -> np.ndarray:
    return np.flatnonzero((adata.obs["stscale_slice"] == name).to_numpy())


def test_aligned_rows_are_those_of_the_input(aligned, paths):
    """By hand from transforms.json and the coordinates in the stores, spot by spot by name."""
    adata = anndata.read_zarr(aligned / "integrated.zarr")
    told = {s["name"]: s for s in json.loads((aligned / "transforms.json").read_text(encoding="utf-8"))["slices"]}
    assert list(told) == list(ORDER)
    for name, path in zip(ORDER, paths, strict=True):
        store = SliceStore.open(path)
        own = pd.DataFrame(store.coordinates(), index=store.names()).loc[adata.obs_names[rows_of(adata, name)]]
        expected = np.column_stack([own.to_numpy(), np.ones(len(own))]) @ np.array(told[name]["matrix"])[:2].T
        np.testing.assert_allclose(adata.obsm["spatial_aligned"][rows_of(adata, name)], expected, atol=1e-6)
    assert np.isfinite(adata.obsm["spatial_aligned"]).all()
    assert "spatial_3d" not in adata.obsm


def test_slices_lie_where_they_were_cut(aligned):
    adata = anndata.read_zarr(aligned / "integrated.zarr")
    told = json.loads((aligned / "transforms.json").read_text(encoding="utf-8"))
    assert (told["unit"], told["reference"]) == ("µm", "c")
    # slice c is the third that was simulated: its own map carries true positions to its slide, which is the frame
    c = rows_of(adata, "c")
    true = adata.obs[["true_x", "true_y"]].to_numpy()
    one = np.column_stack([true, np.ones(len(true))])
    to_slide = np.linalg.lstsq(one[c], adata.obsm["spatial"][c], rcond=None)[0]
    apart = np.linalg.norm(adata.obsm["spatial_aligned"] - one @ to_slide, axis=1)
    assert np.sqrt(np.mean(apart**2)) < 50  # half the distance of neighbouring spots, µm
    scores = evaluate(aligned)
    for part in ("a on c", "b on a", "a in the frame", "b in the frame"):
        assert scores[part]["error_degrees"] < 1.5
        assert scores[part]["error_um"] < 50
    assert "accuracy" not in scores["a on c"]


def test_nothing_else_changes(aligned, integrated):
    before, after = files_of(integrated / "integrated.zarr"), files_of(aligned / "integrated.zarr")
    own = ("obsm/spatial_aligned/", "obs/stscale_transfer_")
    assert {k: v for k, v in after.items() if not k.startswith(own) and k != "obs/zarr.json"} == {
        k: v for k, v in before.items() if k != "obs/zarr.json"
    }
    old, new = (anndata.read_zarr(run / "integrated.zarr") for run in (integrated, aligned))
    pd.testing.assert_frame_equal(new.obs[old.obs.columns], old.obs)
    assert list(new.obs.columns[len(old.obs.columns) :]) == ["stscale_transfer_domain", "stscale_transfer_domain_p"]
    assert not list(aligned.rglob("*.part"))


def test_matches_name_rows_of_integrated(aligned):
    adata = anndata.read_zarr(aligned / "integrated.zarr")
    table = read_matches(aligned)
    assert set(zip(table["source_slice"].astype(str), table["target_slice"].astype(str), strict=True)) == {
        ("a", "c"),
        ("b", "a"),
    }
    for side in ("source", "target"):
        in_table = table[f"{side}_slice"].astype(str).to_numpy()
        assert (adata.obs["stscale_slice"].astype(str).to_numpy()[table[f"{side}_row"]] == in_table).all()
        assert np.isfinite(adata.obsm["X_stscale"][table[f"{side}_row"]]).all()  # no spot that was left out
    sums = table.groupby(["source_slice", "source_row"], observed=True)["probability"].sum()
    np.testing.assert_allclose(sums, 1.0, atol=1e-5)
    # correspondences are near in the frame and of the same domain more often than not
    at, domain = adata.obsm["spatial_aligned"], adata.obs["domain"].to_numpy()
    best = table.loc[table.groupby(["target_slice", "source_row"], observed=True)["probability"].idxmax()]
    apart = np.linalg.norm(at[best["source_row"]] - at[best["target_row"]], axis=1)
    assert np.median(apart) < 100
    assert (domain[best["source_row"]] == domain[best["target_row"]]).mean() > 0.8


def test_left_out_spots_have_a_place_and_no_match(aligned):
    adata = anndata.read_zarr(aligned / "integrated.zarr")
    empty = np.flatnonzero(np.isnan(adata.obsm["X_stscale"]).any(axis=1))
    assert len(empty) == EMPTY
    table = read_matches(aligned)
    assert not np.isin(empty, table["source_row"]).any()
    assert not np.isin(empty, table["target_row"]).any()
    assert np.isfinite(adata.obsm["spatial_aligned"][empty]).all()
    assert adata.obs["stscale_transfer_domain"].iloc[empty].isna().all()


def test_labels_and_genes_through_the_plan(aligned):
    adata = anndata.read_zarr(aligned / "integrated.zarr")
    given, p = adata.obs["stscale_transfer_domain"], adata.obs["stscale_transfer_domain_p"].to_numpy()
    c = rows_of(adata, "c")
    assert given.iloc[c].isna().all()  # the reference is no source
    assert np.isnan(p[c]).all()
    known = given.notna().to_numpy()
    assert ((p[known] > 0) & (p[known] <= 1 + 1e-9)).all()
    assert (given[known].astype(str) == adata.obs["domain"][known].astype(str)).mean() > 0.8
    # one spot by hand, from the table of matches
    table = read_matches(aligned)
    mine = table[table["source_slice"].astype(str) == "b"]
    row = int(mine["source_row"].iloc[0])
    mine = mine[mine["source_row"] == row]
    votes = mine.groupby(adata.obs["domain"].iloc[mine["target_row"]].astype(str).to_numpy())["probability"].sum()
    assert given.iloc[row] == votes.idxmax()
    assert p[row] == pytest.approx(votes.max(), abs=1e-5)
    # expression: from the slice store, normalised by hand
    genes = anndata.read_zarr(aligned / "transfer-genes.zarr")
    assert genes.obs_names.tolist() == adata.obs_names.tolist()
    assert np.isnan(genes.X[c]).all()
    whole = anndata.read_h5ad(aligned_input(aligned, "a"))
    kept = stscale.slices.features.FeatureStore.open(aligned / "features.zarr")
    used = whole[adata.obs_names[mine["target_row"]], :].X.toarray()
    shown = np.log1p(used / used.sum(axis=1, keepdims=True) * 1e4)[:, whole.var_names.get_indexer(genes.var_names)]
    assert set(genes.var_names) <= set(kept.genes())
    expected = mine["probability"].to_numpy() @ shown / mine["probability"].sum()
    np.testing.assert_allclose(genes.X[row], expected, rtol=1e-4, atol=1e-5)


def aligned_input(run: Path, name: str) -> Path:
    stores = {Path(i["path"]).stem: Path(i["path"]) for i in read_manifest(run)["inputs"]}
    return stores[name].parent.parent / f"{name}.h5ad"


def test_the_report_shows_it(aligned):
    page = (aligned / "report.html").read_text(encoding="utf-8")
    assert '<h2 id="alignment">Alignment</h2>' in page
    assert "b on a" in page
    for name in ("overlay", "matches", "residuals", "stack", "domains"):
        assert (aligned / "figures" / f"{name}.png").stat().st_size > 1000


def test_the_same_again_reuses_everything(copy, paths):
    before = files_of(copy / "integrated.zarr")
    assert states(copy, transfer_labels=["domain"]) == {"align": "reused", "transfer": "start", "report": "reused"}
    assert not (copy / "transfer-genes.zarr").exists()  # it was not asked for again
    assert files_of(copy / "integrated.zarr") == before
    assert states(copy, transfer_labels=["domain"]) == dict.fromkeys(("align", "transfer", "report"), "reused")
    seen: list[dict] = []
    stscale.integrate(paths, out=copy, config=load(copy / "config.toml"), observer=seen.append)
    assert {e["state"] for e in seen if e["event"] == "stage"} == {"reused"}
    assert read_alignment(copy) is not None


@pytest.mark.usefixtures("no_figures")
def test_heights_redo_the_frame_and_no_pair(copy):
    done = states(copy, config=with_align(copy, z=[30.0, 10.0, 20.0]))
    assert done == {"align": "start", "a on c": "reused", "b on a": "reused", "report": "start"}
    adata = anndata.read_zarr(copy / "integrated.zarr")
    np.testing.assert_array_equal(adata.obsm["spatial_3d"][:, :2], adata.obsm["spatial_aligned"])
    for name, z in zip(ORDER, (30.0, 10.0, 20.0), strict=True):
        assert (adata.obsm["spatial_3d"][rows_of(adata, name), 2] == z).all()
    assert "stscale_transfer_domain" not in adata.obs  # it belonged to the alignment before
    # without heights again: nothing stale stays
    states(copy, config=with_align(copy, z=None))
    assert "spatial_3d" not in anndata.read_zarr(copy / "integrated.zarr").obsm
    states(copy, config=with_align(copy, spacing=12.5))
    z = anndata.read_zarr(copy / "integrated.zarr").obsm["spatial_3d"][:, 2]
    assert sorted(set(z)) == [0.0, 12.5, 25.0]


@pytest.mark.usefixtures("no_figures")
def test_another_list_of_pairs(copy):
    """The pair that both lists hold is reused; the reference is another."""
    (copy.parent / "pairs.csv").write_text("source,target\nb,a\nc,a\n", encoding="utf-8")
    config = with_align(copy, pairs=str(copy.parent / "pairs.csv"), reference="a", refine=False)
    assert states(copy, config=config) == {"align": "start", "b on a": "done", "c on a": "done", "report": "start"}
    found = read_alignment(copy)
    assert found is not None
    assert (found.reference, [p.refined for p in found.pairs]) == ("a", [False, False])
    np.testing.assert_allclose(found.transforms[1].matrix, np.eye(3))
    assert len(list((copy / "alignment").iterdir())) == 4  # what the old list left is gone


def test_a_new_output_forgets_the_alignment(copy, paths):
    shutil.rmtree(copy / "integrated.zarr")
    stscale.integrate(paths, out=copy, config=load(copy / "config.toml"))
    assert read_alignment(copy) is None
    assert "align" not in read_manifest(copy)["stages"]


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("place", ["stscale.output.add_obsm", "stscale.output.MatchTable.append"])
def test_killed_while_writing(plain, monkeypatch, place):
    def dies(*args, **kwargs):
        raise KeyboardInterrupt

    before = files_of(plain / "integrated.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(place, dies)
        with pytest.raises(KeyboardInterrupt):
            stscale.align(plain)
    assert files_of(plain / "integrated.zarr") == before
    assert read_alignment(plain) is None
    assert states(plain) == {"align": "start", "a on c": "reused", "b on a": "reused", "report": "start"}


def test_a_plan_that_did_not_converge_is_said(plain, monkeypatch, no_figures):
    from stscale.alignment import refine as refine_module  # the function, which names its own module

    monkeypatch.setattr(sys.modules[refine_module.__module__], "sparse_sinkhorn", hurried)
    found = stscale.align(plain, config=load(plain / "config.toml").replace({"align": {"pairs": "sequential"}}))
    for pair in found.alignment.pairs:
        assert not pair.converged
        assert pair.plan_error > 1e-3
        assert any("the local transport is off by" in note for note in pair.notes)
    told = json.loads((plain / "transforms.json").read_text(encoding="utf-8"))["pairs"]
    assert [pair["converged"] for pair in told] == [False, False]


def hurried(*arguments, **options):
    return sparse_sinkhorn(*arguments, **{**options, "epsilon": 1e-3, "max_iterations": 1})


def test_an_error_in_a_pair_keeps_the_alignment_before(copy, monkeypatch):
    def fails(*args, **kwargs):
        raise InputError("nothing in common")

    before = {k: v for k, v in files_of(copy).items() if k not in ("manifest.json", "events.jsonl")}
    monkeypatch.setattr("stscale.alignment.align_pair", fails)
    with pytest.raises(InputError, match="nothing in common"):
        stscale.align(copy, config=with_align(copy, channels=5))
    assert {k: v for k, v in files_of(copy).items() if k not in ("manifest.json", "events.jsonl")} == before
    assert states(copy) == {"align": "reused", "report": "reused"}


@pytest.mark.usefixtures("no_figures")
def test_coordinates_without_micrometres_stay_as_they_are(plain):
    manifest = read_manifest(plain)
    manifest["stages"]["features"]["um_per_unit"]["a"] = None
    (plain / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    found = stscale.align(plain, config=with_align(plain, kind="similarity", refine=False)).alignment
    assert found.unit == "unit of the reference"
    assert found.um_per_unit == (None, None, None)
    assert any("a does not tell how many µm" in note for note in found.notes)
    assert found.pairs[1].transform.scale == pytest.approx(PX, rel=0.05)  # b lies in units half as long


@pytest.mark.usefixtures("no_figures")
def test_a_mirrored_slice_is_reported(plain):
    root = zarr.open_group(plain / "integrated.zarr", mode="r+")
    rows = slice(*RunSlices.open(plain).offsets[1:3].tolist())
    flipped = root["obsm/spatial"][rows] * [-1.0, 1.0]
    root["obsm/spatial"][rows] = flipped
    pairs = str(plain.parent / "pairs.toml")
    Path(pairs).write_text('pairs = [["a", "c"], ["b", "c"]]\n', encoding="utf-8")
    found = stscale.align(plain, config=with_align(plain, pairs=pairs, refine=False)).alignment
    assert [pair.mirror for pair in found.pairs] == [True, False]
    assert not found.pairs[0].transform.mirror
    assert "seems to be mirrored" in " ".join(found.pairs[0].notes)
    found = stscale.align(plain, config=with_align(plain, pairs=pairs, refine=False, allow_mirror=True)).alignment
    assert found.pairs[0].transform.mirror


BAD = {
    "reference": ({"reference": "d"}, {}, "no slice is called 'd'"),
    "pairs": ({"pairs": "chain"}, {}, "expected sequential, star, all"),
    "heights": ({"z": [1.0, 2.0]}, {}, "2 heights for 3 slices"),
    "column": ({}, {"transfer_labels": ["layer"]}, "no column 'layer'"),
    "numbers": ({}, {"transfer_labels": ["true_x"]}, "holds numbers, not labels"),
    "gene": ({}, {"transfer_genes": ["GENE"]}, "gene 'GENE' is not among"),
    "out": ({}, {"out": "/nowhere/else"}, "aligned in place"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_leaves_the_run_untouched(case, integrated):
    values, options, said = BAD[case]
    before = files_of(integrated)
    with pytest.raises(InputError, match=said):
        stscale.align(integrated, config=with_align(integrated, **values), **options)
    assert files_of(integrated) == before


def test_an_unknown_slice_in_a_pair_list(integrated, tmp_path):
    (tmp_path / "pairs.csv").write_text("a,c\nd,c\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"pairs\.csv: no slice is called 'd'; the slices are c, a, b"):
        stscale.align(integrated, config=with_align(integrated, pairs=str(tmp_path / "pairs.csv")))


def test_an_unfinished_run(plain, tmp_path):
    manifest = read_manifest(plain)
    del manifest["stages"]["write"]
    (plain / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(InputError, match="not finished"):
        stscale.align(plain)
    with pytest.raises(InputError, match="does not exist"):
        stscale.align(tmp_path / "none")


def test_one_slice_only(paths, tmp_path):
    with pytest.raises(InputError, match="1 slice given; alignment needs at least two"):
        stscale.align(paths[:1], out=tmp_path / "run", config=TINY)
    with pytest.raises(InputError, match="give a folder for the run with -o"):
        stscale.align(paths)
    assert not (tmp_path / "run").exists()


def test_three_dimensions_are_refused(paths, plain, tmp_path):
    flat = anndata.read_h5ad(paths[0].parent.parent / "a.h5ad")
    flat.obsm["spatial"] = np.column_stack([flat.obsm["spatial"], np.zeros(flat.n_obs)])
    flat.write_h5ad(tmp_path / "deep.h5ad")
    with pytest.raises(InputError, match=r"'deep' has 3 coordinates per spot.*--z or --spacing"):
        stscale.align([tmp_path / "deep.h5ad", paths[1]], out=tmp_path / "other", config=TINY)
    assert not (tmp_path / "other").exists()
    adata = anndata.read_zarr(plain / "integrated.zarr")
    shutil.rmtree(plain / "integrated.zarr" / "obsm" / "spatial")
    add_obsm(plain / "integrated.zarr", "spatial", (adata.n_obs, 3), [(0, np.zeros((adata.n_obs, 3)))])
    with pytest.raises(InputError, match="have 3 coordinates per spot"):
        stscale.align(plain)


@pytest.mark.usefixtures("no_figures")
def test_slices_are_integrated_first(paths, tmp_path):
    out = tmp_path / "run"
    seen: list[dict] = []
    config = TINY.replace({"align": {"pairs": "star", "refine": False}})
    result = stscale.align(paths, out=out, config=config, observer=seen.append)
    order = [e["stage"] for e in seen if e["event"] == "stage"]
    assert order.index("write") < order.index("align")
    assert [(p.source, p.target) for p in result.alignment.pairs] == [("a", "c"), ("b", "c")]
    assert np.isfinite(result.adata().obsm["spatial_aligned"]).all()


@pytest.mark.usefixtures("no_figures")
def test_the_words_of_integrate_for_slices(paths, tmp_path, stscale_):
    words = ("--method", "smooth", "--domains", 3, "--layer", "X", "--fractional", "--genes", "union", "--no-refine")
    small = ("--threads", 1, "--set", "preprocess.n_pcs=10", "--set", "report.quality=false")
    code, out, err = stscale_("align", *paths, "-o", tmp_path / "run", *words, *small)
    assert code == 0, err
    assert "b on a: turned" in out
    asked = load(tmp_path / "run" / "config.toml")
    assert (asked.method, asked.domains.k, asked.ingest.layer, asked.align.refine) == ("smooth", 3, "X", False)
    assert (asked.preprocess.fractional, asked.preprocess.genes) == (True, "union")


@pytest.mark.usefixtures("no_figures")
def test_a_warp_comes_on_top(plain):
    found = stscale.align(plain, config=with_align(plain, warp=True, warp_points=20, refine=False)).alignment
    again = read_alignment(plain)
    assert again is not None
    slices = RunSlices.open(plain)
    aligned = anndata.read_zarr(plain / "integrated.zarr").obsm["spatial_aligned"]
    for i in range(3):
        placed = aligned[slices.offsets[i] : slices.offsets[i + 1]]
        np.testing.assert_allclose(again.place(i, slices.given(i)), placed, atol=1e-6)
    # slice b by hand: onto a, where its warp lives, and from there with a onto c
    a, b = found.transforms[1], found.transforms[2]
    first, second = found.pairs
    u = a.inverse().compose(b).apply(slices.given(2) * PX)
    u = first.transform.apply(second.warp.apply(u))
    np.testing.assert_allclose(found.place(2, slices.given(2)), first.warp.apply(u), atol=1e-6)


def test_transfer_by_hand():
    plan = Plan.from_pairs([0, 0, 1, 3], [0, 1, 1, 2], [3.0, 1.0, 2.0, 1.0], shape=(4, 3))
    other = Plan.from_pairs([0, 1], [0, 0], shape=(4, 1))
    code, p = transfer_labels([plan], [np.array([1, 0, -1])], 2)
    assert code.tolist() == [1, 0, -1, -1]
    np.testing.assert_allclose(p, [0.75, 1.0, np.nan, np.nan])
    code, p = transfer_labels([plan, other], [np.array([1, 0, -1]), np.array([0])], 2)
    assert code.tolist() == [0, 0, -1, -1]  # spot 0: (1/4 + 1) / 2 for label 0
    np.testing.assert_allclose(p, [0.625, 1.0, np.nan, np.nan])
    values = transfer_values([plan, other], [np.array([[4.0], [8.0], [np.nan]]), np.array([[1.0]])])
    np.testing.assert_allclose(values[:, 0], [(5.0 + 1.0) / 2, (8.0 + 1.0) / 2, np.nan, np.nan])
    with pytest.raises(InputError, match="expected as many"):
        transfer_labels([plan], [], 2)


def test_columns_are_added_replaced_and_removed(plain):
    path = plain / "integrated.zarr"
    old = anndata.read_zarr(path).obs
    add_obs(path, {"x": np.arange(len(old)), "y": pd.Categorical(["u"] * len(old))})
    add_obs(path, {"x": np.zeros(len(old))})
    new = anndata.read_zarr(path).obs
    assert list(new.columns) == [*old.columns, "y", "x"]
    assert (new["x"] == 0).all()
    drop_obs(path, ["x", "y", "none"])
    pd.testing.assert_frame_equal(anndata.read_zarr(path).obs, old)
    assert not (path / "obs" / "x").exists()


def test_matches_without_pyarrow(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert MatchTable.name() == "matches.csv.gz"
    with MatchTable(tmp_path / "matches.csv.gz") as table:
        table.append("a", "b", np.array([4, 5]), np.array([9, 8]), np.array([0.5, 1.0]))
    found = pd.read_csv(tmp_path / "matches.csv.gz")
    assert found.columns.tolist() == ["source_slice", "target_slice", "source_row", "target_row", "probability"]
    assert found.to_numpy().tolist() == [["a", "b", 4, 9, 0.5], ["a", "b", 5, 8, 1.0]]


def test_metrics_of_pairs(copy):
    found = evaluate(copy, "domain")["b on a"]
    assert found["accuracy"] > 0.8
    assert found["ltari"] > 0.6
    assert 0.5 < found["coverage"] <= 1
    assert 0.5 < found["matched"] <= 1
    assert found["edge_consistency"] > 0.6
    assert found["spatial_coherence"] > 5
    written = json.loads((copy / "metrics.json").read_text(encoding="utf-8"))
    assert written["b on a"]["accuracy"] == found["accuracy"]


def test_the_command_line(copy, integrated, stscale_):
    code, out, err = stscale_("align", copy, "--spacing", 10)
    assert code == 0, err
    assert "a on c: turned " in out
    assert "of its spots have a counterpart" in out
    assert "transforms.json" in out
    assert "1/2: a on c (unchanged, reused)" in err
    assert "spatial_3d" in anndata.read_zarr(copy / "integrated.zarr").obsm
    code, out, err = stscale_("metrics", copy, "--labels", "domain", "--threads", 1)
    assert code == 0, err
    assert "b on a:" in out
    assert "error_degrees" in out
    for arguments, said in (
        (["--set", "train.steps=5"], "[train] of a finished run cannot be changed by align"),
        (["--method", "smooth"], "[method] of a finished run cannot be changed by align"),
        (["--fractional"], "[preprocess] of a finished run cannot be changed by align"),
        (["--z", "0,x,2"], "--z '0,x,2'"),
        (["--z", "0,1,2", "--spacing", "3"], "both given"),
        (["--reference", "d"], "no slice is called 'd'"),
        (["--z", "1,2"], "2 heights for 3 slices"),
        (["--pairs", "chain"], "expected sequential, star, all"),
        (["--pairs", "none.toml"], "pair list none.toml does not exist"),
        (["--transfer-genes", "NOPE"], "gene 'NOPE' is not among"),
    ):
        code, out, err = stscale_("align", integrated, *arguments, "--quiet")
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert said in err
        assert err.count("\n") == 1


def test_what_is_no_run_is_told_and_nothing_is_written(paths, stscale_, tmp_path):
    for words, said in (
        ([tmp_path / "nowhere"], "nowhere does not exist"),
        ([paths[0], "-o", tmp_path / "one"], "1 slice given; alignment needs at least two"),
        ([*paths, "-o", tmp_path / "two", "--pairs", "chain"], "expected sequential, star, all"),
        ([*paths, "-o", tmp_path / "two", "--z", "1,2"], "2 heights for 3 slices"),
    ):
        code, out, err = stscale_("align", *words, "--quiet")
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert said in err
        assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_record_is_what_was_found(aligned):
    found = read_alignment(aligned)
    assert found is not None
    again = type(found).from_dict(json.loads(json.dumps(found.to_dict())))
    assert [p.plan for p in again.pairs] == [p.plan for p in found.pairs]
    for one, other in zip(again.transforms, found.transforms, strict=True):
        assert isinstance(one, Transform)
        np.testing.assert_allclose(one.matrix, other.matrix, atol=1e-9)
    with pytest.raises(InputError, match="expected 'stscale-alignment-1'"):
        type(found).from_dict({"format": "other"})
