"""A finished run folder → report.html and figures/."""

from pathlib import Path

from stscale.atomic import atomic_path
from stscale.report.contents import read_contents
from stscale.report.findings import find
from stscale.report.laid import read_laid
from stscale.report.page import page, panels


def write_report(run: str | Path) -> Path:
    """Write `report.html` and `figures/*.png` of a finished run; both are replaced whole.

    Parameters
    ----------
    run
        The run folder.

    Returns
    -------
    Path
        The page: one file that needs neither network, scripts nor the rest of the folder.

    Raises
    ------
    InputError
        When the folder holds no finished run.
    """
    run = Path(run)
    contents = read_contents(run)
    laid = read_laid(run, contents.spots)
    findings = find(run, contents)
    figures = panels(contents, findings, laid)
    with atomic_path(run / "figures") as part:
        part.mkdir()
        for panel in figures:
            (part / f"{panel.name}.png").write_bytes(panel.png)
    target = run / "report.html"
    with atomic_path(target) as part:
        part.write_text(page(contents, findings, figures, laid), encoding="utf-8")
    return target
