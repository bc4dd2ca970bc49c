"""Slices → one frame: matches, transforms, transport refinement, warps, stacks."""

from stscale.alignment.anchor_plan import AnchorPlan, anchor_plan, estimate_overlap
from stscale.alignment.anchors import Anchors, make_anchors
from stscale.alignment.match import Matches, match
from stscale.alignment.pair import PairResult, align_pair
from stscale.alignment.pairs import PairList
from stscale.alignment.refine import Refined, refine
from stscale.alignment.robust import RobustFit, robust_fit
from stscale.alignment.stack import Stack, heights, solve_stack
from stscale.alignment.transform import Transform, procrustes
from stscale.alignment.view import Cloud, SliceView, channels
from stscale.alignment.warp import Warp, fit_warp, thin_plate

__all__ = [
    "AnchorPlan",
    "Anchors",
    "Cloud",
    "Matches",
    "PairList",
    "PairResult",
    "Refined",
    "RobustFit",
    "SliceView",
    "Stack",
    "Transform",
    "Warp",
    "align_pair",
    "anchor_plan",
    "channels",
    "estimate_overlap",
    "fit_warp",
    "heights",
    "make_anchors",
    "match",
    "procrustes",
    "refine",
    "robust_fit",
    "solve_stack",
    "thin_plate",
]
