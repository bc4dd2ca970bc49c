"""Loss terms: pure functions of tensors."""

from stscale.losses.pair_tensors import PairTensors
from stscale.losses.prototypes import granularity_sizes, prototype_contrast
from stscale.losses.reconstruction import masked_mse
from stscale.losses.scale_matching import scale_matching
from stscale.losses.spatial_pairs import SpatialPairs, draw_pairs, pair_weight
from stscale.losses.spatial_regularisation import spatial_regularisation
from stscale.losses.swapped_prediction import Targets, next_graph, next_marginal, swapped_prediction, swapped_targets
from stscale.losses.telescope import Grams, gram_value, grams, telescope_block, telescope_global, telescope_gram
from stscale.losses.views import info_nce, view_mse
from stscale.losses.zinb import zinb

__all__ = [
    "Grams",
    "PairTensors",
    "SpatialPairs",
    "Targets",
    "draw_pairs",
    "gram_value",
    "grams",
    "granularity_sizes",
    "info_nce",
    "masked_mse",
    "next_graph",
    "next_marginal",
    "pair_weight",
    "prototype_contrast",
    "scale_matching",
    "spatial_regularisation",
    "swapped_prediction",
    "swapped_targets",
    "telescope_block",
    "telescope_global",
    "telescope_gram",
    "view_mse",
    "zinb",
]
