import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stscale.config import Simulate
from stscale.errors import InputError
from stscale.slices.expression import Expression, negative_binomial
from stscale.slices.simulate import BLOCK, Plan, simulate
from stscale.slices.store import SliceStore
from stscale.slices.tissue import RARE_SHARE, Placement, Tissue, extent_um

PLAIN = Simulate()
HARD = Simulate(scale=0.2, warp=0.1, overlap=0.6, empty_fraction=0.1, pitch_um=55.0)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SliceStore], dict]:
    out = tmp_path_factory.mktemp("simulated") / "series"
    paths = simulate(out, slices=3, spots=700, genes=60, seed=7, config=PLAIN)
    return out, [SliceStore.open(path) for path in paths], json.loads((out / "truth.json").read_text())


def build(seed: int, spots: int, genes: int, config: Simulate, index: int = 0) -> tuple[Plan, Expression]:
    tissue = Tissue.build(seed=seed, kind=config.kind, domains=config.domains)
    plan = Plan.build(seed=seed, index=index, spots=spots, genes=genes, tissue=tissue, config=config)
    return plan, Expression.build(seed=seed, genes=genes, config=config)


def dense(plan: Plan, expression: Expression, seed: int, workers: int = 1) -> np.ndarray:
    blocks = plan.blocks(seed=seed, expression=expression, dispersion=PLAIN.dispersion, workers=workers)
    return np.concatenate([block.toarray() for block in blocks])


def positions(store: SliceStore) -> np.ndarray:
    return store.obs()[["true_x", "true_y"]].to_numpy()


def same(a: SliceStore, b: SliceStore) -> bool:
    counts = (a.counts(0, a.n) != b.counts(0, b.n)).nnz == 0
    return counts and np.array_equal(a.coordinates(), b.coordinates()) and a.obs().equals(b.obs())


def test_three_slices_have_the_exact_sizes_and_their_own_names(series):
    out, stores, truth = series
    assert sorted(path.name for path in out.iterdir()) == [
        "slice-00.zarr",
        "slice-01.zarr",
        "slice-02.zarr",
        "truth.json",
    ]
    assert [(store.n, store.n_genes) for store in stores] == [(700, 60)] * 3
    names = np.concatenate([store.names() for store in stores])
    assert len(np.unique(names)) == 2100
    assert "slice-02_000700" in names
    assert stores[0].genes()[[0, -1]].tolist() == ["gene-0001", "gene-0060"]
    assert truth["seed"] == 7
    assert truth["config"]["library"] == PLAIN.library
    assert [entry["file"] for entry in truth["transforms"]] == [store.path.name for store in stores]


def test_store_rows_are_not_the_input_rows_and_lead_back_to_them(series):
    _, stores, _ = series
    for index, store in enumerate(stores):
        row = store.input_row()
        assert np.array_equal(np.sort(row), np.arange(700))
        assert not np.array_equal(row, np.arange(700))
        assert not np.array_equal(row[row], np.arange(700))  # no involution: a wrong inverse would show
        assert store.names().tolist() == [f"slice-{index:02d}_{spot + 1:06d}" for spot in row]


def test_the_input_rows_run_along_the_lattice(series):
    _, stores, _ = series
    for store in stores:
        given = np.empty((700, 2))
        given[store.input_row()] = store.coordinates()
        step = np.diff(given, axis=0)
        along = np.abs(step[:, 1]) < 1e-6
        assert np.allclose(step[along, 0], 100.0)
        assert np.allclose(step[~along, 1], 50.0 * np.sqrt(3))


def test_the_matrix_maps_the_common_frame_onto_the_slide(series):
    _, stores, truth = series
    for store, entry in zip(stores, truth["transforms"], strict=True):
        matrix = np.array(entry["matrix"])
        mapped = np.c_[positions(store), np.ones(store.n)] @ matrix.T
        assert np.abs(mapped[:, :2] - store.coordinates()).max() < 1e-6
        assert np.linalg.det(matrix[:2, :2]) == pytest.approx(1.0)
        assert entry["mirror"] is False


