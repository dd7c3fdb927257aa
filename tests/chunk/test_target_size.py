"""A chunk in so many bytes."""

from __future__ import annotations

import numpy as np
import pytest

import eozip
from eozip.chunk.candidates import SIZE_SLACK
from eozip.errors import InputError
from eozip.store.options import StoreOptions
from pyramidscenes import season


@pytest.fixture(scope="module")
def dn() -> np.ndarray:
    return season((2, 4, 64, 60), {}, 1)


@pytest.mark.parametrize("codec", ["tec-tt-small", "flextec-small"])
def test_a_chunk_takes_so_many_bytes_and_hardly_fewer(dn, codec):
    blob = eozip.encode(dn, codec, target_size=3000)
    assert (1 - 3 * SIZE_SLACK) * 3000 < len(blob) <= 3000
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


def test_a_store_names_its_own_way():
    with pytest.raises(InputError, match="size<"):
        StoreOptions(target_size=900)
