"""Every name a slice store or an integrated result uses on disk, once, with its unit."""

from typing import Final

FORMAT: Final = 1
"""Version of the slice store; a store of another version is refused."""

ATTRS: Final = "stscale"
"""Root attribute that holds the description of a store (a JSON object)."""

# --- obs of a slice store -----------------------------------------------------------------------------
ROW: Final = "stscale_row"
"""Row of the spot in the input, int64."""

TOTAL: Final = "stscale_total"
"""Sum of the spot's stored values over all genes, float64, in the unit of X."""

# --- var of a slice store -----------------------------------------------------------------------------
SUM: Final = "stscale_sum"
"""Sum of the gene's stored values over all spots, float64, in the unit of X."""

SUMSQ: Final = "stscale_sumsq"
"""Sum of the gene's squared stored values over all spots, float64, in the squared unit of X."""

OBS_RESERVED: Final = frozenset({ROW, TOTAL})
VAR_RESERVED: Final = frozenset({SUM, SUMSQ})

# --- obsm ---------------------------------------------------------------------------------------------
SPATIAL: Final = "spatial"
"""Coordinates as given, (n, 2 or 3) float64, in the input's unit."""

SPATIAL_ALIGNED: Final = "spatial_aligned"
"""Coordinates in the common frame after alignment, (n, 2) float64, µm where all sources tell, else the reference's."""

SPATIAL_3D: Final = "spatial_3d"
"""The same with the slice's height as third column, (n, 3) float64."""

# --- output of a run ----------------------------------------------------------------------------------
EMBEDDING: Final = "X_stscale"
"""Integrated embedding, obsm, (n, d) float32, no unit."""

DOMAIN: Final = "stscale_domain"
"""Predicted spatial domain, obs, categorical; missing for a spot left out of the fit."""

SLICE: Final = "stscale_slice"
"""Name of the slice a spot came from, obs, categorical."""

NAME: Final = "stscale_name"
"""Name of the spot in its slice, obs; only where slices share names, so that the index names the slice too."""

CONFIDENCE: Final = "stscale_confidence"
"""Of a mapped spot, obs, float64 in (0, 1]: share of held-out training spots as far from the training latents; NaN for
a spot without counts."""

PSEUDOTIME: Final = "stscale_pseudotime"
"""Diffusion pseudotime from a root domain, obs, float64 in [0, 1]; NaN for a spot that cannot be reached."""

TRANSFER: Final = "stscale_transfer_"
"""Start of the obs columns of labels carried over by alignment: this + column (categorical), and that + "_p". Columns
that start so belong to the latest transfer."""

USED: Final = "stscale_used"
"""Whether the run read the gene (highly variable), var of an output with counts, bool."""

GENE_IDS: Final = "gene_ids"
"""Stable gene identifiers beside the symbols, var, as scanpy names them."""