def test_warp_and_scale_are_as_the_truth_says(tmp_path):
    paths = simulate(tmp_path / "hard", slices=3, spots=200, genes=50, seed=3, config=HARD)
    truth = json.loads((tmp_path / "hard" / "truth.json").read_text())
    for path, entry in zip(paths, truth["transforms"], strict=True):
        store, warp = SliceStore.open(path), entry["warp"]
        true, matrix = positions(store), np.array(entry["matrix"])
        wave = np.array(warp["frequency_per_extent"]) @ true.T / warp["extent_um"]
        moved = true + (np.sin(2 * np.pi * wave.T + np.array(warp["phase"])) @ np.array(warp["amplitude_um"]))
        assert np.abs(moved @ matrix[:2, :2].T + matrix[:2, 2] - store.coordinates()).max() < 1e-6
        assert np.abs(moved - true).max() > 0.01 * warp["extent_um"]
        assert np.linalg.det(matrix[:2, :2]) == pytest.approx(entry["scale"] ** 2)
        assert entry["scale"] != 1.0
        assert (store.totals() == 0).sum() == 20


def test_the_strongest_warp_folds_nothing():
    for seed in range(20):
        placement = Placement.draw(
            seed=seed, index=0, extent_um=1.0, overlap=1.0, rotation=0.0, shift=0.0, scale=0.0, warp=0.2
        )
        grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 40)] * 2), axis=-1).reshape(-1, 2)
        h = 1e-6
        dx = (placement.spatial(grid + np.array([h, 0])) - placement.spatial(grid)) / h
        dy = (placement.spatial(grid + np.array([0, h])) - placement.spatial(grid)) / h
        assert (dx[:, 0] * dy[:, 1] - dx[:, 1] * dy[:, 0]).min() > 0


def test_a_series_moves_along_the_tissue_by_the_overlap():
    config = replace(PLAIN, overlap=0.6)
    plans = [build(1, 1000, 50, config, index)[0] for index in range(3)]
    extent = plans[0].placement.extent_um
    middle = [plan.true_um[:, 0].mean() for plan in plans]
    assert np.allclose(np.diff(middle), 0.4 * extent, rtol=0.02)
    # one tissue: where two slices meet, the nearest spot of the other is of the same domain almost always
    from scipy.spatial import cKDTree

    distance, other = cKDTree(plans[1].true_um).query(plans[0].true_um)
    met = distance < 0.6 * config.pitch_um
    assert 0.5 < met.mean() < 0.7
    assert (plans[0].domain[met] == plans[1].domain[other[met]]).mean() > 0.85


@pytest.mark.parametrize("kind", ["layers", "patches", "mixed"])
@pytest.mark.parametrize("domains", [2, 7, 12])
def test_every_domain_is_there_and_the_last_patch_is_rare(kind, domains):
    for seed in range(4):
        tissue = Tissue.build(seed=seed, kind=kind, domains=domains)
        extent = extent_um(tissue, spots=3000, pitch_um=1.0)
        placement = Placement.draw(
            seed=seed, index=0, extent_um=extent, overlap=1.0, rotation=90.0, shift=0.0, scale=0.0, warp=0.0
        )
        spots = placement.lattice(tissue, spots=3000, pitch_um=1.0)
        share = np.bincount(tissue.domain(spots / extent), minlength=domains) / 3000
        assert len(share) == domains
        assert share.min() > 0.005
        if kind != "layers":
            assert share[-1] == pytest.approx(RARE_SHARE, abs=0.005)
            assert share.argmin() == domains - 1 or domains > 3


def test_the_outline_gives_way_evenly():
    # one spot more leaves all others where they are (up to the slide's lattice, which is the same)
    tissue = Tissue.build(seed=0, kind="mixed", domains=7)
    placement = Placement.draw(
        seed=0, index=0, extent_um=3000.0, overlap=1.0, rotation=180.0, shift=0.0, scale=0.0, warp=0.0
    )
    few = {tuple(row) for row in placement.lattice(tissue, spots=500, pitch_um=100.0)}
    more = {tuple(row) for row in placement.lattice(tissue, spots=501, pitch_um=100.0)}
    assert len(few) == 500
    assert len(more) == 501
    assert few < more


