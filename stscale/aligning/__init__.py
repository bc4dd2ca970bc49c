"""The stages that follow an integration: slices into one frame, labels and genes through the plans."""

from stscale.aligning.stages import Aligning
from stscale.aligning.transfer import Transferring, carry_over

__all__ = ["Aligning", "Transferring", "carry_over"]
