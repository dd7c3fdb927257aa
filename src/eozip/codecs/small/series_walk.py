"""The walk over the dates of a series, which coding and forecasting share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from eozip.codecs.small.linear_entropy import Code
from eozip.codecs.small.temporal_entropy import Date, TimeEntropy
from eozip.entropy.fixed_point import ExactArithmetic

PAST = 12  # dates that one looks back: bounds time and memory of long chunks

DateCode = TypeVar("DateCode", bound=Code)


def walked(
    entropy: TimeEntropy,
    codes: Iterable[DateCode],
    t: Tensor,
    size: tuple[int, int],
    arithmetic: ExactArithmetic,
    groups: int | None = None,
    rest: bool = True,
) -> Iterator[tuple[DateCode, Tensor]]:
    """Walks a `Code` for every date, one after the other, each from those before it -> the code, y_hat [1, M, h, w].

    Args:
        entropy: the model.
        codes: taken one at a time.
        t: level [1].
        size: latent h, w.
        arithmetic: exact.
        groups, rest: see `LinearEntropy.traverse`.
    """
    past: list[Date] = []
    for code in codes:
        y_hat, date = entropy.traverse_after(past, code, t.double(), size, arithmetic, groups, rest)
        past = [*past, date][-PAST:]
        yield code, y_hat.float()


def grown(flags: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Flags [T, h, w] of the padded grid: cells of padding repeat the last row and column."""
    h, w = flags.shape[1:]
    return torch.from_numpy(np.pad(flags, ((0, 0), (0, size[0] - h), (0, size[1] - w)), mode="edge"))
