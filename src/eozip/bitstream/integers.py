"""Coded lists of integers: bit lengths under a table that is sent, then their lower bits.

Tables are made from integers by integer arithmetic alone, so every machine makes the same ones.
"""

from __future__ import annotations

import math

import numpy as np

from eozip.entropy.range_coder import TOTAL, DecodePort, EncodePort, Port, Tables
from eozip.errors import FormatError

_MAX_CLASSES = 40
_LENGTH_BYTES = 5  # of a length, at most
_STEPS = (256, 279, 304, 332, 362, 395, 431, 470)  # round(256 * 2**(i/8))


def packed_length(value: int) -> bytes:
    """A length below 2**35, seven bits a byte, the lowest first (LEB128)."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def read_length(data: bytes, position: int, name: str) -> tuple[int, int]:
    """The inverse of `packed_length`: the length at a position, and where it ends.

    Raises:
        FormatError: no length there; `name` says in what.
    """
    value = 0
    for k, byte in enumerate(data[position : position + _LENGTH_BYTES]):
        value |= (byte & 0x7F) << 7 * k
        if byte < 0x80:
            return value, position + k + 1
    raise FormatError(f"{name}: no length at byte {position}; the bytes are damaged")


def sent_weight(count: int) -> int:
    """A count as one byte: 0 if there is none, else 1 + 8 log2(count), rounded."""
    return 0 if count == 0 else 1 + round(8 * math.log2(count))


def weight_count(weight: int) -> int:
    """256 times the count that `sent_weight` stands for, by integer arithmetic alone."""
    return _STEPS[(weight - 1) % 8] << ((weight - 1) // 8) if weight else 0


def _sent_weights(classes: np.ndarray) -> bytes:
    """Counts of each class as one byte each."""
    return bytes(map(sent_weight, np.bincount(classes, minlength=1).tolist()))


def _weights_table(weights: bytes) -> Tables:
    """One table row for classes 0..len(weights)-1."""
    return normalised([[weight_count(w) for w in weights]], first=[0])


def normalised(rows: list[list[int]], first: list[int]) -> Tables:
    """Tables from integer counts, with an escape of 1; what rounding leaves goes to the largest entry."""
    size = np.array([len(row) + 1 for row in rows])
    freqs = np.zeros((len(rows), size.max()), np.uint32)
    for r, row in enumerate(rows):
        free = TOTAL - len(row) - 1
        whole = max(1, sum(row))
        scaled = [1 + count * free // whole for count in row] + [1]
        scaled[row.index(max(row))] += TOTAL - sum(scaled)
        freqs[r, : len(scaled)] = scaled
    return Tables(freqs, np.array(first), size)


_FAIR_BITS = 12
# Row b: b fair bits at once, as a number below 2**b.
_FAIR = normalised([[1] * (1 << b) for b in range(_FAIR_BITS + 1)], first=[0] * (_FAIR_BITS + 1))


def write_low_bits(port: EncodePort, values: np.ndarray, lengths: np.ndarray) -> None:
    for shift in range(0, int(lengths.max(initial=0)), _FAIR_BITS):
        part = np.flatnonzero(lengths > shift)
        rows = np.minimum(lengths[part] - shift, _FAIR_BITS)
        port.code((values[part] >> shift) & ((1 << rows) - 1), rows, _FAIR)


def read_low_bits(port: Port, lengths: np.ndarray) -> np.ndarray:
    values = np.zeros(len(lengths), np.int64)
    for shift in range(0, int(lengths.max(initial=0)), _FAIR_BITS):
        part = np.flatnonzero(lengths > shift)
        rows = np.minimum(lengths[part] - shift, _FAIR_BITS)
        low = port.code(None, rows, _FAIR).astype(np.int64)
        if (low >> rows).any():
            raise FormatError("numbers: impossible bits; the data are damaged")
        values[part] |= low << shift
    return values


def _bit_lengths(values: np.ndarray) -> np.ndarray:
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)  # exact below 2**53


def pack_numbers(values: np.ndarray) -> bytes:
    """Numbers 0 <= v < 2**39: weights of their bit lengths, then lengths and lower bits, range coded."""
    classes = _bit_lengths(values)
    weights = _sent_weights(classes)
    port = EncodePort()
    port.code(classes, np.zeros(len(classes), np.int64), _weights_table(weights))
    write_low_bits(port, values, np.maximum(classes - 1, 0))
    return bytes([len(weights)]) + weights + port.finish()


def unpack_numbers(data: bytes, count: int) -> np.ndarray:
    size = data[0] if data else 0
    if not 1 <= size <= _MAX_CLASSES or len(data) < 1 + size:
        raise FormatError("numbers: a table of classes that is missing or too long; the data are damaged")
    port = DecodePort(data[1 + size :])
    classes = port.code(None, np.zeros(count, np.int64), _weights_table(data[1 : 1 + size])).astype(np.int64)
    if count and (classes.min() < 0 or classes.max() >= size):
        raise FormatError("numbers: a class that does not exist; the data are damaged")
    values = read_low_bits(port, np.maximum(classes - 1, 0))
    port.finish()
    return np.where(classes > 0, values | (np.int64(1) << np.maximum(classes - 1, 0)), 0)


def zigzag(values: np.ndarray) -> np.ndarray:
    return np.where(values < 0, -2 * values - 1, 2 * values)


def unzigzag(values: np.ndarray) -> np.ndarray:
    return np.where(values % 2, -(values // 2) - 1, values // 2)
