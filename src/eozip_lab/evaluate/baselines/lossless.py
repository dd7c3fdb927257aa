"""Picture codecs without loss, each band of each date alone: what every pixel as it was costs elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import imagecodecs
import numpy as np

from eozip.errors import FormatError
from eozip_lab.evaluate.baselines.openjpeg import without_comment
from eozip_lab.evaluate.baselines.packing import checked_stack, expect_parts, pack, planes, restored, unpack

_UINT16_MAX = 65535


@dataclass(frozen=True)
class ExactJpegXl:
    """16-bit grey pictures of DN, modular; setting: the largest error, 0. DN below 0 it cannot hold.

    Attributes:
        effort: libjxl's.
    """

    effort: int = 7

    @property
    def name(self) -> str:
        return "jpegxl-exact"

    @property
    def settings(self) -> str:
        return f"libjxl effort {self.effort}, lossless, each band of each date alone, 16-bit grey"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        return pack(dn, [self._write(plane) for plane in _unsigned(dn)])

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        expect_parts(parts, planes(shape))
        try:
            found = [imagecodecs.jpegxl_decode(part, numthreads=1).reshape(shape[2:]) for part in parts]
        except (imagecodecs.JpegxlError, ValueError) as error:
            raise FormatError(f"JPEG XL picture: {error}") from error
        return restored(np.stack(found), shape, dtype)

    def _write(self, plane: np.ndarray) -> bytes:
        options = {"effort": self.effort, "numthreads": 1, "usecontainer": False}
        return bytes(imagecodecs.jpegxl_encode(plane, lossless=True, **options))


@dataclass(frozen=True)
class ExactJpeg2000:
    """Reversible 5-3 wavelet, raw codestreams; setting: the largest error, 0. DN below 0 it is not given."""

    @property
    def name(self) -> str:
        return "jpeg2000-exact"

    @property
    def settings(self) -> str:
        return "OpenJPEG, reversible, each band of each date alone, 16-bit grey, no COM segment"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        options = {"level": 0, "reversible": True, "codecformat": "j2k", "numthreads": 1}
        planes_of = (imagecodecs.jpeg2k_encode(plane, **options) for plane in _unsigned(dn))
        return pack(dn, [without_comment(bytes(stream)) for stream in planes_of])

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        expect_parts(parts, planes(shape))
        try:
            found = [imagecodecs.jpeg2k_decode(part, numthreads=1).reshape(shape[2:]) for part in parts]
        except (imagecodecs.Jpeg2kError, ValueError) as error:
            raise FormatError(f"JPEG 2000 codestream: {error}") from error
        return restored(np.stack(found), shape, dtype)


def _unsigned(dn: np.ndarray) -> np.ndarray:
    """uint16 [T * C, H, W]; DN below 0 become 0."""
    checked = np.clip(checked_stack(dn, _UINT16_MAX), 0, None)
    return checked.astype(np.uint16).reshape(-1, *dn.shape[2:])