def test_the_same_seed_gives_the_same_and_another_seed_another(series, tmp_path):
    _, stores, truth = series
    # fewer slices: a slice hangs on its index only
    again = simulate(tmp_path / "again", slices=2, spots=700, genes=60, seed=7, config=PLAIN)
    assert all(same(SliceStore.open(path), store) for path, store in zip(again, stores, strict=False))
    other = SliceStore.open(simulate(tmp_path / "other", slices=1, spots=700, genes=60, seed=8, config=PLAIN)[0])
    assert not np.array_equal(other.coordinates(), stores[0].coordinates())
    assert (other.counts(0, 700) != stores[0].counts(0, 700)).nnz > 1000
    assert not same(stores[0], stores[1])
    assert truth["transforms"][0]["matrix"] != truth["transforms"][1]["matrix"]


@pytest.mark.parametrize("spots", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1])
def test_the_store_holds_the_blocks_at_every_boundary(tmp_path, spots):
    (path,) = simulate(tmp_path / "out", slices=1, spots=spots, genes=50, seed=5, config=PLAIN)
    store = SliceStore.open(path)
    plan, expression = build(5, spots, 50, PLAIN)
    expected = dense(plan, expression, 5)
    assert expected.shape == (spots, 50)
    assert np.array_equal(store.counts(0, spots).toarray(), expected)
    lo, hi = max(0, BLOCK - 3), min(spots, BLOCK + 2)
    assert np.array_equal(store.counts(lo, hi).toarray(), expected[lo:hi])
    # truth columns travel with their rows
    assert np.array_equal(store.obs()["domain"].cat.codes, plan.domain[plan.order])
    assert np.array_equal(positions(store), plan.true_um[plan.order])


@pytest.mark.parametrize("workers", [2, 5])
def test_the_number_of_threads_changes_nothing(workers):
    plan, expression = build(2, 6 * BLOCK + 17, 50, PLAIN)
    assert np.array_equal(dense(plan, expression, 2), dense(plan, expression, 2, workers))


def test_blocks_do_not_repeat_each_other():
    # all spots have the same means, so only the draws can tell the blocks apart
    config = replace(PLAIN, library_sd=0.0, marker_fraction=0.0)
    plan, expression = build(2, 2 * BLOCK, 50, config)
    counts = dense(plan, replace(expression, gradient=np.zeros((2, 50))), 2)
    assert (counts[:BLOCK] != counts[BLOCK:]).mean() > 0.5


def test_every_row_of_the_store_has_the_means_of_its_own_spot(tmp_path):
    # so deep and so even that counts are their means to a few per cent
    config = replace(PLAIN, library=1e6, dispersion=1e6, empty_fraction=0.02, domains=5)
    (path,) = simulate(tmp_path / "out", slices=1, spots=1500, genes=50, seed=11, config=config)
    store = SliceStore.open(path)
    plan, expression = build(11, 1500, 50, config)
    shifted = expression.abundance * np.exp(plan.batch_log_effect)
    share = (shifted / shifted.sum(axis=1, keepdims=True))[plan.domain]
    mean = plan.depth[:, None] * share * np.exp(plan.fields @ expression.gradient)
    counts = np.empty((1500, 50))
    counts[store.input_row()] = store.counts(0, 1500).toarray()
    assert (np.abs(counts - mean) <= 6 * np.sqrt(mean + mean**2 / 1e6)).all()
    assert (store.totals() == 0).sum() == 30


def test_one_gene_in_one_domain_has_the_moments_of_a_negative_binomial():
    config = replace(PLAIN, library_sd=0.0, batch_effect=0.0, dispersion=3.0, library=800.0)
    plan, expression = build(4, 8000, 60, config)
    blocks = plan.blocks(seed=4, expression=expression, dispersion=3.0)
    counts = np.concatenate([block.toarray() for block in blocks])
    domain = plan.domain[plan.order]
    spots = counts[domain == 2].astype(np.float64)
    steady = ~expression.gradient.any(axis=0)
    share = expression.abundance[2] / expression.abundance[2].sum()
    sizes = np.argsort(np.where(steady, share, -1.0))
    for gene in sizes[[-1, -10, -25]]:  # abundant, middling, low: both ways of drawing
        m = 800.0 * share[gene]
        variance = m + m**2 / 3.0
        assert spots[:, gene].mean() == pytest.approx(m, abs=4 * np.sqrt(variance / len(spots)))
        # a negative binomial's excess kurtosis gives the sampling error of its variance
        kurtosis = 6 / 3.0 + 1 / variance
        error = variance * np.sqrt((kurtosis + 2) / len(spots))
        assert spots[:, gene].var() == pytest.approx(variance, abs=4 * error)


