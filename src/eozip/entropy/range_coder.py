"""Range coder behind three ports: estimate, encode, decode.

A codec has one traversal that calls ``port.code(symbols, rows, tables)``; which port it is given decides
whether bits are counted, written or read. It sees integers only, so every machine codes the same bytes.

Invariants:
    * Every row of a table sums to ``2**PRECISION`` and gives each of its entries at least 1.
    * ``constriction`` widens a row of ``n`` entries to 24 bits as ``cum * (2**24 - n) // 2**16 + index``. The
      float64 products in there are exact (17 bits times 24 bits), so the way through floats rounds nothing.
    * Any int32 is codable: a symbol outside its row is the row's escape, and then an Elias-gamma code.

Source: range coding as in https://github.com/bamler-lab/constriction (``stream.queue``); Elias, 1975.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import constriction
import numpy as np

from eozip.entropy.trellis import FARTHEST, next_state, points, turns_of, width_of
from eozip.errors import FormatError, InputError

PRECISION = 16
TOTAL = 1 << PRECISION
_MAX_ENTRIES = 1 << 15

_Categorical = constriction.stream.model.Categorical
_EACH_ITS_OWN = _Categorical(perfect=False)  # a row of frequencies for each symbol
_MOST_AT_ONCE = 1 << 20  # frequencies handed to it
# Slack of the plausibility check in DecodePort: what a few words of look-ahead may hold, in bits.
SLACK_BITS = 256.0


@dataclass(frozen=True, eq=False)
class Tables:
    """Integer probability tables.

    Row ``r`` covers the symbols ``first[r] .. first[r] + size[r] - 2``; its last entry is the escape.

    Attributes:
        freqs: uint32 [R, L]; row ``r`` uses its first ``size[r]`` entries, each >= 1, which sum to 65,536.
        first: int32 [R], the symbol of entry 0.
        size: int32 [R], entries in use, the escape included; at least 2.

    Raises:
        InputError: shapes that do not fit together, an entry of 0, or a row with another sum.
    """

    freqs: np.ndarray
    first: np.ndarray
    size: np.ndarray
    _models: dict[int, Any] = field(default_factory=dict, init=False, repr=False)
    _derived: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "freqs", np.ascontiguousarray(self.freqs, dtype=np.uint32))
        object.__setattr__(self, "first", np.ascontiguousarray(self.first, dtype=np.int32))
        object.__setattr__(self, "size", np.ascontiguousarray(self.size, dtype=np.int32))
        _check_tables(self.freqs, self.first, self.size)

    def model(self, row: int) -> Any:
        """constriction's model of one row, made once."""
        if row not in self._models:
            freqs = self.freqs[row, : self.size[row]].astype(np.float64)
            self._models[row] = _Categorical(freqs, perfect=False)
        return self._models[row]

    @property
    def bits(self) -> np.ndarray:
        """float64 [R, L]: what each entry costs, in bits (unused entries: 0)."""
        if "bits" not in self._derived:
            self._derived["bits"] = PRECISION - np.log2(np.maximum(self.freqs, 1))
        return self._derived["bits"]

    @property
    def least_bits(self) -> np.ndarray:
        """float64 [R]: what the likeliest entry of each row costs, in bits."""
        if "least" not in self._derived:
            self._derived["least"] = PRECISION - np.log2(self.freqs.max(axis=1))
        return self._derived["least"]


