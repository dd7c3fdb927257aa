"""tec-elic-small: hyper-latent, pyramid of block averages, channel groups in two checkerboard passes.

The published TEC-ELIC checkpoints are codecs of `eozip.codecs.published`.
"""

from __future__ import annotations

from eozip import hub
from eozip.codecs.companion import WithCompanion, with_cirrus
from eozip.codecs.small_codec import SmallCodec
from eozip.codecs.small_files import load_small


def small_s2l2a_v1() -> SmallCodec:
    """tec-elic-small-s2l2a-v1, shipped."""
    return load_small(hub.shipped_path("tec-elic-small-s2l2a-v1"))


def small_s2l2a_v2() -> SmallCodec:
    """tec-elic-small-s2l2a-v2, shipped: the same network, trained longer."""
    return load_small(hub.shipped_path("tec-elic-small-s2l2a-v2"))


def small_s2l2a_v3() -> SmallCodec:
    """tec-elic-small-s2l2a-v3, shipped: trained longer again, and closing fits."""
    return load_small(hub.shipped_path("tec-elic-small-s2l2a-v3"))


def small_s2l2a_v4() -> SmallCodec:
    """tec-elic-small-s2l2a-v4, shipped: trained with more weight on visible bands; native grids, and fits with classes."""
    return load_small(hub.shipped_path("tec-elic-small-s2l2a-v4"))


def small_s2l1c_v1() -> WithCompanion:
    """tec-elic-small-s2l1c-v1: the same weights on the twelve bands that Level-1C shares with Level-2A, B10 beside them."""
    return with_cirrus("tec-elic-small-s2l1c-v1", small_s2l2a_v1())


def small_s2l1c_v2() -> WithCompanion:
    """tec-elic-small-s2l1c-v2: likewise with the second weights."""
    return with_cirrus("tec-elic-small-s2l1c-v2", small_s2l2a_v2())


def small_s2l1c_v3() -> WithCompanion:
    """tec-elic-small-s2l1c-v3: likewise with the third weights."""
    return with_cirrus("tec-elic-small-s2l1c-v3", small_s2l2a_v3())


def small_s2l1c_v4() -> WithCompanion:
    """tec-elic-small-s2l1c-v4: likewise with the fourth weights."""
    return with_cirrus("tec-elic-small-s2l1c-v4", small_s2l2a_v4())
