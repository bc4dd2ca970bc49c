"""Slices → one frame: matches, transforms, warps, stacks."""

from stscale.alignment.match import Matches, match
from stscale.alignment.pair import PairResult, align_pair
from stscale.alignment.pairs import PairList
from stscale.alignment.robust import RobustFit, robust_fit
from stscale.alignment.stack import Stack, heights, solve_stack
from stscale.alignment.transform import Transform, procrustes
from stscale.alignment.view import Cloud, SliceView, channels
from stscale.alignment.warp import Warp, fit_warp, thin_plate

__all__ = [
    "Cloud",
    "Matches",
    "PairList",
    "PairResult",
    "RobustFit",
    "SliceView",
    "Stack",
    "Transform",
    "Warp",
    "align_pair",
    "channels",
    "fit_warp",
    "heights",
    "match",
    "procrustes",
    "robust_fit",
    "solve_stack",
    "thin_plate",
]
