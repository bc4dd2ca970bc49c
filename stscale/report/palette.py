"""Colours of domains and slices: the same number has the same colour in every figure and table."""

# The first eight are those of Okabe and Ito (2008), told apart with every common colour blindness. The others were
# chosen one by one as the colour farthest (OKLab, with normal sight and with deuteranopia) from all before it.
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#1A1A1A"),
    *("#8F0D57", "#6A570D", "#45DA8F", "#FFA2FF", "#5732A2", "#7D7DEC", "#8F578F", "#A28F57"),
    *("#FF7D6A", "#B43232", "#7DB41F", "#0D576A", "#FFB48F", "#6AECEC", "#C7B4DA", "#0D571F"),
    *("#8F6A57", "#6A8FB4", "#7DB48F", "#B4C76A", "#0D7D6A", "#6A57C7"),
)

LEFT_OUT = "#D4D4D4"
"""Spots that took no part in the fit."""


def palette(n: int) -> list[str]:
    """Return `n` colours "#RRGGBB"; beyond `len(COLOURS)` they repeat."""
    return [COLOURS[i % len(COLOURS)] for i in range(n)]
