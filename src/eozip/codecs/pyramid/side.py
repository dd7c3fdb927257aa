"""Side information: small integers through the same port as everything else."""

from __future__ import annotations

import math

import numpy as np

from eozip.entropy.range_coder import Port, Tables
from eozip.errors import FormatError

SCALE_MIN, ROWS_PER_NAT, ROWS = -5.0, 8, 104  # log scales of the rows of the tables: -5, -4.875, ... 7.875


def row_of(spread: float) -> int:
    """The table row for integers of about this standard deviation."""
    scale = math.log(max(spread, 0.1) * math.sqrt(3) / math.pi)  # of a logistic
    return min(ROWS - 1, max(0, round((scale - SCALE_MIN) * ROWS_PER_NAT)))


class Side:
    """Sends integers (an encoder's) or reads them (a decoder's).

    Args:
        port: of the coder.
        tables: rows of `ROWS` scales.
    """

    def __init__(self, port: Port, tables: Tables) -> None:
        self.port, self.tables = port, tables

    def integers(self, wanted: np.ndarray | None, count: int, spread: float) -> np.ndarray:
        """int32 [count], under the row for their spread."""
        return self.rows(wanted, np.full(count, row_of(spread), np.uint8))

    def rows(self, wanted: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """int32 [n], each under its row."""
        symbols = None if wanted is None else np.asarray(wanted, np.int32).ravel()
        return self.port.code(symbols, rows, self.tables)

    def bounded(
        self, wanted: np.ndarray | None, count: int, *, spread: float, first: int, last: int, middle: int = 0
    ) -> np.ndarray:
        """int32 [count] in first..last, about `middle`.

        Raises:
            FormatError: other values, which no encoder writes.
        """
        values = (
            self.integers(None if wanted is None else np.asarray(wanted) - middle, count, spread).astype(
                np.int64
            )
            + middle
        )
        if count and (values.min() < first or values.max() > last):
            raise FormatError(
                f"side information: expected {first}..{last}, got {values.min()}..{values.max()}; the bytes are damaged"
            )
        return values.astype(np.int32)
