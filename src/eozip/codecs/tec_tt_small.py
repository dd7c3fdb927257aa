"""tec-tt-small: every date from its own space and from the dates before it.

The published TEC-TT checkpoints are codecs of `eozip.codecs.tec_tt`.
"""

from __future__ import annotations

from eozip import hub
from eozip.codecs.series_codec import SeriesCodec
from eozip.codecs.small_files import load_small
from eozip.errors import WeightsError


def small_s2l2a_v1() -> SeriesCodec:
    """tec-tt-small-s2l2a-v1, shipped.

    Raises:
        WeightsError: the folder holds another kind of network.
    """
    name = "tec-tt-small-s2l2a-v1"
    codec = load_small(hub.shipped_path(name))
    if not isinstance(codec, SeriesCodec):
        raise WeightsError(f"{name}: expected a network over dates, got {codec.model.config.entropy!r}")
    return codec
