"""tec-fp-small: no entropy network; linear forms of known values choose the table of every symbol.

The published TEC-FP checkpoints are codecs of `eozip.codecs.published`.
"""

from __future__ import annotations

from eozip import hub
from eozip.codecs.companion import WithCompanion, with_cirrus
from eozip.codecs.small_codec import SmallCodec
from eozip.codecs.small_files import load_small


def small_s2l2a_v1() -> SmallCodec:
    """tec-fp-small-s2l2a-v1, shipped."""
    return load_small(hub.shipped_path("tec-fp-small-s2l2a-v1"))


def small_s2l2a_v2() -> SmallCodec:
    """tec-fp-small-s2l2a-v2, shipped: on the transforms of tec-elic-small's third weights, and with closing fits."""
    return load_small(hub.shipped_path("tec-fp-small-s2l2a-v2"))


def small_s2l2a_v3() -> SmallCodec:
    """tec-fp-small-s2l2a-v3, shipped: on tec-elic-small's fourth weights; native grids, and fits with classes."""
    return load_small(hub.shipped_path("tec-fp-small-s2l2a-v3"))


def small_s2l1c_v1() -> WithCompanion:
    """tec-fp-small-s2l1c-v1: the same weights on the twelve bands that Level-1C shares with Level-2A, B10 beside them."""
    return with_cirrus("tec-fp-small-s2l1c-v1", small_s2l2a_v1())


def small_s2l1c_v2() -> WithCompanion:
    """tec-fp-small-s2l1c-v2: likewise with the second weights."""
    return with_cirrus("tec-fp-small-s2l1c-v2", small_s2l2a_v2())


def small_s2l1c_v3() -> WithCompanion:
    """tec-fp-small-s2l1c-v3: likewise with the third weights."""
    return with_cirrus("tec-fp-small-s2l1c-v3", small_s2l2a_v3())
