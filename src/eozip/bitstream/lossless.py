"""Whole chunks, exactly: every band is predicted from causal neighbours in itself and in bands before it.

The predictor is a least-squares fit per band and date; its weights are 16-bit integers in the stream, so that
decoding is exact anywhere. Residuals are coded under logistic tables, one scale per 8 x 8 block.
Decoding runs along the lines ``column + 2 row = step``, whose pixels do not depend on each other, so that
numpy needs no loop over pixels. Sums of predictions are of integers below 2**38, which float64 holds exactly.

Sources: least-squares prediction, Wu, Barthel and Zhang, ICIP 1998; a scale per block, as in CCSDS 121.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

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
# Neighbours as (row, column) shifts. Own ones lie on lines before their pixel's.
_OWN = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-2, -1), (-2, 1), (-2, 2))
_MARGIN = 2  # of own neighbours, rows above and columns on each side
_CROSS = ((0, 0), (0, -1), (-1, 0), (0, 1), (1, 0))
_SQUARE = (*_CROSS, (-1, -1), (-1, 1), (1, -1), (1, 1))
_REFERENCES = (_SQUARE, _SQUARE, _CROSS)  # of the first, second and third reference band
_TAPS = len(_OWN) + sum(map(len, _REFERENCES))
# A fit needs pixels enough to pay for its weights; below, (3 W + 3 N - 2 NW) / 4 is used.
_FIT_PIXELS = 1024
_DEFAULT_WEIGHTS = (6144, 6144, -4096, 0) + (0,) * (_TAPS - 4)
_FIT_SAMPLES = 16384
_LIVELY = 4  # scale of a block from which on its pixels count less in a fit: their errors are larger anyhow


# --- residuals ---

_SCALES = 38
_DIRECT = 18  # scales above code their lower bits as they are


def _scale_mean(scale: int) -> float:
    return 2.0 ** (scale // 2 - 3) * (1.0, math.sqrt(2.0))[scale % 2]


def _row(scale: int) -> list[int]:
    """Integer counts of a symmetric law for -r..r: geometric where its mean magnitude is below 1, else logistic.

    Uses only correctly rounded operations and integers, so that every machine gets the same counts.
    """
    mean = _scale_mean(scale)
    reach = min(640, int(12 * mean) + 4)
    side = _geometric(mean, reach) if mean < 1 else _logistic(mean, reach)
    return side[:0:-1] + side


def _geometric(mean: float, reach: int) -> list[int]:
    theta = int((math.sqrt(1.0 + mean * mean) - 1.0) / mean * 65536.0)
    side = [1 << 40]
    for _ in range(reach):
        side.append(side[-1] * theta >> 16)
    return side


def _logistic(mean: float, reach: int) -> list[int]:
    """1 / (2 cosh(v / s) + 2 cosh(1 / 2 s)) with 2 cosh(1 / s) = 2 + `more`, by the recurrence of cosh, in 2**-32."""
    more = int(1.921875 / (mean * mean) * 4294967296.0)  # (2 log 2)**2 / mean**2, nearly
    unit = 1 << 32
    beside = math.isqrt((4 * unit + more) * unit)
    before, now, side = 2 * unit + more, 2 * unit, []
    for _ in range(reach + 1):
        side.append((1 << 74) // (now + beside))
        before, now = now, ((2 * unit + more) * now >> 32) - before
    return side


@cache
def _tables() -> Tables:
    # Scale 0 is for blocks without any residual.
    rows = [[1, 1 << 40, 1]] + [_row(scale) for scale in range(1, _DIRECT + 1)]
    return normalised(rows, first=[-(len(row) // 2) for row in rows])


def _low_bits(scales: np.ndarray) -> np.ndarray:
    return np.maximum(0, (scales - _DIRECT + 1) // 2)


def _write_residuals(port: EncodePort, residuals: np.ndarray, scales: np.ndarray) -> None:
    low = _low_bits(scales)
    port.code(residuals >> low, scales - 2 * low, _tables())
    write_low_bits(port, residuals & ((1 << low) - 1), low)


def _read_residuals(port: Port, scales: np.ndarray) -> np.ndarray:
    low = _low_bits(scales)
    high = port.code(None, scales - 2 * low, _tables()).astype(np.int64)
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
    """How each band is predicted: bases int64 [C, T], references int [C, 3], weights int64 [C, T, taps]."""

    bases: np.ndarray
    references: np.ndarray
    weights: np.ndarray


def _empty_border(t: int, h: int, w: int) -> np.ndarray:
    return np.zeros((t, h + _MARGIN, w + 2 * _MARGIN))


def _bordered(planes: np.ndarray) -> np.ndarray:
    """[T, H, W] with two more rows above and two more columns on each side, from causal pixels only.

    What stands there is what the decoder has at that time: see `_undo_band`.
    """
    out = _empty_border(*planes.shape)
    out[:, 2:, 2:-2] = planes
    out[:, 2:, -2:] = planes[:, :, -1:]
    out[:, 3:, :2] = planes[:, :-1, :1]
    out[:, 1, 2:] = out[:, 2, :-2]
    out[:, 0, 2:] = out[:, 1, :-2]
    return out


def _own_taps(planes: np.ndarray) -> list[np.ndarray]:
    """[T, H, W] planes of the own neighbours."""
    bordered = _bordered(planes)
    h, w = planes.shape[1:]
    return [bordered[:, 2 + row : 2 + row + h, 2 + column : 2 + column + w] for row, column in _OWN]


def _reference_taps(done: np.ndarray, references: np.ndarray) -> list[np.ndarray]:
    """[T, H, W] planes of the taps in reference bands; ``done`` is [C, T, H, W], centred."""
    taps = []
    h, w = done.shape[2:]
    for reference, shifts in zip(references, _REFERENCES, strict=True):
        if reference != _NONE:
            padded = np.pad(done[reference], ((0, 0), (1, 1), (1, 1)), mode="edge")
            taps += [padded[:, 1 + row : 1 + row + h, 1 + column : 1 + column + w] for row, column in shifts]
    return taps


def _tap_count(references: np.ndarray) -> int:
    return len(_OWN) + sum(
        len(shifts) for reference, shifts in zip(references, _REFERENCES, strict=True) if reference != _NONE
    )


def _sampled(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of some pixels, of all columns alike."""
    step = max(1, height * width // _FIT_SAMPLES)
    while math.gcd(step, width) > 1:
        step += 1
    return np.divmod(np.arange(0, height * width, step), width)


def _fit(target: np.ndarray, taps: list[np.ndarray], counts: np.ndarray | None = None) -> np.ndarray:
    """int64 [taps] weights of one plane [H, W], by ridge regression on some of its pixels, each counted so often."""
    at = _sampled(*target.shape)
    a, goal = np.stack([tap[at] for tap in taps]), target[at]
    counted = a if counts is None else a * counts[at]
    gram = counted @ a.T
    ridge = (1e-6 * np.trace(gram) / len(taps) + 1e-3) * np.eye(len(taps))
    weights = np.linalg.solve(gram + ridge, counted @ goal)
    return np.clip(np.rint(weights * (1 << _WEIGHT_BITS)), -32768, 32767).astype(np.int64)


def _fitted_twice(target: np.ndarray, taps: list[np.ndarray]) -> np.ndarray:
    """As `_fit`, with pixels counted by how well those around them are predicted."""
    scales = _block_scales(_left(target, taps, _fit(target, taps))[None, None])
    counts = np.ldexp(1.0, _LIVELY - np.maximum(_spread(scales, *target.shape)[0, 0], _LIVELY))
    return _fit(target, taps, counts)


def _left(target: np.ndarray, taps: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """int64 [H, W]: what the prediction of a plane leaves."""
    predicted = np.full(target.shape, float(_HALF))
    for weight, tap in zip(weights.tolist(), taps, strict=True):
        predicted += weight * tap
    return (target - np.floor(predicted / (1 << _WEIGHT_BITS))).astype(np.int64)


def _choose_references(centred: np.ndarray) -> np.ndarray:
    """int [C, 3]: of the bands before each one, the three whose fine detail is most like its own."""
    bands = centred.shape[0]
    detail = np.diff(centred, axis=3).reshape(bands, -1)
    step = max(1, detail.shape[1] // (4 * _FIT_SAMPLES))
    detail = detail[:, ::step].astype(np.float64)
    gram = detail @ detail.T
    norm = np.sqrt(np.maximum(np.diag(gram), 1e-9))
    alike = np.abs(gram / norm / norm[:, None])
    references = np.full((bands, len(_REFERENCES)), _NONE)
    for band in range(1, bands):
        best = np.argsort(-alike[band, :band], kind="stable")[: len(_REFERENCES)]
        references[band, : len(best)] = best
    return references


def _plan(x: np.ndarray) -> tuple[_Plan, np.ndarray]:
    """A plan for int64 [C, T, H, W], and the residuals under it."""
    bands, dates, height, width = x.shape
    bases = np.rint(x.mean(axis=(2, 3))).astype(np.int64)
    centred = (x - bases[:, :, None, None]).astype(np.float64)
    fitted = height * width >= _FIT_PIXELS and bool(centred.any())
    references = _choose_references(centred) if fitted else np.full((bands, len(_REFERENCES)), _NONE)
    weights = np.tile(np.array(_DEFAULT_WEIGHTS), (bands, dates, 1))
    residuals = np.empty_like(x)
    for band in range(bands):
        taps = _own_taps(centred[band]) + _reference_taps(centred, references[band])
        for date in range(dates):
            planes = [tap[date] for tap in taps]
            if fitted:
                weights[band, date, : len(taps)] = _fitted_twice(centred[band, date], planes)
            residuals[band, date] = _left(centred[band, date], planes, weights[band, date, : len(taps)])
    return _Plan(bases, references, weights), _wrapped(residuals)


# --- the bytes ---

_RAW, _PLAIN, _FITTED = range(3)


def encode_array(x: np.ndarray) -> bytes:
    """Code pixels exactly.

    Args:
        x: uint16 or int16 [T, C, H, W].
    """
    low = int(np.iinfo(x.dtype).min)
    planes = x.astype(np.int64).swapaxes(0, 1) - low
    coded = _encode_planes(planes)
    raw = bytes([_RAW]) + (planes.astype("<u2")).tobytes()
    return min(coded, raw, key=len)


def decode_array(data: bytes, shape: tuple[int, int, int, int], dtype: str) -> np.ndarray:
    """Decode `encode_array`.

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
        planes = _decode_planes(data, (c, t, h, w))
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
    references = np.full((bands, len(_REFERENCES)), _NONE)
    if data[0] == _FITTED:
        fields, at = _take(data, at, "u1", references.size)
        references = fields.reshape(references.shape)
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
    centred = np.empty(residuals.shape)
    for band in range(len(residuals)):
        forecast = np.full(residuals.shape[1:], float(_HALF))
        taps = _reference_taps(centred, plan.references[band])
        for index, tap in enumerate(taps, start=len(_OWN)):
            forecast += plan.weights[band, :, index, None, None] * tap
        own = plan.weights[band, :, : len(_OWN)]
        centred[band] = _undo_band(residuals[band], forecast, own, plan.bases[band][:, None])
    return centred.astype(np.int64) + plan.bases[:, :, None, None]


def _undo_band(residuals: np.ndarray, forecast: np.ndarray, own: np.ndarray, base: np.ndarray) -> np.ndarray:
    """One band of all dates, along the lines column + 2 row = step.

    Args:
        residuals: int64 [T, H, W].
        forecast: float64 [T, H, W], the part of the prediction that comes from reference bands.
        own: int64 [T, taps] weights of the own neighbours.
        base: int64 [T, 1].

    Returns:
        float64 [T, H, W], less the base.
    """
    t, h, w = residuals.shape
    out = _empty_border(t, h, w)
    flat, stride = out.reshape(t, -1), w + 2 * _MARGIN
    known, error, rows = forecast.reshape(t, -1), residuals.reshape(t, -1), np.arange(h)
    start = _MARGIN * stride + _MARGIN + rows * (stride - 2)  # of each row where step is 0
    shifts = np.array([row * stride + column for row, column in _OWN])
    around, weights = shifts[:, None] + start, own[:, None, :].astype(np.float64)
    for step in range(w + 2 * (h - 1)):
        lanes = slice(max(0, (step - w + 2) // 2), min(h - 1, step // 2) + 1)
        pixels = rows[lanes] * (w - 2) + step
        line = np.matmul(weights, flat.take(around[:, lanes] + step, axis=1))[:, 0] + known[:, pixels]
        line = ((line.astype(np.int64) >> _WEIGHT_BITS) + error[:, pixels] + base & 65535) - base
        flat[:, start[lanes] + step] = line
        _set_borders(out, step)
    return out[:, _MARGIN:, _MARGIN:-_MARGIN]


def _set_borders(out: np.ndarray, step: int) -> None:
    """Values beyond the edges, as in `_bordered`, of the line that was decoded last."""
    h, w = out.shape[1] - _MARGIN, out.shape[2] - 2 * _MARGIN
    if step < w:
        above = out[:, 2, 2 + step]
        out[:, 1, 4 + step] = above
        if 6 + step < out.shape[2]:
            out[:, 0, 6 + step] = above
    last = step - w + 1
    if last >= 0 and last % 2 == 0 and last // 2 < h:
        out[:, 2 + last // 2, -2:] = out[:, 2 + last // 2, -3, None]
    if step % 2 == 0 and step // 2 < h - 1:
        out[:, 3 + step // 2, :2] = out[:, 2 + step // 2, 2, None]
