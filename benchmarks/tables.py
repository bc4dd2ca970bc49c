"""Pieces of rendered tables."""

from typing import Any

Results = dict[str, Any]


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    body = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in body)


def machine(results: Results) -> str:
    """Say how many threads and when; a smoke run says that it is none."""
    smoke = "smoke run, no measurement, " if results["smoke"] else ""
    return f"{smoke}{results['environment']['threads']} threads, {results['environment']['date']}"


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with spaces between thousands, or nothing where there is none."""
    return "" if value is None else f"{value:,.{digits}f}".replace(",", " ")


def targets(found: Results) -> str:
    """Return a table of measured value, target and whether it is met.

    Parameters
    ----------
    found
        {title: {"measured", "target", "met"}}, with "at_least" where the target is a lower bound.
    """
    rows = []
    for title, part in found.items():
        sign = "≥" if part.get("at_least") else "≤"
        measured = number(part["measured"]) if part["measured"] >= 100 else f"{part['measured']:.3g}"
        wanted = number(part["target"]) if part["target"] >= 10 else f"{part['target']:.3g}"
        rows.append([title, measured, f"{sign} {wanted}"])
        rows[-1].append("yes" if part["met"] else "**no**")
    return table(["target", "measured", "wanted", "met"], rows)
