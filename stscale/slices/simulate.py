"""Slices of an imaginary tissue with known domains, batch effects and transforms, streamed to disk.

Counts of spot i and gene g follow a negative binomial with mean ``ℓ_i ρ_{d(i),g} exp(γ_g·f(p_i))`` and
dispersion θ (variance ``m + m²/θ``): ℓ the spot's depth, ρ the slice's profile of domain d, f two smooth
functions of the position p, γ the gene's gradient. Every block of counts has a generator of its own, so
that no block depends on how many were made before, by whom, or where the store cuts its chunks.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.atomic import atomic_path
from stscale.config import Ingest, Simulate
from stscale.errors import InputError
from stscale.slices.expression import Expression, negative_binomial
from stscale.slices.hilbert import hilbert_order
from stscale.slices.tissue import Placement, Tissue, extent_um, generator
from stscale.slices.writer import StoreWriter

TRUTH = "truth.json"
FORMAT = "stscale-simulation-1"
BLOCK = 1024  # rows made at a time; part of what a seed means, so independent of any store's chunk
MIN_SPOTS = 50
MIN_GENES = 50  # fewer cannot be integrated: the gene vocabulary needs 50
_SPOTS, _BATCH, _COUNTS = 4, 5, 6  # first number of the spawn keys; 0 to 3 are the tissue's and the genes'


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of a slice but its counts; n spots in the order of the lattice.

    Attributes
    ----------
    index
        Place of the slice in the series.
    placement
        The true transform.
    true_um, spatial_um : (n, 2) float64
        Positions in the common frame and on the slide, µm.
    domain : (n,) int64
        True domain.
    fields : (n, 2) float64
        f at each spot.
    depth : (n,) float64
        ℓ; 0 for a spot made empty.
    order : (n,) int64
        Row of each store position.
    batch_log_effect : (g,) float64
        Log effect of the slice on each gene.
    """

    index: int
    placement: Placement
    true_um: NDArray[np.float64]
    spatial_um: NDArray[np.float64]
    domain: NDArray[np.int64]
    fields: NDArray[np.float64]
    depth: NDArray[np.float64]
    order: NDArray[np.int64]
    batch_log_effect: NDArray[np.float64]

    @classmethod
    def build(cls, *, seed: int, index: int, spots: int, genes: int, tissue: Tissue, config: Simulate) -> "Plan":
        """Draw the plan that belongs to a seed and an index."""
        extent = extent_um(tissue, spots=spots, pitch_um=config.pitch_um)
        placement = Placement.draw(
            seed=seed,
            index=index,
            extent_um=extent,
            overlap=config.overlap,
            rotation=config.rotation,
            shift=config.shift,
            scale=config.scale,
            warp=config.warp,
        )
        true = placement.lattice(tissue, spots=spots, pitch_um=config.pitch_um)
        spatial = placement.spatial(true)
        rng = generator(seed, _SPOTS, index)
        depth = config.library * np.exp(config.library_sd * rng.standard_normal(spots))
        depth[rng.permutation(spots)[: round(config.empty_fraction * spots)]] = 0.0
        return cls(
            index=index,
            placement=placement,
            true_um=true,
            spatial_um=spatial,
            domain=tissue.domain(true / extent),
            fields=tissue.fields(true / extent),
            depth=depth,
            order=hilbert_order(spatial),
            batch_log_effect=config.batch_effect * generator(seed, _BATCH, index).standard_normal(genes),
        )

    def blocks(
        self, *, seed: int, expression: Expression, dispersion: float, workers: int = 1
    ) -> Iterator[sparse.csr_matrix]:
        """Yield the counts (at most 1 024, g) float32 block by block in store order.

        At most ``workers + 1`` blocks exist at a time.
        """
        profile = expression.profile(self.batch_log_effect).astype(np.float32)
        graded = np.flatnonzero(expression.gradient.any(axis=0))
        gradient = expression.gradient[:, graded]

        def make(block: int) -> sparse.csr_matrix:
            rows = self.order[block * BLOCK : (block + 1) * BLOCK]
            mean = profile[self.domain[rows]]  # (b, g)
            mean *= self.depth[rows, None].astype(np.float32)
            mean[:, graded] *= np.exp(self.fields[rows] @ gradient).astype(np.float32)
            return negative_binomial(mean, dispersion, generator(seed, _COUNTS, self.index, block))

        return _in_order(make, -(-len(self.order) // BLOCK), workers)


def simulate(
    out: str | Path,
    *,
    slices: int,
    spots: int,
    genes: int,
    seed: int,
    config: Simulate = Simulate(),
    workers: int = 1,
) -> list[Path]:
    """Write a series of simulated slices and the truth about them.

    Parameters
    ----------
    out
        Folder for ``slice-00.zarr`` … and ``truth.json``. It appears only when all of it is written. It may
        exist when empty or when it holds an earlier simulation and nothing else; that is replaced.
    slices
        Number of slices. A slice depends on the seed and its index, not on how many there are.
    spots
        Spots of each slice, at least 50.
    genes
        Genes, at least 50.
    seed
        Not negative.
    config
        Geometry and noise.
    workers
        Threads that draw counts; the result is the same for any number.

    Returns
    -------
    list of Path
        The slice stores. Coordinates are micrometres; ``obs`` has the true ``domain`` and the position
        ``true_x``, ``true_y`` in the common frame, µm; ``var`` has the domain each gene marks (``marker``) and
        the slice's ``batch_log_effect``.

    Raises
    ------
    InputError
        If a number is too small or `out` holds something that is not a simulation.
    """
    for name, value, least in (
        ("slices", slices, 1),
        ("spots", spots, MIN_SPOTS),
        ("genes", genes, MIN_GENES),
        ("seed", seed, 0),
        ("workers", workers, 1),
    ):
        if value < least:
            raise InputError(f"{name} is {value}; a simulation needs {name} to be at least {least}")
    out = Path(out).resolve()
    _check_target(out)
    tissue = Tissue.build(seed=seed, kind=config.kind, domains=config.domains)
    expression = Expression.build(seed=seed, genes=genes, config=config)
    width = max(2, len(str(slices - 1)))
    names = [f"slice-{index:0{width}d}" for index in range(slices)]
    described = []
    with atomic_path(out) as part:
        part.mkdir()
        for index, name in enumerate(names):
            plan = Plan.build(seed=seed, index=index, spots=spots, genes=genes, tissue=tissue, config=config)
            blocks = plan.blocks(seed=seed, expression=expression, dispersion=config.dispersion, workers=workers)
            _write(part / f"{name}.zarr", name, plan, expression, blocks)
            described.append({"name": name, "file": f"{name}.zarr"} | _truth(plan, config))
        truth = {
            "format": FORMAT,
            "seed": seed,
            "slices": slices,
            "spots": spots,
            "genes": genes,
            "domains": _domain_names(config.domains),
            "unit": "um",
            "extent_um": extent_um(tissue, spots=spots, pitch_um=config.pitch_um),
            "config": asdict(config),
            "transforms": described,
        }
        (part / TRUTH).write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return [out / f"{name}.zarr" for name in names]


def _in_order(make: Callable[[int], sparse.csr_matrix], count: int, workers: int) -> Iterator[sparse.csr_matrix]:
    """Yield ``make(0)``, ``make(1)`` … in order; `workers` threads run ahead by as many blocks."""
    if workers == 1:
        yield from map(make, range(count))
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[sparse.csr_matrix]] = deque()
        for block in range(count):
            ahead.append(pool.submit(make, block))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _write(path: Path, name: str, plan: Plan, expression: Expression, blocks: Iterator[sparse.csr_matrix]) -> None:
    import pandas as pd

    spots, genes = len(plan.domain), len(expression.marker)
    labels = pd.Index(_domain_names(len(expression.abundance)))
    width, digits = max(6, len(str(spots))), max(4, len(str(genes)))
    obs = pd.DataFrame(
        {
            "domain": pd.Categorical.from_codes(plan.domain, categories=labels),
            "true_x": plan.true_um[:, 0],
            "true_y": plan.true_um[:, 1],
        }
    )
    var = pd.DataFrame(
        {
            "marker": pd.Categorical.from_codes(expression.marker, categories=labels),
            "batch_log_effect": plan.batch_log_effect,
        }
    )
    with StoreWriter(
        path,
        name=name,
        genes=np.array([f"gene-{gene:0{digits}d}" for gene in range(1, genes + 1)]),
        names=np.array([f"{name}_{spot:0{width}d}" for spot in range(1, spots + 1)]),
        coordinates=plan.spatial_um,
        order=plan.order,
        obs=obs,
        var=var,
        config=Ingest(),
        source="stscale simulate",
        source_bytes=0,
        unit="um",
        um_per_unit=1.0,
    ) as writer:
        for block in blocks:
            writer.append(block)


def _truth(plan: Plan, config: Simulate) -> dict[str, Any]:
    """Return what `truth.json` says about a slice: spatial = matrix · (p + warp(p)), p the true position."""
    placement, warp = plan.placement, plan.placement.warp
    low, high = placement.centre_um - placement.extent_um / 2, placement.centre_um + placement.extent_um / 2
    return {
        "matrix": placement.matrix.tolist(),
        "mirror": False,
        "rotation_degrees": float(np.rad2deg(placement.angle)),
        "scale": float(np.exp(placement.log_scale)),
        "warp": {
            "amplitude_um": warp.amplitude_um.tolist(),
            "frequency_per_extent": warp.frequency.tolist(),
            "phase": warp.phase.tolist(),
            "extent_um": warp.extent_um,
        },
        "window_um": {"x": [float(low[0]), float(high[0])], "y": [float(low[1]), float(high[1])]},
        "batch_effect": config.batch_effect,
    }


def _domain_names(count: int) -> list[str]:
    return [f"domain-{domain}" for domain in range(1, count + 1)]


def _check_target(out: Path) -> None:
    """Refuse a folder that holds anything a simulation did not write."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file; simulate writes a folder: give another path")
    known: set[str] = set()
    try:
        truth = json.loads((out / TRUTH).read_text(encoding="utf-8"))
        if truth["format"] == FORMAT:
            known = {TRUTH} | {entry["file"] for entry in truth["transforms"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no earlier simulation: then only an empty folder will do
    foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in known)
    if foreign:
        raise InputError(
            f"{out} holds {foreign[0]!r}, which is not part of a simulation; give an empty or a new folder"
        )
