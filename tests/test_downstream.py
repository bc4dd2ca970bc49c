"""map, impute, trajectory and transfer on one small run, through the command line and Python."""

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest

import stscale
from stscale.config import Run, Simulate
from stscale.errors import InputError
from stscale.integrating.stages import DERIVED
from stscale.rundir import read_manifest
from stscale.slices.features import FeatureStore
from stscale.slices.simulate import simulate

SMALL = {
    "run": {"threads": 1, "device": "cpu"},
    "preprocess": {"n_hvg": 80, "n_pcs": 10, "genes": "union"},
    "spotscape": {"hidden": 16, "latent": 8, "clusters": 3, "refresh": 4, "reservoir": 64},
    "sample": {"batch_size": 512, "tile": 32},
    "train": {"steps": 30, "log_every": 10},
    "domains": {"k": 3, "n_init": 1, "n_components": 6, "smooth_rounds": 1, "spatial": 2.0},
    "report": {"quality": False},
    "align": {"rotations": 24, "starts": 3, "refine": False},
}
CONFIG = Run().replace(SMALL)
LACKED = 5  # genes that the second slice's panel lacks


@pytest.fixture(scope="module", autouse=True)
def no_page():
    """Nothing here looks at the report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stscale.report.write_report", lambda run: (run / "report.html").write_text("", encoding="utf-8"))
        yield


@pytest.fixture(scope="module")
def slices(tmp_path_factory) -> list[Path]:
    """Three slices of one tissue as h5ad, rows shuffled; the second lacks genes, the third has spots without counts."""
    folder = tmp_path_factory.mktemp("slices")
    made, files = simulate(folder / "s", slices=3, spots=360, genes=90, seed=1, config=Simulate()), []
    for number, path in enumerate(made):
        whole = anndata.read_zarr(path)
        adata = whole[np.random.default_rng(number).permutation(whole.n_obs)].copy()
        if number == 1:
            adata = adata[:, LACKED:].copy()
        if number == 2:
            adata.X = adata.X.multiply((np.arange(adata.n_obs) >= 3)[:, None]).tocsr()
        adata.obs = adata.obs[["domain"]]
        adata.obs_names = [f"{number}-{k}" for k in range(adata.n_obs)]
        files.append(folder / f"slice-{number}.h5ad")
        adata.write_h5ad(files[-1])
    return files


@pytest.fixture(scope="module")
def run(slices, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    stscale.integrate(slices[:2], out=out, config=CONFIG)
    return out


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_slice_of_the_run_is_mapped_to_where_it_was(run, slices, tmp_path) -> None:
    before = content(run)
    result = stscale.map_slices(run, [slices[2], slices[0]], out=tmp_path / "mapped")
    assert content(run) == before  # the run is only read
    whole, found = anndata.read_zarr(run / "integrated.zarr"), result.adata()
    own = whole[whole.obs["stscale_slice"] == "slice-0"]
    again = found[found.obs["stscale_slice"] == "slice-0"]
    assert again.obs_names.tolist() == own.obs_names.tolist()
    assert np.allclose(again.obsm["X_stscale"], own.obsm["X_stscale"], atol=1e-5)
    assert np.array_equal(again.obsm["spatial"], own.obsm["spatial"])
    # labels, with the say and the vote of the neighbours
    assert again.obs["stscale_domain"].astype(str).tolist() == own.obs["stscale_domain"].astype(str).tolist()
    assert found.obs["domain"].notna().all()
    assert not (tmp_path / "mapped" / "scratch").exists()


@pytest.mark.parametrize("method", ["spotscape", "smooth"])
def test_mapped_slices_are_seen_beside_wider_surroundings_too(method, slices, tmp_path, monkeypatch) -> None:
    from stscale.analysis import scale

    def far(*_args, used, **_options):
        return scale.Scale(used=used, losses={used: 1.05, 6: 1.0}, rounds=6)

    monkeypatch.setattr(scale, "spatial_scale", far)
    made = tmp_path / "run"
    stscale.integrate(slices, out=made, config=CONFIG.replace({"run": {"method": method}}))
    monkeypatch.undo()  # a mapping does not measure it anew
    assert read_manifest(made)["stages"]["domains"]["wider"] == {"rounds": 6, "weight": 1.0}
    whole = anndata.read_zarr(made / "integrated.zarr")
    found = stscale.map_slices(made, [slices[1]], out=tmp_path / "mapped").adata()
    own = whole[whole.obs["stscale_slice"] == found.obs["stscale_slice"].iloc[0]]
    assert found.obs["stscale_domain"].astype(str).tolist() == own.obs["stscale_domain"].astype(str).tolist()


def test_a_new_slice_keeps_its_rows_and_its_empty_spots(run, slices, tmp_path) -> None:
    result = stscale.map_slices(run, [slices[2]], out=tmp_path / "mapped")
    found, given = result.adata(), anndata.read_h5ad(slices[2])
    empty = np.asarray(given.X.sum(axis=1)).ravel() == 0
    assert found.obs_names.tolist() == given.obs_names.tolist()
    assert np.array_equal(np.isnan(found.obsm["X_stscale"]).any(axis=1), empty)
    assert np.array_equal(found.obs["stscale_domain"].isna(), empty)
    confidence = found.obs["stscale_confidence"].to_numpy()
    assert np.array_equal(np.isnan(confidence), empty)
    assert 0 < np.nanmin(confidence) <= np.nanmax(confidence) <= 1
    assert set(found.obs["stscale_domain"].cat.categories) == {"0", "1", "2"}
    told = json.loads((tmp_path / "mapped" / "mapped.json").read_text(encoding="utf-8"))["slices"][0]
    assert told["left_out"] == 3
    assert told["genes_shared"] == told["genes_run"] == 80
    assert told["moved"] is False
    assert told["verdict"]["verdict"] == "mapped"
    assert sum(told["domains"].values()) == found.n_obs - 3


def test_statistics_are_measured_anew_on_request(run, slices, tmp_path) -> None:
    frozen, anew = (
        stscale.map_slices(run, [slices[2]], out=tmp_path / f"m{restat}", restat=restat).adata()
        for restat in (False, True)
    )
    a, b = frozen.obsm["X_stscale"], anew.obsm["X_stscale"]
    assert not np.allclose(a, b, atol=1e-3, equal_nan=True)
    assert np.nanmean(np.abs(a - b)) < 0.5 * np.nanstd(a)


def test_each_slice_is_mapped_for_itself(run, slices, tmp_path) -> None:
    both = stscale.map_slices(run, [slices[0], slices[2]], out=tmp_path / "both", restat=True).adata()
    one = stscale.map_slices(run, [slices[2]], out=tmp_path / "one", restat=True).adata()
    rows = both.obs["stscale_slice"].to_numpy() == "slice-2"
    assert np.array_equal(both.obsm["X_stscale"][rows], one.obsm["X_stscale"], equal_nan=True)


def test_other_tissue_is_novel(run, slices, tmp_path) -> None:
    adata = anndata.read_h5ad(slices[2])
    adata.var_names = np.random.default_rng(0).permutation(adata.var_names.to_numpy())
    adata.write_h5ad(tmp_path / "other.h5ad")
    found = stscale.map_slices(run, [tmp_path / "other.h5ad"], out=tmp_path / "mapped").slices[0].verdict
    assert found.verdict == "novel"
    assert found.reasons


def test_map_says_what_it_found(run, slices, tmp_path, stscale_) -> None:
    code, out, _ = stscale_("map", run, slices[2], "-o", tmp_path / "mapped", "--threads", 1)
    assert code == 0
    assert "slice-2: mapped; 360 spots (3 without counts left out), 80 of 80 genes" in out
    # again, over the earlier one
    assert stscale_("map", run, slices[2], "-o", tmp_path / "mapped", "-q")[:2] == (0, "")


@pytest.mark.parametrize("case", ["unfinished", "names", "places", "log", "holds", "inside", "twice", "model", "one"])
def test_map_refuses_in_one_line_and_leaves_nothing(case, run, copy, slices, tmp_path, stscale_) -> None:
    adata, given, used, out = anndata.read_h5ad(slices[2]), tmp_path / "new.h5ad", run, tmp_path / "mapped"
    said = {
        "unfinished": "is not finished",
        "names": "has 0 of the 80 genes",
        "places": "spatial",
        "log": "log-normalised values",
        "holds": "is not empty and holds no earlier mapping",
        "inside": "which it would replace",
        "twice": "given more than once",
        "model": "model.pt is missing",
        "one": "has 1 spot with counts",
    }[case]
    if case == "unfinished":
        shutil.rmtree(copy / "integrated.zarr")
        used = copy
    elif case == "model":
        (copy / "model.pt").unlink()
        used = copy
    elif case == "names":
        adata.var_names = [f"other{k}" for k in range(adata.n_vars)]
    elif case == "places":
        del adata.obsm["spatial"]
    elif case == "log":
        adata.X = np.log1p(adata.X.toarray() * np.linspace(0.3, 0.4, adata.n_vars, dtype=np.float32))
    elif case == "holds":
        out.mkdir()
        (out / "mine.txt").write_text("kept", encoding="utf-8")
    elif case == "inside":
        used, out = copy, tmp_path
    elif case == "one":
        adata = adata[5:6].copy()
    adata.write_h5ad(given)
    before = sorted(p.name for p in tmp_path.iterdir())
    code, _, err = stscale_("map", used, *[given] * (2 if case == "twice" else 1), "-o", out, "-q")
    assert code == 2, err
    assert said in err
    assert err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_map_takes_logarithms_of_counts_for_the_counts(run, slices, tmp_path) -> None:
    adata = anndata.read_h5ad(slices[2])
    adata.X = np.log1p(adata.X.toarray() * np.linspace(0.3, 0.4, adata.n_obs, dtype=np.float32)[:, None])
    adata.write_h5ad(tmp_path / slices[2].name)
    plain = stscale.map_slices(run, slices[2:3], out=tmp_path / "plain").adata()
    logs = stscale.map_slices(run, [tmp_path / slices[2].name], out=tmp_path / "logs").adata()
    np.testing.assert_array_equal(logs.obsm["X_stscale"], plain.obsm["X_stscale"])


@pytest.mark.parametrize(("method", "standardize"), [("mhal", True), ("stmfg", True), ("mhal", False)])
def test_two_view_methods_map_and_impute_too(method, standardize, slices, tmp_path) -> None:
    options = {"hidden": 16, "latent": 8, "standardize": standardize}
    small = {"run": {"method": method}, method: options, "train": {"steps": 3}}
    stscale.integrate(slices[:2], out=tmp_path / "run", config=CONFIG.replace(small))
    assert (tmp_path / "run" / "standard.npz").is_file() == standardize
    mapped = stscale.map_slices(tmp_path / "run", slices[:1], out=tmp_path / "mapped").adata()
    whole = anndata.read_zarr(tmp_path / "run" / "integrated.zarr")
    own = whole[whole.obs["stscale_slice"] == "slice-0"]  # its own mean and scale are others than the run's
    assert np.allclose(mapped.obsm["X_stscale"], own.obsm["X_stscale"], atol=1e-4)
    assert mapped.obs["stscale_domain"].astype(str).tolist() == own.obs["stscale_domain"].astype(str).tolist()
    gene = FeatureStore.open(tmp_path / "run" / "features.zarr").genes()[:1].tolist()
    assert np.isfinite(anndata.read_zarr(stscale.impute(tmp_path / "run", gene)).X).all()


def test_a_run_that_kept_no_scale_cannot_map(copy, slices, tmp_path) -> None:
    text = (copy / "config.toml").read_text(encoding="utf-8")
    (copy / "config.toml").write_text(text.replace('method = "spotscape"', 'method = "mhal"'), encoding="utf-8")
    with pytest.raises(InputError, match=r"standard\.npz is missing.*--fresh"):
        stscale.map_slices(copy, [slices[2]], out=tmp_path / "mapped")
    assert not (tmp_path / "mapped").exists()


def test_assigned_domains_cannot_be_mapped(copy, slices, tmp_path) -> None:
    text = (copy / "config.toml").read_text(encoding="utf-8")
    (copy / "config.toml").write_text(text.replace('method = "gmm"', 'method = "assignment"'), encoding="utf-8")
    with pytest.raises(InputError, match="shares of its own spots in learned prototypes"):
        stscale.map_slices(copy, [slices[2]], out=tmp_path / "mapped")


def test_domains_of_single_slices_cannot_be_mapped(copy, slices, tmp_path) -> None:
    text = (copy / "config.toml").read_text(encoding="utf-8")
    (copy / "config.toml").write_text(text.replace("per_slice = false", "per_slice = true"), encoding="utf-8")
    with pytest.raises(InputError, match="in each slice alone"):
        stscale.map_slices(copy, [slices[2]], out=tmp_path / "mapped")


def test_a_run_without_its_predictor_finds_its_domains_again(copy, slices, tmp_path) -> None:
    labels = np.load(copy / "domains.npy")
    (copy / "predictor.npz").unlink()
    with pytest.raises(InputError, match="run stscale integrate again"):
        stscale.map_slices(copy, [slices[2]], out=tmp_path / "mapped")
    states = {}
    stscale.integrate(
        slices[:2], out=copy, config=CONFIG, observer=lambda e: states.update({e.get("stage"): e.get("state")})
    )
    assert states["train"] == states["write"] == "reused"
    assert states["domains"] == "start"
    assert np.array_equal(np.load(copy / "domains.npy"), labels)
    assert stscale.map_slices(copy, [slices[2]], out=tmp_path / "mapped").slices[0].spots == 360


@pytest.mark.parametrize("by", ["regression", "decoder"])
def test_imputed_genes_follow_the_measured_ones_also_where_they_are_lacking(by, copy, stscale_) -> None:
    features = FeatureStore.open(copy / "features.zarr")
    mask, genes = features.mask(), features.genes()
    lacked = genes[~mask[1]].tolist()
    assert lacked
    held = genes[mask.all(axis=0)][:4].tolist()
    asked = [*held[::-1], *lacked]
    code, out, _ = stscale_("impute", copy, "--genes", ",".join(asked), "--by", by)
    assert code == 0
    assert "imputed.zarr" in out
    found, whole = anndata.read_zarr(copy / "imputed.zarr"), anndata.read_zarr(copy / "integrated.zarr")
    assert found.var_names.tolist() == asked
    assert found.obs_names.tolist() == whole.obs_names.tolist()
    assert np.isfinite(found.X).all()
    assert found.X.min() >= 0
    measured = features.normalised(*features.offsets()[:2])[:, np.isin(genes, held)].toarray().mean(axis=0)
    first = (whole.obs["stscale_slice"] == "slice-0").to_numpy()
    # on the scale of the normalised values, in the order asked for
    assert np.allclose(found.X[first, : len(held)].mean(axis=0)[::-1], measured, rtol=0.05, atol=0.05)
    # a gene that a panel lacks is as high there as where it was measured
    own, other = (found.X[rows, len(held) :].mean(axis=0) for rows in (first, ~first))
    assert np.allclose(own, other, rtol=0.2, atol=0.2)
    assert found.X[~first, len(held) :].std(axis=0).min() > 0
    states = []
    stscale.impute(copy, asked, by=by, observer=states.append)
    stscale.impute(copy, asked, by="decoder" if by == "regression" else "regression", observer=states.append)
    assert [e["state"] for e in states] == ["reused", "start"]


@pytest.mark.parametrize(
    ("changes", "genes", "by", "said"),
    [
        ({}, ["nobody"], "regression", "'nobody' is not among the 80 genes"),
        ({}, [], "regression", "no genes given"),
        ({}, ["any"], "guess", "--by 'guess': expected regression or decoder"),
        ({'method = "spotscape"': 'method = "mhal"'}, ["any"], "decoder", "trained with method 'mhal'"),
        ({"w_reconstruction = 1.0": "w_reconstruction = 0.0"}, ["any"], "decoder", "decoder of .* is not trained"),
    ],
    ids=["unknown", "none", "way", "method", "weight"],
)
def test_impute_refuses_in_one_line(changes, genes, by, said, copy) -> None:
    text = (copy / "config.toml").read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (copy / "config.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        stscale.impute(copy, genes, by=by)
    assert not (copy / "imputed.zarr").exists()


def test_a_gene_is_imputed_once(copy) -> None:
    gene = str(FeatureStore.open(copy / "features.zarr").genes()[0])
    with pytest.raises(InputError, match="given twice"):
        stscale.impute(copy, [gene, gene])


def test_a_network_of_genes_decodes_genes(slices, tmp_path) -> None:
    config = CONFIG.replace({"spotscape": {"input": "genes", "decoder": "mlp"}, "train": {"steps": 4}})
    stscale.integrate(slices[:1], out=tmp_path / "run", config=config)
    genes = FeatureStore.open(tmp_path / "run" / "features.zarr").genes()[:2].tolist()
    found = anndata.read_zarr(stscale.impute(tmp_path / "run", genes, by="decoder"))
    assert np.isfinite(found.X).all()
    mapped = stscale.map_slices(tmp_path / "run", slices[:1], out=tmp_path / "mapped").adata()
    whole = anndata.read_zarr(tmp_path / "run" / "integrated.zarr")
    own = whole[whole.obs["stscale_slice"] == "slice-0"]  # its own mean and scale are others than the run's
    assert np.allclose(mapped.obsm["X_stscale"], own.obsm["X_stscale"], atol=1e-4)


def test_trajectory_starts_in_the_root_domain(copy, stscale_) -> None:
    code, out, _ = stscale_("trajectory", copy, "--root", "1")
    assert code == 0
    assert "trajectory.csv" in out
    obs = anndata.read_zarr(copy / "integrated.zarr").obs
    time = obs["stscale_pseudotime"].to_numpy()
    assert obs["stscale_domain"].iloc[int(np.nanargmin(time))] == "1"
    assert (np.nanmin(time), np.nanmax(time)) == (0.0, 1.0)
    told = read_manifest(copy)["stages"]["trajectory"]
    assert time[told["root_row"]] == 0
    rows = (copy / "trajectory.csv").read_text(encoding="utf-8").split()
    assert rows[0] == "domain,other,connectivity"
    assert len(rows) == 1 + 3
    assert (copy / "figures" / "trajectory.png").read_bytes().startswith(b"\x89PNG")
    states = []
    stscale.trajectory(copy, "1", observer=states.append)
    assert [e["state"] for e in states] == ["reused"]
    stscale.trajectory(copy, "0")
    assert anndata.read_zarr(copy / "integrated.zarr").obs["stscale_pseudotime"].to_numpy()[told["root_row"]] > 0
    code, _, err = stscale_("trajectory", copy, "--root", "9")
    assert (code, "there is no domain '9'; the run has 0, 1, 2" in err) == (2, True)


def test_transfer_needs_an_alignment_and_does_what_align_does(copy, stscale_) -> None:
    code, _, err = stscale_("transfer", copy, "--labels", "domain")
    assert (code, "is not aligned" in err) == (2, True)
    stscale.align(copy)
    gene = str(FeatureStore.open(copy / "features.zarr").genes()[-1])
    code, out, _ = stscale_("transfer", copy, "--labels", "domain", "--genes", gene)
    assert code == 0
    assert "transfer-genes.zarr" in out
    found = anndata.read_zarr(copy / "integrated.zarr").obs["stscale_transfer_domain"].astype(str).to_numpy()
    stscale.align(copy, transfer_labels=["domain"], transfer_genes=[gene])
    again = anndata.read_zarr(copy / "integrated.zarr").obs["stscale_transfer_domain"].astype(str).to_numpy()
    assert np.array_equal(found, again)
    assert len(set(found)) > 2
    for arguments, said in (([], "nothing to carry over"), (["--labels", "nobody"], "no column 'nobody'")):
        code, _, err = stscale_("transfer", copy, *arguments)
        assert (code, said in err) == (2, True)


def test_integrating_anew_forgets_what_was_added(copy, slices) -> None:
    stscale.trajectory(copy, "0")
    stscale.impute(copy, FeatureStore.open(copy / "features.zarr").genes()[:1].tolist())
    stscale.integrate(slices[:2], out=copy, config=CONFIG.replace({"domains": {"k": 2}}))
    assert not {"trajectory", "impute"} & set(read_manifest(copy)["stages"])
    assert not [name for name in DERIVED if (copy / name).exists()]
    assert "stscale_pseudotime" not in anndata.read_zarr(copy / "integrated.zarr").obs
