"""What eozip is measured against: real encoders, real bytes, each with the settings that suit it best.

Every stream is one byte string from which the stack is decoded again: headers, lengths, transforms and means
are in it and so in its size. To add a baseline, write a class with the four members of `Contender` and give
it a line in `ENTRIES`. Libraries are imported when a baseline is made: one that lacks its own is unavailable,
with the reason, and the others work.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from eozip.chunk import api
from eozip.codecs import registry
from eozip.errors import InputError
from eozip_lab.evaluate.baselines import terracodec
from eozip_lab.evaluate.baselines.eozip_bounded import ERROR, PROMISES, Promised


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


@runtime_checkable
class Preparing(Protocol):
    """A contender that has something to load for each setting before time is taken."""

    def prepare(self, setting: float) -> None: ...


@dataclass(frozen=True)
class Learned:
    """A codec of eozip's registry through `eozip.encode`; setting: quality 0..100.

    Attributes:
        codec: full id or short name.
        sensor: which sensor's codec a short name means.
        offset: radiometric offset contained in the pixels.
    """

    codec: str
    sensor: str = "s2-l2a"
    offset: int = 0

    @property
    def name(self) -> str:
        return self.codec

    @property
    def settings(self) -> str:
        full = registry.resolve(self.codec, self.sensor)
        return f"eozip.encode(dn, codec={full!r}), all dates one chunk"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        return api.encode(dn, self.codec, setting, sensor=self.sensor, offset=self.offset)

    def decode(self, blob: bytes) -> np.ndarray:
        return api.decode_array(blob)


@dataclass(frozen=True)
class Entry:
    """A baseline before its libraries are imported.

    Attributes:
        make: "module:Class".
        needs: what it cannot do without: "imagecodecs:JPEG2K", "av:libx265" (an encoder or decoder), "terracodec".
        setting: what a setting is.
        sweep: settings from coarse to fine.
        arguments: of the class.
    """

    make: str
    needs: tuple[str, ...]
    setting: str
    sweep: tuple[float, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)


# Settings from coarse to fine that span 32 to 50 dB on Sentinel-2 stacks, close enough for log-linear
# interpolation.
_TARGETS = tuple(float(db) for db in range(30, 52))
_COMPONENT_TARGETS = (24.0, 26.0, *(float(db) for db in range(28, 52)))
_J2K, _JXL, _X265 = ("imagecodecs:JPEG2K",), ("imagecodecs:JPEGXL",), ("av:libx265",)
_SVT = ("av:libsvtav1", "av:libdav1d")
_OPENJPEG, _PICTURES = "eozip_lab.evaluate.baselines.openjpeg", "eozip_lab.evaluate.baselines.images"
_VIDEOS, _COMPONENTS = "eozip_lab.evaluate.baselines.videos", "eozip_lab.evaluate.baselines.klt"
_BOUNDED = "eozip_lab.evaluate.baselines.error_bounded"
_QUANTISERS = (40.0, 37.0, 34.0, 31.0, 28.0, 25.0, 22.0, 19.0, 16.0, 13.0, 10.0, 7.0, 4.0)
_KLT_QPS = (51.0, 48.0, 45.0, 42.0, *(float(qp) for qp in range(39, 3, -3)))
_AV1_CRFS = (62.0, 55.0, 48.0, 42.0, 36.0, 30.0, 25.0, 20.0, 15.0, 10.0, 6.0, 3.0, 1.0)
_KLT_DISTANCES = (18.0, 12.0, 8.0, 6.0, 4.5, 3.0, 2.0, 1.4, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1)
_TERRACODEC, _PUBLISHED = "eozip_lab.evaluate.baselines.terracodec:TerraCodec", ("terracodec",)
_LAMBDAS = (0.5, 2.0, 10.0, 40.0, 200.0)
_ERRORS = (1024.0, 768.0, 512.0, 384.0, 256.0, 192.0, 128.0, 96.0, 64.0, 48.0, 32.0, 24.0, 16.0)
_EXACT = "eozip_lab.evaluate.baselines.lossless"
ENTRIES: dict[str, Entry] = {
    "jpeg2000": Entry(f"{_OPENJPEG}:Jpeg2000", _J2K, "target dB", _TARGETS),
    "jpeg2000-centred": Entry(f"{_OPENJPEG}:Jpeg2000", _J2K, "target dB", _TARGETS, {"centred": True}),
    "klt+jpeg2000": Entry(f"{_OPENJPEG}:KltJpeg2000", _J2K, "components' dB", _COMPONENT_TARGETS),
    "klt+jpeg2000-lean": Entry(
        f"{_OPENJPEG}:KltJpeg2000", _J2K, "components' dB", _COMPONENT_TARGETS, {"lean": True}
    ),
    "klt-t+jpeg2000-lean": Entry(
        f"{_OPENJPEG}:KltJpeg2000",
        _J2K,
        "components' dB",
        _COMPONENT_TARGETS,
        {"over_time": True, "lean": True},
    ),
    "jpegxl": Entry(
        f"{_PICTURES}:JpegXl",
        _JXL,
        "distance",
        (18.0, 12.0, 8.0, 6.0, 4.5, 3.0, 2.0, 1.4, 1.0, 0.7, 0.5),
    ),
    "webp": Entry(
        f"{_PICTURES}:WebP",
        ("imagecodecs:WEBP",),
        "quality",
        (1.0, 10.0, 20.0, 40.0, 60.0, 75.0, 85.0, 92.0, 97.0, 100.0),
    ),
    "avif": Entry(
        f"{_PICTURES}:Avif",
        ("imagecodecs:AVIF",),
        "quality",
        (15.0, 25.0, 35.0, 45.0, 55.0, 65.0, 75.0, 83.0, 90.0, 95.0),
    ),
    "hevc": Entry(f"{_VIDEOS}:hevc", _X265, "CRF", _QUANTISERS),
    "av1": Entry(f"{_VIDEOS}:av1", _SVT, "CRF", _AV1_CRFS),
    "klt+jpegxl": Entry(f"{_COMPONENTS}:klt_jpegxl", _JXL, "distance", _KLT_DISTANCES),
    "klt+hevc": Entry(f"{_COMPONENTS}:klt_hevc", _X265, "QP", _KLT_QPS),
    "klt+av1": Entry(f"{_COMPONENTS}:klt_av1", _SVT, "CRF", _AV1_CRFS),
    "klt-t+hevc": Entry(f"{_COMPONENTS}:klt_hevc", _X265, "QP", _KLT_QPS, {"planes": "time"}),
    "klt-t+av1": Entry(f"{_COMPONENTS}:klt_av1", _SVT, "CRF", _AV1_CRFS, {"planes": "time"}),
    "klt-t+av1 preset 0": Entry(
        f"{_COMPONENTS}:klt_av1", _SVT, "CRF", _AV1_CRFS, {"planes": "time", "preset": 0}
    ),
    "jpegxl-exact": Entry(f"{_EXACT}:ExactJpegXl", _JXL, ERROR, (0.0,)),
    "jpeg2000-exact": Entry(f"{_EXACT}:ExactJpeg2000", _J2K, ERROR, (0.0,)),
    "lerc": Entry(f"{_BOUNDED}:Lerc", ("imagecodecs:LERC", "imagecodecs:ZSTD"), ERROR, (*_ERRORS, 0.0)),
    "sz3": Entry(f"{_BOUNDED}:Sz3", ("imagecodecs:SZ3",), ERROR, _ERRORS),
    "zfp": Entry(
        f"{_BOUNDED}:Zfp",
        ("imagecodecs:ZFP",),
        ERROR,
        (16384.0, 8192.0, 4096.0, 2048.0, 1024.0, 512.0, 256.0, 128.0),
    ),
    "terracodec-fp": Entry(_TERRACODEC, _PUBLISHED, "lambda", _LAMBDAS, {"model": "terracodec_v1_fp_s2l2a"}),
    "terracodec-elic": Entry(
        _TERRACODEC, _PUBLISHED, "lambda", _LAMBDAS, {"model": "terracodec_v1_elic_s2l2a"}
    ),
    "terracodec-tt": Entry(
        _TERRACODEC,
        _PUBLISHED,
        "lambda",
        (0.4, 1.0, 5.0, 20.0, 100.0, 200.0, 700.0),
        {"model": "terracodec_v1_tt_s2l2a", "temporal": True},
    ),
    "flextec": Entry(
        _TERRACODEC,
        _PUBLISHED,
        "quality 1..16",
        (1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0),
        {"model": "flextec_v1_s2l2a", "temporal": True, "flexible": True},
    ),
}
QUALITIES = tuple(float(q) for q in range(0, 101, 5))


def baseline_names() -> tuple[str, ...]:
    """Every baseline, those that lack a library too."""
    return tuple(ENTRIES)


def unavailable(name: str) -> str | None:
    """Why a baseline cannot run here; None if it can."""
    reasons = [reason for need in ENTRIES[name].needs if (reason := _missing(need))]
    return "; ".join(reasons) or None


def baselines() -> dict[str, Contender]:
    """Every baseline that can run here, by name."""
    return {name: _made(entry) for name, entry in ENTRIES.items() if unavailable(name) is None}


def contender(name: str) -> Contender:
    """A baseline, a codec of eozip by full id or short name, or one of `PROMISES`.

    Raises:
        InputError: neither, or a baseline that cannot run here; the message says why.
        UnknownCodecError: with the codecs, likewise.
    """
    if name in ENTRIES:
        reason = unavailable(name)
        if reason is not None:
            raise InputError(f"{name}: cannot run here: {reason}")
        return _made(ENTRIES[name])
    return own(name)


def own(name: str, sensor: str = "s2-l2a", offset: int = 0) -> Contender:
    """A codec of eozip, or one of `PROMISES`, told the sensor and offset of the pixels.

    Raises:
        UnknownCodecError: nobody knows it.
    """
    if name in PROMISES:
        return Promised(name, sensor, offset)
    registry.resolve(name, sensor)
    return Learned(name, sensor, offset)


def sweep_of(name: str) -> tuple[float, ...]:
    """Settings of a baseline or promise, or qualities 0 to 100 of a codec, coarse to fine."""
    told = ENTRIES.get(name) or PROMISES.get(name)
    return QUALITIES if told is None else told.sweep


def setting_of(name: str) -> str:
    """What a setting of a baseline, promise or codec is, in a word or two."""
    told = ENTRIES.get(name) or PROMISES.get(name)
    return "quality" if told is None else told.setting


def _made(entry: Entry) -> Contender:
    module, _, name = entry.make.partition(":")
    return getattr(importlib.import_module(module), name)(**entry.arguments)


def _missing(need: str) -> str | None:
    package, _, part = need.partition(":")
    if package == "terracodec":
        return terracodec.unavailable(terracodec.python())
    if importlib.util.find_spec(package) is None:
        return f"the package {package} is not installed; pip install 'eozip[evaluate]'"
    if package == "imagecodecs" and part:
        return _missing_in_imagecodecs(part)
    return _missing_in_av(part) if package == "av" else None


def _missing_in_imagecodecs(part: str) -> str | None:
    import imagecodecs  # optional

    if getattr(getattr(imagecodecs, part, None), "available", False):
        return None
    return f"this build of imagecodecs {imagecodecs.__version__} has no {part}"


def _missing_in_av(part: str) -> str | None:
    import av  # optional

    for mode in ("w", "r"):
        try:
            av.codec.Codec(part, mode)
        except (ValueError, LookupError):  # UnknownCodecError is a ValueError
            continue
        return None
    return f"this build of PyAV {av.__version__} has no {part}"
