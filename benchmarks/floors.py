"""The untrained floors: PCA → (Harmony) → mean over spatial neighbours, twice → Gaussian mixture.

A learned embedding that is not better than these has not earned its training time.
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stscale.config import Run
    from stscale.rundir import RunFolder
    from stscale.slices import Collection, FeatureStore
    from stscale.training import DenseInputs

SMOOTHING_ROUNDS = 2
HARMONY_ITERATIONS = 10


def floor(
    files: list[str],
    out: str,
    k: int,
    seed: int,
    threads: int,
    covariance: str,
    scale_genes: bool,
    center: str,
    harmony: bool,
    transform: str = "log",
    preset: str = "default",
) -> dict[str, Any]:
    """Write a finished run folder whose embedding is the floor's, so that it is scored like any other run.

    Parameters
    ----------
    files
        Slices.
    out
        Run folder, new.
    k
        Number of domains.
    seed
        Of PCA, Harmony and mixture.
    threads
        Of everything.
    covariance
        Of the mixture: tied or shrunk.
    scale_genes, center
        Of the PCA; see `stscale.config.Preprocess`.
    harmony
        Whether Harmony corrects the principal components for the slice before they are smoothed.
    transform
        What the components are of; see `stscale.config.Preprocess`.
    preset
        Whose other options hold (graph, number of components, starts of the mixture).

    Returns
    -------
    dict
        The settings that make the floor.
    """
    from stscale.analysis.domains import cluster
    from stscale.config import preset as options
    from stscale.output import write_integrated
    from stscale.rundir import RunFolder
    from stscale.threads import set_threads

    set_threads(threads)
    # a plain mixture; the row of method smooth has the domains of a run
    changes = {
        "run": {"seed": seed, "threads": threads},
        "preprocess": {"scale_genes": scale_genes, "center": center, "transform": transform, "axes": "spots"},
        "domains": {"method": "gmm", "k": k, "covariance": covariance, "moves": 0, "spatial": 0.0},
    }
    config = options(preset).replace(changes)
    run = RunFolder(Path(out))
    collection, features = features_of(files, run, config)
    z = _smoothed(features, run.file("scratch"), config, harmony=harmony)
    labels = cluster(z, config.domains, seed=seed).labels
    with run.stage("write", "floor"):
        write_integrated(run.file("integrated.zarr"), collection, features, z, labels, {})
    return {"graph": asdict(config.graph), "n_pcs": features.p, "genes": features.g, "domains": asdict(config.domains)}


def features_of(files: list[str], run: "RunFolder", config: "Run") -> "tuple[Collection, FeatureStore]":
    """Ingest the slices and compute their principal components, as the pipeline does."""
    from stscale.slices import Collection, SliceStore, build_features, ingest
    from stscale.slices.sources import slice_name

    stores = [run.file("slices", f"{slice_name(Path(f))}.zarr") for f in files]
    for source, store in zip(files, stores, strict=True):
        ingest(Path(source), store, config=config.ingesting)
    pre = config.preprocess
    collection = Collection.build(
        [SliceStore.open(s) for s in stores], genes=pre.genes, min_shared=pre.min_shared_genes
    )
    path = run.file("features.zarr")
    return collection, build_features(collection, path, config=pre, seed=config.seed, workers=config.threads)


def _smoothed(features: "FeatureStore", scratch: Path, config: "Run", *, harmony: bool) -> NDArray[np.float32]:
    """Average the principal components, corrected or not, over each spot and its neighbours."""
    from stscale.graphs import spatial_graph
    from stscale.training import pca_inputs
    from stscale.training.inputs import smoothed

    graph = spatial_graph(features.xy(), features.offsets(), config.graph)
    inputs = pca_inputs(features, graph, scratch, smooth=0)
    if harmony:
        _harmonise(inputs, features, seed=config.seed, threads=config.threads)
    for r in range(SMOOTHING_ROUNDS):
        inputs = smoothed(inputs, graph, scratch / f"floor-{r + 1}.f32")
    z = np.array(inputs.array)
    shutil.rmtree(scratch)
    return z


def _harmonise(inputs: "DenseInputs", features: "FeatureStore", *, seed: int, threads: int) -> None:
    """Replace the principal components by Harmony's."""
    import harmonypy
    import pandas as pd

    slices = pd.DataFrame({"slice": np.array(features.slice_names)[features.slice()]})
    found = harmonypy.run_harmony(
        np.array(inputs.array, dtype=np.float64),
        slices,
        ["slice"],
        max_iter_harmony=HARMONY_ITERATIONS,
        random_state=seed,
        ncores=threads,
        verbose=False,
    )
    inputs.array[:] = oriented(np.asarray(found.Z_corr), (features.n, features.p))


def oriented(z: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Return Harmony's result as (spots, components); its releases differ in the orientation.

    Raises
    ------
    ValueError
        When it fits neither way, or holds numbers that are not finite.
    """
    z = z if z.shape == shape else z.T
    if z.shape != shape or not np.isfinite(z).all():
        raise ValueError(f"Harmony returned {z.shape}, expected finite {shape}")
    return z
