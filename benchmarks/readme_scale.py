"""Tables of scale: sizes, step parts, sparse products, and the terms as published."""

from benchmarks.scale import GB_PER_MIB, ISS, planned
from benchmarks.tables import Results, machine, number, table, targets


def scale(results: Results) -> str:
    """Render sizes with their exponents, targets, parts of a step, products and the waiting of threads."""
    parts = [_sizes(results)] if results["rows"] else []
    parts += [targets(results["targets"])] if results.get("targets") else []
    parts += [_steps(results["steps"])] if "steps" in results else []
    parts += [_wait(results["wait_policy"])] if "wait_policy" in results else []
    parts += [_products(results["products"])] if "products" in results else []
    return "\n\n".join(parts)


def _sizes(results: Results) -> str:
    rows, exponents = results["rows"], results["exponents"]
    stages = list(dict.fromkeys(name for row in rows.values() for name in row["integrate"]["stages"]))
    heads = ["spots", "total, s", *(f"{name}, s" for name in stages), "ms per step", "µs per spot and step"]
    heads += ["peak RSS, GB", "planned / measured RSS", "disk at its peak, GB", "ARI"]
    body = [_row(name, row, stages) for name, row in rows.items()]
    for key, title in (("all", "exponent, all sizes"), ("large", "exponent, 10⁵ to 10⁶")):
        found = {name: number(values[key], 2) for name, values in exponents.items()}
        if any(found.values()):
            line = [title, found["total"], *(found.get(name, "") for name in stages), found["step"], ""]
            body.append([*line, found["peak_rss"], "", "", ""])
    given = results["settings"]
    shape = f"{given['slices']} slices, {number(given['genes'])} genes, seed {given['seed']}"
    domains = ", ".join(dict.fromkeys(f"K = {row['domains']}" for n, row in rows.items() if n != ISS))
    real = f"; {ISS} (one slice) with K = {rows[ISS]['domains']}" if ISS in rows else ""
    budget = f", --max-ram {given['max_ram']}" if given["max_ram"] else ""
    return f"Simulated: {shape}, {domains}{real}{budget}; {machine(results)}:\n\n{table(heads, body)}"


def _row(name: str, row: Results, stages: list[str]) -> list[str]:
    cost, training = row["integrate"], row["training"]
    seconds = [cost["stages"].get(stage, {}).get("seconds") for stage in stages]
    cells = [f"{number(row['spots'])}{f' ({ISS})' if name == ISS else ''}", number(cost["seconds"], 1)]
    cells += [number(value, 1) for value in seconds]
    cells += [number(training["seconds_per_step"] * 1e3, 1), number(training["us_per_spot_and_step"], 1)]
    cells += [number(cost["peak_rss_mib"] * GB_PER_MIB, 2), number(planned(row), 2)]
    return [*cells, number(row["disk"]["peak_mib"] * GB_PER_MIB, 2), number(row["ari"], 3)]


def _steps(found: Results) -> str:
    def said(of: str | None) -> list[str]:
        lines = []
        for part in (part for part in found["parts"] if part["of"] == of and part["part"] != "step"):
            share = part["share_of_steps"]
            inside = [f"in {share:.0%} of the steps"] if share < 1 else []
            inside += said(part["part"])
            lines.append(f"{part['part']} {part['median_ms']:.1f}" + (f" ({', '.join(inside)})" if inside else ""))
        return lines

    total = next(part["median_ms"] for part in found["parts"] if part["part"] == "step")
    ahead = found["seconds_per_step_prefetched"] * 1e3
    return (
        f"Parts of one training step at {number(found['spots'])} spots, median ms where it ran (brackets: of "
        f"that; batches prepared in the loop): {total:.1f} = {', '.join(said(None))}. With batches prepared ahead "
        f"a step takes {ahead:.1f} ms."
    )


def _wait(found: Results) -> str:
    said = ", ".join(f"`{policy}` {seconds * 1e3:.1f} ms" for policy, seconds in found["seconds_per_step"].items())
    return f"A step at {number(found['spots'])} spots by `OMP_WAIT_POLICY`: {said}."


def _products(found: Results) -> str:
    widths = list(dict.fromkeys(row["d"] for row in found["forms"]))
    cells = {(row["form"], row["d"]): row for row in found["forms"]}
    rows = []
    for name, title in found["titles"].items():
        each = [cells[name, d] for d in widths]
        differences = [row["difference"] for row in each if "difference" in row]
        apart = f"{max(differences):.0e}" if differences else ""
        rows.append([title, *(_times(row) for row in each), apart])
    shape = f"{number(found['rows'])} rows, {number(found['entries'])} entries"
    heads = ["product", *(f"d = {d}" for d in widths), "largest difference to scipy"]
    return f"A batch's adjacency times features ({shape}), forward / with backward, ms:\n\n{table(heads, rows)}"


def _times(row: Results) -> str:
    if "skipped" in row:
        return row["skipped"]
    return f"{row['forward_ms']:.2f} / {'–' if row['both_ms'] is None else format(row['both_ms'], '.2f')}"


def published(results: Results) -> str:
    """Render dense and own form by size, and whole runs beside methods of others."""
    parts = []
    if "sizes" in results:
        parts.append(_epochs(results))
    if results.get("targets"):
        parts.append(targets(results["targets"]))
    if "baselines" in results:
        parts.append(_baselines(results["baselines"]))
    return "\n\n".join(parts)


def _epochs(results: Results) -> str:
    heads = ["spots", "own, s", "published, s", "ratio", "own, MiB", "published, MiB", "ratio", "ratio above imports"]
    rows = []
    for entry in results["sizes"]:
        own, dense = entry["own"], entry["published"]
        cells = [number(entry["n"]), f"{own['median']:.3g}"]
        if "did_not_fit" in dense:
            cells += ["did not fit", "", number(own["peak_rss_mib"]), dense["did_not_fit"], "", ""]
        else:
            cells += [f"{dense['median']:.3g}", number(entry["time_ratio"], 1)]
            cells += [number(form["peak_rss_mib"]) for form in (own, dense)]
            cells += [number(entry[key], 1) for key in ("memory_ratio", "memory_ratio_above_imports")]
        rows.append(cells)
    given = results["settings"]
    head = f"One epoch, {given['slices']} slices of random spots, limit {given['limit_gb']:g} GB, {machine(results)}"
    after = given.get("next")
    last = f"\n\nNot started: {number(after['n'])} spots, about {number(after['estimate_mib'])} MiB." if after else ""
    return f"{head}:\n\n{table(heads, rows)}{last}"


def _baselines(found: Results) -> str:
    rows = []
    for n, methods in sorted(found.items(), key=lambda item: int(item[0])):
        for row in methods.values():
            cells = [row["skipped"], "", ""] if "skipped" in row else []
            cells = cells or [number(row["seconds"], 1), number(row["peak_rss_mib"]), number(row["ari"], 3)]
            rows.append([number(int(n)), row["title"], *cells])
    heads = ["spots", "method", "seconds", "peak RSS, MiB", "ARI"]
    return f"Whole runs on simulated slices, from slice stores to domains:\n\n{table(heads, rows)}"
