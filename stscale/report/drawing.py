"""What all figures share: style, text that draws safely, legends, and a figure as PNG bytes."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.0
"""Inches; every figure is as wide."""

DPI = 150

LEGEND_ROW = 0.18
"""Height of a row of a legend, inches."""

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#666666",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "axes.labelcolor": "#333333",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # a slice may be called "$x$"
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A figure of the report.

    Attributes
    ----------
    name
        Name of its file, without ".png".
    png
        The image.
    alt
        What a reader who does not see it is told.
    caption
        Plain text below it.
    """

    name: str
    png: bytes
    alt: str
    caption: str


def drawn(draw: Callable[[], "Figure"]) -> bytes:
    """Run `draw` in the style of the report, whatever the user's matplotlibrc says, and return PNG bytes."""
    import matplotlib.style

    with matplotlib.style.context(STYLE, after_reset=True):
        return rendered(draw())


def rendered(figure: "Figure") -> bytes:
    """Return a figure as PNG bytes."""
    from PIL import Image

    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=DPI, pil_kwargs={"compress_level": 0})
    image = Image.open(raw).convert("RGB")
    buffer = io.BytesIO()
    # a figure has few colours: 256 of its own make the page three times lighter. No version in the file: the same run
    # gives the same bytes
    image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(buffer, format="png")
    return buffer.getvalue()


def write_name(ax: "Axes", place: NDArray[np.floating], name: str, size: float = 8.5) -> None:
    """Write a name (of a domain) readably on any ground, at (x, y)."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.4, foreground="white")]
    x, y = (float(v) for v in place)
    ax.text(x, y, name, fontsize=size, weight="bold", ha="center", va="center", path_effects=halo)


def label(text: str, longest: int = 24) -> str:
    """Shorten a name in its middle and replace what the font cannot draw."""
    known = _glyphs()
    text = "".join(c if ord(c) in known and c.isprintable() else "�" for c in text)
    if len(text) <= longest:
        return text
    tail = (longest - 1) // 2
    return f"{text[: longest - 1 - tail]}…{text[-tail:]}"


def labels(names: Sequence[str], longest: int = 24) -> list[str]:
    """Shorten names that belong together: what they share goes first, what tells them apart stays."""
    if len(names) < 2 or max(len(n) for n in names) <= longest:
        return [label(n, longest) for n in names]
    prefix = _shared_start(names)
    suffix = _shared_start([n[len(prefix) :][::-1] for n in names])[::-1]
    cores = [n[len(prefix) : len(n) - len(suffix)] for n in names]
    room = max(0, longest - 2 - max(len(c) for c in cores))
    head = prefix if len(prefix) <= room else "…" + prefix[len(prefix) - room :]
    room = max(0, room - len(prefix))
    tail = suffix if len(suffix) <= room else suffix[:room] + "…"
    return [label(head + core + tail, longest) for core in cores]


def _shared_start(names: Sequence[str]) -> str:
    # the characters that all share lie where the smallest and the largest agree
    low, high = min(names), max(names)
    same = 0
    while same < len(low) and low[same] == high[same]:
        same += 1
    return low[:same]


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def legend_shape(names: Sequence[str], width: float) -> tuple[int, float]:
    """Return the columns of a legend within `width` inches, and its height in inches with its title."""
    widths = [0.36 + 0.078 * len(n) for n in names] or [1.0]
    columns = len(widths) if sum(widths) <= width else max(1, int(width / max(widths)))
    return columns, LEGEND_ROW * (math.ceil(len(names) / columns) + 1)


def swatches(names: Sequence[str], colours: Sequence[str]) -> list[Any]:
    """Return the handles of a legend."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], linestyle="none", marker="o", markersize=6.5, color=c, label=n)
        for n, c in zip(names, colours, strict=True)
    ]


def add_legend(
    figure: "Figure", names: Sequence[str], colours: Sequence[str], *, title: str, left: float, width: float, top: float
) -> None:
    """Put a legend into the figure, its upper left corner at (left, top) inches from the lower left."""
    columns, _ = legend_shape(names, width)
    w, h = figure.get_size_inches()
    handles = swatches(names, colours)
    # a legend fills its columns one after the other; numbers read better along the rows
    rows = range(0, len(handles), columns)
    legend = figure.legend(
        handles=[handles[r + c] for c in range(columns) for r in rows if r + c < len(handles)],
        loc="upper left",
        bbox_to_anchor=(left / w, top / h),
        ncols=columns,
        title=title,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        handletextpad=0.2,
        columnspacing=1.0,
        alignment="left",
        fontsize=8.5,
        title_fontsize=8.5,
    )
    legend.get_title().set_color("#555555")
