"""flextec-small: tec-tt-small's networks, one stream for every rate.

The published FlexTEC checkpoints are codecs of `eozip.codecs.flextec`.
"""

from __future__ import annotations

from eozip import hub
from eozip.codecs.flex_codec import FlexCodec
from eozip.codecs.flex_files import load_flex


def small_s2l2a_v1() -> FlexCodec:
    """flextec-small-s2l2a-v1, shipped."""
    return load_flex(hub.shipped_path("flextec-small-s2l2a-v1"))


def small_s2l2a_v2() -> FlexCodec:
    """flextec-small-s2l2a-v2, shipped: on tec-tt-small's second weights."""
    return load_flex(hub.shipped_path("flextec-small-s2l2a-v2"))


def small_s2l2a_v3() -> FlexCodec:
    """flextec-small-s2l2a-v3, shipped: on tec-tt-small's third weights, with native grids."""
    return load_flex(hub.shipped_path("flextec-small-s2l2a-v3"))
