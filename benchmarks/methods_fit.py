"""One integration with any method, and the best of its checkpoints by the true labels; both run in a child."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STARTS = 10
"""Of the mixture of a checkpoint; more would take most of the time."""
STAGES = ("views", "train", "embed", "domains")
"""Of which the seconds of a method consist; reading slices is the same for all."""


def fit(
    files: list[str], out: str, k: int, seed: int, threads: int, changes: dict[str, dict[str, Any]], every: int
) -> dict[str, Any]:
    """Integrate, and keep a copy of a checkpoint every so many steps.

    Parameters
    ----------
    files, out, k, seed, threads
        Slices, run folder, number of domains, seed, CPU threads.
    changes
        {section: {option: value}} over the defaults.
    every
        Steps between kept checkpoints; 0 keeps none.

    Returns
    -------
    dict
        seconds (of the method's own stages), steps (0: nothing is trained), k.
    """
    from stscale import Run, integrate
    from stscale.rundir import read_manifest

    own = {"run": {"seed": seed, "threads": threads, "device": "cpu"}, "domains": {"k": k}}
    config = Run().replace(own).replace(changes)
    if every:
        config = config.replace({"train": {"checkpoint_every": every}})
    kept = Path(out) / "kept"

    def keep(event: dict[str, Any]) -> None:
        if every and event["event"] in ("step", "stage"):
            kept.mkdir(parents=True, exist_ok=True)
            for path in (Path(out) / "checkpoints").glob("step-*.pt"):
                if not (kept / path.name).exists():
                    shutil.copy2(path, kept)

    result = integrate(files, out=out, config=config, observer=keep)
    stages = read_manifest(result.path)["stages"]
    seconds = sum(stages[name]["seconds"] for name in STAGES if name in stages)
    return {"seconds": seconds, "steps": stages.get("train", {}).get("steps", 0), "k": result.k}


def oracle(out: str, unlabelled: list[str], threads: int) -> list[dict[str, float]]:
    """Embed and cluster every kept checkpoint of a run, and score it against the annotation `domain`.

    This looks at the true labels to tell what choosing the epoch by them would gain; no fit is changed by it.

    Returns
    -------
    list of dict
        step and ari of each kept checkpoint.
    """
    import torch

    from stscale.analysis.beside import beside_components
    from stscale.analysis.domains import beside_neighbors, cluster
    from stscale.analysis.metrics import ari
    from stscale.analysis.scale import spatial_scale
    from stscale.config import load
    from stscale.graphs import load as load_graph
    from stscale.integrating import VIEWS
    from stscale.models import METHODS
    from stscale.slices.features import FeatureStore
    from stscale.threads import set_threads
    from stscale.training import embed
    from stscale.training.job import Job, prepared

    set_threads(threads)
    run = Path(out)
    config = load(run / "config.toml")
    features = FeatureStore.open(run / "features.zarr")
    paths = tuple(run / name for name in (VIEWS if METHODS[config.method].views else ("graph.npz",)))
    graphs = [load_graph(path) for path in paths]
    spatial = load_graph(run / "graph.npz")
    given = annotation(run, features.row(), features.slice(), unlabelled)
    job = Job(
        config=config,
        features=features.path,
        graphs=paths,
        scratch=run / "oracle",
        checkpoints=run / "oracle-checkpoints",
        digest="",
    )
    few = {"method": "gmm", "n_init": min(STARTS, config.domains.n_init)}
    domains = config.replace({"domains": few}).domains
    scale = spatial_scale(features.pca, spatial.indptr, spatial.indices, used=config.smooth.rounds, seed=config.seed)
    device = torch.device("cpu")
    training = prepared(job, device, features, graphs)
    found = []
    for path in sorted((run / "kept").glob("step-*.pt")):
        content = torch.load(path, weights_only=True)
        training.method.load_state_dict(content["state"]["method"])
        z = embed(training.method, training.inputs, graphs, run / "oracle" / path.stem, device=device)
        seen = beside_components(
            config, features, spatial, np.array(z.array), run / "oracle" / "domains", wider=scale.wider(domains.wider)
        )
        fit = cluster(seen, domains, seed=config.seed)
        if domains.spatial:
            fit = beside_neighbors(fit, seen, spatial.indptr, spatial.indices, strength=domains.spatial)
        found.append({"step": content["step"], "ari": ari(given, fit.labels.astype(object))})
    return found


def annotation(
    run: Path, row: NDArray[np.int64], group: NDArray[np.int32], unlabelled: list[str]
) -> NDArray[np.object_]:
    """Return the annotation `domain` of each fit spot, (n_fit,), in the order of the features."""
    from stscale.rundir import read_manifest
    from stscale.slices import SliceStore, is_store
    from stscale.slices.sources import slice_name

    parts = []
    for i, entry in enumerate(read_manifest(run)["inputs"]):
        path = Path(entry["path"])
        store = SliceStore.open(path if is_store(path) else run / "slices" / f"{slice_name(path)}.zarr")
        parts.append(store.obs()["domain"].astype(object).to_numpy()[row[group == i]])
    given = np.concatenate(parts)
    given[np.isin(given, unlabelled)] = None
    return given
