"""Loss terms: pure functions of tensors."""

from stscale.losses.prototypes import granularity_sizes, prototype_contrast
from stscale.losses.reconstruction import masked_mse
from stscale.losses.scale_matching import scale_matching
from stscale.losses.telescope import Grams, gram_value, grams, telescope_block, telescope_global, telescope_gram

__all__ = [
    "Grams",
    "gram_value",
    "grams",
    "granularity_sizes",
    "masked_mse",
    "prototype_contrast",
    "scale_matching",
    "telescope_block",
    "telescope_global",
    "telescope_gram",
]
