"""tec-tt-small: every date from its own space and from the dates before it.

The published TEC-TT checkpoints are codecs of `eozip.codecs.tec_tt`.
"""

from __future__ import annotations

from eozip import hub
from eozip.codecs.series_codec import SeriesCodec
from eozip.codecs.small_files import load_small
from eozip.errors import WeightsError


def small_s2l2a_v1() -> SeriesCodec:
    """tec-tt-small-s2l2a-v1, shipped."""
    return _shipped("tec-tt-small-s2l2a-v1")


def small_s2l2a_v2() -> SeriesCodec:
    """tec-tt-small-s2l2a-v2, shipped: on tec-elic-small's third weights, and with closing fits."""
    return _shipped("tec-tt-small-s2l2a-v2")


def small_s2l2a_v3() -> SeriesCodec:
    """tec-tt-small-s2l2a-v3, shipped: on tec-elic-small's fourth weights; native grids, and fits with classes."""
    return _shipped("tec-tt-small-s2l2a-v3")


def _shipped(name: str) -> SeriesCodec:
    codec = load_small(hub.shipped_path(name))
    if not isinstance(codec, SeriesCodec):
        raise WeightsError(f"{name}: expected a network over dates, got {codec.model.config.entropy!r}")
    return codec
