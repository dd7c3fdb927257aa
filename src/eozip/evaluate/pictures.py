"""Picture and video codecs of the web as baselines: JPEG XL, WebP, HEVC.

None of them knows 12 bands or 16 linear bits; what had to be done to the pixels is said with each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import imagecodecs
import numpy as np

from eozip.errors import FormatError
from eozip.evaluate.packing import checked_stack, expect_parts, pack, planes, restored, unpack
from eozip.pixels import PEAK

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
        pixels = _scaled(checked_stack(dn, _UINT16_MAX), 255).astype(np.uint8)
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
class Hevc:
    """Each band is a video of its dates in 12-bit grey: 0..10000 DN become 0..4095 (x265); setting: CRF.

    ``tune=psnr`` (no adaptive quantisation, no psychovisual terms) needs 5 % fewer bits at equal PSNR than
    the preset alone. Raw Annex B streams with one set of headers each, x265's information SEI left out. DN
    over 10,000 come back as 10,000.

    Attributes:
        preset: x265's.
    """

    preset: str = "slow"

    @property
    def name(self) -> str:
        return "hevc"

    @property
    def settings(self) -> str:
        return (
            f"x265 {self.preset}, tune psnr, 12-bit grey (10,000 DN are 4095), each band a video of its dates"
        )

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        pixels = _scaled(checked_stack(dn, _UINT16_MAX), 4095).astype(np.uint16)
        height, width = (-(-n // 8) * 8 for n in dn.shape[2:])
        padding = ((0, 0), (0, 0), (0, height - dn.shape[2]), (0, width - dn.shape[3]))
        pixels = np.pad(pixels, padding, mode="edge")
        return pack(dn, [b"".join(self._packets(pixels[:, c], setting)) for c in range(dn.shape[1])])

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        expect_parts(parts, shape[1])
        videos = np.stack([_read_video(part, shape[0]) for part in parts], 1)[:, :, : shape[2], : shape[3]]
        return restored(videos * (PEAK / 4095), shape, dtype)

    def _packets(self, frames: np.ndarray, crf: float) -> Iterator[bytes]:
        import av

        context = av.CodecContext.create("libx265", "w")
        context.height, context.width = frames.shape[1:]
        context.pix_fmt, context.time_base = "gray12le", Fraction(1, 25)
        quiet = "log-level=none:info=0:pools=none:frame-threads=1"
        context.options = {"preset": self.preset, "tune": "psnr", "x265-params": f"crf={crf:g}:{quiet}"}
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="gray12le")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            yield from map(bytes, context.encode(frame))
        yield from map(bytes, context.encode(None))


def _read_video(data: bytes, count: int) -> np.ndarray:
    import av

    context = av.CodecContext.create("hevc", "r")
    context.thread_count = 1
    try:
        packets = [*context.parse(data), *context.parse(b"")]
        frames = [frame for packet in [*packets, None] for frame in context.decode(packet)]
    except av.FFmpegError as error:
        raise FormatError(f"HEVC stream: {error}") from error
    if len(frames) != count:
        raise FormatError(f"HEVC stream: expected {count} frames, got {len(frames)}")
    return np.stack([frame.to_ndarray() for frame in frames])


def _scaled(dn: np.ndarray, top: int) -> np.ndarray:
    return np.rint(np.clip(dn, 0, PEAK) * (top / PEAK))
