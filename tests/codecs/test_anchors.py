"""Which dates an encoder lets tell of others, where some send little or nothing."""

from __future__ import annotations

import numpy as np
import pytest

from eozip.codecs import registry
from eozip.codecs.level_map import NOTHING
from eozip.codecs.pyramid.anchors import anchors_of, coarser_of
from pyramidscenes import SERIES, season

DATES, SIDE = 4, 64
STEP = 300.0


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return season((DATES, 4, SIDE, SIDE), {}, 1).astype(np.float32)


@pytest.fixture(scope="module")
def first(pictures) -> int:
    """The date that tells most of the others where all are coded alike."""
    return anchors_of(pictures, STEP)[0]


def test_one_map_for_all_dates_changes_nothing(pictures) -> None:
    levels = np.broadcast_to(np.random.default_rng(0).integers(0, 8, (1, 4, 4)), (DATES, 4, 4))
    coarser = coarser_of(levels, [np.zeros((DATES, SIDE, SIDE), bool)], DATES)
    assert np.ptp(coarser) == 0
    assert anchors_of(pictures, STEP, coarser_of(0 * levels, None, DATES)) == anchors_of(pictures, STEP)


@pytest.mark.parametrize("level", [6, NOTHING])
def test_a_date_that_is_coded_coarsely_is_not_the_first(pictures, first, level) -> None:
    levels = np.zeros((DATES, 4, 4), np.uint8)
    levels[first] = level
    found = anchors_of(pictures, STEP, coarser_of(levels, None, DATES))
    assert found[0] != first
    assert level != NOTHING or first not in found


def test_a_date_that_shows_nothing_is_none(pictures, first) -> None:
    """It is filled to look like another, and so would seem to tell all of that one."""
    nothing, all_of_it = np.zeros((DATES, SIDE, SIDE), bool), np.ones((DATES, SIDE, SIDE), bool)
    one = nothing.copy()
    one[first] = True
    assert first not in anchors_of(pictures, STEP, coarser_of(None, [one, one], DATES))
    shown = coarser_of(None, [one, nothing], DATES)  # by bands of another grid
    assert anchors_of(pictures, STEP, shown) == anchors_of(pictures, STEP)
    others = ~one
    assert anchors_of(pictures, STEP, coarser_of(None, [others], DATES)) == (first,)
    assert anchors_of(pictures, STEP, coarser_of(None, [all_of_it], DATES)) != ()


@pytest.mark.parametrize("dates", [16, 17, 32])
def test_of_many_dates_none_that_shows_something_else_is_chosen(dates) -> None:
    """All pairs are looked at, or one date after the other; the place of a date makes no difference."""
    x = season((dates, 3, 32, 32), {}, 4).astype(np.float32)
    strangers = [0, dates // 2, dates - 1]
    x[strangers] = np.random.default_rng(1).uniform(0, 6000, (3, 3, 32, 32))
    found = anchors_of(x, STEP)
    assert 0 < len(found) <= 3
    assert len({*found}) == len(found)
    assert not {*found} & {*strangers}


def test_dropped_dates_before_others_cost_hardly_a_byte(pictures) -> None:
    codec, cells = registry.get(SERIES), np.zeros((DATES, SIDE // 8, SIDE // 8), bool)
    cells[:2] = True
    alone = sum(map(len, codec.encode(pictures[2:], 70).sections))
    assert sum(map(len, codec.encode_without(pictures, 70, cells).sections)) < 1.05 * alone
