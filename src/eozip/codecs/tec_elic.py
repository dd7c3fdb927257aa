"""tec-elic-small: hyper-latent, pyramid of block averages, channel groups in two checkerboard passes.

The published TEC-ELIC checkpoints are codecs of `eozip.codecs.published`.
"""

from __future__ import annotations

from eozip import hub, sensors
from eozip.codecs.companion import WithCompanion
from eozip.codecs.small_codec import SmallCodec
from eozip.codecs.small_files import load_small


def small_s2l2a_v1() -> SmallCodec:
    """tec-elic-small-s2l2a-v1, shipped."""
    return load_small(hub.shipped_path("tec-elic-small-s2l2a-v1"))


def small_s2l1c_v1() -> WithCompanion:
    """tec-elic-small-s2l1c-v1: the same weights on the twelve bands that Level-1C shares with Level-2A, B10 beside them."""
    cirrus = sensors.get("s2-l1c").band_names.index("B10")
    return WithCompanion("tec-elic-small-s2l1c-v1", small_s2l2a_v1(), "s2-l1c", cirrus)
