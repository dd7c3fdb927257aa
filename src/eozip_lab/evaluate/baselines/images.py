"""Picture codecs of the web as baselines: JPEG XL, WebP, AVIF.

None of them knows 12 bands or 16 linear bits; what had to be done to the pixels is said with each.
"""

from __future__ import annotations

from dataclasses import dataclass

import imagecodecs
import numpy as np

from eozip.chunk.pixels import PEAK
from eozip.errors import FormatError
from eozip_lab.evaluate.baselines.packing import checked_stack, expect_parts, pack, planes, restored, unpack

_UINT16_MAX = 65535


@dataclass(frozen=True)
class JpegXl:
    """Each band of each date as a 16-bit grey picture of DN (libjxl, VarDCT); setting: Butteraugli distance.

    DN are used as they are: stretched threefold they need 2 to 5 % more bits at equal PSNR, to the full 16
    bits more still.

    Attributes:
        effort: libjxl's effort.
    """

    effort: int = 7

    @property
    def name(self) -> str:
        return "jpegxl"

    @property
    def settings(self) -> str:
        return f"libjxl effort {self.effort}, each band of each date alone, 16-bit grey, distance swept"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        pixels = np.clip(checked_stack(dn, _UINT16_MAX), 0, None).astype(np.uint16)
        return pack(dn, [self._write(plane, setting) for plane in pixels.reshape(-1, *dn.shape[2:])])

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        expect_parts(parts, planes(shape))
        return restored(np.stack([self._read(part, shape[2:]) for part in parts]), shape, dtype)

    def _write(self, plane: np.ndarray, distance: float) -> bytes:
        return bytes(
            imagecodecs.jpegxl_encode(
                plane, distance=distance, effort=self.effort, numthreads=1, usecontainer=False
            )
        )

    def _read(self, data: bytes, size: tuple[int, int]) -> np.ndarray:
        try:
            return imagecodecs.jpegxl_decode(data, numthreads=1).reshape(size)
        except (imagecodecs.JpegxlError, ValueError) as error:
            raise FormatError(f"JPEG XL picture: {error}") from error


@dataclass(frozen=True)
class WebP:
    """Three bands at a time as an 8-bit colour picture: 0..10000 DN become 0..255; setting: quality 0..100.

    Colour is stored at half resolution (WebP knows nothing else), so it ends near 43 dB. Neighbouring bands
    share a picture; missing ones of the last are 0. DN over 10,000 come back as 10,000.
    """

    @property
    def name(self) -> str:
        return "webp"

    @property
    def settings(self) -> str:
        return "libwebp lossy method 6, 8 bit (10,000 DN are 255), three bands at a time"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        pixels = scaled(checked_stack(dn, _UINT16_MAX), 255).astype(np.uint8)
        pixels = np.pad(pixels, ((0, 0), (0, -dn.shape[1] % 3), (0, 0), (0, 0)))
        triples = pixels.reshape(-1, 3, *dn.shape[2:]).transpose(0, 2, 3, 1)
        return pack(dn, [self._write(picture, setting) for picture in triples])

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        t, c, h, w = shape
        expect_parts(parts, t * -(-c // 3))
        bands = np.stack([self._read(part, (h, w)) for part in parts]).reshape(t, -1, h, w)[:, :c]
        return restored(bands * (PEAK / 255), shape, dtype)

    def _write(self, picture: np.ndarray, quality: float) -> bytes:
        return bytes(
            imagecodecs.webp_encode(np.ascontiguousarray(picture), level=quality, lossless=False, method=6)
        )

    def _read(self, data: bytes, size: tuple[int, int]) -> np.ndarray:
        try:
            return imagecodecs.webp_decode(data).reshape(*size, 3).transpose(2, 0, 1)
        except (imagecodecs.WebpError, ValueError) as error:
            raise FormatError(f"WebP picture: {error}") from error


@dataclass(frozen=True)
class Avif:
    """Three bands at a time as a 12-bit colour picture: 0..10000 DN become 0..4095 (libaom); setting: quality.

    Full-resolution colour (4:4:4). imagecodecs 2026.3.6 codes grey pictures losslessly whatever the quality, so
    bands go by three, as for `WebP`; missing ones of the last picture are copies. Whole AVIF files, boxes and
    all (about 330 bytes each). DN over 10,000 come back as 10,000.

    Attributes:
        speed: libaom's, 0 slowest to 10.
    """

    speed: int = 4

    @property
    def name(self) -> str:
        return "avif"

    @property
    def settings(self) -> str:
        return f"libaom speed {self.speed} through libavif, 12 bit (10,000 DN are 4095), 4:4:4, three bands at a time"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        pixels = scaled(checked_stack(dn, _UINT16_MAX), 4095).astype(np.uint16)
        pixels = np.pad(pixels, ((0, 0), (0, -dn.shape[1] % 3), (0, 0), (0, 0)), mode="edge")
        triples = pixels.reshape(-1, 3, *dn.shape[2:]).transpose(0, 2, 3, 1)
        return pack(dn, [self._write(picture, setting) for picture in triples])

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        t, c, h, w = shape
        expect_parts(parts, t * -(-c // 3))
        bands = np.stack([self._read(part, (h, w)) for part in parts]).reshape(t, -1, h, w)[:, :c]
        return restored(bands * (PEAK / 4095), shape, dtype)

    def _write(self, picture: np.ndarray, quality: float) -> bytes:
        return bytes(
            imagecodecs.avif_encode(
                np.ascontiguousarray(picture),
                level=round(quality),
                speed=self.speed,
                bitspersample=12,
                pixelformat="yuv444",
                codec="aom",
                numthreads=1,
            )
        )

    def _read(self, data: bytes, size: tuple[int, int]) -> np.ndarray:
        try:
            return imagecodecs.avif_decode(data, numthreads=1).reshape(*size, 3).transpose(2, 0, 1)
        except (imagecodecs.AvifError, ValueError) as error:
            raise FormatError(f"AVIF picture: {error}") from error


def scaled(dn: np.ndarray, top: int) -> np.ndarray:
    """0..10000 DN as 0..top, rounded; DN beyond end there."""
    return np.rint(np.clip(dn, 0, PEAK) * (top / PEAK))
