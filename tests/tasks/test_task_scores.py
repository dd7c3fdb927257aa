"""Scores of tasks: sums over sums, and intervals that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from eozip_lab.tasks.scores import difference, score
from eozip_lab.tasks.task import Tally


def tallies(values: np.ndarray, weight: float = 1.0) -> list[Tally]:
    return [Tally(f"p{k}", {"m": (v * weight, weight)}) for k, v in enumerate(values)]


def test_places_count_by_what_was_counted_there() -> None:
    found = score([Tally("a", {"m": (1, 1)}), Tally("b", {"m": (0, 3)}), Tally("c", {"m": (4, 4)})], "m")
    assert found.value == 5 / 8
    assert found.places == 3


def test_chips_of_one_place_are_resampled_together() -> None:
    one_place = [Tally("a", {"m": (k, 10)}) for k in range(8)]
    assert score(one_place, "m").low is None
    assert score(one_place, "m").places == 1


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        found = score(tallies(random.normal(0.5, 0.1, 40)), "m")
        covered += found.low <= 0.5 <= found.high
    assert covered >= 50


def test_differences_are_of_the_same_places() -> None:
    """Places differ much more than methods do: paired, the difference is certain all the same."""
    places = np.random.default_rng(2).random(30)
    found = difference(tallies(places + 0.01), tallies(places), "m")
    assert found.value == pytest.approx(0.01)
    assert found.low == pytest.approx(0.01)
    assert found.high == pytest.approx(0.01)


def test_places_of_one_side_only_do_not_count() -> None:
    found = difference(tallies(np.ones(5)), tallies(np.ones(4)), "m")
    assert found.places == 4


def test_nothing_counted_has_no_value() -> None:
    assert score([Tally("a", {"m": (0, 0)}), Tally("b", {})], "m").value is None


def test_all_alike_needs_no_resampling() -> None:
    found = score(tallies(np.ones(6)), "m")
    assert (found.low, found.value, found.high) == (1, 1, 1)
