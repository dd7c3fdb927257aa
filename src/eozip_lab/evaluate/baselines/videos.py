"""Video codecs as baselines, through PyAV: x265 (HEVC) and SVT-AV1; each band is a video of its dates.

They know neither 12 bands nor 16 bits: grey frames of 12 (x265) or 10 bits (SVT-AV1, which has no more).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from eozip.chunk.pixels import PEAK
from eozip.errors import FormatError
from eozip_lab.evaluate.baselines.images import scaled
from eozip_lab.evaluate.baselines.packing import checked_stack, expect_parts, pack, restored, unpack

_UINT16_MAX = 65535
_RATE = Fraction(1, 25)
SLOWEST = " preset 0"
"""Behind the names of baselines by SVT-AV1's slowest preset."""
_LEAST = 64  # pixels a side: SVT-AV1 takes no less, and x265 writes beyond its memory at 40 and 48
_NOBODY = 65534  # a user without rights, on Linux and macOS


class Recorder(Protocol):
    """Codes a video of grey frames.

    Attributes:
        name: short.
        settings: for people.
        top: highest sample.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> str: ...

    @property
    def top(self) -> int: ...

    def write(self, frames: np.ndarray, setting: float) -> bytes:
        """uint16 [T, H, W], 0..top, to a raw stream."""
        ...

    def read(self, data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
        """uint16 [T, H, W].

        Raises:
            FormatError: not a stream of so many frames of that size.
        """
        ...


@dataclass(frozen=True)
class X265:
    """12-bit grey; setting: CRF, or QP.

    ``tune=psnr`` (no adaptive quantisation, no psychovisual terms) needs 5 % fewer bits at equal PSNR than
    the preset alone. Raw Annex B streams with one set of headers each, x265's information SEI left out.

    Attributes:
        preset: x265's.
        control: "crf", or "qp": the same quantiser in every frame.
    """

    preset: str = "slow"
    control: str = "crf"

    @property
    def name(self) -> str:
        return "hevc"

    @property
    def settings(self) -> str:
        return f"x265 {self.preset}, tune psnr, {self.control.upper()}, 12-bit grey"

    @property
    def top(self) -> int:
        return 4095

    def write(self, frames: np.ndarray, setting: float) -> bytes:
        quiet = "log-level=none:info=0:pools=none:frame-threads=1"
        params = f"{self.control}={setting:g}:{quiet}"
        options = {"preset": self.preset, "tune": "psnr", "x265-params": params}
        return b"".join(_packets("libx265", "gray12le", _to_eights(frames), options))

    def read(self, data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
        return _frames("hevc", data, shape, "HEVC stream")


@dataclass(frozen=True)
class SvtAv1:
    """10-bit 4:2:0 with flat colour, as SVT-AV1 has no grey; setting: CRF 1..63.

    ``tune=1`` (PSNR) and no temporal filter: filtering denoises the key frame in favour of frames alike, and
    dates differ; without it 12 % fewer bits at 40 dB. Constant quantisers, quantisation matrices and other
    prediction structures were tried and need more; preset 4 needs 1 to 3 % more than 2.

    Attributes:
        preset: SVT-AV1's, 0 slowest.
    """

    preset: int = 2

    @property
    def name(self) -> str:
        return "av1" if self.preset else f"av1{SLOWEST}"

    @property
    def settings(self) -> str:
        return f"SVT-AV1 preset {self.preset}, tune 1 (PSNR), no temporal filter, CRF, 10 bit, flat colour"

    @property
    def top(self) -> int:
        return 1023

    def write(self, frames: np.ndarray, setting: float) -> bytes:
        # its banner goes to stderr past PyAV's log level; only the environment, read at its start, stops it
        os.environ.setdefault("SVT_LOG", "1")
        options = {
            "preset": str(self.preset),
            "crf": f"{setting:g}",
            "svtav1-params": "tune=1:enable-tf=0:lp=1",
        }
        return b"".join(_packets("libsvtav1", "yuv420p10le", _to_eights(frames), options))

    def read(self, data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
        return _frames("libdav1d", data, shape, "AV1 stream")


@dataclass(frozen=True)
class _BandVideos:
    """Each band is a video of its dates: 0..10000 DN become 0..top. DN over 10,000 come back as 10,000.

    Attributes:
        recorder: codes the videos; its setting is the setting.
        workers: bands at the same time, each on a thread of a pool.
    """

    recorder: Recorder
    workers: int = 1

    @property
    def name(self) -> str:
        return self.recorder.name

    @property
    def settings(self) -> str:
        return f"{self.recorder.settings} (10,000 DN are {self.recorder.top}), each band a video of its dates"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        pixels = scaled(checked_stack(dn, _UINT16_MAX), self.recorder.top).astype(np.uint16)
        bands = (pixels[:, c] for c in range(dn.shape[1]))
        return pack(dn, self._mapped(lambda band: self.recorder.write(band, setting), bands))

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        expect_parts(parts, shape[1])
        videos = self._mapped(lambda part: self.recorder.read(part, (shape[0], *shape[2:])), parts)
        return restored(np.stack(videos, 1) * (PEAK / self.recorder.top), shape, dtype)

    def _mapped(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        if self.workers == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(function, items))


def hevc(preset: str = "slow", workers: int = 1) -> _BandVideos:
    """The baseline `hevc`."""
    return _BandVideos(X265(preset), workers)


def av1(preset: int = 2) -> _BandVideos:
    """The baseline `av1`."""
    return _BandVideos(SvtAv1(preset))


def _to_eights(frames: np.ndarray) -> np.ndarray:
    """Edges repeated up to sides of whole eights, at least `_LEAST`."""
    height, width = (max(_LEAST, -(-n // 8) * 8) for n in frames.shape[1:])
    padding = ((0, 0), (0, height - frames.shape[1]), (0, width - frames.shape[2]))
    return np.pad(frames, padding, mode="edge")


@contextmanager
def _not_root() -> Iterator[None]:
    """Keeps SVT-AV1 from making root's process and its threads real-time ones, as it does when it starts.

    Those let nothing else run on their core, the threads that they wait for included: on one core it never ends.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _packets(encoder: str, pixels: str, frames: np.ndarray, options: dict[str, str]) -> Iterator[bytes]:
    av = _av()

    context: Any = av.CodecContext.create(encoder, "w")
    context.height, context.width = frames.shape[1:]
    context.pix_fmt, context.time_base, context.framerate = pixels, _RATE, 1 / _RATE
    context.options = options
    with _not_root():
        context.open()
    for number, plane in enumerate(frames):
        frame = _frame(plane, pixels)
        frame.pts, frame.time_base = number, _RATE
        yield from map(bytes, context.encode(frame))
    yield from map(bytes, context.encode(None))


