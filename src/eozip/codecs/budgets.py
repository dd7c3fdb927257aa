"""Budgets of progressive streams: how many sections each date has, as asked for and as found in a stream."""

from __future__ import annotations

from collections.abc import Sequence

from eozip.codecs.base import Encoded
from eozip.errors import FormatError, InputError


def budget_of(quality: float, most: int) -> int:
    """Quality 0 to 100 > sections, 1 to `most`, in equal steps."""
    return 1 + round(quality / 100 * (most - 1))


def check_asked(budgets: Sequence[int], dates: int, most: int, unit: str) -> None:
    """Budgets that a caller asks for; `unit` is what they count, for the message.

    Raises:
        InputError: out of 0 .. most, 0 for the first date, or another number of them than of dates.
    """
    if len(budgets) != dates or not all(0 <= k <= most for k in budgets) or budgets[0] < 1:
        raise InputError(
            f"budgets: expected one of 0..{most} {unit} for each of {dates} dates, the first at least 1, "
            f"got {list(budgets)}"
        )


def check_stream(coded: Encoded, dates: int, most: int, unit: str) -> None:
    """Budgets, check values and sections of a stream, whole or cut.

    Raises:
        FormatError: they do not fit each other, or the dates.
    """
    budgets = coded.budgets
    if len(budgets) != dates or len(coded.checks) != dates:
        raise FormatError(
            f"expected a budget and a check value for each of {dates} dates, got {len(budgets)} and "
            f"{len(coded.checks)}; the stream is damaged or a date is missing"
        )
    if budgets[0] < 1 or max(budgets) > most:
        raise FormatError(f"expected budgets up to {most} {unit}, the first at least 1, got {list(budgets)}")
    if not 1 <= len(coded.sections) <= max(budgets):
        raise FormatError(
            f"expected 1..{max(budgets)} sections, as the budgets say, got {len(coded.sections)}; the stream "
            "is damaged, or cut before its first section was whole"
        )