def _check_tables(freqs: np.ndarray, first: np.ndarray, size: np.ndarray) -> None:
    if freqs.ndim != 2 or first.shape != (len(freqs),) or size.shape != (len(freqs),) or not len(freqs):
        raise InputError(
            f"tables: expected freqs [R, L], first [R], size [R] with R >= 1, got {freqs.shape}, "
            f"{first.shape}, {size.shape}"
        )
    if size.min() < 2 or size.max() > min(freqs.shape[1], _MAX_ENTRIES):
        raise InputError(f"tables: expected sizes in 2..{freqs.shape[1]}, got {size.min()}..{size.max()}")
    used = np.arange(freqs.shape[1]) < size[:, None]
    sums = np.where(used, freqs, 0).sum(axis=1, dtype=np.int64)
    if (sums != TOTAL).any() or (freqs[used] == 0).any():
        raise InputError(f"tables: every row must sum to {TOTAL} with entries >= 1, got sums {sums[:4]}")
    if (first.astype(np.int64) + size - 2).max() > np.iinfo(np.int32).max:
        raise InputError("tables: a row reaches beyond int32")


def _gamma_freqs() -> list[int]:
    """Lengths n of Elias-gamma codes, about 2**-(n+1) each; a distance between two int32 has n <= 33."""
    freqs = [1 << max(0, PRECISION - 1 - n) for n in range(34)]
    return [freqs[0] - (sum(freqs) - TOTAL), *freqs[1:]]


_GAMMA = np.array(_gamma_freqs(), np.uint32)
_GAMMA_BITS = PRECISION - np.log2(_GAMMA)
_GAMMA_MODEL = _Categorical(_GAMMA.astype(np.float64), perfect=False)
_BIT_MODEL = _Categorical(np.array([TOTAL / 2, TOTAL / 2]), perfect=False)
_FIRST_BIT = 1 << 23  # where a bit's second half begins, of 2**24
# How far behind `low` the point of a used-up string may lie: constriction's own bound
_USED_UP = (1 << 33) - 1
MOST_BITS = 32  # that bring any point so near


