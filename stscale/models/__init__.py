"""Networks: each a `Method`; `METHODS` says how one is made from a configuration, and what it reads."""

from stscale.models.method import Method, Minibatch
from stscale.models.mhal import Mhal
from stscale.models.recipes import METHODS, Recipe, Shape
from stscale.models.smooth import Smooth
from stscale.models.spotscape import Spotscape
from stscale.models.stmfg import Stmfg

__all__ = ["METHODS", "Method", "Mhal", "Minibatch", "Recipe", "Shape", "Smooth", "Spotscape", "Stmfg"]
