"""Training: the loop, its checkpoints, and the exact embedding that follows."""

from stscale.training import checkpoint
from stscale.training.embed import embed
from stscale.training.fit import Task, fit, total_steps
from stscale.training.inputs import DenseInputs, Inputs, SparseInputs, pca_inputs, smoothed_targets

__all__ = [
    "DenseInputs",
    "Inputs",
    "SparseInputs",
    "Task",
    "checkpoint",
    "embed",
    "fit",
    "pca_inputs",
    "smoothed_targets",
    "total_steps",
]
