"""What eozip is measured against: real encoders, real bytes, each with the settings that suit it best.

Every stream is one byte string from which the stack is decoded again: headers, lengths, transforms and means
are in it and so in its size. To add a baseline, write a class with the four members of `Contender` and name
it in `baselines`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eozip import api
from eozip.codecs import registry
from eozip.errors import InputError
from eozip.evaluate.openjpeg import Jpeg2000, KltJpeg2000
from eozip.evaluate.pictures import Hevc, JpegXl, WebP


class Contender(Protocol):
    """A codec that takes part: ours or a baseline.

    Attributes:
        name: short, unique.
        settings: what it was told to do, for people.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> str: ...

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        """uint16 or int16 [T, C, H, W] to all that `decode` needs; what a setting is, the class says."""
        ...

    def decode(self, blob: bytes) -> np.ndarray:
        """The stack, in the shape and dtype it had.

        Raises:
            FormatError: not a stream of this contender, or a damaged one.
        """
        ...


@dataclass(frozen=True)
class Learned:
    """A codec of eozip's registry through `eozip.encode`; setting: quality 0..100."""

    codec: str

    @property
    def name(self) -> str:
        return self.codec

    @property
    def settings(self) -> str:
        return f"eozip.encode(dn, codec={registry.resolve(self.codec)!r}), all dates one chunk"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        return api.encode(dn, self.codec, setting)

    def decode(self, blob: bytes) -> np.ndarray:
        return api.decode(blob)


# Settings from coarse to fine that span 32 to 50 dB on Sentinel-2 stacks, close enough for log-linear
# interpolation.
_TARGETS = tuple(float(db) for db in range(30, 52))
_COMPONENT_TARGETS = (24.0, 26.0, *(float(db) for db in range(28, 52)))
SWEEPS: dict[str, tuple[float, ...]] = {
    "jpeg2000": _TARGETS,
    "jpeg2000-centred": _TARGETS,
    "klt+jpeg2000": _COMPONENT_TARGETS,
    "klt+jpeg2000-lean": _COMPONENT_TARGETS,
    "klt-t+jpeg2000-lean": _COMPONENT_TARGETS,
    "jpegxl": (18.0, 12.0, 8.0, 6.0, 4.5, 3.0, 2.0, 1.4, 1.0, 0.7, 0.5),
    "webp": (1.0, 10.0, 20.0, 40.0, 60.0, 75.0, 85.0, 92.0, 97.0, 100.0),
    "hevc": (40.0, 37.0, 34.0, 31.0, 28.0, 25.0, 22.0, 19.0, 16.0, 13.0, 10.0, 7.0, 4.0),
}
QUALITIES = tuple(float(q) for q in range(0, 101, 5))


def baselines() -> dict[str, Contender]:
    """Every baseline by name."""
    known: tuple[Contender, ...] = (
        Jpeg2000(),
        Jpeg2000(centred=True),
        KltJpeg2000(),
        KltJpeg2000(lean=True),
        KltJpeg2000(over_time=True, lean=True),
        JpegXl(),
        WebP(),
        Hevc(),
    )
    return {one.name: one for one in known}


def contender(name: str) -> Contender:
    """A baseline, or a codec of eozip by full id or short name.

    Raises:
        InputError: neither; the message lists the baselines.
        UnknownCodecError: with the codecs, likewise.
    """
    known = baselines()
    if name in known:
        return known[name]
    if name == registry.LOSSLESS:
        raise InputError(f"{name}: has no qualities to compare; choose a codec or one of {', '.join(known)}")
    registry.resolve(name)
    return Learned(name)


def sweep_of(name: str) -> tuple[float, ...]:
    """Settings of a baseline, or qualities 0 to 100 of a codec, coarse to fine."""
    return SWEEPS.get(name, QUALITIES)
