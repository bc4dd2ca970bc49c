"""What the report computes from the fit: mixing, markers, the flat map; and the command that draws it anew."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import stscale
from stscale.report import write_report
from stscale.report.fitted import Fitted, read_fitted, sampled
from stscale.report.latent import umap_plane
from stscale.report.marker_maps import slices_shown
from stscale.report.markers import Marker, Markers, find_markers
from stscale.report.mixing import measure_mixing
from stscale.report.palette import COLOURS
from stscale.report.raster import EMPTY, GREY, mean_image, poles
from stscale.report.summary import genes_dropped
from stscale.rundir import RunFolder
from tests.test_pipeline import SIZES, TINY, write_inputs

pytestmark = pytest.mark.figures


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")

    def named(name, adata):
        adata.var["symbol"] = [f"S-{g}" for g in adata.var_names]
        return adata

    stscale.integrate(
        write_inputs(folder / "in", named),
        out=folder / "out",
        config=TINY.replace({"report": {"umap": True, "markers": True}}),
    )
    return folder / "out"


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / run.name))  # its name is on the page


@pytest.fixture(scope="module")
def fitted(run: Path) -> Fitted:
    found = read_fitted(run)
    assert found is not None
    return found


def test_page_of_a_real_run(run: Path) -> None:
    html = (run / "report.html").read_text(encoding="utf-8")
    names = {p.stem for p in (run / "figures").iterdir()}
    assert names == {"domains", "composition", "markers", "latent", "mixing", "losses"}
    assert html.count('<img src="data:image/png;base64,') == len(names)
    assert "S-g0" in html  # people read symbols
    assert "<td>S-g0" in html or "(g0" in html  # with the name in the store beside them
    assert "3 slices with 350 spots were brought into one space on 60 genes and divided into 3 spatial domains." in html
    assert "of 80; dropped: 20 less variable" in html
    assert "Welch" in html
    assert "before, averaged" not in html  # words of a figure stay in the figure
    assert "Before, averaged" in html
    before = (run / "report.html").read_bytes()
    assert write_report(run).read_bytes() == before


def test_report_draws_anew_from_the_run_folder_alone(copy: Path, stscale_, monkeypatch, tmp_path: Path) -> None:
    before = (copy / "report.html").read_bytes()
    kept = (copy / "manifest.json").read_bytes()
    shutil.rmtree(copy / "figures")
    (copy / "report.html").unlink()
    monkeypatch.chdir(tmp_path)
    code, said, wrong = stscale_("report", copy)
    assert (code, said.strip(), wrong) == (0, str(copy / "report.html"), "")
    assert (copy / "report.html").read_bytes() == before
    assert (copy / "figures" / "markers.png").is_file()
    assert (copy / "manifest.json").read_bytes() == kept
    assert stscale_("report", copy, "-q") == (0, "", "")


def test_report_refuses_an_unfinished_run(copy: Path, stscale_, tmp_path: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["stages"]["write"]  # as while it is being written again
    (copy / "manifest.json").write_text(json.dumps(manifest))
    before = (copy / "report.html").read_bytes()
    code, said, wrong = stscale_("report", copy)
    assert (code, said) == (2, "")
    assert wrong.count("\n") == 1
    assert "holds no finished run" in wrong
    assert (copy / "report.html").read_bytes() == before
    code, _, wrong = stscale_("report", tmp_path / "nothing")
    assert code == 2
    assert "not a run folder" in wrong


@pytest.mark.parametrize("gone", ["features.zarr", "latents.npy", "graph.npz"])
def test_what_was_taken_away_is_said(copy: Path, gone: str) -> None:
    shutil.rmtree(copy / gone) if (copy / gone).is_dir() else (copy / gone).unlink()
    html = write_report(copy).read_text(encoding="utf-8")
    assert "the mixing of slices and marker genes could not be computed" in html
    assert {p.stem for p in (copy / "figures").iterdir()} == {"domains", "composition", "latent", "losses"}


def test_commands_are_noted(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(json.loads((run / "manifest.json").read_text())["commands"]) == ["integrate"]
    folder = RunFolder(tmp_path / "new")
    for first in ("/usr/bin/stscale", "/lib/stscale_cli/__main__.py", "mine.py"):
        monkeypatch.setattr(sys, "argv", [first, "integrate", "a b.h5ad"])
        folder.command(first)
    noted = json.loads((tmp_path / "new" / "manifest.json").read_text())["commands"]
    assert [words[0] for words in noted.values()] == ["stscale", "stscale", "mine.py"]
    assert noted["mine.py"][1:] == ["integrate", "a b.h5ad"]


def test_uncorrected_components_are_those_of_the_common_mean(fitted: Fitted) -> None:
    f, rows = fitted.features, np.array([0, 3, 99, 150, 151, 349])
    values = f.normalised(0, f.n)
    bare = f.transform.rows(values, np.ones_like(f.gain()), 0).toarray().astype(np.float64)
    shift = np.zeros_like(bare)
    for part in (f.slice() == i for i in range(f.n_slices)):
        shift[part] = bare[part].mean(axis=0) - bare.mean(axis=0)
    expected = f.pca(0, f.n)[rows] + shift[rows] @ f.pca_components().T.astype(np.float64)
    assert np.abs(expected - f.pca(0, f.n)[rows]).max() > 0.1
    np.testing.assert_allclose(fitted.uncorrected(rows, centred_per_slice=True), expected, atol=2e-4)
    np.testing.assert_array_equal(fitted.uncorrected(rows, centred_per_slice=False), f.pca(0, f.n)[rows])


def test_spatial_averages(fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    from stscale.graphs import load

    monkeypatch.setattr("stscale.report.fitted.BLOCK", 64)  # rows on both sides of block borders
    graph, n = load(fitted.graph), fitted.features.n
    dense = np.eye(n)
    dense[np.repeat(np.arange(n), graph.degree()), graph.indices] = 1
    dense /= dense.sum(axis=1, keepdims=True)
    rows = np.array([1, 63, 64, 200])
    x = fitted.uncorrected(np.arange(n), centred_per_slice=True)
    found = fitted.smoothed(rows, centred_per_slice=True)
    np.testing.assert_allclose(found, (dense @ dense @ x)[rows], atol=1e-4)


def test_expression_is_read_by_rows_and_columns(fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted.features.normalised(0, fitted.features.n).toarray()
    monkeypatch.setattr("stscale.report.fitted.BLOCK", 50)
    rows = np.array([0, 49, 50, 51, 300])
    np.testing.assert_array_equal(fitted.normalised(rows).toarray(), whole[rows])
    lo, hi = fitted.features.offsets()[1:3]
    np.testing.assert_array_equal(fitted.columns(1, np.array([5, 2])), whole[lo:hi][:, [5, 2]])


def test_mixing_of_apart_and_of_mixed_slices(fitted: Fitted) -> None:
    group = fitted.features.slice()
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(fitted.features.n, 4)).astype(np.float32)
    apart = measure_mixing(
        replace(fitted, latents=noise + 100 * np.eye(3, 4, dtype=np.float32)[group]), centred_per_slice=True, seed=0
    )
    mixed = measure_mixing(replace(fitted, latents=noise), centred_per_slice=True, seed=0)
    assert apart is not None
    assert mixed is not None
    assert apart.after.max() < 1.05
    assert mixed.overall[2] > 2.3
    assert apart.slices == tuple(fitted.features.slice_names)
    np.testing.assert_array_equal(apart.before, mixed.before)
    assert ((apart.before >= 1) & (apart.before <= 3)).all()


def test_mixing_of_one_slice_is_not_defined(fitted: Fitted) -> None:
    features = SimpleNamespace(n=500, slice_names=("only",))
    assert measure_mixing(replace(fitted, features=features), centred_per_slice=True, seed=0) is None  # type: ignore[arg-type]


def stripes(fitted: Fitted) -> np.ndarray:
    """The domain by which the tissue was made, from where its spots lie."""
    x = fitted.features.xy()[:, 0] / 100
    side = np.ceil(np.sqrt(np.array([SIZES[n] for n in fitted.features.slice_names])))[fitted.features.slice()]
    return np.minimum(x.clip(0) * 3 // side, 2).astype(np.int32)


def test_markers_are_the_genes_that_mark(fitted: Fitted) -> None:
    found = find_markers(replace(fitted, domain=stripes(fitted)), seed=0)
    assert found is not None
    assert sorted(found.of) == [0, 1, 2]
    assert (found.spots, found.genes, found.sampled) == (350, 60, False)
    genes = fitted.features.genes()
    for k, markers in found.of.items():
        assert {int(m.gene[1:]) % 6 for m in markers[:5]} == {k}
        assert all(m.symbol == f"S-{m.gene}" and genes[m.column] == m.gene for m in markers)
        assert all(m.change > 0 for m in markers)
        assert all(m.inside >= m.outside > 0 for m in markers[:5])


def test_markers_of_small_and_single_domains(fitted: Fitted) -> None:
    domain = stripes(fitted)
    domain[domain == 2] = 1
    domain[:4] = 2  # too few to say anything about
    found = find_markers(replace(fitted, domain=domain), seed=0)
    assert found is not None
    assert sorted(found.of) == [0, 1]
    assert find_markers(replace(fitted, domain=np.zeros(350, np.int32)), seed=0) is None


def test_leading_markers_differ_while_they_can() -> None:
    def marker(gene: str) -> Marker:
        return Marker(gene=gene, symbol=gene, column=0, change=1.0, inside=1.0, outside=0.0)

    of = {0: (marker("a"), marker("b")), 1: (marker("a"), marker("b")), 2: (marker("b"), marker("a"))}
    leading = Markers(of=of, spots=0, genes=2, sampled=False).leading()
    assert [m.gene for m in leading.values()] == ["a", "b", "b"]


def test_one_slice_shows_all_domains_where_it_can() -> None:
    domain = np.array([0] * 50 + [1] * 40 + [0] * 30 + [1] * 30 + [2] * 9)
    group = np.array([0] * 90 + [1] * 69)
    assert slices_shown(domain, group, [0, 1, 2]) == {0: 1, 1: 1, 2: 1}
    # domains of each slice alone: none holds all
    assert slices_shown(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), [0, 1]) == {0: 0, 1: 1}


def test_umap_keeps_groups_together_and_repeats() -> None:
    rng = np.random.default_rng(0)
    z = (rng.normal(size=(600, 8)) + 12 * np.eye(3, 8)[np.arange(600) % 3]).astype(np.float32)
    plane = umap_plane(z, seed=3)
    np.testing.assert_array_equal(plane, umap_plane(z, seed=3))
    centres = np.stack([plane[k::3].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(plane[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == np.arange(600) % 3).mean() > 0.98


def test_sample_is_ascending_and_whole_when_small() -> None:
    assert sampled(4, 9, np.random.default_rng(0)).tolist() == [0, 1, 2, 3]
    drawn = sampled(1000, 50, np.random.default_rng(0))
    assert len(set(drawn.tolist())) == 50
    assert (np.diff(drawn) > 0).all()


def test_poles_lie_where_a_domain_is_widest() -> None:
    image = np.full((7, 9), EMPTY)
    image[1:6, 0:5] = 0
    image[3, 5:9] = 1  # a tail
    image[2:5, 6:9] = 1
    image[0, 0] = GREY
    assert poles(image, 4) == {0: (3, 2), 1: (3, 7)}


def test_mean_of_pixels() -> None:
    xy = np.array([[0.1, 0.1], [0.2, 0.2], [2.0, 1.0]])
    image = mean_image(xy, np.array([1.0, 3.0, 7.0]), low=(0.0, 0.0), high=(2.0, 1.0), shape=(1, 3))
    np.testing.assert_array_equal(image, [[2.0, np.nan, 7.0]])


def test_dropped_genes_and_why() -> None:
    def said(**features: int) -> str:
        contents = SimpleNamespace(stage=lambda name: features, spots=SimpleNamespace(slices=("a", "b")))
        return genes_dropped(contents)  # type: ignore[arg-type]

    assert said(genes_used=5, genes_shared=9, genes_any=20) == "of 20; dropped: 4 less variable, 11 not in every slice"
    assert said(genes_used=9, genes_shared=9) == "all of them"


# Machado, Oliveira and Fernandes (2009), deuteranopia; OKLab of Ottosson (2020)
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
CONES = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]


@pytest.mark.parametrize(
    ("seen", "ten", "all_of_them"), [(np.eye(3), 0.15, 0.09), (np.array(DEUTERANOPIA), 0.07, 0.04)]
)
def test_colours_are_told_apart(seen: np.ndarray, ten: float, all_of_them: float) -> None:
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lab = np.cbrt(np.clip(linear @ seen.T, 0, 1) @ np.array(CONES).T) @ np.array(LAB).T
    apart = np.linalg.norm(lab[:, None] - lab, axis=2) + 9 * np.eye(len(lab))
    assert apart[:10, :10].min() > ten  # a difference that is just seen is about 0.02
    assert apart.min() > all_of_them
