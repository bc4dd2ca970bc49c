"""The stages of an integration, from slices to the report."""

from stscale.integrating.learn import VIEWS
from stscale.integrating.stages import Integration

__all__ = ["VIEWS", "Integration"]
