"""What a run leaves for other tools: integrated.zarr, and what alignment adds to it and beside it."""

from stscale.output.additions import add_obs, add_obsm, drop_obs, drop_obsm, obs_columns
from stscale.output.genes import write_genes
from stscale.output.integrated import output_rows, write_integrated, write_rows
from stscale.output.matches import MatchTable

__all__ = [
    "MatchTable",
    "add_obs",
    "add_obsm",
    "drop_obs",
    "drop_obsm",
    "obs_columns",
    "output_rows",
    "write_genes",
    "write_integrated",
    "write_rows",
]
