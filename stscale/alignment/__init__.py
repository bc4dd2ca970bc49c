"""Slices → one frame: matches, transforms, transport refinement, warps, stacks."""

from stscale.alignment.anchor_plan import AnchorPlan, anchor_plan, estimate_overlap
from stscale.alignment.anchors import Anchors, make_anchors
from stscale.alignment.links import joins, links
from stscale.alignment.match import Matches, match
from stscale.alignment.pair import PairResult, align_pair
from stscale.alignment.pairs import PairList
from stscale.alignment.record import Alignment, PairRecord, plan_path, read_alignment
from stscale.alignment.refine import Refined, refine
from stscale.alignment.robust import RobustFit, robust_fit
from stscale.alignment.run_slices import RunSlices
from stscale.alignment.stack import Stack, heights, solve_stack
from stscale.alignment.transfer import transfer_labels, transfer_values
from stscale.alignment.transform import Transform, procrustes
from stscale.alignment.view import Cloud, SliceView, channels
from stscale.alignment.warp import Warp, fit_warp, thin_plate

__all__ = [
    "Alignment",
    "AnchorPlan",
    "Anchors",
    "Cloud",
    "Matches",
    "PairList",
    "PairRecord",
    "PairResult",
    "Refined",
    "RobustFit",
    "RunSlices",
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
    "joins",
    "links",
    "make_anchors",
    "match",
    "plan_path",
    "procrustes",
    "read_alignment",
    "refine",
    "robust_fit",
    "solve_stack",
    "thin_plate",
    "transfer_labels",
    "transfer_values",
]
