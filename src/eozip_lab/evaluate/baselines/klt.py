"""Karhunen-Loeve components as videos or pictures: what KLT + JPEG 2000 does, for codecs of whole numbers.

Components share one scale, so that a codec's equal setting gives all of them equal error, which for an
orthonormal transform is the best split there is.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import imagecodecs
import numpy as np

from eozip.errors import FormatError
from eozip_lab.evaluate.baselines.openjpeg import klt_basis
from eozip_lab.evaluate.baselines.packing import Shape, checked_stack, expect_parts, pack, restored, unpack
from eozip_lab.evaluate.baselines.videos import X265, Recorder, SvtAv1

_INT16_MAX = 32767
_LEVELS = struct.Struct("<e")  # samples per DN of all components of a group
_VECTOR, _MEANS, _LOW = np.dtype("<f2"), np.dtype("<i2"), np.dtype("<i4")


@dataclass(frozen=True)
class Components:
    """KLT; every component is coded by a recorder, those not worth their bits are left out.

    A component is left out where coding it lowers the squared error by less than the same bits do in the first
    component (high-rate slope, 2 ln 2 times its error). Charged: means (int16), for each component kept its
    basis vector (float16), lowest value (int32) and stream; one scale (float16) a group.

    Attributes:
        recorder: codes the components; its setting is the setting.
        planes: "video": one transform over bands for all dates, each component a video of them; "date": one for
            each date, components as pictures; "time": one over bands and dates together, likewise pictures.
        most: samples per DN at most, so that groups of bands that are coded apart get equal errors; None: as many as fit.
    """

    recorder: Recorder
    planes: str = "video"
    most: float | None = None

    @property
    def name(self) -> str:
        return f"klt{'-t' * (self.planes == 'time')}+{self.recorder.name}"

    @property
    def settings(self) -> str:
        how = {
            "video": "over bands for all dates, components as videos",
            "date": "over bands per date, components as pictures",
            "time": "over bands and dates together, components as pictures",
        }[self.planes]
        return f"KLT {how}, float16 basis vectors in use charged, one scale; {self.recorder.settings}"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        checked_stack(dn, _INT16_MAX)
        groups = self._grouped(dn)
        most = math.inf if self.most is None else self.most
        return pack(
            dn, [part for group in groups for part in _write_group(group, self.recorder, setting, most)]
        )

    def scale(self, dn: np.ndarray) -> float:
        """Samples per DN that fit every component of a stack."""
        return min(_scale(_frames(group)[1], self.recorder.top) for group in self._grouped(dn))

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        t, c, h, w = shape
        group = {"video": (t, c, h, w), "date": (1, c, h, w), "time": (1, t * c, h, w)}[self.planes]
        groups, rest = [], parts
        for _ in range(t if self.planes == "date" else 1):
            found, rest = _read_group(rest, group, self.recorder)
            groups.append(found)
        expect_parts(rest, 0)
        return restored(np.concatenate(groups), shape, dtype)

    def _grouped(self, dn: np.ndarray) -> list[np.ndarray]:
        if self.planes == "time":
            return [dn.reshape(1, -1, *dn.shape[2:])]
        return [date[None] for date in dn] if self.planes == "date" else [dn]


@dataclass(frozen=True)
class _JpegXlFrames:
    """Each frame alone as 16-bit grey JPEG XL of samples to 4095; setting: Butteraugli distance.

    Samples to 65535 need 16 % more at 40 dB, to 8191 or 1023 the same.
    """

    effort: int = 7

    @property
    def name(self) -> str:
        return "jpegxl"

    @property
    def settings(self) -> str:
        return f"libjxl effort {self.effort}, 16-bit grey, distance"

    @property
    def top(self) -> int:
        return 4095

    def write(self, frames: np.ndarray, setting: float) -> bytes:
        (plane,) = frames
        options = {"effort": self.effort, "numthreads": 1, "usecontainer": False}
        return bytes(imagecodecs.jpegxl_encode(plane, distance=setting, **options))

    def read(self, data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
        try:
            return imagecodecs.jpegxl_decode(data, numthreads=1).reshape(shape)
        except (imagecodecs.JpegxlError, ValueError) as error:
            raise FormatError(f"JPEG XL picture: {error}") from error


def klt_hevc(planes: str = "video") -> Components:
    """`klt+hevc` and `klt-t+hevc`: one quantiser (QP) for all, so that components have equal error."""
    return Components(X265(control="qp"), planes)


def klt_av1(planes: str = "video", preset: int = 2) -> Components:
    """`klt+av1` and `klt-t+av1`; `preset`: SVT-AV1's, 0 slowest."""
    return Components(SvtAv1(preset), planes)