class Port(Protocol):
    """What a traversal codes through."""

    def code(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """Codes symbols under rows of tables.

        Args:
            symbols: int32 [n], or None when decoding.
            rows: integer [n], a row of ``tables`` for each symbol.
            tables: the probability tables.

        Returns:
            int32 [n] symbols.
        """
        ...

    def code_trellis(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """Codes symbols of trellis-coded quantisation (trellis.py).

        Args:
            symbols: int32 [n], or None when decoding.
            rows: integer [n], below R.
            tables: 2 R rows: row r of quantiser 0, r + R of quantiser 1, which begin at the same symbol and are as long.

        Returns:
            int32 [n] values in spacings.
        """
        ...


class ReadPort(Port, Protocol):
    """A port that reads a stream to its end."""

    def finish(self) -> None:
        """Check that the section was used up exactly.

        Raises:
            FormatError: bytes are left, missing or damaged.
        """
        ...


class WritePort(Port, Protocol):
    """A port that writes a stream."""

    def finish(self) -> bytes:
        """The section's bytes."""
        ...


class EstimatePort:
    """Counts what `EncodePort` would write, without writing: ``bits`` is the ideal code length."""

    def __init__(self) -> None:
        self.bits = 0.0

    def code(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """Add the cost of ``symbols`` to ``bits`` and return them."""
        symbols, rows = _checked(symbols, rows, len(tables.size))
        entries, distances = _to_entries(symbols, tables.first[rows], tables.size[rows] - 1)
        lengths = _gamma_lengths(distances)
        self.bits += float(tables.bits[rows, entries].sum())
        self.bits += float(_GAMMA_BITS[lengths].sum() + lengths.sum())
        return symbols

    def code_trellis(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """Add the cost of ``symbols`` to ``bits`` and return their values."""
        dealt = _Dealt(symbols, rows, tables)
        self.code(dealt.symbols, dealt.rows + dealt.turns * (len(tables.size) // 2), tables)
        return dealt.values()


class EncodePort:
    """Writes symbols into one range coder; `finish` gives the bytes."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def code(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """Write ``symbols`` and return them.

        Raises:
            InputError: no symbols, or rows that ``tables`` does not have.
        """
        symbols, rows = _checked(symbols, rows, len(tables.size))
        runs = _Runs(rows, [len(rows)], tables)
        entries, distances = _to_entries(symbols[runs.order], runs.first, runs.escape)
        for _, row, start, stop in runs:
            self._encoder.encode(entries[start:stop], tables.model(row))
        if len(distances):
            self._write_escapes(distances)
        return symbols

    def code_trellis(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """Write ``symbols`` and return their values.

        Raises:
            InputError: no symbols, or rows that ``tables`` does not have.
        """
        dealt = _Dealt(symbols, rows, tables)
        of_turns = dealt.rows + dealt.turns * (len(tables.size) // 2)
        for start, stop in _runs_of(dealt.rows, dealt.at_once):
            freqs = tables.freqs[of_turns[start:stop], : tables.size[dealt.rows[start]]]
            self._encoder.encode(dealt.entries[start:stop], _EACH_ITS_OWN, freqs.astype(np.float64))
        if len(dealt.distances):
            self._write_escapes(dealt.distances)
        return dealt.values()

    def _write_escapes(self, distances: np.ndarray) -> None:
        lengths = _gamma_lengths(distances)
        self._encoder.encode(lengths.astype(np.int32), _GAMMA_MODEL)
        owner, shift = _bit_positions(lengths)
        if len(owner):
            self._encoder.encode(((distances[owner] >> shift) & 1).astype(np.int32), _BIT_MODEL)

    @property
    def bits(self) -> int:
        """Bits written so far, to within two words of 32."""
        return int(self._encoder.num_bits())

    def finish(self) -> bytes:
        """The section: a big-endian fraction, its last word as short as can be; empty if nothing was coded."""
        if self._encoder.is_empty():
            return b""
        words, (low, span) = self._encoder.pos()
        size = 4 * (words + 2)
        whole = self._encoder.get_compressed().astype(">u4").tobytes().ljust(size, b"\0")
        sealed = int.from_bytes(whole[:size], "big")
        low += sealed >> 64 << 64
        low -= (low > sealed) << 64  # the point that constriction chose may have carried
        return sealed_string(words, low, span)


class DecodePort:
    """Reads symbols from the bytes of `EncodePort`; any bytes give symbols or a FormatError."""

    def __init__(self, data: bytes) -> None:
        self._bits_left = 8.0 * len(data) + SLACK_BITS
        self._started = False
        self._empty = not data
        padded = data + bytes(-len(data) % 4)
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))

    def code(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """Read one symbol per row.

        Raises:
            FormatError: bytes that no encoder writes, or fewer bytes than so many symbols need.
        """
        return _decode_each([self], [len(rows)], rows, tables)

    def code_trellis(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """Read values, see `Port.code_trellis`.

        Raises:
            FormatError: see `code`.
        """
        rows = _checked_rows(rows, len(tables.size) // 2)
        if not len(rows):
            return np.zeros(0, np.int32)
        half, width = len(tables.size) // 2, width_of(len(rows))
        order = np.argsort(rows, kind="stable")
        own = rows[order].astype(np.int64)
        self.begin(float(np.minimum(tables.least_bits[own], tables.least_bits[own + half]).sum()))
        entries, turns = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        escape, state = tables.size[own] - 1, np.zeros(width, np.int64)
        for start, stop in _runs_of(own, width):
            lanes = slice(start % width, start % width + stop - start)
            turns[start:stop] = state[lanes] & 1
            freqs = tables.freqs[own[start] + half * turns[start:stop], : tables.size[own[start]]]
            found = self.read_each(freqs.astype(np.float64))
            entries[start:stop] = found
            parity = np.where(found == escape[start], 0, (found + tables.first[own[start]]) & 1)
            state[lanes] = next_state(state[lanes], parity)
        values, escaped = entries + tables.first[own], np.flatnonzero(entries == escape)
        if len(escaped):
            distances = self.read_escapes(len(escaped))
            values[escaped] = _from_distances(distances, own[escaped], tables)
        out = np.empty(len(rows), np.int32)
        out[order] = points(np.clip(values, -FARTHEST, FARTHEST), turns)
        return out

    def begin(self, bits: float) -> None:
        """Make sure that there are bytes for symbols that cost so many bits at the least."""
        self._spend(bits)
        self._started = True

    def read(self, model: Any, count: int) -> np.ndarray:
        """int32 [count] entries under a model of constriction."""
        try:
            return self._decoder.decode(model, count)
        except AssertionError as error:  # how constriction reports impossible bytes
            raise FormatError("section: bytes that no encoder writes; the data are damaged") from error

    def read_each(self, freqs: np.ndarray) -> np.ndarray:
        """int32 [n] entries, each under a row of frequencies [n, L] of its own."""
        try:
            return self._decoder.decode(_EACH_ITS_OWN, freqs)
        except AssertionError as error:
            raise FormatError("section: bytes that no encoder writes; the data are damaged") from error

    def read_escapes(self, count: int) -> np.ndarray:
        """int64 [count] distances of symbols beyond their rows."""
        self._spend(float(count))
        lengths = self.read(_GAMMA_MODEL, count).astype(np.int64)
        self._spend(float(lengths.sum()))
        distances = np.int64(1) << lengths
        owner, shift = _bit_positions(lengths)
        if len(owner):
            np.add.at(distances, owner, self.read(_BIT_MODEL, len(owner)).astype(np.int64) << shift)
        return distances

    def _spend(self, bits: float) -> None:
        # Refuses a few bytes that claim millions of symbols before time or memory is spent on them.
        self._bits_left -= bits * 0.99
        if self._bits_left < 0:
            raise FormatError("section: fewer bytes than its symbols need; the data are truncated or damaged")

    def finish(self) -> None:
        """Check that the section was used up exactly.

        Raises:
            FormatError: bytes are left, missing or damaged.
        """
        if not self._started:
            if not self._empty:
                raise FormatError("section: expected no bytes, as nothing was coded in it")
            return
        # the shortest string is far from `low`: bits bring it near before another word would be read
        for _ in range(MOST_BITS):
            if self._decoder.maybe_exhausted():
                return
            self.read(_BIT_MODEL, 1)
        raise FormatError("section: bytes are left after its symbols; the data are damaged")


def sealed_string(words: int, low: int, span: int) -> bytes:
    """The shortest string that ends in an interval.

    Args:
        words: whole words of 32 bits written.
        low: where the interval begins, all written words above its 64 bits.
        span: how long it is.
    """
    string = _shortest(low, span).to_bytes(4 * (words + 2), "big")
    return string[: 4 * words] + string[4 * words :].rstrip(b"\0")


def _shortest(low: int, span: int) -> int:
    """The number in low .. low + span - 1 of the most zero bytes at its end that a decoder takes for the end."""
    for shift in range(64, -1, -8):
        point = -(-low >> shift) << shift
        if point < low + span and _is_end(low, span, point):
            return point
    return low


def _is_end(low: int, span: int, point: int) -> bool:
    """Whether `DecodePort.finish` finds a string used up, if zeros follow."""
    for _ in range(MOST_BITS):
        if point - low < _USED_UP:
            return True
        scale = span >> 24
        if point - low >= scale << 24:
            return False
        is_second = point - low >= scale * _FIRST_BIT
        low, span = low + is_second * scale * _FIRST_BIT, scale * _FIRST_BIT
        if span < 1 << 32:
            low, span, point = low << 32, span << 32, point << 32
    return False


def trellis_each(
    ports: Sequence[Port],
    counts: Sequence[int],
    symbols: np.ndarray | None,
    rows: np.ndarray,
    tables: Tables,
) -> np.ndarray:
    """Codes symbols of trellis-coded quantisation through several ports; arguments as of `code_each`.

    Returns:
        int32 [n] values in spacings.
    """
    parts = _parted(ports, counts, symbols, rows)
    return np.concatenate([port.code_trellis(some, r, tables) for port, some, r in parts])


def _parted(
    ports: Sequence[Port], counts: Sequence[int], symbols: np.ndarray | None, rows: np.ndarray
) -> Iterator[tuple[Port, np.ndarray | None, np.ndarray]]:
    """Each port with its symbols and rows."""
    ends = np.cumsum(counts)[:-1]
    own = [None] * len(ports) if symbols is None else np.split(symbols, ends)
    return zip(ports, own, np.split(rows, ends), strict=True)


def code_each(
    ports: Sequence[Port],
    counts: Sequence[int],
    symbols: np.ndarray | None,
    rows: np.ndarray,
    tables: Tables,
) -> np.ndarray:
    """Codes symbols through several ports, so many through each: as `Port.code` of one after the other.

    Args:
        ports: each once.
        counts: of each.
        symbols: int32 [n], in the order of the ports, or None when decoding.
        rows: integer [n].
        tables: the probability tables.

    Returns:
        int32 [n] symbols.
    """
    readers = [port for port in ports if isinstance(port, DecodePort)]
    if len(readers) == len(ports):
        return _decode_each(readers, counts, rows, tables)
    parts = _parted(ports, counts, symbols, rows)
    return np.concatenate([port.code(some, r, tables) for port, some, r in parts])


def _decode_each(
    ports: Sequence[DecodePort], counts: Sequence[int], rows: np.ndarray, tables: Tables
) -> np.ndarray:
    """Reads symbols from several ports: as `DecodePort.code` of one after the other, in fewer and larger steps.

    Args:
        ports: each once.
        counts: symbols to read from each.
        rows: of all of them, in the order of the ports.
        tables: the probability tables.

    Raises:
        FormatError: see `DecodePort.code`.
    """
    rows = _checked_rows(rows, len(tables.size))
    if not len(rows):
        return np.zeros(0, np.int32)
    runs = _Runs(rows, counts, tables)
    spent = np.bincount(runs.ports, runs.counts * tables.least_bits[runs.rows], len(ports))
    for port, bits, count in zip(ports, spent.tolist(), counts, strict=True):
        if count:
            port.begin(bits)
    entries = np.concatenate([ports[k].read(tables.model(row), stop - start) for k, row, start, stop in runs])
    values, escaped = entries + runs.first, np.flatnonzero(entries == runs.escape)
    if len(escaped):
        places = runs.order[escaped]
        owners = np.searchsorted(np.cumsum(counts), places, side="right")
        distances = [ports[k].read_escapes(n) for k, n in enumerate(np.bincount(owners).tolist()) if n]
        values[escaped] = _from_distances(np.concatenate(distances), rows[places], tables)
    out = np.empty(len(rows), np.int32)
    out[runs.order] = values
    return out


def _checked(symbols: np.ndarray | None, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    if symbols is None:
        raise InputError("coder: this port needs symbols, got None")
    symbols = np.ascontiguousarray(symbols, dtype=np.int32)
    rows = _checked_rows(rows, count)
    if symbols.shape != rows.shape:
        raise InputError(f"coder: expected one row per symbol, got {symbols.shape} and {rows.shape}")
    return symbols, rows


def _checked_rows(rows: np.ndarray, count: int) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(f"coder: expected integer rows [n], got {rows.dtype} {rows.shape}")
    if len(rows) and (rows.min() < 0 or rows.max() >= count):
        raise InputError(f"coder: expected rows in 0..{count - 1}, got {rows.min()}..{rows.max()}")
    # numpy sorts narrow integers by radix, which is what makes grouping cheap
    return rows.astype(np.uint8 if count <= 256 else np.uint16 if count <= 65536 else np.int64)


class _Dealt:
    """Symbols of a call with a trellis, by rising row.

    Attributes:
        order: where each comes from.
        symbols, rows, entries, turns: of each.
        distances: of escapes.
        at_once: how many fit the tables that the coder is handed.
    """

    def __init__(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> None:
        own, rows = _checked(symbols, rows, len(tables.size) // 2)
        self.order = np.argsort(rows, kind="stable")
        self.symbols, self.rows = own[self.order], rows[self.order].astype(np.int64)
        escape = tables.size[self.rows] - 1
        self.entries, self.distances = _to_entries(self.symbols, tables.first[self.rows], escape)
        self.turns = turns_of(np.where(self.entries == escape, 0, self.symbols & 1))
        self.at_once = max(1, _MOST_AT_ONCE // tables.freqs.shape[1])

    def values(self) -> np.ndarray:
        """int32 [n] in spacings, in the order that the symbols came in."""
        out = np.empty(len(self.order), np.int32)
        out[self.order] = points(np.clip(self.symbols, -FARTHEST, FARTHEST), self.turns)
        return out


def _runs_of(rows: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Start and stop of runs of equal rows; runs end at multiples of `most`, too."""
    changes = np.flatnonzero(np.diff(rows)) + 1
    edges = np.unique([*range(0, len(rows), most), *changes.tolist(), len(rows)]).astype(np.int64).tolist()
    return pairwise(edges)


class _Runs:
    """Symbols of several ports, and of each by rising row: all of one port and row are coded together.

    Args:
        rows: as `_checked_rows` gives them, of one port after the other.
        counts: symbols of each port.
        tables: whose.

    Attributes:
        order: where each sorted symbol comes from.
        ports, rows, counts: of each run.
        first, escape: int32 [n], of each sorted symbol the row's first symbol and the entry of its escape.
    """

    def __init__(self, rows: np.ndarray, counts: Sequence[int], tables: Tables) -> None:
        keys, width = rows, len(tables.size)
        if len(counts) > 1:
            narrow = np.uint16 if width * len(counts) <= 1 << 16 else np.int64
            keys = (rows + (np.arange(len(counts)) * width).repeat(counts)).astype(narrow)
        self.order = np.argsort(keys, kind="stable")
        found = np.bincount(keys, minlength=1)
        there = np.flatnonzero(found)
        self.counts = found[there]
        self.ports, self.rows = np.divmod(there, width)
        self.first = np.repeat(tables.first[self.rows], self.counts)
        self.escape = np.repeat(tables.size[self.rows] - 1, self.counts)

    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        """Port, row, start and stop of each run."""
        stops = np.cumsum(self.counts).tolist()
        return zip(self.ports.tolist(), self.rows.tolist(), [0, *stops], stops)


def _to_entries(symbols: np.ndarray, first: np.ndarray, escape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int32 [n] table entries; for the escapes among them int64 [k] distances >= 1 (odd: above the row)."""
    entries = symbols.astype(np.int64) - first
    escaped = np.flatnonzero((entries < 0) | (entries >= escape))
    far, above = entries[escaped], escape[escaped]
    distances = np.where(far < 0, -2 * far, 2 * (far - above) + 1)
    entries[escaped] = above
    return entries.astype(np.int32), distances


def _from_distances(distances: np.ndarray, rows: np.ndarray, tables: Tables) -> np.ndarray:
    """int64 [k] symbols of the escapes."""
    first, above = tables.first[rows].astype(np.int64), tables.size[rows] - 1
    symbols = first + np.where(distances % 2 == 0, -(distances // 2), above + distances // 2)
    limits = np.iinfo(np.int32)
    if symbols.min() < limits.min or symbols.max() > limits.max:
        raise FormatError("section: a symbol beyond int32; the data are damaged")
    return symbols


def _gamma_lengths(distances: np.ndarray) -> np.ndarray:
    """int64 [k]: bits after the leading one."""
    # frexp is exact: a distance has at most 34 bits, a float64 holds 53
    return np.frexp(distances.astype(np.float64))[1].astype(np.int64) - 1


def _bit_positions(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each bit after the leading ones: whose it is, and its shift, highest first."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    return owner, lengths[owner] - 1 - (np.arange(len(owner)) - starts[owner])
