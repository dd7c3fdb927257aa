"""A chunk in so many bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

import eozip
from eozip.chunk.sizes import SLACK, largest_of_size
from eozip.errors import InputError
from pyramidscenes import season


@pytest.fixture(scope="module")
def dn() -> np.ndarray:
    return season((2, 4, 64, 60), {}, 1)


@pytest.mark.parametrize("codec", ["tec-tt-small", "flextec-small"])
def test_a_chunk_takes_so_many_bytes_and_hardly_fewer(dn, codec):
    blob = eozip.encode(dn, codec, target_size=3000)
    assert (1 - SLACK) * 3000 < len(blob) <= 3000
    assert eozip.decode(blob).shape == dn.shape


def test_more_than_the_best_quality_takes_is_the_best_quality(dn):
    assert len(eozip.encode(dn, target_size=10**9)) <= len(eozip.encode(dn, quality=99.99)) * 1.01


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target_size": 20}, "at least"),
        ({"target_size": 0}, "from 1"),
        ({"target_size": 2.5}, "whole number"),
        ({"target_size": 900, "quality": 3}, "two of them"),
        ({"target_size": 900, "max_error": 3}, "not both"),
        ({"target_size": 900, "codec": "lossless"}, "another codec"),
    ],
)
def test_sizes_that_cannot_be_are_named(dn, options, expected):
    with pytest.raises(InputError, match=expected):
        eozip.encode(dn, **options)


@dataclass(frozen=True)
class Sizes:
    size: int


@pytest.mark.parametrize("start", [0.0, 3.21, 60.0, 100.0])
@pytest.mark.parametrize("target", [1300, 40_000, 90_000, 740_000])
def test_a_search_ends_within_a_hundredth_wherever_it_begins(start, target):
    tried = []

    def made(quality: float) -> Sizes:
        tried.append(quality)
        return Sizes(round(1000 * math.exp(quality / 15) + 200 * math.sin(quality)))

    found = largest_of_size(target, made, start)
    assert (1 - SLACK) * target <= found.size <= target
    assert len(tried) <= 14


def test_a_search_over_a_gap_ends_below_it():
    found = largest_of_size(5000, lambda quality: Sizes(1000 if quality < 33.335 else 9000), 60.0)
    assert (found.quality, found.size) == (33.33, 1000)