@pytest.mark.parametrize(("mean", "theta"), [(0.02, 10.0), (0.7, 0.3), (9.0, 10.0), (40.0, 2.0), (5.0, 1e7)])
def test_counts_follow_the_distribution(mean, theta):
    from scipy.stats import nbinom

    n = 200_000
    draws = negative_binomial(np.full((n, 1), mean, np.float32), theta, np.random.default_rng(0))
    assert draws.has_sorted_indices
    assert draws.data.min() > 0
    seen = np.bincount(draws.toarray().ravel().astype(int), minlength=400)[:400] / n
    expected = nbinom.pmf(np.arange(400), theta, theta / (theta + mean))
    error = np.sqrt(expected * (1 - expected) / n)
    assert (np.abs(seen - expected) < 5 * error + 2.5 / n).all()


def test_batch_effect_and_library_have_the_configured_spread():
    config = replace(PLAIN, batch_effect=0.5, library_sd=0.6, library=300.0)
    plans = [build(9, 3000, 2000, config, index)[0] for index in range(2)]
    assert plans[0].batch_log_effect.std() == pytest.approx(0.5, rel=0.08)
    assert abs(np.corrcoef(plans[0].batch_log_effect, plans[1].batch_log_effect)[0, 1]) < 0.1
    assert np.log(plans[0].depth).std() == pytest.approx(0.6, rel=0.06)
    assert np.median(plans[0].depth) == pytest.approx(300.0, rel=0.06)


def test_markers_are_shared_out_among_the_domains():
    expression = build(9, 100, 400, PLAIN)[1]
    assert np.bincount(expression.marker[expression.marker >= 0]).tolist() == pytest.approx([60 / 7] * 7, abs=1)
    assert np.allclose(expression.profile(np.ones(400)).sum(axis=1), 1.0)
    assert (build(9, 100, 400, replace(PLAIN, marker_fraction=0.0))[1].marker == -1).all()


@pytest.mark.parametrize("wrong", [{"slices": 0}, {"spots": 49}, {"genes": 49}, {"seed": -1}, {"workers": 0}], ids=str)
def test_numbers_that_are_too_small_are_refused(tmp_path, wrong):
    numbers = {"slices": 1, "spots": 50, "genes": 50, "seed": 0, "workers": 1} | wrong
    ((name, value),) = wrong.items()
    with pytest.raises(InputError, match=f"{name} is {value}.*at least {value + 1}"):
        simulate(tmp_path / "out", config=PLAIN, **numbers)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_anything_else_is_refused_and_kept(tmp_path):
    out = tmp_path / "out"
    small = {"slices": 2, "spots": 50, "genes": 50, "seed": 0, "config": PLAIN}
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        simulate(out, **small)
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    simulate(out, **small)  # an empty folder will do
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        simulate(out, **small)
    (out / "notes.txt").unlink()
    simulate(out, **(small | {"slices": 1}))  # an earlier simulation is replaced as a whole
    assert sorted(path.name for path in out.iterdir()) == ["slice-00.zarr", "truth.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_stores_without_their_truth_are_not_overwritten(tmp_path):
    simulate(tmp_path / "out", slices=1, spots=50, genes=50, seed=0, config=PLAIN)
    (tmp_path / "out" / "truth.json").write_text("{}")
    with pytest.raises(InputError, match=r"slice-00\.zarr"):
        simulate(tmp_path / "out", slices=1, spots=50, genes=50, seed=0, config=PLAIN)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        simulate(tmp_path / "out", slices=1, spots=50, genes=50, seed=0, config=PLAIN)


def test_anndata_opens_a_simulated_slice(series):
    import anndata as ad

    _, stores, _ = series
    adata = ad.read_zarr(stores[1].path)
    assert adata.shape == (700, 60)
    assert set(adata.obs["domain"].cat.categories) == {f"domain-{k}" for k in range(1, 8)}
    assert adata.obsm["spatial"].shape == (700, 2)
