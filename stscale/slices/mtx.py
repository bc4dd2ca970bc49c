"""Matrix Market text, streamed: never more than one piece of it is in memory."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError


def open_text(path: Path) -> TextIO:
    """Open a text file that may be gzipped.

    Parameters
    ----------
    path
        The file; gzipped when its name ends with ``.gz``.
    """
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def mtx_entries(
    path: Path, *, shape: tuple[int, int], entries: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Stream the entries of a 10x ``matrix.mtx``.

    Parameters
    ----------
    path
        The file, gzipped or not.
    shape
        Features and barcodes that the files beside it name.
    entries
        Most entries in a piece.

    Yields
    ------
    barcode, feature, value : (m,) int64, int64, float32
        Counted from 0, in stored order.

    Raises
    ------
    InputError
        If it is not a general coordinate matrix of that shape, or is cut short.
    """
    import pandas as pd

    with open_text(path) as text:
        try:
            stored = _header(text, path, shape)
            seen = 0
            table = pd.read_csv(
                text,
                sep=r"\s+",
                header=None,
                names=["feature", "barcode", "value"],
                dtype={"feature": np.int64, "barcode": np.int64, "value": np.float64},
                chunksize=entries,
            )
            for piece in table if stored else ():
                feature, barcode = piece["feature"].to_numpy() - 1, piece["barcode"].to_numpy() - 1
                inside = (feature >= 0) & (feature < shape[0]) & (barcode >= 0) & (barcode < shape[1])
                if not inside.all():
                    raise InputError(f"{path} is damaged: an entry lies outside its {shape[0]} × {shape[1]}")
                seen += len(piece)
                with np.errstate(over="ignore"):  # becomes infinite and is refused by name
                    yield barcode, feature, piece["value"].to_numpy().astype(np.float32)
        except (EOFError, OSError, UnicodeDecodeError, pd.errors.ParserError) as error:
            raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}); is it whole?") from None
        except pd.errors.EmptyDataError:
            seen = 0
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} holds something that is not a number; is it whole?") from None
    if seen != stored:
        raise InputError(f"{path} is cut short: it names {stored} entries and has {seen}")


def mtx_stored(path: Path, *, shape: tuple[int, int]) -> int:
    """Return how many entries a ``matrix.mtx`` says it has; nothing but its first lines is read.

    Raises
    ------
    InputError
        As `mtx_entries`, of a damaged start.
    """
    with open_text(path) as text:
        try:
            return _header(text, path, shape)
        except (EOFError, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}); is it whole?") from None


def _header(text: TextIO, path: Path, shape: tuple[int, int]) -> int:
    """Read up to the size line; the number of entries."""
    banner = text.readline().split()
    if (
        len(banner) != 5
        or [word.lower() for word in banner[:3]] != ["%%matrixmarket", "matrix", "coordinate"]
        or banner[3].lower() not in ("integer", "real")
        or banner[4].lower() != "general"
    ):
        raise InputError(
            f"{path} starts with {' '.join(banner)[:60]!r}; expected a Matrix Market file of the kind "
            "'matrix coordinate integer general'"
        )
    line = text.readline()
    while line.startswith("%") or (line and not line.strip()):
        line = text.readline()
    sizes = line.split()
    if len(sizes) != 3 or not all(size.isdigit() for size in sizes):
        raise InputError(f"{path} has no size line; is it whole?")
    rows, columns, stored = (int(size) for size in sizes)
    if (rows, columns) != shape:
        raise InputError(
            f"{path} is {rows} × {columns}, but the files beside it name {shape[0]} features and {shape[1]} "
            "barcodes; give the folder as Space Ranger wrote it"
        )
    return stored
