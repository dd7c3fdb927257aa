"""Equal bytes: the search for a setting."""

from __future__ import annotations

import math

import pytest

from eozip_lab.tasks.matching import Knob, matched


def growing(setting: float) -> bytes:
    """Quality: finer is larger."""
    return bytes(round(300 * math.exp(0.05 * setting)))


def shrinking(setting: float) -> bytes:
    """CRF: finer is smaller."""
    return bytes(round(60_000 * math.exp(-0.09 * setting)))


@pytest.mark.parametrize("goal", [400, 2_000, 9_000, 30_000])
@pytest.mark.parametrize("first", [0, 50, 100])
def test_bytes_come_out_equal_for_a_quality(goal: int, first: float) -> None:
    _, data = matched(growing, goal, Knob(0, 100, 0.25), first)
    assert len(data) == pytest.approx(goal, rel=0.03)


@pytest.mark.parametrize("goal", [300, 3_000, 30_000])
def test_a_falling_setting_is_searched_the_other_way(goal: int) -> None:
    setting, data = matched(shrinking, goal, Knob(62, 1, 1), 31)
    assert setting == int(setting)
    assert abs(math.log(len(data) / goal)) <= 0.05


def test_what_cannot_be_reached_gives_the_nearest() -> None:
    setting, data = matched(growing, 10, Knob(0, 100, 0.25), 50)
    assert setting == 0
    assert len(data) == 300


def test_few_encodings_are_made() -> None:
    calls: list[float] = []

    def counted(setting: float) -> bytes:
        calls.append(setting)
        return growing(setting)

    matched(counted, 5_000, Knob(0, 100, 0.25), 10)
    assert len(calls) <= 7
    assert len(set(calls)) == len(calls)
