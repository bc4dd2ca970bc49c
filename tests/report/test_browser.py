"""The page in a real browser, where one is installed: nothing on the console, nothing beyond the window."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stscale.report import write_report
from tests.report.test_report import make_run

BROWSER = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
MEASURE = """<script>addEventListener("load", () => { const frame = document.getElementById("frame"),
page = frame.contentDocument;
const found = { wide: page.documentElement.scrollWidth, inner: frame.contentWindow.innerWidth,
broken: [...page.images].filter(i => !i.complete || !i.naturalWidth).length, images: page.images.length };
document.body.innerHTML = "<pre>FOUND" + JSON.stringify(found) + "DNUOF</pre>"; });</script>"""

pytestmark = [pytest.mark.figures, pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")]


def shown(page: Path, width: int, folder: Path) -> tuple[dict[str, int], list[str]]:
    """Lay the page out in a frame of that width; return its measures and the lines of the console."""
    frame = folder / "frame.html"
    # a window cannot be narrower than the browser likes; a frame can
    text = page.read_text(encoding="utf-8").replace("&", "&amp;").replace('"', "&quot;")
    frame.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><body><iframe id="frame" srcdoc="{text}" '
        f'style="width:{width}px;height:800px;border:0"></iframe>{MEASURE}</body>',
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--log-level=0"),
            *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", frame.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search("FOUND(.*?)DNUOF", done.stdout)
    assert found, done.stdout[-500:]
    return json.loads(found[1]), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"a slice with a rather long name that says where it comes from": 60, "b": 40, "c": 30}
    return write_report(make_run(tmp_path_factory.mktemp("run"), sizes, k=12, left_out=3))


@pytest.mark.parametrize("width", [1200, 420])
def test_page_fits_and_is_quiet(page: Path, width: int, tmp_path: Path) -> None:
    found, console = shown(page, width, tmp_path)
    assert console == []
    assert found["inner"] == width
    assert found["wide"] <= width
    assert (found["images"], found["broken"]) == (4, 0)


def test_the_measure_sees_what_is_wrong(page: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    wrong = '<div style="width:2000px">x</div><img src="data:image/png;base64,AAAA" alt=""><script>missing()</script>'
    bad.write_text(page.read_text(encoding="utf-8").replace("</main>", wrong + "</main>"), encoding="utf-8")
    found, console = shown(bad, 420, tmp_path)
    assert found["wide"] > 420
    assert found["broken"] == 1
    assert any("missing is not defined" in line for line in console)
