"""Codecs go to other processes: what they point to in memory is made anew there."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import eozip
from eozip.codecs import registry
from pyramidscenes import CODEC, FAST, FLEXIBLE, SERIES, season


@pytest.mark.parametrize("name", [CODEC, SERIES, FLEXIBLE, FAST])
def test_a_pickled_codec_codes_the_same_bytes(name: str) -> None:
    codec, x = registry.get(name), season((2, 3, 21, 18), {}, 1)
    blob = eozip.encode(x, codec, 60)
    eozip.decode(blob)  # what is only made when it is needed is there, too
    for other in (pickle.loads(pickle.dumps(codec)), copy.deepcopy(codec)):
        assert other is not codec
        assert (other.id, other.weights_hash) == (codec.id, codec.weights_hash)
        coded = other.encode(x.astype(np.float32), 60)
        assert coded.sections == codec.encode(x.astype(np.float32), 60).sections
        assert np.array_equal(other.decode(coded, x.shape, 60), codec.decode(coded, x.shape, 60))
        assert eozip.encode(x, other, 60) == blob
