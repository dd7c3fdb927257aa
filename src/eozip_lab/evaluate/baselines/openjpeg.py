"""JPEG 2000 (OpenJPEG through imagecodecs): each band alone, or behind a Karhunen-Loeve transform.

What is common to all of them: irreversible 9-7 wavelet, one layer, OpenJPEG's own resolutions and 64x64 code
blocks, rate allocation to a PSNR; raw codestreams (no JP2 boxes), the comment "Created by OpenJPEG ..." cut
out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np

from eozip.chunk.pixels import PEAK
from eozip.errors import FormatError
from eozip_lab.evaluate.baselines.packing import (
    Shape,
    checked_stack,
    expect_parts,
    pack,
    planes,
    restored,
    unpack,
)

_INT16_RANGE = 65535.0  # what OpenJPEG's PSNR of 16-bit samples refers to
_COM, _SOT = b"\xff\x64", b"\xff\x90"
_INT16_MAX = 32767
_MEANS = np.dtype("<i2")
_BASIS = np.dtype("<f2")


def _write_plane(plane: np.ndarray, mse: float, threads: int = 1) -> bytes:
    """Codes one plane.

    Args:
        plane: int16 [H, W].
        mse: mean squared error to aim at; OpenJPEG stays near it, within about 1 dB.
        threads: OpenJPEG's worker threads.
    """
    level = 10 * math.log10(_INT16_RANGE**2 / mse)
    stream = imagecodecs.jpeg2k_encode(
        plane, level=level, reversible=False, codecformat="j2k", numthreads=threads
    )
    return without_comment(bytes(stream))


def _read_plane(stream: bytes, threads: int = 1) -> np.ndarray:
    """int16 [H, W].

    Raises:
        FormatError: not a codestream that OpenJPEG can read.
    """
    try:
        return imagecodecs.jpeg2k_decode(stream, numthreads=threads)
    except (imagecodecs.Jpeg2kError, ValueError) as error:
        raise FormatError(f"JPEG 2000 codestream: {error}") from error


def without_comment(stream: bytes) -> bytes:
    """A codestream without its COM segments (39 bytes of OpenJPEG's name; half of a small plane's header)."""
    kept, position = [stream[:2]], 2
    while stream[position : position + 2] != _SOT:
        end = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        if stream[position : position + 2] != _COM:
            kept.append(stream[position:end])
        position = end
    return b"".join([*kept, stream[position:]])


@dataclass(frozen=True)
class Jpeg2000:
    """Each band of each date is one grey image of int16 DN; setting: target dB at peak 10,000.

    Attributes:
        centred: the mean of the plane is taken off first (2 bytes). OpenJPEG codes signed samples far from 0
            poorly at low rates: this saves 18 % of the bits at 36 dB, 13 % at 40, 1 % at 44. The published
            anchors are without it.
        threads: OpenJPEG's worker threads within a plane.
        workers: planes at the same time, each on a thread of a pool.
    """

    centred: bool = False
    threads: int = 1
    workers: int = 1

    @property
    def name(self) -> str:
        return "jpeg2000-centred" if self.centred else "jpeg2000"

    @property
    def settings(self) -> str:
        centre = "mean taken off (int16), " if self.centred else ""
        return (
            f"OpenJPEG, {centre}irreversible, each band of each date alone to a target PSNR, no COM segment"
        )

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        checked_stack(dn, _INT16_MAX)
        flat = dn.reshape(-1, *dn.shape[2:]).astype(np.int32)
        means = np.rint(flat.mean((1, 2))).astype(np.int32) * self.centred
        # DN beyond 32767 from the mean would need DN below it: there are none in uint16, and int16 ends there
        centred = np.clip(flat - means[:, None, None], -_INT16_MAX - 1, _INT16_MAX).astype(np.int16)
        mse = PEAK**2 / 10 ** (setting / 10)
        streams = self._mapped(lambda plane: _write_plane(plane, mse, self.threads), centred)
        return pack(dn, [means.astype(_MEANS).tobytes(), *streams] if self.centred else streams)

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        means = np.zeros(planes(shape), _MEANS)
        if self.centred and parts:
            means = _array(parts.pop(0), _MEANS, planes(shape))
        expect_parts(parts, planes(shape))
        stack = np.stack(self._mapped(lambda part: _read_plane(part, self.threads), parts)).astype(np.int32)
        return restored(stack + means[:, None, None], shape, dtype)

    def _mapped(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        if self.workers == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(function, items))


@dataclass(frozen=True)
class KltJpeg2000:
    """Karhunen-Loeve transform of each date's bands, or of all dates' bands together; components as JPEG
    2000.

    Every component is coded to the same squared error, which for an orthonormal transform is the best split
    there is; components whose variance is below it are left out. Charged: means (int16), the basis (float16),
    one byte of scale a component. Setting: the components' target dB at peak 10,000.

    Attributes:
        over_time: one transform over T * C planes instead of one per date over C.
        lean: only the basis vectors of components that are kept are stored. The published anchors of the
            per-date transform count the whole basis; without the rest it needs 9 % fewer bits at 36 dB, 2 % at
            40.
        threads: OpenJPEG's worker threads.
    """

    over_time: bool = False
    lean: bool = False
    threads: int = 1

    @property
    def name(self) -> str:
        return f"klt{'-t' * self.over_time}+jpeg2000{'-lean' * self.lean}"

    @property
    def settings(self) -> str:
        what = "over bands and dates together" if self.over_time else "per date over bands"
        basis = "float16 basis vectors in use" if self.lean else "whole float16 basis"
        return f"KLT {what}, {basis} charged; OpenJPEG, irreversible, every component to equal error"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        checked_stack(dn, _INT16_MAX)
        mse = PEAK**2 / 10 ** (setting / 10)
        groups = [_write_group(stack, mse, self.lean, self.threads) for stack in self._grouped(dn)]
        return pack(dn, [part for group in groups for part in group])

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        count, size = (1, planes(shape)) if self.over_time else shape[:2]
        out, rest = [], parts
        for _ in range(count):
            group, rest = _read_group(rest, size, shape, self.threads)
            out.append(group)
        expect_parts(rest, 0)
        return restored(np.concatenate(out), shape, dtype)

    def _grouped(self, dn: np.ndarray) -> np.ndarray:
        return dn.reshape(1, -1, *dn.shape[2:]) if self.over_time else dn


def klt_basis(x: np.ndarray) -> np.ndarray:
    """Eigenvectors of the covariance of x [N, pixels], as columns, largest variance first: float16 [N, N]."""
    covariance = np.atleast_2d(np.cov(x, bias=True))
    _, vectors = np.linalg.eigh(covariance)
    return vectors[:, ::-1].astype(_BASIS)


def _write_group(stack: np.ndarray, mse: float, lean: bool, threads: int) -> list[bytes]:
    """Parts: means, basis vectors; for each vector scale (u8) and codestream, empty if left out."""
    x = stack.reshape(len(stack), -1).astype(np.float64)
    means = np.rint(x.mean(1)).astype(_MEANS)
    x -= means[:, None].astype(np.float64)
    basis = klt_basis(x)
    # the rounded basis is not quite orthonormal: its inverse gives the components that it really needs
    components = np.linalg.solve(basis.astype(np.float64), x)
    is_kept = np.square(components).mean(1) > mse
    stored = np.flatnonzero(is_kept | (not lean))
    frames = components.reshape(stack.shape)
    streams = [_write_component(frames[k], mse, threads) if is_kept[k] else b"" for k in stored]
    return [means.tobytes(), basis[:, stored].T.tobytes(), *streams]


def _write_component(component: np.ndarray, mse: float, threads: int) -> bytes:
    """Halved until it fits int16: a component over bands and dates reaches sqrt(T * C) times the DN."""
    shift = max(0, math.ceil(math.log2((np.abs(component).max() + 1) / _INT16_MAX)))
    scaled = np.rint(component / 2**shift).astype(np.int16)
    return bytes([shift]) + _write_plane(scaled, mse / 4**shift, threads)


def _read_group(parts: list[bytes], size: int, shape: Shape, threads: int) -> tuple[np.ndarray, list[bytes]]:
    """One group's planes [size, H, W] float64, and the parts that follow."""
    if len(parts) < 2 or len(parts[1]) % (size * _BASIS.itemsize):
        raise FormatError("KLT + JPEG 2000: expected means and basis vectors; the stream is damaged")
    count = len(parts[1]) // (size * _BASIS.itemsize)
    means = _array(parts[0], _MEANS, size).astype(np.float64)
    basis = _array(parts[1], _BASIS, size * count).reshape(count, size).astype(np.float64)
    if len(parts) < 2 + count:
        raise FormatError(f"KLT + JPEG 2000: expected {count} components, got {len(parts) - 2}")
    out = np.repeat(means[:, None], math.prod(shape[2:]), 1)
    for vector, part in zip(basis, parts[2 : 2 + count]):
        if not part:
            continue
        plane = _read_plane(part[1:], threads).astype(np.float64) * 2.0 ** part[0]
        out += vector[:, None] * plane.ravel()
    return out.reshape(size, *shape[2:]), parts[2 + count :]


def _array(data: bytes, dtype: np.dtype, count: int) -> np.ndarray:
    if len(data) != count * dtype.itemsize:
        raise FormatError(f"baseline stream: expected {count} values of {dtype}, got {len(data)} bytes")
    return np.frombuffer(data, dtype)
