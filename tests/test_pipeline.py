"""integrate() end to end on three tiny slices of unequal size, given in a shuffled order."""

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from stscale import integrate, preset
from stscale.config import Run
from stscale.errors import InputError
from stscale.evaluation import evaluate
from stscale.rundir import read_manifest
from stscale.slices import SliceStore

SIZES = {"a": 110, "b": 150, "c": 90}
ORDER = ("c", "a", "b")  # not its own inverse: sorting it back once too often shows
STAGES = ["ingest", "features", "graph", "train", "embed", "domains", "write", "report"]
SMALL = {
    "run": {"threads": 1, "device": "cpu"},
    "preprocess": {"n_hvg": 60, "n_pcs": 10},
    "spotscape": {"hidden": 16, "latent": 8, "clusters": 3, "refresh": 4, "reservoir": 64},
    "sample": {"batch_size": 128, "tile": 16},
    "train": {"steps": 12, "checkpoint_every": 5, "log_every": 3},
    "domains": {"k": 3, "n_init": 2, "n_components": 6},
    "report": {"umap": False, "markers": False, "quality": False},
}
TINY = Run().replace(SMALL)


def tissue(name: str, n: int, *, genes: np.ndarray | None = None, seed: int = 0) -> anndata.AnnData:
    """Three stripes of marker genes; rows shuffled."""
    rng = np.random.default_rng([seed, n])
    all_genes = np.array([f"g{k:03d}" for k in range(80)])
    side = int(np.ceil(np.sqrt(n)))
    xy = np.stack([np.arange(n) % side, np.arange(n) // side], axis=1) + rng.uniform(-0.2, 0.2, (n, 2))
    domain = np.minimum(xy[:, 0].clip(0) * 3 // side, 2).astype(int)
    mean = np.random.default_rng(5).gamma(2.0, 1.0, 80)[None] * (1 + 5 * (np.arange(80)[None] % 6 == domain[:, None]))
    X = rng.poisson(mean).astype(np.float32)
    obs = pd.DataFrame({"domain": pd.Categorical([f"L{d}" for d in domain])}, index=[f"{name}-{k}" for k in range(n)])
    obs[f"only_{name}"] = np.arange(n) * 0.5  # a column that no other slice has
    adata = anndata.AnnData(
        X=sparse.csr_matrix(X), obs=obs, var=pd.DataFrame(index=all_genes), obsm={"spatial": xy * 100}
    )
    if genes is not None:
        adata = adata[:, genes].copy()
    return adata[rng.permutation(n)].copy()


def write_inputs(folder: Path, change=None, order: tuple[str, ...] = ORDER) -> list[Path]:
    """Write the three slices, each after `change(name, adata)`; return their paths in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in order:
        adata = tissue(name, SIZES[name])
        adata = adata if change is None else change(name, adata)
        adata.write_h5ad(folder / f"{name}.h5ad")
    return [folder / f"{name}.h5ad" for name in order]


def events(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def stages(inputs: list[Path], out: Path, config: Run, **options) -> dict[str, str]:
    """Integrate; return what became of each stage: start (done) or reused."""
    seen: list[dict] = []
    integrate(inputs, out=out, config=config, observer=seen.append, **options)
    return {e["stage"]: e["state"] for e in seen if e["event"] == "stage"}


def check_complete(run: Path, n: int) -> anndata.AnnData:
    """A run is finished, has every row, and a finite embedding and a domain for each."""
    adata = anndata.read_zarr(run / "integrated.zarr")
    assert list(read_manifest(run)["stages"]) == STAGES
    assert adata.n_obs == n
    assert np.isfinite(adata.obsm["X_stscale"]).all()
    assert adata.obs["stscale_domain"].notna().all()
    return adata


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> list[Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def finished(inputs, tmp_path_factory) -> Path:
    """A finished run; tests that change it work on a copy."""
    out = tmp_path_factory.mktemp("runs") / "run"
    result = integrate(inputs, out=out, config=TINY)
    assert (result.n, result.left_out, result.slices, result.k) == (350, 0, ORDER, 3)
    assert result.adata().n_obs == 350
    return out


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture(scope="session")
def integrated(finished) -> anndata.AnnData:
    return anndata.read_zarr(finished / "integrated.zarr")


def test_rows_are_the_inputs_in_the_order_given(inputs, integrated):
    given = [anndata.read_h5ad(p) for p in inputs]
    assert integrated.obs_names.tolist() == [name for a in given for name in a.obs_names]
    np.testing.assert_array_equal(integrated.obsm["spatial"], np.concatenate([a.obsm["spatial"] for a in given]))
    assert integrated.obs["stscale_slice"].tolist() == [n for n in ORDER for _ in range(SIZES[n])]
    assert integrated.obs["domain"].tolist() == [d for a in given for d in a.obs["domain"]]


def test_a_column_of_one_slice_is_missing_in_the_others(inputs, integrated):
    for name, path in zip(ORDER, inputs, strict=True):
        mine = (integrated.obs["stscale_slice"] == name).to_numpy()
        column = f"only_{name}"
        np.testing.assert_array_equal(integrated.obs[column][mine], anndata.read_h5ad(path).obs[column])
        assert integrated.obs[column][~mine].isna().all()


def test_barcodes_that_repeat_across_slices_name_their_slice(tmp_path):
    def change(name, adata):
        adata.obs_names = [f"AAAC-{k.split('-')[1]}" for k in adata.obs_names]
        return adata

    paths = write_inputs(tmp_path / "in", change, ORDER[:2])
    result = integrate(paths, out=tmp_path / "run", config=TINY)
    adata = result.adata()  # names that are not unique would warn
    given = [(n, p.stem) for p in paths for n in anndata.read_h5ad(p).obs_names]
    assert adata.obs_names.tolist() == [f"{name}-{slice_}" for name, slice_ in given]
    assert adata.obs["stscale_name"].tolist() == [name for name, _ in given]
    assert (adata.obs["stscale_name"] == "AAAC-7").sum() == 2


def test_the_embedding_belongs_to_its_row(integrated):
    """Spots of one stripe are closer to each other than to the rest, in every slice: rows were not mixed up."""
    z, stripe = integrated.obsm["X_stscale"], integrated.obs["domain"].to_numpy()
    for name in ORDER:
        mine = (integrated.obs["stscale_slice"] == name).to_numpy()
        centre = np.stack([z[mine & (stripe == s)].mean(axis=0) for s in ("L0", "L1", "L2")])
        nearest = ((z[mine][:, None] - centre[None]) ** 2).sum(axis=2).argmin(axis=1)
        assert (np.array(["L0", "L1", "L2"])[nearest] == stripe[mine]).mean() > 0.7


def test_scanpy_takes_the_output(finished):
    import scanpy as sc

    adata = anndata.read_zarr(finished / "integrated.zarr")
    sc.pp.neighbors(adata, n_neighbors=5, use_rep="X_stscale")
    assert adata.obsp["connectivities"].shape == (350, 350)


def test_manifest_and_events_tell_what_was_done(finished, inputs):
    manifest = read_manifest(finished)
    assert list(manifest["stages"]) == STAGES
    assert [Path(i["path"]) for i in manifest["inputs"]] == inputs
    assert all(i["bytes"] == p.stat().st_size for i, p in zip(manifest["inputs"], inputs, strict=True))
    assert manifest["stages"]["features"]["spots"] == 350
    assert manifest["stages"]["features"]["genes_shared"] == 80
    assert manifest["stages"]["train"]["steps"] == 12
    assert all(s["seconds"] >= 0 and s["peak_mb"] > 0 for s in manifest["stages"].values())
    steps = [e for e in events(finished) if e["event"] == "step"]
    assert [e["step"] for e in steps] == [3, 6, 9, 12]
    assert {"reconstruction", "telescope", "scale"} <= set(steps[0])
    assert "prototypes" in steps[-1]


def test_nothing_temporary_is_left(finished):
    assert not (finished / "scratch").exists()
    assert not list(finished.rglob("*.part"))


def test_the_same_call_reuses_every_stage(copy, inputs):
    before = files_of(copy / "integrated.zarr")
    assert stages(inputs, copy, TINY) == dict.fromkeys(STAGES, "reused")
    assert files_of(copy / "integrated.zarr") == before
    told = {e["stage"] for e in events(copy) if e.get("state") == "reused"}
    assert told == set(STAGES)


def test_another_k_redoes_only_what_depends_on_it(copy, inputs):
    before = np.load(copy / "latents.npy")
    done = stages(inputs, copy, TINY.replace({"domains": {"k": 4}}))
    redone = {"domains", "write", "report"}
    assert done == {s: "start" if s in redone else "reused" for s in STAGES}
    np.testing.assert_array_equal(np.load(copy / "latents.npy"), before)
    assert anndata.read_zarr(copy / "integrated.zarr").obs["stscale_domain"].nunique() == 4


def test_a_lost_output_is_made_again(copy, inputs):
    before = files_of(copy / "integrated.zarr")
    shutil.rmtree(copy / "integrated.zarr")
    assert {s for s, state in stages(inputs, copy, TINY).items() if state == "start"} == {"write"}
    assert files_of(copy / "integrated.zarr") == before


def test_fresh_redoes_everything_to_the_same_bits(copy, inputs):
    before = np.load(copy / "latents.npy"), np.load(copy / "domains.npy")
    assert stages(inputs, copy, TINY, fresh=True) == dict.fromkeys(STAGES, "start")
    np.testing.assert_array_equal(np.load(copy / "latents.npy"), before[0])
    np.testing.assert_array_equal(np.load(copy / "domains.npy"), before[1])


def test_another_seed_gives_another_embedding(copy, inputs):
    before = np.load(copy / "latents.npy")
    done = stages(inputs, copy, TINY.replace({"run": {"seed": 1}}))
    assert done["graph"] == "reused"
    assert done["train"] == "start"
    assert not np.array_equal(np.load(copy / "latents.npy"), before)


def test_other_slices_in_the_same_folder_are_refused(copy, inputs):
    before = files_of(copy / "integrated.zarr")
    with pytest.raises(InputError, match=r"other slices.*--fresh"):
        integrate(inputs[:2], out=copy, config=TINY)
    with pytest.raises(InputError, match="other slices"):
        integrate([inputs[1], inputs[0], inputs[2]], out=copy, config=TINY)
    assert files_of(copy / "integrated.zarr") == before
    assert stages(inputs, copy, TINY) == dict.fromkeys(STAGES, "reused")


def test_a_run_is_not_started_over_on_the_stores_inside_it(copy):
    """--fresh would delete its own inputs."""
    stores = [copy / "slices" / f"{name}.zarr" for name in ORDER]
    with pytest.raises(InputError, match="inside"):
        integrate(stores, out=copy, config=TINY, fresh=True)
    assert all(s.exists() for s in stores)


@pytest.mark.parametrize("how", ["permuted", "removed"])
def test_the_labels_are_never_read(finished, tmp_path, how):
    def change(name, adata):
        if how == "removed":
            del adata.obs["domain"]
        else:
            adata.obs["domain"] = adata.obs["domain"].to_numpy()[np.random.default_rng(1).permutation(adata.n_obs)]
        return adata

    integrate(write_inputs(tmp_path / "in", change), out=tmp_path / "run", config=TINY)
    for name in ("latents.npy", "domains.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / "run" / name), np.load(finished / name))


def test_evaluate_is_sklearns_ari(copy, integrated):
    found = evaluate(copy, "domain")
    ari = adjusted_rand_score(integrated.obs["domain"], integrated.obs["stscale_domain"])
    assert found["labels"]["ari"] == pytest.approx(ari, abs=1e-12)
    for name in ORDER:
        obs = integrated.obs[integrated.obs["stscale_slice"] == name]
        expected = adjusted_rand_score(obs["domain"], obs["stscale_domain"])
        assert found[f"slice {name}"]["ari"] == pytest.approx(expected, abs=1e-12)
    assert json.loads((copy / "metrics.json").read_text(encoding="utf-8"))["labels"]["ari"] == found["labels"]["ari"]


def test_evaluate_refuses_what_is_not_there(copy, tmp_path):
    with pytest.raises(InputError, match=r"no column 'layer'.*domain"):
        evaluate(copy, "layer")
    with pytest.raises(InputError, match=r"not a run folder"):
        evaluate(tmp_path / "nothing", "domain")
    manifest = read_manifest(copy)
    del manifest["stages"]["write"]
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(InputError, match="not finished"):
        evaluate(copy, "domain")


def test_empty_spots_are_kept_without_domain(tmp_path):
    def change(name, adata):
        if name == "a":
            adata.X = sparse.csr_matrix(adata.X.toarray() * (np.arange(adata.n_obs) % 25 != 3)[:, None])
        return adata

    paths = write_inputs(tmp_path / "in", change)
    result = integrate(paths, out=tmp_path / "run", config=TINY)
    adata = result.adata()
    empty = np.zeros(350, dtype=bool)
    empty[SIZES["c"] : SIZES["c"] + SIZES["a"]] = np.arange(SIZES["a"]) % 25 == 3
    assert result.left_out == empty.sum() == 5
    np.testing.assert_array_equal(adata.obs["stscale_domain"].isna(), empty)
    np.testing.assert_array_equal(np.isnan(adata.obsm["X_stscale"]).all(axis=1), empty)
    assert np.isfinite(adata.obsm["X_stscale"][~empty]).all()
    assert adata.obs_names.tolist() == [n for p in paths for n in anndata.read_h5ad(p).obs_names]
    assert read_manifest(tmp_path / "run")["stages"]["features"]["left_out"] == {"c": 0, "a": 5, "b": 0}
    assert np.isfinite(evaluate(tmp_path / "run", "domain")["labels"]["ari"])


def test_one_slice_alone(inputs, tmp_path):
    integrate(inputs[1:2], out=tmp_path / "run", config=TINY)
    check_complete(tmp_path / "run", SIZES["a"])


@pytest.mark.parametrize(("genes", "shared"), [("intersection", 60), ("union", 80)])
def test_unequal_genes(tmp_path, genes, shared):
    lacks = {"a": range(10), "b": range(70, 80), "c": range(0)}

    def change(name, adata):
        keep = [g for g in adata.var_names if int(g[1:]) not in lacks[name]]
        return adata[:, keep[::-1]].copy()  # and in another order

    paths = write_inputs(tmp_path / "in", change)
    integrate(paths, out=tmp_path / "run", config=TINY.replace({"preprocess": {"genes": genes}}))
    check_complete(tmp_path / "run", 350)
    assert read_manifest(tmp_path / "run")["stages"]["features"]["genes_shared"] == shared


def logged(name, adata):
    X = adata.X.toarray()
    adata.X = sparse.csr_matrix(np.log1p(X / X.sum(axis=1, keepdims=True) * 1e4).astype(np.float32))
    return adata


def test_logarithms_of_counts_give_the_run_of_the_counts(finished, tmp_path):
    paths = write_inputs(tmp_path / "in", logged)
    integrate(paths, out=tmp_path / "run", config=TINY)
    plain, run = (anndata.read_zarr(path / "integrated.zarr") for path in (finished, tmp_path / "run"))
    np.testing.assert_array_equal(run.obsm["X_stscale"], plain.obsm["X_stscale"])
    assert run.obs["stscale_domain"].astype(str).tolist() == plain.obs["stscale_domain"].astype(str).tolist()
    (note,) = read_manifest(tmp_path / "run")["stages"]["features"]["notes"]
    assert "log(1 + x) of counts" in note
    assert read_manifest(finished)["stages"]["features"]["notes"] == []


def test_logarithms_as_they_are_given_need_the_word(tmp_path):
    paths = write_inputs(tmp_path / "in", logged)
    with pytest.raises(InputError, match="--lognormalized"):
        integrate(paths, out=tmp_path / "run", config=TINY.replace({"ingest": {"recover": False}}))
    integrate(paths, out=tmp_path / "run", config=TINY.replace({"preprocess": {"lognormalized": True}}))
    check_complete(tmp_path / "run", 350)
    store = SliceStore.open(next((tmp_path / "run" / "slices").glob("*.zarr")))
    assert (store.lognormalized, store.recovered) == (True, None)


def centred(name, adata):
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.toarray() - adata.X.toarray().mean(axis=0)
    return adata


def test_counts_of_a_layer_give_the_run_of_the_counts(finished, tmp_path):
    paths = write_inputs(tmp_path / "in", centred)
    with pytest.raises(InputError, match="--layer"):
        integrate(paths, out=tmp_path / "run", config=TINY)
    result = integrate(paths, out=tmp_path / "run", config=TINY.replace({"ingest": {"layer": "counts"}}))
    plain = anndata.read_zarr(finished / "integrated.zarr")
    np.testing.assert_array_equal(result.adata().obsm["X_stscale"], plain.obsm["X_stscale"])


def corrected(name, adata):
    X = adata.X.toarray()
    adata.X = sparse.csr_matrix(
        np.maximum(X - 0.1 * X.mean(axis=0) * X.sum(axis=1, keepdims=True) / X.sum(axis=1).mean(), 0)
    )
    return adata


def test_amounts_that_are_no_integers_need_the_word(tmp_path):
    paths = write_inputs(tmp_path / "in", corrected)
    with pytest.raises(InputError, match="--fractional"):
        integrate(paths, out=tmp_path / "run", config=TINY)
    config = TINY.replace({"preprocess": {"fractional": True}})
    integrate(paths, out=tmp_path / "run", config=config)
    check_complete(tmp_path / "run", 350)
    with pytest.raises(InputError, match="both set"):
        config.replace({"preprocess": {"lognormalized": True}}).check_sections()


def test_counts_are_refused_as_lognormalized(inputs, tmp_path):
    with pytest.raises(InputError, match="holds counts"):
        integrate(inputs, out=tmp_path / "run", config=TINY.replace({"preprocess": {"lognormalized": True}}))


VARIANTS = {
    "delaunay": {"graph": {"kind": "delaunay"}},
    "radius": {"graph": {"kind": "radius", "radius": 150.0}},
    "neighbor": {"sample": {"kind": "neighbor", "fan_out": [4, 3], "batch_size": 100}},
    "global": {"spotscape": {"scope": "global"}},
    "bank": {"spotscape": {"bank": 512, "pairs": "pooled"}},
    "kmeans": {"domains": {"method": "kmeans"}},
    "leiden": {"domains": {"method": "leiden", "k": 4}},  # with 3 it finds what the mixture finds
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # PyTorch Geometric's own
@pytest.mark.parametrize("name", VARIANTS)
def test_variants(copy, inputs, name):
    before = np.load(copy / "latents.npy"), np.load(copy / "domains.npy")
    done = stages(inputs, copy, TINY.replace(VARIANTS[name]))
    check_complete(copy, 350)
    changed = {"graph": "graph", "sample": "train", "spotscape": "train", "domains": "domains"}[
        next(iter(VARIANTS[name]))
    ]
    assert done == {s: "reused" if STAGES.index(s) < STAGES.index(changed) else "start" for s in STAGES}
    same = np.array_equal(np.load(copy / "latents.npy"), before[0])
    assert same == (changed == "domains")  # the option reached the stage
    if changed == "domains":
        assert not np.array_equal(np.load(copy / "domains.npy"), before[1])


def test_domains_per_slice_have_numbers_of_their_own(copy, inputs):
    integrate(inputs, out=copy, config=TINY.replace({"domains": {"per_slice": True, "k": 2}}))
    obs = check_complete(copy, 350).obs
    assert obs["stscale_domain"].nunique() == 6
    assert (obs.groupby("stscale_domain", observed=True)["stscale_slice"].nunique() == 1).all()


def test_smoothing_takes_out_lone_spots(copy, inputs):
    integrate(inputs, out=copy, config=TINY.replace({"domains": {"k": 7}}))
    before = np.load(copy / "domains.npy")
    integrate(inputs, out=copy, config=TINY.replace({"domains": {"k": 7, "smooth_rounds": 2}}))
    after = np.load(copy / "domains.npy")
    from stscale.graphs import load

    graph = load(copy / "graph.npz")
    ends = np.repeat(np.arange(graph.n), np.diff(graph.indptr))
    disagree = [float((labels[ends] != labels[graph.indices]).mean()) for labels in (before, after)]
    assert disagree[1] < disagree[0]


def test_the_number_of_domains_is_estimated(copy, inputs):
    integrate(inputs, out=copy, config=TINY.replace({"domains": {"k": None, "k_min": 2, "k_max": 5}}))
    found = read_manifest(copy)["stages"]["domains"]
    assert 2 <= found["k"] <= 5
    lists = [v for v in found["curve"].values() if isinstance(v, list)]
    assert [2, 3, 4, 5] in lists
    assert all(len(v) == 4 for v in lists)
    assert anndata.read_zarr(copy / "integrated.zarr").obs["stscale_domain"].nunique() == found["k"]
    assert "<html" in (copy / "report.html").read_text(encoding="utf-8")


def test_the_papers_preset_runs_on_genes(inputs, tmp_path):
    small = {**SMALL, "train": {"epochs": 4, "log_every": 1}, "sample": {}, "domains": {"k": 3}}
    config = preset("paper").replace(small)
    assert config.spotscape.input == "genes"
    integrate(inputs, out=tmp_path / "run", config=config)
    adata = check_complete(tmp_path / "run", 350)
    assert read_manifest(tmp_path / "run")["stages"]["train"]["steps"] == 4  # full batch: a step an epoch
    assert adata.obsm["X_stscale"].min() >= 0  # its latents leave a ReLU


def test_genes_masked_in_a_union_are_no_zeros(tmp_path):
    """The network sees genes; those that a slice lacks are left out of its loss, so training goes through."""

    def change(name, adata):
        return adata[:, 10:].copy() if name == "a" else adata

    small = {**SMALL, "spotscape": {**SMALL["spotscape"], "input": "genes"}, "preprocess": {"genes": "union"}}
    integrate(write_inputs(tmp_path / "in", change), out=tmp_path / "run", config=Run().replace(small))
    check_complete(tmp_path / "run", 350)


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no slices"):
        integrate([], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