def _frame(plane: np.ndarray, pixels: str) -> Any:
    """A frame of one plane; where the format has colour, it is flat."""
    av = _av()

    if pixels.startswith("gray"):
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(plane), format=pixels)
    frame = av.VideoFrame(plane.shape[1], plane.shape[0], pixels)
    for number, target in enumerate(frame.planes):
        rows = np.ndarray((target.height, target.line_size // 2), np.uint16, buffer=target)
        rows[:, : target.width] = plane if number == 0 else 512
    return frame


def _frames(decoder: str, data: bytes, shape: tuple[int, int, int], what: str) -> np.ndarray:
    av = _av()

    context: Any = av.CodecContext.create(decoder, "r")
    context.thread_count = 1
    try:
        packets = [*context.parse(data), *context.parse(b"")]
        frames = [frame for packet in [*packets, None] for frame in context.decode(packet)]
    except av.FFmpegError as error:
        raise FormatError(f"{what}: {error}") from error
    sizes = {(frame.height, frame.width) for frame in frames}
    if len(frames) != shape[0] or any(h < shape[1] or w < shape[2] for h, w in sizes):
        raise FormatError(f"{what}: expected {shape[0]} frames of {shape[1:]}, got {len(frames)} of {sizes}")
    return np.stack([_plane(frame)[: shape[1], : shape[2]] for frame in frames])


def _plane(frame: Any) -> np.ndarray:
    """uint16 [H, W], the grey of a frame."""
    plane = frame.planes[0]
    return np.ndarray((frame.height, plane.line_size // 2), "<u2", buffer=plane)[:, : frame.width].copy()


def _av() -> Any:
    """PyAV, which is optional: KLT + JPEG 2000 imports this module without it."""
    import av  # optional

    return av
