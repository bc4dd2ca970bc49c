"""Similarity telescope: linear-cost Gram form against the quadratic block form → results/telescope.json."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.child import call
from benchmarks.data import environment, out_path, say, write_results

NEAR = 1e-3
"""Relative difference of the two views."""

LARGE = 20_000
"""From this many spots on the block form is timed once."""


def measure(
    n: int, d: int, form: str, repeats: int, seed: int, threads: int, save: str, dtype: str = "float32"
) -> dict[str, Any]:
    """Time value and gradient of one form; runs in the child.

    Parameters
    ----------
    n, d
        Spots and width.
    form
        gram or block.
    repeats
        Timed calls, after a warm-up (on a tenth of the spots where there is one repeat only).
    seed
        Of the views.
    threads
        Of torch.
    save
        .npz file for value and gradient.
    dtype
        Of the computation; the views are drawn in float32 whatever it is.
    """
    import statistics
    import time

    import numpy as np
    import torch

    from stscale.losses import telescope
    from stscale.threads import set_threads

    set_threads(threads)
    function = {"gram": telescope.telescope_gram, "block": telescope.telescope_block}[form]
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=generator)
    views = [v.to(getattr(torch, dtype)) for v in (z, z + NEAR * torch.randn(n, d, generator=generator))]

    def once(rows: int) -> tuple[float, float, list[Any]]:
        leaves = [v[:rows].clone().requires_grad_() for v in views]
        start = time.perf_counter()
        value = function(*leaves)
        value.backward()
        return time.perf_counter() - start, value.item(), [v.grad.numpy() for v in leaves]

    once(n if repeats > 1 else max(n // 10, 2))
    seconds = []
    for _ in range(repeats):
        taken, value, gradient = once(n)
        seconds.append(taken)
    np.savez(save, value=value, gradient=np.stack(gradient))
    return {"seconds": seconds, "median": statistics.median(seconds), "value": value}


def difference(first: str, second: str) -> dict[str, float]:
    """Return the relative difference of values and of gradients (Frobenius norm) of two .npz files."""
    import numpy as np

    with np.load(first) as a, np.load(second) as b:
        value = abs(float(a["value"]) - float(b["value"])) / abs(float(b["value"]))
        reference = b["gradient"].astype(np.float64)
        gradient = np.linalg.norm(a["gradient"] - reference) / np.linalg.norm(reference)
    return {"value": value, "gradient": float(gradient)}


def compare(n: int, d: int, repeats: int, seed: int, threads: int) -> dict[str, Any]:
    """Measure both forms at one size, each in a process of its own."""
    entry: dict[str, Any] = {"n": n, "d": d}
    with tempfile.TemporaryDirectory(prefix="stscale-telescope-") as folder:
        files = {form: str(Path(folder) / f"{form}.npz") for form in ("gram", "block", "exact")}
        common = {"n": n, "d": d, "seed": seed, "threads": threads}
        for form in ("gram", "block"):
            times = 1 if form == "block" and n >= LARGE else repeats
            given = {**common, "form": form, "repeats": times, "save": files[form]}
            done = call("benchmarks.telescope:measure", given, threads=threads)
            entry[form] = {**done.value, "repeats": times, "peak_rss_mib": done.peak_rss_mib}
        given = {**common, "form": "block", "repeats": 1, "save": files["exact"], "dtype": "float64"}
        call("benchmarks.telescope:measure", given, threads=threads)
        for name, first, second in (
            ("relative_difference", "gram", "block"),
            ("gram_error", "gram", "exact"),
            ("block_error", "block", "exact"),
        ):
            given = {"first": files[first], "second": files[second]}
            entry[name] = call("benchmarks.telescope:difference", given, threads=threads).value
    entry["ratio"] = entry["block"]["median"] / entry["gram"]["median"]
    return entry


def main() -> None:
    """Measure every size and write the result file."""
    from stscale.threads import available_cores

    parser = argparse.ArgumentParser(prog="python -m benchmarks.telescope", description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=[2_000, 5_000, 20_000])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/telescope.json")
    parser.add_argument("--smoke", action="store_true", help="small sizes: does it run?")
    given = parser.parse_args()
    path = out_path(given.out, "telescope.json", smoke=given.smoke)
    threads = given.threads or available_cores()
    results: dict[str, Any] = {
        "what": f"seconds for value and gradient, float32, views {NEAR:g} apart; relative_difference is gram "
        "against block, the errors are against the block form in float64",
        "environment": environment(threads),
        "smoke": given.smoke,
        "sizes": [],
    }
    for n in [200, 1000] if given.smoke else given.sizes:
        entry = compare(n, given.width, given.repeats, given.seed, threads)
        results["sizes"].append(entry)
        say(
            f"n {n}: block {entry['block']['median']:.4g} s, gram {entry['gram']['median']:.4g} s, "
            f"ratio {entry['ratio']:.1f}, difference {entry['relative_difference']['value']:.1e}"
        )
        write_results(path, results)
    say(f"written: {path}")


if __name__ == "__main__":
    main()
