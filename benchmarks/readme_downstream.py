"""Tables of what is done with a finished run: mapped slices, trajectory, imputed genes."""

import statistics

from benchmarks.tables import Results, machine, table, targets

METHODS = {
    "regression": "stscale, `--by regression` (the default)",
    "decoder": "stscale, `--by decoder`",
    "pca_15": "floor: mean of the 15 nearest, principal components",
    "pca_50": "floor: mean of the 50 nearest, principal components",
    "smoothed_15": "floor: mean of the 15 nearest, smoothed components",
    "smoothed_50": "floor: mean of the 50 nearest, smoothed components",
    "latent_15": "mean of the 15 nearest, stscale's latents",
    "latent_50": "mean of the 50 nearest, stscale's latents",
    "pca_50_spatial": "50 nearest by components, then averaged over neighbours twice",
    "smoothed_50_spatial": "50 nearest by smoothed components, then averaged over neighbours twice",
    "latent_50_spatial": "50 nearest by latents, then averaged over neighbours twice",
    "own_neighbours": "*not to be had*: the gene's own values at the six neighbours",
}
CHANGES = {
    "panel": "{:.0%} of the genes",
    "genes": "gene names permuted",
    "programmes": "permuted among 50 genes of like abundance",
    "places": "positions permuted",
}


def downstream(results: Results) -> str:
    """Render what was measured, targets first."""
    head = f"{results['set']}, K = {results['k']} given, seed {results['seed']}; {machine(results)}:"
    parts = [head, targets(results["targets"])]
    if "map" in results:
        parts += [_folds(results["map"]), _changes(results["map"])]
    if "trajectory" in results:
        parts.append(_trajectory(results["trajectory"]))
    if "impute" in results:
        parts.append(_imputed(results["impute"]))
    return "\n\n".join(parts)


def _folds(found: Results) -> str:
    heads = ["slice", "ARI, joint run of all four", "ARI, mapped", "ARI, mapped with `--restat`"]
    heads += ["agreement with the joint run", "ARI of the three trained on", "median confidence", "verdict", "seconds"]
    rows, columns = [], []
    for fold in found["folds"]:
        frozen = fold["frozen"]
        numbers = [fold["joint"], frozen["ari"], fold["restat"]["ari"], frozen["agreement"], fold["trained"]["ari"]]
        columns.append(numbers)
        cells = [f"{v:.3f}" for v in numbers]
        rows.append(
            [fold["slice"], *cells, f"{frozen['confidence']:.2f}", frozen["verdict"], f"{frozen['seconds']:.1f}"]
        )
    mean = [f"{statistics.mean(column):.3f}" for column in zip(*columns, strict=True)]
    rows.append(["mean", *mean, "", "", ""])
    return f"Each slice mapped by the model of the other three:\n\n{table(heads, rows)}"


def _changes(found: Results) -> str:
    heads = ["slice changed", "ARI", "outside", "median confidence", "spread", "verdict"]
    rows = []
    for entry in [*found["panels"], *found["others"]]:
        cells = [CHANGES[entry["change"]].format(entry["share"]), f"{entry['ari']:.3f}", f"{entry['outside']:.0%}"]
        rows.append([*cells, f"{entry['confidence']:.2f}", f"{entry['spread']:.2f}", entry["verdict"]])
    name = found["panels"][0]["slice"]
    return f"The same for {name} with fewer genes, and made into other tissue:\n\n{table(heads, rows)}"


def _trajectory(found: Results) -> str:
    layers = found["median_time"]
    text = table([*layers], [[f"{time:.2f}" for time in layers.values()]])
    own = ", ".join(f"{name} {value:.3f}" for name, value in found["slices"].items())
    return (
        f"Pseudotime of the joint run from domain {found['root']} ({found['seconds']:.1f} s), Spearman with depth "
        f"{found['spearman']:.3f} ({own}); median by layer:\n\n{text}"
    )


def _imputed(found: Results) -> str:
    heads = ["imputed by", "median correlation over genes", "quarter with most counts", "with smoothed truth"]
    rows = []
    for key, title in METHODS.items():
        scores = found["methods"][key]
        rows.append(
            [title, *("" if scores[c] is None else f"{scores[c]:.3f}" for c in ("spots", "expressed", "smoothed"))]
        )
    return f"{found['genes']} genes hidden from {found['slice']}, imputed from the others:\n\n{table(heads, rows)}"
