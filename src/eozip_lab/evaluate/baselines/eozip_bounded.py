"""eozip under a promise: no pixel off by more than so many DN, or a PSNR beyond what its networks reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from eozip.chunk import api, encoding
from eozip.codecs.registry import LOSSLESS

ERROR = "largest error, DN"  # what a setting is, of baselines that promise it too


@dataclass(frozen=True)
class _Asked:
    """What is promised, and how it is swept.

    Attributes:
        argument: of `eozip.encode`.
        codec: of `eozip.encode`; None: the default one.
        setting: what a setting is.
        sweep: settings from coarse to fine.
    """

    argument: str
    codec: str | None
    setting: str
    sweep: tuple[float, ...]


# Below 16 DN no network has been found to help; below 50 dB a network keeps its target without corrections.
PROMISES = {
    LOSSLESS: _Asked("max_error", LOSSLESS, ERROR, (128.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 0.0)),
    "max-error": _Asked("max_error", None, ERROR, (256.0, 128.0, 64.0, 32.0, 16.0)),
    "target-psnr": _Asked("target_psnr", None, "target dB", (50.0, 53.0, 56.0, 59.0)),
}


@dataclass(frozen=True)
class Promised:
    """`eozip.encode` with a promise.

    ``lossless`` uses no network; ``max-error`` and ``target-psnr`` the default codec corrected where it must be, or no
    network where that is smaller.

    Attributes:
        name: one of `PROMISES`.
        sensor: whose default codec.
        offset: radiometric offset contained in the pixels.
    """

    name: str
    sensor: str = "s2-l2a"
    offset: int = 0

    @property
    def settings(self) -> str:
        asked = PROMISES[self.name]
        if asked.codec:
            return f"eozip.encode(dn, codec={asked.codec!r}, {asked.argument}=...), no network, all dates one chunk"
        series, image = (encoding.default_codec(dates, self.sensor) for dates in (2, 1))
        return (
            f"eozip.encode(dn, {asked.argument}=...): {series} ({image} for one date) with corrections, or no network "
            "where that is smaller; all dates one chunk"
        )

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        asked = PROMISES[self.name]
        value: Any = int(setting) if asked.argument == "max_error" else setting
        facts: dict[str, Any] = {"sensor": self.sensor, "offset": self.offset, asked.argument: value}
        return api.encode(dn, asked.codec, **facts)

    def decode(self, blob: bytes) -> np.ndarray:
        return api.decode_array(blob)
