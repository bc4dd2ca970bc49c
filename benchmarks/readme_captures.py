"""Table of how unlike slices capture genes."""

from benchmarks.tables import Results, table


def captures(results: Results) -> str:
    """Render the spread of every set, the least first, with the height that runs take."""
    parts = sorted(results["sets"].items(), key=lambda item: item[1]["spread"])
    rows = [[name, str(part["slices"]), f"{part['spread']:.3f}", f"`{part['height']}`"] for name, part in parts]
    head = (
        "Spread of the typical gene's share over slices (sd of its natural logarithm, without counting noise); above "
    )
    head += f"{results['bound']:g} heights are those of Poisson counts:"
    return f"{head}\n\n{table(['set', 'slices', 'spread', 'height'], rows)}"
