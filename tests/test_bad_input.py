"""Bad input through the command line: one line, exit 2, and nothing left that a later run would trust."""

import shutil
import sys

import numpy as np
import pytest
from scipy import sparse
from stscale_cli.app import main
from test_cli import SMALL
from test_pipeline import SIZES, check_complete, logged, tissue

from stscale.rundir import read_manifest

NAMES = ("a", "b")


def entry(value):
    def change(adata):
        adata.X.data[3] = value
        return adata

    return change


def missing_spatial(adata):
    del adata.obsm["spatial"]
    return adata


def nan_position(adata):
    adata.obsm["spatial"][4, 1] = np.nan
    return adata


def repeated_spot(adata):
    adata.obs_names = ["twin", "twin", *adata.obs_names[2:]]
    return adata


def repeated_gene(adata):
    adata.var_names = ["twin", "twin", *adata.var_names[2:]]
    return adata


def shared_positions(adata):
    adata.obsm["spatial"][:5] = adata.obsm["spatial"][0]
    return adata


def other_genes(adata):
    adata.var_names = [*adata.var_names[:49], *(f"x{k}" for k in range(31))]
    return adata


def corrected(adata):
    adata.X = sparse.csr_matrix(adata.X.toarray() * (100 + np.random.default_rng(0).random(adata.shape)))
    return adata


def smoothed(adata):
    adata.X = sparse.csr_matrix(np.log1p(adata.X.toarray() * np.random.default_rng(0).random(adata.shape)))
    return adata


# name → (change to slice b, further arguments, what the message says)
DATA = {
    "negative": (entry(-2.0), [], ["'b'", "negative value (-2"]),
    "nan": (entry(np.nan), [], ["'b'", "not finite (nan"]),
    "infinite": (entry(np.inf), [], ["'b'", "not finite (inf"]),
    "no spatial": (missing_spatial, [], ["b.h5ad", 'no obsm["spatial"]']),
    "nan position": (nan_position, [], ["'b'", "1 spots with missing or infinite coordinates"]),
    "spot names": (repeated_spot, [], ["'b'", "1 spot names that repeat (first: 'twin')"]),
    "gene names": (repeated_gene, [], ["'b'", "1 gene names that repeat (first: 'twin')"]),
    "positions": (shared_positions, [], ["'b'", "5 of 150 spots on the position of another"]),
    "few genes": (other_genes, [], ["a", "b", "49", "50"]),
    "log": (smoothed, [], ["'b'", "--lognormalized"]),
    "log as given": (lambda adata: logged("b", adata), ["--set", "ingest.recover=false"], ["'b'", "--lognormalized"]),
    "neither": (corrected, [], ["'b'", "neither counts nor logarithms", "--fractional"]),
    "both words": (corrected, ["--fractional", "--lognormalized"], ["both set"]),
    "counts as log": (lambda adata: adata, ["--lognormalized"], ["'a'", "holds counts", "leave out --lognormalized"]),
    "K too large": (lambda adata: adata, ["-k", "261"], ["domains.k = 261", "260 spots"]),
}
SETTINGS = {
    "unknown option": (["--set", "train.step=3"], "did you mean 'steps'?"),
    "unknown table": (["--set", "trian.steps=3"], "unknown table [trian]"),
    "no value": (["--set", "train.steps"], "expected section.name=value"),
    "wrong value": (["--set", "graph.kind=voronoi"], "graph.kind = 'voronoi'"),
    "unknown preset": (["--preset", "papers"], "no preset 'papers'"),
    "no file": (["--config", "/nowhere/run.toml"], "cannot read /nowhere/run.toml"),
    "unknown method": (["--method", "magic"], "run.method = 'magic'"),
    "contradiction": (["--set", "graph.kind=radius"], "needs graph.radius"),
}


@pytest.fixture
def refused(monkeypatch, capsys):
    """Integrate; expect the one line and exit code 2, and return the line."""

    def run(*arguments) -> str:
        assert integrate(monkeypatch, *arguments) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        assert said.err.endswith("\n")
        return said.err

    return run


def integrate(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["stscale", "integrate", *map(str, [*SMALL, "--quiet", *arguments])])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    for name in NAMES:
        tissue(name, SIZES[name]).write_h5ad(folder / f"{name}.h5ad")
    return folder


@pytest.fixture
def paths(good, tmp_path):
    shutil.copytree(good, tmp_path / "in")
    return [tmp_path / "in" / f"{name}.h5ad" for name in NAMES]


@pytest.mark.parametrize("case", DATA)
@pytest.mark.filterwarnings("ignore:(Observation|Variable) names are not unique")
def test_bad_data(case, paths, refused, tmp_path, monkeypatch):
    change, arguments, said = DATA[case]
    out = tmp_path / "run"
    change(tissue("b", SIZES["b"])).write_h5ad(paths[1])
    line = refused(*paths, "-o", out, *arguments)
    assert all(part in line for part in said), line
    stages = read_manifest(out)["stages"] if out.exists() else {}
    assert not {"train", "embed", "domains", "write", "report"} & set(stages)
    # the repaired data go through in the same folder
    tissue("b", SIZES["b"]).write_h5ad(paths[1])
    assert integrate(monkeypatch, *paths, "-o", out) == 0
    check_complete(out, SIZES["a"] + SIZES["b"])


@pytest.mark.parametrize("case", SETTINGS)
def test_bad_settings(case, paths, refused, tmp_path):
    arguments, said = SETTINGS[case]
    assert said in refused(*paths, "-o", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


def test_an_unknown_option_in_a_file(paths, refused, tmp_path):
    (tmp_path / "run.toml").write_text("[train]\nstep = 3\n", encoding="utf-8")
    line = refused(*paths, "-o", tmp_path / "run", "--config", tmp_path / "run.toml")
    assert "did you mean 'steps'?" in line
    assert not (tmp_path / "run").exists()


def test_a_missing_file(paths, refused, tmp_path):
    assert "none.h5ad does not exist" in refused(paths[0], tmp_path / "none.h5ad", "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_nothing(paths, refused, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert "in no known format" in refused(tmp_path / "nothing", "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_nothing(refused, tmp_path):
    (tmp_path / "x.h5ad").write_bytes(b"not HDF5")
    assert "cannot be read as HDF5" in refused(tmp_path / "x.h5ad", "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_foreign_folder_is_left_alone(paths, refused, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x", encoding="utf-8")
    assert "not a run of stscale" in refused(*paths, "-o", tmp_path / "mine", "--fresh")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_the_same_slice_twice(paths, refused, tmp_path):
    line = refused(paths[0], paths[0].parent / ".." / "in" / "a.h5ad", "-o", tmp_path / "run")
    assert "more than once" in line
    assert not (tmp_path / "run").exists()


def test_two_slices_of_one_name(paths, refused, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(paths[1], tmp_path / "other" / "a.h5ad")
    assert "two slices are called 'a'" in refused(paths[0], tmp_path / "other" / "a.h5ad", "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()
