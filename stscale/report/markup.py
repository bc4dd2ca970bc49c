"""Small pieces of HTML; every text that comes from outside is escaped here."""

import base64
from collections.abc import Sequence
from html import escape

from stscale.report.drawing import Panel


def text(value: object) -> str:
    """Escape text for an element or a quoted attribute."""
    return escape(str(value), quote=True)


def section(identity: str, title: str, *parts: str) -> str:
    """Return a section with its heading."""
    body = "\n".join(p for p in parts if p)
    return f'<section aria-labelledby="{identity}">\n<h2 id="{identity}">{text(title)}</h2>\n{body}\n</section>'


def figure(panel: Panel) -> str:
    """Return a figure with the image inside the page."""
    data = base64.b64encode(panel.png).decode("ascii")
    # width and height of a PNG stand big-endian at the bytes 16 to 24; given, the page does not jump while it loads
    width, height = (int.from_bytes(panel.png[at : at + 4], "big") for at in (16, 20))
    return (
        f'<figure>\n<div class="scroll" tabindex="0">\n'
        f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{text(panel.alt)}">\n</div>\n<figcaption>{text(panel.caption)}</figcaption>\n</figure>'
    )


def facts(entries: Sequence[tuple[str, str, str]]) -> str:
    """Return cards of (name, value, remark)."""
    cards = (
        f"<div><dt>{text(name)}</dt><dd>{text(value)}{f'<small>{text(remark)}</small>' if remark else ''}</dd></div>"
        for name, value, remark in entries
    )
    return '<dl class="facts">\n' + "\n".join(cards) + "\n</dl>"


def notes(lines: Sequence[str]) -> str:
    """Return a list of remarks, nothing when there are none."""
    if not lines:
        return ""
    return '<ul class="notes">\n' + "\n".join(f"<li>{text(line)}</li>" for line in lines) + "\n</ul>"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numbers: Sequence[int] = (),
    chips: Sequence[str] = (),
    row_chips: Sequence[str] = (),
) -> str:
    """Return a table that scrolls in its own container.

    Parameters
    ----------
    head
        Titles of the columns.
    rows
        Cells; the first of a row is its header.
    numbers
        Columns set to the right.
    chips
        A colour "#RRGGBB" (or "") per column, shown beside its title.
    row_chips
        The same per row, shown beside its header.
    """
    right = [' class="n"' if i in numbers else "" for i in range(len(head))]
    dots = [_chip(c) for c in chips] or [""] * len(head)
    row_dots = [_chip(c) for c in row_chips] or [""] * len(rows)
    titles = "".join(f'<th scope="col"{r}>{d}{text(h)}</th>' for h, r, d in zip(head, right, dots, strict=True))
    lines = []
    for row, dot in zip(rows, row_dots, strict=True):
        cells = "".join(f"<td{r}>{text(c)}</td>" for c, r in zip(row[1:], right[1:], strict=True))
        lines.append(f'<tr><th scope="row"{right[0]}>{dot}{text(row[0])}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0">\n<table>\n<thead><tr>{titles}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody>\n</table>\n</div>"
    )


def _chip(colour: str) -> str:
    return f'<span class="chip" style="background:{colour}"></span>' if colour else ""


def paragraph(words: str) -> str:
    """Return a paragraph."""
    return f"<p>{text(words)}</p>"


def code(words: str) -> str:
    """Return lines that scroll in their own container."""
    return f'<pre tabindex="0"><code>{text(words)}</code></pre>'


def details(summary: str, body: str) -> str:
    """Return a part that opens on demand."""
    return f"<details>\n<summary>{text(summary)}</summary>\n{body}\n</details>"


def duration(seconds: float) -> str:
    """Say a time: 3.2 s, 2 min 5 s, 1 h 12 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def size(n: float) -> str:
    """Say a number of bytes with its binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"


def count(n: int, noun: str) -> str:
    """Say a number of things: 1 spot, 2,314 spots."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
