"""tec-elic-small: hyper-latent, pyramid of block averages, channel groups in two checkerboard passes.

The published TEC-ELIC checkpoints are codecs of `eozip.codecs.published`.
"""

from __future__ import annotations

from eozip import hub
from eozip.codecs.small_codec import SmallCodec
from eozip.codecs.small_files import load_small


def small_s2l2a_v1() -> SmallCodec:
    """tec-elic-small-s2l2a-v1, shipped."""
    return load_small(hub.shipped_path("tec-elic-small-s2l2a-v1"))
