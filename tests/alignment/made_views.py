"""Slices of the simulated tissue with surrogate latents: domain and gradients, smoothed by a little noise."""

import numpy as np

from stscale.alignment import SliceView, Transform
from stscale.config import Simulate
from stscale.slices.simulate import Plan
from stscale.slices.tissue import Tissue


def views(*, count=2, spots=1500, seed=0, noise=0.3, turn=0.0, **options):
    """Views, and the true transform of each: common frame → slice."""
    config = Simulate(**options)
    tissue = Tissue.build(seed=seed, kind=config.kind, domains=config.domains)
    made, truths = [], []
    for index in range(count):
        plan = Plan.build(seed=seed, index=index, spots=spots, genes=50, tissue=tissue, config=config)
        rng = np.random.default_rng([seed, index, 99])
        codes = np.random.default_rng(seed).standard_normal((config.domains, 12))
        z = codes[plan.domain] + plan.fields @ np.random.default_rng(1).standard_normal((2, 12)) * 0.3
        z = z + noise * rng.standard_normal(z.shape)
        own = Transform.from_parts(rotation(turn * index), np.zeros(2))
        made.append(SliceView.build(f"s{index}", own.apply(plan.spatial_um), z))
        kind = "similarity" if config.scale else "rigid"
        truths.append(own.compose(Transform(kind=kind, matrix=plan.placement.matrix)))
    return made, truths


def rotation(degrees):
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def errors(found, truth, view):
    """Degrees, and root mean square displacement in pitches."""
    from stscale.analysis import transform_error

    gap = transform_error(truth.linear, truth.shift, found.linear, found.shift, xy=view.xy)
    return gap.degrees, gap.distance / view.pitch
