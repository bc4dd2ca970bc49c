"""Fixtures that several tests share."""

import base64
import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg==")
"""A PNG of one pixel."""

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_finish() -> None:
    """Take what runs import off the garbage collector: every stage collects, which took a quarter of a second each."""
    for name in ("dask.array", "matplotlib.pyplot", "scipy.stats", "sklearn.cluster", "torch"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real tissue beside the checkout; tests that need it are skipped where it is missing."""
    path = SHARED / "data"
    if not path.is_dir():
        pytest.skip("no real data beside the checkout")
    return path


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], dict[str, np.ndarray[Any, Any]]]:
    """Naive float64 values of losses and metrics, by file name."""
    folder = SHARED / "vectors"

    def read(name: str) -> dict[str, np.ndarray[Any, Any]]:
        path = folder / f"{name}.npz"
        if not path.exists():
            pytest.skip("no test vectors beside the checkout")
        with np.load(path) as file:
            return {k: file[k] for k in file.files}

    return read


@pytest.fixture
def stscale_(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; return exit code, stdout and stderr."""
    from stscale_cli.app import main

    def run(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stscale", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


@pytest.fixture(scope="module", autouse=True)
def small_images(request: pytest.FixtureRequest) -> Iterator[None]:
    """Draw small in modules marked `figures`, and one pixel elsewhere: most of a small run's time goes into pixels."""
    looks = request.node.get_closest_marker("figures") is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stscale.report.drawing.DPI", 40)
        if not looks:
            patch.setattr("stscale.report.drawing.rendered", lambda figure: PIXEL)
        yield
