"""A tour of stscale in Python: made-up slices → one embedding → domains → one frame → a new slice → the report.

Run it as it is (`python docs/tutorial.py [FOLDER]`), or open it in an editor that knows `# %%` cells. It takes some
seconds; everything it makes goes into FOLDER, `tutorial` unless told otherwise.
"""

# %% [markdown]
# ## Slices
#
# Any mix of `.h5ad`, AnnData or SpatialData `.zarr` and 10x Visium folders will do, with raw counts and the coordinates
# in `obsm["spatial"]`. Here four slices are simulated, because then the truth is known: every spot has its true domain
# in `obs["domain"]`, and each slice was turned and shifted on its slide, with a batch effect of its own.

# %%
import sys
from pathlib import Path

import numpy as np

import stscale

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "tutorial")
*slices, new_slice = stscale.simulate(folder / "slices", slices=4, spots=500, genes=200, seed=7)
print("slices:", *(path.name for path in slices), "- and one that the model will not see:", new_slice.name)

# %% [markdown]
# ## Options
#
# All options have defaults that suit tissue of thousands to millions of spots; `stscale config` prints each with its
# meaning. They are frozen: `replace` gives a changed copy, and refuses what does not exist. The slices here are tiny,
# so a small network and a few steps are enough. `output.counts` puts the raw counts into the result, for tools that
# want expression next to the embedding.

# %%
config = stscale.Run().replace(
    {
        "run": {"seed": 0, "threads": 1},
        "preprocess": {"n_hvg": 150, "n_pcs": 20},
        "spotscape": {"hidden": 32, "latent": 16},
        "sample": {"batch_size": 512},
        "train": {"steps": 40},
        "domains": {"k": 7, "n_init": 3},
        "align": {"rotations": 24, "starts": 3, "refine": False},
        "output": {"counts": True},
        "report": {"umap": False, "markers": False},  # both are worth their seconds on real tissue
    }
)

# %% [markdown]
# ## Integrate
#
# One call: genes, principal components, graphs, training, an exact embedding of every spot, domains, the report. No
# step sees `obs["domain"]`. The run folder keeps each stage: the same call again would do nothing, and a call that was
# interrupted goes on where it stopped.

# %%
result = stscale.integrate(slices, out=folder / "run", config=config)
print(f"{result.n} spots of {len(result.slices)} slices, {result.k} domains, in {result.path}")

adata = result.adata()  # an AnnData like any other
print(adata.obs.groupby("stscale_slice", observed=True)["stscale_domain"].nunique().to_dict())
assert adata.obsm["X_stscale"].shape == (result.n, 16)

# %% [markdown]
# ## Metrics
#
# The only place that reads an annotation. Without one, `evaluate(run)` still tells how well slices are mixed and how
# coherent domains are in space.

# %%
scores = stscale.evaluate(result.path, labels="domain")
print(f"adjusted Rand index, all slices jointly: {scores['labels']['ari']:.2f}")

# %% [markdown]
# ## Align
#
# The run's slices into one frame, each on the one before it, by what the embedding says is alike. The transforms are in
# `transforms.json`, the correspondences in `matches.parquet`, the positions in `obsm["spatial_aligned"]`. Of simulated
# slices it is known where every spot belongs, up to where the frame lies as a whole, which is the first slice's.

# %%
aligned = stscale.align(result.path)
adata = aligned.adata()
for pair in aligned.alignment.pairs:
    print(f"{pair.source} on {pair.target}: credible {pair.credible}, {pair.transform.rotation_degrees:.0f}° turned")


def spread(position: np.ndarray) -> float:
    """Mean distance between spots of the first slice and their nearest of the second, in the coordinates given."""
    from scipy.spatial import cKDTree

    first, second = (position[(adata.obs["stscale_slice"] == name).to_numpy()] for name in result.slices[:2])
    return float(cKDTree(second).query(first)[0].mean())


before, after = spread(adata.obsm["spatial"]), spread(adata.obsm["spatial_aligned"])
print(f"nearest spot of the next slice: {before:.0f} µm away before, {after:.0f} µm after")

# %% [markdown]
# ## A new slice
#
# The trained model embeds and labels a slice it never saw, with a confidence for every spot and a verdict for the
# slice: *novel* says that it shows something the run does not know, and should be integrated with the others.

# %%
mapped = stscale.map_slices(result.path, [new_slice], out=folder / "mapped", threads=1)
told = mapped.slices[0]
print(f"{told.name}: {told.verdict.verdict}, median confidence {told.verdict.confidence:.2f}, domains {told.domains}")
for reason in told.verdict.reasons:
    print("  because", reason)

# %% [markdown]
# ## Further
#
# - `stscale.trajectory(run, root="0")`: pseudotime from a domain, in `obs["stscale_pseudotime"]`.
# - `stscale.impute(run, ["GENE"])`: a gene at every spot, as the embedding tells it.
# - `stscale.transfer(run, labels=["domain"])`: labels from slice to slice, through the correspondences.
# - `stscale.export(run, out=...)`: everything written back as SpatialData, images in the common frame included.
#
# And on with any tool that reads AnnData: `scanpy.pp.neighbors(adata, use_rep="X_stscale")`.
#
# ## Report
#
# `integrate` and `align` have written it already; it can be drawn anew from the run folder alone.

# %%
page = stscale.write_report(result.path)
print("open", page)
