"""Fixtures that several tests share."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


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


@pytest.fixture(scope="module")
def small_images() -> Iterator[None]:
    """Most of the time of a report goes into pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stscale.report.drawing.DPI", 30)
        yield