def klt_jpegxl(planes: str = "date") -> Components:
    """`klt+jpegxl`."""
    return Components(_JpegXlFrames(), planes)


def _frames(dn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Basis, components [C, T, H, W] and means of a stack."""
    t, c, height, width = dn.shape
    x = dn.swapaxes(0, 1).reshape(c, -1).astype(np.float64)
    means = np.rint(x.mean(1)).astype(_MEANS)
    x -= means[:, None]
    basis = klt_basis(x)
    # the rounded basis is not quite orthonormal: its inverse gives the components that it really needs
    return basis, np.linalg.solve(basis.astype(np.float64), x).reshape(c, t, height, width), means


def _write_group(dn: np.ndarray, recorder: Recorder, setting: float, most: float) -> list[bytes]:
    """Parts: means, scale; then for each component kept its vector with lowest value, and its stream."""
    basis, frames, means = _frames(dn)
    scale = min(_scale(frames, recorder.top), most)
    parts = [means.tobytes(), _LEVELS.pack(scale)]
    for vector, part in _worthwhile(frames, basis, scale, recorder, setting):
        parts += [vector, part]
    return parts


def _scale(frames: np.ndarray, top: int) -> float:
    """Samples per DN with which the widest component fits; rounded down to what a float16 holds."""
    widest = float((frames.max((1, 2, 3)) - frames.min((1, 2, 3))).max())
    scale = np.float16(min(16.0, (top - 2) / max(widest, 1.0)))
    return float(scale if float(scale) * widest <= top - 2 else np.nextafter(scale, np.float16(0)))


def _worthwhile(
    frames: np.ndarray, basis: np.ndarray, scale: float, recorder: Recorder, setting: float
) -> Iterator[tuple[bytes, bytes]]:
    """(vector and lowest value, stream) of the components worth their bits; the first sets the price."""
    price, least = None, 0.0
    for vector, component in zip(basis.T, frames):
        if float(np.square(component).mean()) < least:
            continue
        low = math.floor(component.min() * scale)
        samples = np.rint(component * scale - low).astype(np.uint16)
        stream = recorder.write(samples, setting)
        decoded = recorder.read(stream, samples.shape).astype(np.float64)
        error = float(np.square((decoded + low) / scale - component).mean())
        if price is None:
            price, least = 2 * math.log(2) * error, error / 20  # with less to gain nothing pays
        side = vector.tobytes() + np.array(low, _LOW).tobytes()
        bits = 8 * (len(stream) + len(side)) / component.size
        if float(np.square(component).mean()) - error > price * bits:
            yield side, stream


def _read_group(parts: list[bytes], shape: Shape, recorder: Recorder) -> tuple[np.ndarray, list[bytes]]:
    """One group's pixels float64 [T, C, H, W], and the parts that follow."""
    t, c, h, w = shape
    side = c * _VECTOR.itemsize + _LOW.itemsize
    if len(parts) < 2 or len(parts[0]) != c * _MEANS.itemsize or len(parts[1]) != _LEVELS.size:
        raise FormatError("KLT components: expected means and a scale; the stream is damaged")
    out = np.repeat(np.frombuffer(parts[0], _MEANS).astype(np.float64)[:, None], t * h * w, 1)
    (scale,) = _LEVELS.unpack(parts[1])
    rest = parts[2:]
    if not 0 < scale < math.inf:
        raise FormatError(f"KLT components: impossible scale {scale}")
    # a vector with its lowest value is longer than means: the next group begins where the length differs
    while len(rest) >= 2 and len(rest[0]) == side:
        vector = np.frombuffer(rest[0][: -_LOW.itemsize], _VECTOR).astype(np.float64)
        low = int(np.frombuffer(rest[0][-_LOW.itemsize :], _LOW)[0])
        samples = recorder.read(rest[1], (t, h, w)).astype(np.float64)
        out += vector[:, None] * ((samples + low) / scale).ravel()
        rest = rest[2:]
    return out.reshape(c, t, h, w).swapaxes(0, 1), rest
