"""Error-bounded codecs of science data as baselines: LERC, SZ3, ZFP. They promise a largest error, not a PSNR.

Setting: largest error in DN that they may make. DN of any size are held; nothing is clipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import imagecodecs
import numpy as np

from eozip.errors import FormatError
from eozip_lab.evaluate.baselines.packing import checked_stack, expect_parts, pack, planes, restored, unpack

_UINT16_MAX = 65535


@dataclass(frozen=True)
class Lerc:
    """All bands of a date as one LERC2 blob, its bytes through Zstandard, as GDAL and Zarr use it.

    Zstandard saves 17 to 43 %, most behind large errors; a blob for each band needs 3 to 8 % more.

    Attributes:
        level: of Zstandard.
    """

    level: int = 19

    @property
    def name(self) -> str:
        return "lerc"

    @property
    def settings(self) -> str:
        return f"LERC2, all bands of a date in one blob, Zstandard level {self.level}, largest error swept"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        checked_stack(dn, _UINT16_MAX)
        return pack(dn, [self._write(date, setting) for date in dn])

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        expect_parts(parts, shape[0])
        return restored(np.stack([_lerc_read(part, shape[1:]) for part in parts]), shape, dtype)

    def _write(self, date: np.ndarray, error: float) -> bytes:
        options = {"compression": "zstd", "compressionargs": {"level": self.level}, "planar": True}
        return bytes(imagecodecs.lerc_encode(np.ascontiguousarray(date), error, **options))


@dataclass(frozen=True)
class Sz3:
    """Each band of each date as one float32 plane through SZ3's interpolation, absolute error bound.

    The bands of a date as one array need 5 to 15 % more, with dates as a fourth axis 25 to 70 % more.
    """

    @property
    def name(self) -> str:
        return "sz3"

    @property
    def settings(self) -> str:
        return "SZ3, absolute error bound, each band of each date alone as float32; largest error swept"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        checked_stack(dn, _UINT16_MAX)
        flat = dn.reshape(-1, *dn.shape[2:]).astype(np.float32)
        return pack(dn, [bytes(imagecodecs.sz3_encode(plane, "abs", abs=setting)) for plane in flat])

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        expect_parts(parts, planes(shape))
        return restored(np.stack([_sz3_read(part, shape[2:]) for part in parts]), shape, dtype)


@dataclass(frozen=True)
class Zfp:
    """All bands of a date as one float32 array [H, W, C] through ZFP in fixed-accuracy mode.

    Bands as the first axis need 7 % more, planes twice as much, dates as a fourth axis likewise. ZFP keeps well
    below the error it may make; its rate is compared at the PSNR it really gives.
    """

    @property
    def name(self) -> str:
        return "zfp"

    @property
    def settings(self) -> str:
        return "ZFP, fixed accuracy, the bands of a date as one float32 array [H, W, C]; largest error swept"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        checked_stack(dn, _UINT16_MAX)
        dates = np.ascontiguousarray(dn.transpose(0, 2, 3, 1), np.float32)
        return pack(dn, [bytes(imagecodecs.zfp_encode(date, setting, mode="accuracy")) for date in dates])

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        expect_parts(parts, shape[0])
        _, c, h, w = shape
        dates = np.stack([_zfp_read(part, (h, w, c)) for part in parts])
        return restored(dates.transpose(0, 3, 1, 2), shape, dtype)


def _lerc_read(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return imagecodecs.lerc_decode(data).reshape(shape)
    except (imagecodecs.LercError, imagecodecs.ZstdError, ValueError) as error:
        raise FormatError(f"LERC blob: {error}") from error


def _sz3_read(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return imagecodecs.sz3_decode(data, shape, np.float32)
    except (imagecodecs.Sz3Error, ValueError) as error:
        raise FormatError(f"SZ3 array: {error}") from error


def _zfp_read(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return imagecodecs.zfp_decode(data).reshape(shape)
    except (imagecodecs.ZfpError, ValueError) as error:
        raise FormatError(f"ZFP array: {error}") from error
