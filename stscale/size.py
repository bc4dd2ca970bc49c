"""Amounts of memory as people write them."""

import re

from stscale.errors import InputError

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def bytes_of(text: str, what: str) -> int:
    """Read "8G", "750M", "1.5 GiB" or plain bytes.

    Parameters
    ----------
    text
        Number and unit; K, M, G, T are powers of 1 024, with or without "B" or "iB".
    what
        What it is, for the error.

    Raises
    ------
    InputError
        When it is not a positive amount.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, flags=re.IGNORECASE)
    amount = float(found[1]) * UNITS[found[2].upper()] if found else 0.0
    if amount < 1:
        raise InputError(f"{what} = {text!r}: expected an amount of memory such as 8G or 750M")
    return int(amount)


def said(amount: float) -> str:
    """Write bytes with a unit that `bytes_of` reads."""
    for unit in ("T", "G", "M"):
        if amount >= UNITS[unit]:
            return (
                f"{amount / UNITS[unit]:.3g}{unit}"
                if amount < 1000 * UNITS[unit]
                else f"{amount / UNITS[unit]:.0f}{unit}"
            )
    return f"{amount / UNITS['K']:.0f}K"
