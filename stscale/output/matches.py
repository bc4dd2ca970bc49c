"""matches.parquet: who corresponds to whom, one row per pair of spots."""

import gzip
import io
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

ROWS = 1 << 20
COLUMNS = ("source_slice", "target_slice", "source_row", "target_row", "probability")


class MatchTable:
    """Writes correspondences pair by pair, so that memory holds no more than a piece of one pair.

    Columns: `source_slice`, `target_slice` (names), `source_row`, `target_row` (int64, rows of integrated.zarr),
    `probability` (float32, of this target given the source: the rows of a source spot and a target slice sum to 1).

    Parameters
    ----------
    path
        The file. Parquet where its suffix says so, else gzipped CSV.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: Any = None

    @staticmethod
    def name() -> str:
        """Return the file's name: matches.parquet, or matches.csv.gz where pyarrow cannot be imported."""
        try:
            import pyarrow.parquet  # noqa: F401  # only whether it is there
        except ImportError:
            return "matches.csv.gz"
        return "matches.parquet"

    def __enter__(self) -> Self:
        if self.path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            names = pa.dictionary(pa.int32(), pa.string())
            self._schema = pa.schema(zip(COLUMNS, (names, names, pa.int64(), pa.int64(), pa.float32()), strict=True))
            self._writer = pq.ParquetWriter(self.path, self._schema, compression="zstd")
        else:
            self._writer = io.TextIOWrapper(gzip.open(self.path, "wb", compresslevel=3), encoding="utf-8", newline="")
            self._writer.write(",".join(COLUMNS) + "\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def append(
        self,
        source: str,
        target: str,
        source_row: NDArray[np.int64],
        target_row: NDArray[np.int64],
        probability: NDArray[np.floating],
    ) -> None:
        """Add the m correspondences of two slices; three (m,) arrays."""
        for lo in range(0, len(source_row), ROWS):
            part = slice(lo, lo + ROWS)
            rows = source_row[part], target_row[part], probability[part].astype(np.float32)
            if self.path.suffix == ".parquet":
                self._parquet(source, target, rows)
            else:
                self._csv(source, target, rows)

    def _parquet(self, source: str, target: str, rows: tuple[NDArray[Any], ...]) -> None:
        import pyarrow as pa

        zeros = np.zeros(len(rows[0]), np.int32)
        named = [pa.DictionaryArray.from_arrays(zeros, [name]) for name in (source, target)]
        self._writer.write_table(pa.table([*named, *map(pa.array, rows)], schema=self._schema))

    def _csv(self, source: str, target: str, rows: tuple[NDArray[Any], ...]) -> None:
        import pandas as pd

        frame = pd.DataFrame(
            {"source_slice": source, "target_slice": target, **dict(zip(COLUMNS[2:], rows, strict=True))}
        )
        frame.to_csv(self._writer, header=False, index=False)
