"""Alignment of slices: correspondences between them."""

from stscale.alignment.anchor_plan import AnchorPlan, anchor_plan, estimate_overlap
from stscale.alignment.anchors import Anchors, make_anchors
from stscale.alignment.refine import Refined, refine

__all__ = ["AnchorPlan", "Anchors", "Refined", "anchor_plan", "estimate_overlap", "make_anchors", "refine"]
