"""quality.json: the label-free card of a run beside that of the untrained floor on the same spots."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stscale.config import Run

if TYPE_CHECKING:
    from stscale.graphs import Graph
    from stscale.slices.features import FeatureStore

FILE = "quality.json"
FORMAT = "stscale-quality-2"
ROWS = 8192

MEANINGS = {
    "seeds": "mean adjusted Rand index between mixtures of the embedding from different seeds of the mixture, on the "
    "same spots; the embedding is not trained again",
    "halves": "adjusted Rand index between the mixtures of two random halves of the tissue's tiles, mean over several "
    "divisions",
    "told": "share of the variance of single spots' components, in units of noise, that the domains of their "
    "neighbours tell; mean over the seeds",
    "log_likelihood": "of a spot under the likeliest of those mixtures, nats; in the scale of its own embedding",
    "bic": "of that mixture per spot; in the scale of its own embedding",
    "gain": "log-likelihood of a left-out spot under the mixture less that under one Gaussian, nats",
    "chaos": "mean distance to the nearest spot of the own domain, smaller is more continuous",
    "pas": "share of spots most of whose ten nearest lie in other domains, smaller is smoother",
    "ilisi": "mixing of the slices, 0 apart to 1 even",
}
SCALE_MEANING = (
    "error of predicting a spot's components from averages over its surroundings, itself left out (generalised "
    "cross-validation), by rounds of averaging over neighbours, in that of the best"
)


def quality(
    features: "FeatureStore",
    graph: "Graph",
    latents: NDArray[np.float32],
    domains: NDArray[np.integer],
    config: Run,
    scratch: Path,
) -> dict[str, Any]:
    """Return the card of a run, but for its `surroundings`.

    Parameters
    ----------
    features, graph
        Of the run; the floor is made of them.
    latents, domains
        (n, d) and (n,) of the run.
    config
        Its options.
    scratch
        Where the floor's rows go; the caller removes it.
    """
    from stscale.analysis.card import SEEDS, SPLITS, STARTS, Sample, measure, mixing
    from stscale.analysis.metrics_spatial import chaos, pas
    from stscale.analysis.told import Surroundings
    from stscale.analysis.verdict import judge
    from stscale.training.inputs import pca_inputs

    xy, group = features.xy(), features.slice()
    sample = Sample.draw(features.n, seed=config.seed)
    around = Surroundings(features.pca, graph.indptr, graph.indices)
    k = _domains_of_a_fit(domains, group, per_slice=config.domains.per_slice)
    given = {"k": k, "n_components": config.domains.n_components, "seed": config.seed}
    found: dict[str, Any] = {
        "format": FORMAT,
        "method": config.method,
        **given,
        "spots": features.n,
        "compared_on": {"mixtures": len(sample.fit), "coherence": len(sample.coherence), "mixing": len(sample.mixing)},
        "mixtures": {"covariance": "tied", "seeds": SEEDS, "divisions": SPLITS, "starts": STARTS},
        "run": {
            "chaos": chaos(xy, domains, group, rows=sample.coherence),
            "pas": pas(xy, domains, group, rows=sample.coherence),
        },
    }
    own = measure(latents, xy, group, sample, around, **given)
    found["embedding"] = asdict(own)
    if config.trains:
        smoothed = pca_inputs(features, graph, scratch, smooth=config.smooth.rounds)
        floor = measure(smoothed.array, xy, group, sample, around, **given)
        found["floor"] = {"rounds": config.smooth.rounds, **asdict(floor)}
        found |= asdict(judge(own, floor))
    else:
        found |= {"floor": None, "verdict": "floor", "sentence": "This run is the untrained floor itself."}
    found["components"] = {"ilisi": mixing(_components(features, sample.mixing), group[sample.mixing])}
    found["meanings"] = MEANINGS | {"scale": SCALE_MEANING}
    return found


def surroundings(scale: dict[str, Any], wider: dict[str, Any] | None) -> dict[str, Any]:
    """Say from how far around spots are predicted best, and what domains were found beside for that.

    Parameters
    ----------
    scale, wider
        As the stage of the domains recorded them: a `Scale` and, where there is one, a `Wider`.
    """
    from stscale.analysis.scale import Scale

    told = {**scale, "wider": wider}
    if wider is not None:
        gain = Scale(**{**scale, "losses": {int(r): loss for r, loss in scale["losses"].items()}}).gain
        told["sentence"] = (
            f"Averages over {wider['rounds']} rounds of neighbours predict spots {gain:.1%} better than those over "
            f"{scale['used']}: domains are found in both, the wider at {wider['weight']:.2f} of the others' variance."
        )
    return told


def _components(features: "FeatureStore", rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Read the principal components of some spots, (m, p), `rows` ascending; block by block."""
    parts = [np.empty((0, features.p), np.float32)]
    for lo in range(0, features.n, ROWS):
        first, last = np.searchsorted(rows, (lo, lo + ROWS))
        if last > first:
            parts.append(features.pca(lo, min(lo + ROWS, features.n))[rows[first:last] - lo])
    return np.concatenate(parts)


def _domains_of_a_fit(domains: NDArray[np.integer], group: NDArray[np.integer], *, per_slice: bool) -> int:
    """Count the domains, those of a slice where each was clustered alone (the median)."""
    if not per_slice:
        return int(domains.max()) + 1
    return int(np.median([len(np.unique(domains[group == i])) for i in np.unique(group)]))


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the card, whole or not at all."""
    from stscale.atomic import atomic_path

    with atomic_path(path) as part:
        part.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
