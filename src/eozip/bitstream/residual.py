"""Errors held within a bound: a layer of corrections over decoded pixels, and near-lossless pixels.

Both are integers in steps of 2 e + 1, so that no error is larger than e, coded exactly by `eozip.bitstream.lossless`:

    u16 step | one lossless section of int16 corrections, or of uint16 positions on the grid of steps

Source: near-lossless coding with a uniform step, as in JPEG-LS (ITU-T T.87).
"""

from __future__ import annotations

import struct

import numpy as np

from eozip.bitstream import lossless
from eozip.errors import FormatError

MOST = 32767  # largest e: its step is the largest that u16 holds
_STEP = struct.Struct("<H")
_INT16 = np.iinfo(np.int16)


def corrections(dn: np.ndarray, dn_hat: np.ndarray, most: int) -> np.ndarray:
    """How many steps of ``2 * most + 1`` bring decoded pixels within ``most`` of the true ones.

    Args:
        dn: integers [T, C, H, W], DN.
        dn_hat: likewise, decoded.
        most: largest error that may remain, DN, 0..32767.

    Returns:
        int16 [T, C, H, W]; where it saturates (beyond 32767 steps) a larger error remains.
    """
    error = dn.astype(np.int64) - dn_hat
    steps = np.sign(error) * ((np.abs(error) + most) // (2 * most + 1))
    return np.clip(steps, _INT16.min, _INT16.max).astype(np.int16)


def corrected(dn_hat: np.ndarray, steps: np.ndarray, step: int, dtype: str, nodata: int | None) -> np.ndarray:
    """Decoded pixels with their corrections, within the type, none of them nodata.

    Args:
        dn_hat: integers [T, C, H, W], DN, rounded and within the type.
        steps: `corrections`.
        step: DN of one of them.
        dtype: ``uint16`` or ``int16``, of the result.
        nodata: value that no corrected pixel gets, or None.
    """
    return _typed(dn_hat + steps.astype(np.int64) * step, dtype, nodata)


def encode_layer(steps: np.ndarray, step: int) -> bytes:
    """The residual layer of a chunk, from int16 `corrections` [T, C, H, W]."""
    return _STEP.pack(step) + lossless.encode_array(steps)


def decode_layer(data: bytes, shape: tuple[int, int, int, int]) -> tuple[np.ndarray, int]:
    """Decode `encode_layer`.

    Returns:
        int16 [T, C, H, W] corrections, and the step.

    Raises:
        FormatError: bytes that `encode_layer` does not write.
    """
    step = _step_of(data, "residual layer")
    return lossless.decode_array(data[_STEP.size :], shape, "int16"), step


def encode_near(dn: np.ndarray, most: int) -> bytes:
    """The section of a near-lossless chunk: pixels to within ``most``, without any network.

    Args:
        dn: uint16 or int16 [T, C, H, W].
        most: largest error, DN, 0..32767.
    """
    return _STEP.pack(2 * most + 1) + lossless.encode_array(near_positions(dn, most))


def decode_near(
    data: bytes, shape: tuple[int, int, int, int], dtype: str, nodata: int | None = None
) -> np.ndarray:
    """Decode `encode_near`: the middle of each step.

    Returns:
        ``dtype`` [T, C, H, W], none of them nodata.

    Raises:
        FormatError: bytes that `encode_near` does not write.
    """
    step = _step_of(data, "near-lossless")
    return near_pixels(lossless.decode_array(data[_STEP.size :], shape, "uint16"), step, dtype, nodata)


def near_positions(dn: np.ndarray, most: int) -> np.ndarray:
    """uint16 positions of pixels on the grid of steps, counted from the least value of their type."""
    return ((dn.astype(np.int64) - np.iinfo(dn.dtype).min) // (2 * most + 1)).astype(np.uint16)


def near_pixels(positions: np.ndarray, step: int, dtype: str, nodata: int | None) -> np.ndarray:
    """Pixels of ``dtype`` in the middle of their steps, none of them nodata."""
    return _typed(positions.astype(np.int64) * step + step // 2 + np.iinfo(dtype).min, dtype, nodata)


def _step_of(data: bytes, what: str) -> int:
    if len(data) < _STEP.size:
        raise FormatError(f"{what}: expected a step of 2 bytes, got {len(data)} bytes; the data are damaged")
    step = int(_STEP.unpack_from(data)[0])
    if step % 2 == 0:
        raise FormatError(f"{what}: expected an odd step, got {step}; the data are damaged")
    return step


def _typed(values: np.ndarray, dtype: str, nodata: int | None) -> np.ndarray:
    """Clipped to the type; what equals nodata moves up by one, or down where the type ends."""
    limits = np.iinfo(dtype)
    dn = np.clip(values, limits.min, limits.max)
    if nodata is not None:
        dn[dn == nodata] = nodata + 1 if nodata < limits.max else nodata - 1
    return dn.astype(dtype)
