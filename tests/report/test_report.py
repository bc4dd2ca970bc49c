"""The report of a run: what it says, what it draws, and that it stands alone."""

import json
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from stscale.config import Run, dump
from stscale.errors import InputError
from stscale.report import write_report
from stscale.report.charts import losses
from stscale.report.contents import Spots, read_contents
from stscale.report.drawing import DPI, label, labels
from stscale.report.latent import principal_plane
from stscale.report.maps import MAX_MARKERS, columns, domain_maps, spot_pitch
from stscale.report.markup import duration, size
from stscale.report.palette import COLOURS, palette
from stscale.report.raster import EMPTY, GREY, majority
from stscale.report.summary import key_facts, origin_of_k, remarks

pytestmark = pytest.mark.figures


@pytest.fixture
def full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stscale.report.drawing.DPI", DPI)


VOID = {"meta", "img", "br", "hr"}


class Page(HTMLParser):
    """Check the nesting of tags; collect text, images and where attributes point."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.text = ""
        self.tags: set[str] = set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        found = dict(attrs)
        self.links += [str(found[a]) for a in ("src", "href", "srcset", "action") if a in found]
        if tag == "img":
            self.images.append(found)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def hexagonal(n: int, side: int) -> np.ndarray:
    """A hexagonal array of pitch 1."""
    row, column = np.divmod(np.arange(n), side)
    return np.stack([column + 0.5 * (row % 2), row * 3**0.5 / 2], axis=1)


def make_run(
    path: Path,
    sizes: dict[str, int],
    *,
    k: int = 4,
    left_out: int = 0,
    dims: int = 2,
    scattered: bool = False,
    config: Run | None = None,
    curve: dict[str, Any] | None = None,
    history: list[dict[str, float]] | None = None,
) -> Path:
    """Write a run folder as the pipeline leaves it; the first spots of the second slice are left out.

    Domains are sectors of a slice, or have no place at all (`scattered`): no picture is harder to compress.
    """
    rng = np.random.default_rng(0)
    config = config or replace(Run(), domains=replace(Run().domains, k=k))
    names, counts = list(sizes), list(sizes.values())
    n, group = sum(counts), np.repeat(np.arange(len(counts)), counts)
    xy = np.concatenate([hexagonal(c, max(1, round(c**0.5))) * 100 for c in counts])
    angle = np.concatenate([np.arange(c) / c for c in counts])
    domain = np.minimum((angle * k).astype(int), k - 1)
    domain = rng.permutation(domain) if scattered else domain
    latent = rng.normal(size=(n, 8)).astype(np.float32) + np.eye(k, 8, dtype=np.float32)[domain] * 5
    at = counts[0] if len(counts) > 1 else 0
    domain[at : at + left_out], latent[at : at + left_out] = -1, np.nan
    if dims == 3:
        xy = np.column_stack([xy, np.zeros(n)])
    obs = pd.DataFrame(index=[f"spot{i}" for i in range(n)])
    obs["stscale_slice"] = pd.Categorical.from_codes(group, names)
    obs["stscale_domain"] = pd.Categorical.from_codes(domain, [str(i) for i in range(k)])
    obsm = {"spatial": xy, "X_stscale": latent}
    anndata.AnnData(obs=obs, obsm=obsm).write_zarr(path / "integrated.zarr")
    (path / "config.toml").write_text(dump(config), encoding="utf-8")
    if history is None:
        history = [{"step": s, "loss": 9 / s, "telescope": 5 / s, "reconstruction": 4 / s} for s in (10.0, 20.0, 30.0)]
        history[-1]["prototypes"] = 2.0
    (path / "manifest.json").write_text(json.dumps(manifest(sizes, left_out, history, curve, k)))
    events = [("ingest", "end"), ("train", "end"), ("ingest", "reused"), ("train", "start"), ("train", "end")]
    lines = [json.dumps({"time": 1.0, "event": "stage", "stage": s, "state": t}) for s, t in events]
    (path / "events.jsonl").write_text("\n".join(lines) + '\n{"time": 2, "event": "stage", "sta')
    return path


def manifest(sizes: dict[str, int], left_out: int, history: Any, curve: Any, k: int) -> dict[str, Any]:
    n, second = sum(sizes.values()), list(sizes)[min(1, len(sizes) - 1)]
    cost = {"digest": "0", "seconds": 61.25, "peak_mb": 512.0}
    return {
        "stscale": "0.1.0",
        "python": "3.11.0",
        "packages": {"torch": "2.6.0+cpu", "numpy": "1.26.0"},
        "inputs": [{"path": f"data/{name}.h5ad", "bytes": 3 << 20, "hash": "ab" * 16} for name in sizes],
        "stages": {
            "ingest": {**cost, "slices": len(sizes)},
            "features": {
                **cost,
                "spots": n,
                "fit_spots": n - left_out,
                "genes_shared": 12345,
                "genes_used": 678,
                "components": 50,
                "left_out": {name: left_out * (name == second) for name in sizes},
                "shared_positions": dict.fromkeys(sizes, 0) | {second: 2},
                "notes": ["slice 'A<i>': no trend of variance on mean"],
            },
            "graph": {**cost, "edges": 3 * n, "mean_degree": 6.0, "isolated": 1},
            "train": {**cost, "steps": 30, "epochs": 3.0, "device": "cpu", "peak_mb": 1536.0, "history": history},
            "embed": cost,
            "domains": {**cost, "k": k, "curve": curve},
            "write": cost,
        },
    }


def read(run: Path) -> tuple[str, Page]:
    html = write_report(run).read_text(encoding="utf-8")
    return html, Page(html)


def figures(run: Path) -> set[str]:
    return {p.name for p in (run / "figures").iterdir()}


def test_page_stands_alone_and_says_what_was_found(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"first": 200, "second": 91, "third": 333}, left_out=7)
    html, page = read(run)
    assert figures(run) == {"domains.png", "composition.png", "losses.png", "latent.png"}
    assert all((run / "figures" / f).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for f in figures(run))
    assert len(page.images) == 4
    assert all(i["alt"] and i["width"] and i["height"] for i in page.images)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "http://" not in html
    assert "https://" not in html
    assert page.tags.isdisjoint({"script", "link", "iframe"})
    assert '<html lang="en">' in html
    for said in ("624", "12,345", "678", "given", "7 min 9 s", "1.5 GiB", "cpu", tmp_path.name, "2.6.0+cpu", "ab" * 16):
        assert said in page.text
    assert "7 spots without a count on the genes used took no part and have no domain: 7 in second." in page.text
    assert "2 spots lie on the position of another spot: 2 in second." in page.text
    assert "1 spot has no spatial neighbour." in page.text
    assert (run / "config.toml").read_text() in page.text
    order = ["Summary", "Domains", "Composition", "Latent space", "Training"]
    order += ["Stages", "Inputs", "Options", "Reproduce"]
    assert re.findall(r"<h2[^>]*>([^<]*)</h2>", html) == order
    assert not list(tmp_path.glob(".*"))  # no temporary left


def test_same_run_gives_the_same_bytes_and_old_figures_go(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"a": 60, "b": 40})
    before = write_report(run).read_bytes()
    (run / "figures" / "stale.png").write_bytes(b"")
    assert write_report(run).read_bytes() == before
    assert "stale.png" not in figures(run)


def test_every_text_is_escaped(tmp_path: Path) -> None:
    names = {"<b>&": 50, '"><script>alert(1)</script>': 40, "$\\frac{1$ 切片": 30}
    folder = tmp_path / "run <i>&amp;"
    folder.mkdir()
    html, page = read(make_run(folder, names, left_out=2))
    assert page.tags.isdisjoint({"b", "i", "script"})
    assert "<b>&" in page.text
    assert "&lt;b&gt;&amp;" in html
    assert "run <i>&amp;" in page.text
    assert "Slice 'A<i>': no trend of variance on mean." in page.text
    assert "$\\frac{1$ 切片" in page.text


def test_estimated_k_is_said_and_its_curve_drawn(tmp_path: Path) -> None:
    curve = {"k": [2, 3, 4, 5], "bic": [90.0, 70.0, 60.0, 65.0], "loglik": [0.0] * 4, "chosen": 4, "rule": "minimum"}
    _, page = read(make_run(tmp_path, {"a": 60, "b": 40}, config=Run(), curve=curve))
    assert "estimated from 2 to 15" in page.text
    assert "K = 4 was chosen: its BIC is the smallest." in page.text
    assert "estimate.png" in figures(tmp_path)


def test_origin_of_k(tmp_path: Path) -> None:
    contents = read_contents(make_run(tmp_path, {"a": 20}))

    def origin(**changes: Any) -> str:
        config = replace(Run(), domains=replace(Run().domains, **changes))
        return origin_of_k(replace(contents, config=tomllib.loads(dump(config))))

    assert origin(k=5) == origin(k=5, method="leiden") == "given"
    assert origin() == "estimated from 2 to 15"
    assert origin(method="leiden", resolution=0.5) == "found by Leiden, resolution 0.5"
    assert origin(per_slice=True, k=5) == "each slice alone"


def test_fewer_domains_than_asked_for_is_said(tmp_path: Path) -> None:
    config = replace(Run(), domains=replace(Run().domains, k=9))
    lines = remarks(read_contents(make_run(tmp_path, {"a": 40, "b": 20}, config=config)))
    assert "9 domains were asked for, 4 are present." in lines


def test_one_slice_with_one_domain(tmp_path: Path) -> None:
    _, page = read(make_run(tmp_path, {"only": 50}, k=1))
    assert "There is one slice only" in page.text
    assert "none left out" in page.text


@pytest.mark.usefixtures("full_size")
def test_thirty_slices_show_twenty_four(tmp_path: Path) -> None:
    sizes = {f"section {i} of a block with a very long name": 20 + i for i in range(30)}
    _, page = read(make_run(tmp_path, sizes, k=12, left_out=3))
    assert "The first 24 of 30 slices are shown." in page.text
    assert page.text.count("section 29 of a block") >= 2  # table of the composition and inputs
    assert "Light grey: spots left out of the fit." in page.text
    assert (tmp_path / "report.html").stat().st_size < 5 << 20


def test_three_dimensions_are_said(tmp_path: Path) -> None:
    panel = domain_maps(read_contents(make_run(tmp_path, {"a": 60, "b": 40}, dims=3)).spots)
    assert "the first two are drawn" in panel.caption


def test_slice_of_one_spot_and_slice_wholly_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"big": 50, "out": 6, "single": 1}, left_out=6)
    _, page = read(run)
    assert "6 in out" in page.text


def test_losses_of_zero_and_no_history(tmp_path: Path) -> None:
    with_zero = [{"step": 1.0, "loss": 0.0, "new term": -1.0}]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    panel = losses(read_contents(make_run(tmp_path / "a", {"a": 30}, history=with_zero)))
    assert panel is not None
    assert panel.alt.endswith("1 steps: total, weighted, new term")
    assert losses(read_contents(make_run(tmp_path / "b", {"a": 30}, history=[]))) is None


def test_reused_stages_are_those_of_the_last_call(tmp_path: Path) -> None:
    assert read_contents(make_run(tmp_path, {"a": 20})).reused == {"ingest"}


def test_time_and_memory_of_all_stages(tmp_path: Path) -> None:
    facts = {name: value for name, value, _ in key_facts(read_contents(make_run(tmp_path, {"a": 20})))}
    assert facts["Time"] == "7 min 9 s"  # 7 × 61.25 s
    assert facts["Peak memory"] == "1.5 GiB"


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        write_report(tmp_path)
    (tmp_path / "manifest.json").write_text('{"stages": {}}')
    with pytest.raises(InputError, match="no finished run"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_counts_and_latents_keep_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, {"a": 5, "b": 3, "c": 9}, k=2, left_out=2)
    spots = read_contents(run).spots
    assert spots.counts().tolist() == [[3, 2, 0], [0, 1, 2], [5, 4, 0]]
    whole = anndata.read_zarr(run / "integrated.zarr")
    rows = np.array([0, 3, 4, 7, 8, 15, 16])
    monkeypatch.setattr("stscale.report.contents.BLOCK", 4)  # rows on both sides of block borders
    np.testing.assert_array_equal(spots.latents(rows), whole.obsm["X_stscale"][rows])
    np.testing.assert_array_equal(spots.coordinates(1), whole.obsm["spatial"][5:8])


def synthetic(n: int) -> Spots:
    rng = np.random.default_rng(1)
    root = {"obsm": {"spatial": rng.uniform(0, 1000, size=(n, 2))}}
    domain = rng.integers(-1, 5, size=n)
    return Spots(slices=("a",), domains=tuple("01234"), group=np.zeros(n, int), domain=domain, root=root)


def test_many_spots_are_rasterised() -> None:
    few, many = domain_maps(synthetic(MAX_MARKERS // 100)), domain_maps(synthetic(MAX_MARKERS + 1))
    assert "each pixel shows its commonest domain" not in few.caption
    assert "each pixel shows its commonest domain" in many.caption
    assert len(many.png) < 3 << 20


@pytest.mark.usefixtures("full_size")
def test_a_quarter_of_a_million_scattered_spots_stay_small(tmp_path: Path) -> None:
    config = Run().replace({"domains": {"k": 20}, "report": {"umap": False}})
    _, page = read(make_run(tmp_path, {"a": 150_000, "b": 100_000}, k=20, scattered=True, config=config))
    assert "More than 200,000 spots: each pixel shows its commonest domain." in page.text
    assert (tmp_path / "report.html").stat().st_size < 15_000_000


def test_majority_by_hand() -> None:
    xy = np.array([[0, 0], [0.2, 0.9], [0.4, 0.5], [1.5, 0.5], [1.6, 0.5], [2.5, 0.5], [3.0, 2.0], [9.0, 0.5]])
    domain = np.array([3, 1, 1, 2, 0, -1, 4, 0])
    image = majority(xy, domain, low=(0.0, 0.0), high=(3.0, 2.0), shape=(2, 3))
    # most votes; a tie to the smallest; only a spot left out; the corner belongs to the last pixel; outside: dropped
    assert image.tolist() == [[1, 0, GREY], [EMPTY, EMPTY, 4]]


def test_majority_left_out_never_outvotes() -> None:
    xy = np.full((5, 2), 0.5)
    image = majority(xy, np.array([-1, -1, -1, -1, 2]), low=(0.0, 0.0), high=(1.0, 1.0), shape=(1, 1))
    assert image.tolist() == [[2]]


def test_majority_of_only_left_out_spots() -> None:
    image = majority(np.array([[0.5, 0.5]]), np.array([-1]), low=(0.0, 0.0), high=(2.0, 1.0), shape=(1, 2))
    assert image.tolist() == [[GREY, EMPTY]]


def test_pitch_of_arrays() -> None:
    square = np.stack(np.meshgrid(np.arange(30), np.arange(20)), axis=-1).reshape(-1, 2) * 55.0
    assert spot_pitch(square) == pytest.approx(55.0)
    assert spot_pitch(hexagonal(600, 30) * 100) == pytest.approx(100.0)
    assert spot_pitch(np.zeros((1, 2))) == 1.0
    assert spot_pitch(np.zeros((9, 2))) == 1.0
    side = int(MAX_MARKERS**0.5) + 1
    many = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * 2.0
    assert spot_pitch(many) == pytest.approx(2.0, rel=0.05)


def test_principal_plane_finds_the_plane() -> None:
    rng = np.random.default_rng(3)
    flat = rng.normal(size=(400, 2)) * [5.0, 2.0]
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    z = (flat @ turn[:2] + 7).astype(np.float32)
    plane, explained = principal_plane(z)
    assert explained.sum() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(plane.var(axis=0), np.linalg.eigvalsh(np.cov(flat.T, bias=True))[::-1], rtol=1e-4)


def test_palette_is_distinct_and_keeps_its_order() -> None:
    assert len(set(COLOURS)) == len(COLOURS) == 30
    assert palette(5) == palette(40)[:5]
    assert palette(31)[30] == COLOURS[0]


@pytest.mark.parametrize(("n", "across"), [(1, 1), (2, 2), (4, 2), (5, 3), (7, 4), (9, 3), (24, 4)])
def test_columns(n: int, across: int) -> None:
    assert columns(n) == across


def test_labels_and_units() -> None:
    assert label("切a") == "�a"
    assert label("abcdefghij", 7) == "abc…hij"
    assert [duration(s) for s in (3.21, 59.97, 125, 4321)] == ["3.2 s", "1 min 0 s", "2 min 5 s", "1 h 12 min"]
    assert [size(n) for n in (12, 1536, 3 << 20, 5 << 40)] == ["12 B", "1.5 KiB", "3.0 MiB", "5.0 TiB"]


def test_labels_keep_what_tells_names_apart() -> None:
    names = [f"section {i} of a block with a very long name" for i in (1, 12, 3)]
    assert labels(names, 20) == ["section 1 of a bl…", "section 12 of a bl…", "section 3 of a bl…"]
    assert labels(names, 7) == ["…on 1…", "…on 12…", "…on 3…"]
    assert labels(["short", "<b>"], 20) == ["short", "<b>"]
    assert labels(["a" * 30], 5) == ["aa…aa"]
