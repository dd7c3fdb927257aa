"""Whole chunks, exactly: every band is predicted from causal neighbours in itself and in bands before it.

The predictor is a least-squares fit per band and date; its weights are 16-bit integers in the stream, so that
decoding is exact anywhere. Residuals are coded under two-sided geometric tables, one scale per 8 x 8 block.
Decoding runs along the lines ``column + 2 row = step``, whose pixels do not depend on each other, so that
numpy needs no loop over pixels.

Sources: least-squares prediction, Wu, Barthel and Zhang, ICIP 1998; a scale per block, as in CCSDS 121.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eozip.bitstream.integers import (
    normalised,
    pack_numbers,
    read_low_bits,
    unpack_numbers,
    unzigzag,
    write_low_bits,
    zigzag,
)
from eozip.entropy.range_coder import DecodePort, EncodePort, Port, Tables
from eozip.errors import FormatError

_BLOCK = 8
_WEIGHT_BITS = 13
_HALF = 1 << (_WEIGHT_BITS - 1)
_NONE = 255  # "no reference band"
# Neighbours as (row, column) shifts. Own ones are causal: W, N, NW, NE.
_OWN = ((0, -1), (-1, 0), (-1, -1), (-1, 1))
_FIRST_REFERENCE = ((0, 0), *_OWN, (0, 1), (1, 0))
_SECOND_REFERENCE = ((0, 0), (0, -1), (-1, 0))
_TAPS = len(_OWN) + len(_FIRST_REFERENCE) + len(_SECOND_REFERENCE)
# A fit needs pixels enough to pay for its weights; below, (3 W + 3 N - 2 NW) / 4 is used.
_FIT_PIXELS = 1024
_DEFAULT_WEIGHTS = (6144, 6144, -4096, 0) + (0,) * (_TAPS - 4)
_FIT_SAMPLES = 16384
_MIN_WIDTH = 3  # narrower planes are widened, so that the strides of the decoder are positive


# --- residuals ---

_SCALES = 38
_DIRECT = 18  # scales above code their lower bits as they are


def _scale_mean(scale: int) -> float:
    return 2.0 ** (scale // 2 - 3) * (1.0, math.sqrt(2.0))[scale % 2]


def _geometric_row(mean: float) -> list[int]:
    """Integer counts of a two-sided geometric law with this mean magnitude, for -r..r.

    Uses only correctly rounded operations and integers, so that every machine gets the same counts.
    """
    theta = int((math.sqrt(1.0 + mean * mean) - 1.0) / mean * 65536.0)
    side = [1 << 40]
    for _ in range(min(640, int(12 * mean) + 4)):
        side.append(side[-1] * theta >> 16)
    return side[:0:-1] + side


def _residual_tables() -> Tables:
    # Scale 0 is for blocks without any residual.
    rows = [[1, 1 << 40, 1]] + [_geometric_row(_scale_mean(scale)) for scale in range(1, _DIRECT + 1)]
    return normalised(rows, first=[-(len(row) // 2) for row in rows])


_TABLES = _residual_tables()


def _low_bits(scales: np.ndarray) -> np.ndarray:
    return np.maximum(0, (scales - _DIRECT + 1) // 2)


def _write_residuals(port: EncodePort, residuals: np.ndarray, scales: np.ndarray) -> None:
    low = _low_bits(scales)
    port.code(residuals >> low, scales - 2 * low, _TABLES)
    write_low_bits(port, residuals & ((1 << low) - 1), low)


def _read_residuals(port: Port, scales: np.ndarray) -> np.ndarray:
    low = _low_bits(scales)
    high = port.code(None, scales - 2 * low, _TABLES).astype(np.int64)
    return _wrapped(high << low | read_low_bits(port, low))


def _wrapped(values: np.ndarray) -> np.ndarray:
    """The representative modulo 2**16 in -32768..32767."""
    return (values + 32768 & 65535) - 32768


def _block_scales(residuals: np.ndarray) -> np.ndarray:
    """int64 [C, T, h, w] scale of each block of int [C, T, H, W] residuals, from its mean magnitude."""
    rows = np.arange(0, residuals.shape[2], _BLOCK)
    columns = np.arange(0, residuals.shape[3], _BLOCK)
    total = np.add.reduceat(np.add.reduceat(np.abs(residuals), rows, axis=2), columns, axis=3)
    heights = np.diff(np.append(rows, residuals.shape[2]))
    widths = np.diff(np.append(columns, residuals.shape[3]))
    mean = total / (heights[:, None] * widths)
    scales = np.rint(2 * (np.log2(np.maximum(mean, 1e-9)) + 3)).astype(np.int64)
    return np.where(total == 0, 0, np.clip(scales, 1, _SCALES - 1))


def _spread(scales: np.ndarray, height: int, width: int) -> np.ndarray:
    return scales.repeat(_BLOCK, axis=2)[:, :, :height].repeat(_BLOCK, axis=3)[:, :, :, :width]


# --- prediction ---


@dataclass(frozen=True)
class _Plan:
    """How each band is predicted: bases int64 [C, T], references int [C, 2], weights int64 [C, T, taps]."""

    bases: np.ndarray
    references: np.ndarray
    weights: np.ndarray


def _bordered(planes: np.ndarray) -> np.ndarray:
    """[T, H, W] with one more row above and below and one more column on each side, from causal pixels only.

    What stands there is what the decoder has at that time: see `_undo_band`.
    """
    t, h, w = planes.shape
    out = np.zeros((t, h + 2, w + 2), planes.dtype)
    out[:, 1:-1, 1:-1] = planes
    out[:, 1:-1, -1] = planes[:, :, -1]
    out[:, 2:-1, 0] = planes[:, :-1, 0]
    out[:, 0, 3:] = planes[:, 0, : w - 1]
    return out


def _shifted(bordered: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    row, column = shift
    return bordered[:, 1 + row : bordered.shape[1] - 1 + row, 1 + column : bordered.shape[2] - 1 + column]


def _reference_taps(done: np.ndarray, references: np.ndarray) -> list[np.ndarray]:
    """[T, H, W] planes of the taps in reference bands; ``done`` is [C, T, H, W], centred."""
    taps = []
    for reference, shifts in zip(references, (_FIRST_REFERENCE, _SECOND_REFERENCE)):
        if reference != _NONE:
            padded = np.pad(done[reference], ((0, 0), (1, 1), (1, 1)), mode="edge")
            taps += [_shifted(padded, shift) for shift in shifts]
    return taps


def _tap_count(references: np.ndarray) -> int:
    first, second = (int(reference != _NONE) for reference in references)
    return len(_OWN) + first * len(_FIRST_REFERENCE) + second * len(_SECOND_REFERENCE)


def _fit(target: np.ndarray, taps: list[np.ndarray]) -> np.ndarray:
    """int64 [taps] weights of one plane [H, W], by ridge regression on some of its pixels."""
    step = max(1, target.size // _FIT_SAMPLES)
    a = np.stack([tap.reshape(-1)[::step] for tap in taps]).astype(np.float64)
    gram = a @ a.T
    ridge = (1e-6 * np.trace(gram) / len(taps) + 1e-3) * np.eye(len(taps))
    weights = np.linalg.solve(gram + ridge, a @ target.reshape(-1)[::step].astype(np.float64))
    return np.clip(np.rint(weights * (1 << _WEIGHT_BITS)), -32768, 32767).astype(np.int64)


def _choose_references(centred: np.ndarray) -> np.ndarray:
    """int [C, 2]: of the bands before each one, the two whose fine detail is most like its own."""
    bands = centred.shape[0]
    detail = np.diff(centred, axis=3).reshape(bands, -1)
    step = max(1, detail.shape[1] // (4 * _FIT_SAMPLES))
    detail = detail[:, ::step].astype(np.float64)
    gram = detail @ detail.T
    norm = np.sqrt(np.maximum(np.diag(gram), 1e-9))
    alike = np.abs(gram / norm / norm[:, None])
    references = np.full((bands, 2), _NONE)
    for band in range(1, bands):
        best = np.argsort(-alike[band, :band], kind="stable")[:2]
        references[band, : len(best)] = best
    return references


def _plan(x: np.ndarray) -> tuple[_Plan, np.ndarray]:
    """A plan for int64 [C, T, H, W], and the residuals under it."""
    bands, dates, height, width = x.shape
    bases = np.rint(x.mean(axis=(2, 3))).astype(np.int64)
    centred = x - bases[:, :, None, None]
    fitted = height * width >= _FIT_PIXELS and bool(centred.any())
    references = _choose_references(centred) if fitted else np.full((bands, 2), _NONE)
    weights = np.tile(np.array(_DEFAULT_WEIGHTS), (bands, dates, 1))
    residuals = np.empty_like(x)
    for band in range(bands):
        bordered = _bordered(centred[band])
        taps = [_shifted(bordered, shift) for shift in _OWN] + _reference_taps(centred, references[band])
        for date in range(dates):
            planes = [tap[date] for tap in taps]
            if fitted:
                weights[band, date, : len(taps)] = _fit(centred[band, date], planes)
            predicted = sum(w * plane for w, plane in zip(weights[band, date], planes)) + _HALF
            residuals[band, date] = centred[band, date] - (predicted >> _WEIGHT_BITS)
    return _Plan(bases, references, weights), _wrapped(residuals)


# --- the bytes ---

_RAW, _PLAIN, _FITTED = range(3)


def encode_array(x: np.ndarray) -> bytes:
    """Codes pixels exactly.

    Args:
        x: uint16 or int16 [T, C, H, W].
    """
    low = int(np.iinfo(x.dtype).min)
    planes = x.astype(np.int64).swapaxes(0, 1) - low
    widen = max(0, _MIN_WIDTH - x.shape[3])
    coded = _encode_planes(np.pad(planes, ((0, 0), (0, 0), (0, 0), (0, widen)), mode="edge"))
    raw = bytes([_RAW]) + (planes.astype("<u2")).tobytes()
    return min(coded, raw, key=len)


def decode_array(data: bytes, shape: tuple[int, int, int, int], dtype: str) -> np.ndarray:
    """Decodes `encode_array`.

    Args:
        data: its bytes.
        shape: T, C, H, W.
        dtype: ``uint16`` or ``int16``.

    Raises:
        FormatError: bytes that `encode_array` does not write.
    """
    t, c, h, w = shape
    mode = data[0] if data else -1
    if mode == _RAW:
        if len(data) != 1 + 2 * t * c * h * w:
            raise FormatError(f"lossless: expected {1 + 2 * t * c * h * w} bytes, got {len(data)}")
        planes = np.frombuffer(data, "<u2", offset=1).reshape(c, t, h, w).astype(np.int64)
    elif mode in (_PLAIN, _FITTED):
        planes = _decode_planes(data, (c, t, h, max(w, _MIN_WIDTH)))[..., :w]
    else:
        raise FormatError(f"lossless: unknown mode {mode}; install a newer eozip")
    return np.ascontiguousarray((planes + np.iinfo(dtype).min).swapaxes(0, 1), dtype=dtype)


def _encode_planes(x: np.ndarray) -> bytes:
    """Bytes of int64 [C, T, H, W], 0..65535."""
    plan, residuals = _plan(x)
    scales = _block_scales(residuals)
    port = EncodePort()
    _write_residuals(port, residuals.ravel(), _spread(scales, *x.shape[2:]).ravel())
    side = pack_numbers(zigzag(np.diff(scales.ravel(), prepend=0)))
    return b"".join([_pack_plan(plan), len(side).to_bytes(4, "little"), side, port.finish()])


def _decode_planes(data: bytes, shape: tuple[int, int, int, int]) -> np.ndarray:
    """int64 [C, T, H, W], 0..65535."""
    plan, at = _unpack_plan(data, shape[:2])
    size = int.from_bytes(data[at : at + 4], "little")
    at += 4
    if at + size > len(data):
        raise FormatError("lossless: shorter than its scales; the data are damaged")
    scales = _unpack_scales(data[at : at + size], shape)
    port = DecodePort(data[at + size :])
    residuals = _read_residuals(port, _spread(scales, *shape[2:]).ravel()).reshape(shape)
    port.finish()
    return _undo(plan, residuals)


def _unpack_scales(data: bytes, shape: tuple[int, int, int, int]) -> np.ndarray:
    c, t, h, w = shape
    blocks = (c, t, -(-h // _BLOCK), -(-w // _BLOCK))
    scales = np.cumsum(unzigzag(unpack_numbers(data, math.prod(blocks)))).reshape(blocks)
    if scales.min() < 0 or scales.max() >= _SCALES:
        raise FormatError("lossless: a scale that does not exist; the data are damaged")
    return scales


def _pack_plan(plan: _Plan) -> bytes:
    bases = plan.bases.astype("<u2").tobytes()
    if (plan.references == _NONE).all() and (plan.weights == _DEFAULT_WEIGHTS).all():
        return bytes([_PLAIN]) + bases
    parts = [
        plan.weights[band, :, : _tap_count(references)].astype("<i2").tobytes()
        for band, references in enumerate(plan.references)
    ]
    return b"".join([bytes([_FITTED]), bases, plan.references.astype(np.uint8).tobytes(), *parts])


def _unpack_plan(data: bytes, shape: tuple[int, int]) -> tuple[_Plan, int]:
    """The plan, and where the scales begin."""
    bands, dates = shape
    at = 1
    bases, at = _take(data, at, "<u2", bands * dates)
    weights = np.tile(np.array(_DEFAULT_WEIGHTS), (bands, dates, 1))
    references = np.full((bands, 2), _NONE)
    if data[0] == _FITTED:
        fields, at = _take(data, at, "u1", 2 * bands)
        references = fields.reshape(bands, 2)
        if ((references != _NONE) & (references >= np.arange(bands)[:, None])).any():
            raise FormatError("lossless: a band refers to one after it; the data are damaged")
        for band in range(bands):
            taps = _tap_count(references[band])
            fields, at = _take(data, at, "<i2", dates * taps)
            weights[band, :, :taps] = fields.reshape(dates, taps)
    return _Plan(bases.reshape(bands, dates), references, weights), at


def _take(data: bytes, at: int, dtype: str, count: int) -> tuple[np.ndarray, int]:
    stop = at + count * np.dtype(dtype).itemsize
    if stop > len(data):
        raise FormatError("lossless: shorter than its plan; the data are damaged")
    return np.frombuffer(data[at:stop], dtype).astype(np.int64), stop


def _undo(plan: _Plan, residuals: np.ndarray) -> np.ndarray:
    centred = np.empty_like(residuals)
    for band in range(len(residuals)):
        forecast = np.full(residuals.shape[1:], _HALF, np.int64)
        taps = _reference_taps(centred, plan.references[band])
        for index, tap in enumerate(taps, start=len(_OWN)):
            forecast += plan.weights[band, :, index, None, None] * tap
        own = plan.weights[band, :, : len(_OWN)]
        centred[band] = _undo_band(residuals[band], forecast, own, plan.bases[band][:, None])
    return centred + plan.bases[:, :, None, None]


def _undo_band(residuals: np.ndarray, forecast: np.ndarray, own: np.ndarray, base: np.ndarray) -> np.ndarray:
    """One band of all dates, along the lines column + 2 row = step.

    Args:
        residuals: int64 [T, H, W].
        forecast: int64 [T, H, W], the part of the prediction that comes from reference bands.
        own: int64 [T, 4] weights of W, N, NW, NE.
        base: int64 [T, 1].

    Returns:
        int64 [T, H, W], less the base. Lane r + 1 of a line is row r; lane 0 stands above the first row.
    """
    t, h, w = residuals.shape
    west, north, north_west, north_east = own.T[:, :, None]
    flat, error, out = forecast.reshape(t, -1), residuals.reshape(t, -1), np.empty((t, h * w), np.int64)
    before = [np.zeros((t, h + 1), np.int64)] * 3
    for step in range(w + 2 * (h - 1)):
        first, last = max(0, (step - w + 2) // 2), min(h - 1, step // 2)
        at = slice(step + first * (w - 2), step + last * (w - 2) + 1, w - 2)
        lanes, above = slice(first + 1, last + 2), slice(first, last + 1)
        line = west * before[0][:, lanes] + north * before[1][:, above] + flat[:, at]
        line += north_west * before[2][:, above] + north_east * before[0][:, above]
        line = ((line >> _WEIGHT_BITS) + error[:, at] + base & 65535) - base
        out[:, at] = line
        now = np.zeros((t, h + 1), np.int64)
        now[:, lanes] = line
        _set_borders(now, before[0], step, w)
        before = [now, before[0], before[1]]
    return out.reshape(t, h, w)


def _set_borders(now: np.ndarray, before: np.ndarray, step: int, width: int) -> None:
    """Values beyond the edges, as in `_bordered`: right of a row its last, left of it the one above."""
    rows = now.shape[1] - 1
    right, left = step - width, step + 1
    if right >= 0 and right % 2 == 0 and right // 2 < rows:
        now[:, right // 2 + 1] = before[:, right // 2 + 1]
    if left % 2 == 0 and left // 2 < rows:
        now[:, left // 2 + 1] = before[:, left // 2]
    now[:, 0] = now[:, 1]
