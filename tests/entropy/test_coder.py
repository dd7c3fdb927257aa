"""The range coder: exact, as small as estimated, and safe on any bytes."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eozip.entropy.range_coder import TOTAL, DecodePort, EncodePort, EstimatePort, Tables, code_each
from eozip.errors import FormatError, InputError

INT32 = np.iinfo(np.int32)
quick = settings(max_examples=60, deadline=None)


def random_tables(seed: int, rows: int, longest: int) -> Tables:
    rng = np.random.default_rng(seed)
    size = rng.integers(2, longest + 1, rows)
    used = np.arange(longest) < size[:, None]
    wild = np.where(used, rng.integers(1, 1000, used.shape) ** 2, 0)
    freqs = np.where(used, np.maximum(1, wild * 60_000 // wild.sum(axis=1, keepdims=True)), 0)
    freqs[:, 0] += TOTAL - freqs.sum(axis=1)
    return Tables(freqs, rng.integers(-300, 300, rows), size)


def encoded(symbols: np.ndarray, rows: np.ndarray, tables: Tables) -> bytes:
    port = EncodePort()
    port.code(symbols, rows, tables)
    return port.finish()


def decoded(data: bytes, rows: np.ndarray, tables: Tables) -> np.ndarray:
    port = DecodePort(data)
    symbols = port.code(None, rows, tables)
    port.finish()
    return symbols


def widened(tables: Tables, row: int) -> list[int]:
    """Cumulative 24-bit counts of one row, as docs/bitstream.md specifies them."""
    freqs = tables.freqs[row, : tables.size[row]].tolist()
    sums = [sum(freqs[:i]) for i in range(len(freqs))]
    return [total * (2**24 - len(freqs)) // 2**16 + i for i, total in enumerate(sums)] + [2**24]


def reference_decoder(data: bytes, rows: np.ndarray, tables: Tables) -> list[int]:
    """Entries by the specification, in plain integers: slow, readable, and without constriction."""
    data += bytes(8)
    point, at, low, span = int.from_bytes(data[:8], "big"), 8, 0, 2**64 - 1
    out = []
    for row in rows.tolist():
        cumulative, scale = widened(tables, row), span >> 24
        quantile = ((point - low) % 2**64) // scale
        entry = max(i for i, start in enumerate(cumulative[:-1]) if start <= quantile)
        low = (low + scale * cumulative[entry]) % 2**64
        span = scale * (cumulative[entry + 1] - cumulative[entry])
        if span < 2**32:
            low, span = low << 32 & 2**64 - 1, span << 32
            point = (point << 32 & 2**64 - 1) | int.from_bytes(data[at : at + 4].ljust(4, b"\0"), "big")
            at += 4
        out.append(entry)
    return out


@quick
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(2, 60), st.integers(0, 400))
def test_any_symbols_under_any_tables_come_back(seed, table_rows, longest, count):
    tables = random_tables(seed, table_rows, longest)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, table_rows, count)
    near = tables.first[rows] + rng.integers(-20, 80, count)
    anything = rng.integers(INT32.min, INT32.max, count, endpoint=True)
    symbols = np.where(rng.random(count) < 0.9, near, anything).astype(np.int32)
    assert (decoded(encoded(symbols, rows, tables), rows, tables) == symbols).all()


def test_the_ends_of_int32_are_codable():
    tables = Tables(np.array([[65535, 1]]), np.array([INT32.min]), np.array([2]))
    symbols = np.array([INT32.min, INT32.max, 0, -1], np.int32)
    rows = np.zeros(4, int)
    assert (decoded(encoded(symbols, rows, tables), rows, tables) == symbols).all()


@quick
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(2, 300), st.integers(0, 5000))
def test_bytes_are_within_one_percent_of_the_estimate(seed, table_rows, longest, count):
    tables = random_tables(seed, table_rows, longest)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, table_rows, count)
    symbols = (tables.first[rows] + rng.integers(0, longest, count)).astype(np.int32)
    estimate = EstimatePort()
    assert estimate.code(symbols, rows, tables) is not None
    assert abs(len(encoded(symbols, rows, tables)) - estimate.bits / 8) <= 0.01 * estimate.bits / 8 + 5


def test_calls_share_one_coder_and_may_mix_tables():
    first, second = random_tables(1, 3, 20), random_tables(2, 5, 50)
    rng = np.random.default_rng(3)
    calls = []
    for tables in (first, second, first, second):
        rows = rng.integers(0, len(tables.size), 97)
        calls.append((rng.integers(-400, 400, 97).astype(np.int32), rows, tables))
    port = EncodePort()
    for symbols, rows, tables in calls:
        port.code(symbols, rows, tables)
    reader = DecodePort(port.finish())
    for symbols, rows, tables in calls:
        assert (reader.code(None, rows, tables) == symbols).all()
    reader.finish()


def test_bytes_are_those_of_the_specification():
    """The slow decoder in plain integers reads what constriction wrote: no float decides a symbol."""
    tables = random_tables(7, 4, 40)
    rng = np.random.default_rng(8)
    rows = np.sort(rng.integers(0, 4, 500))
    entries = rng.integers(0, tables.size[rows] - 1)
    data = encoded((entries + tables.first[rows]).astype(np.int32), rows, tables)
    assert reference_decoder(data, rows, tables) == entries.tolist()


def test_golden_bytes():
    tables = Tables(np.array([[1, 2, 65532, 1], [30000, 35535, 1, 0]]), np.array([-1, 5]), np.array([4, 3]))
    symbols = np.array([1, 5, -1, 6, 0, 70000, 1, -70000], np.int32)
    rows = np.array([0, 1, 0, 1, 0, 0, 0, 1])
    assert encoded(symbols, rows, tables).hex() == GOLDEN


GOLDEN = "00030102fffae34ac8d55029c248d29a1e"


def test_any_bytes_give_symbols_or_a_format_error():
    """Bytes of an encoder up to some position, then anything. Neither all nor none are refused."""
    decodes = set()

    @quick
    @given(st.integers(0, 600), st.binary(max_size=200), st.integers(0, 2**32))
    @example(600, b"", 0)
    def check(start, data, seed):
        tables = random_tables(seed, 5, 30)
        rows = np.random.default_rng(seed).integers(0, 5, 300)
        valid = encoded(tables.first[rows].astype(np.int32), rows, tables)
        try:
            decoded(valid[:start] + data, rows, tables)
            decodes.add(True)
        except FormatError:  # another error fails the test
            decodes.add(False)

    check()
    assert decodes == {True, False}


def test_a_cut_section_never_passes_for_the_whole():
    tables = random_tables(4, 3, 30)
    rows = np.random.default_rng(5).integers(0, 3, 200)
    symbols = tables.first[rows] + np.random.default_rng(6).integers(0, 40, 200)
    data = encoded(symbols.astype(np.int32), rows, tables)
    for length in range(len(data)):
        with contextlib.suppress(FormatError):  # another error fails the test
            assert (decoded(data[:length], rows, tables) != symbols).any()


def test_a_string_is_as_short_as_its_symbols_allow():
    tables = Tables(np.array([[32768, 32767, 1]]), np.array([0]), np.array([3]))
    bits = np.random.default_rng(7).integers(0, 2, 400).astype(np.int32)
    for count in range(1, 400):
        estimate = EstimatePort()
        estimate.code(bits[:count], np.zeros(count, int), tables)
        assert len(encoded(bits[:count], np.zeros(count, int), tables)) <= estimate.bits / 8 + 2


def test_left_over_and_missing_bytes_are_refused():
    tables = random_tables(4, 3, 30)
    rows = np.zeros(50, int)
    data = encoded(np.zeros(50, np.int32), rows, tables)
    with pytest.raises(FormatError, match="left"):
        decoded(data + b"some more bytes", rows, tables)
    with pytest.raises(FormatError):
        decoded(data, rows[:20], tables)
    with pytest.raises(FormatError, match="expected no bytes"):
        DecodePort(data).finish()


def test_few_bytes_cannot_claim_many_symbols():
    tables = random_tables(4, 3, 30)
    with pytest.raises(FormatError, match="fewer bytes"):
        DecodePort(bytes(20)).code(None, np.zeros(10_000_000, np.uint8), tables)


def test_nothing_coded_is_nothing_written():
    port = EncodePort()
    none = port.code(np.zeros(0, np.int32), np.zeros(0, int), random_tables(1, 1, 5))
    assert port.finish() == b""
    assert none.shape == (0,)
    DecodePort(b"").finish()


@pytest.mark.parametrize(
    ("freqs", "first", "size"),
    [
        ([[65536, 0]], [0], [2]),
        ([[65535, 2]], [0], [2]),
        ([[65536]], [0], [1]),
        ([[65535, 1]], [0], [3]),
        ([[65535, 1]], [0, 1], [2, 2]),
        ([[65534, 1, 1]], [INT32.max], [3]),
    ],
)
def test_wrong_tables_are_refused(freqs, first, size):
    with pytest.raises(InputError, match="tables"):
        Tables(np.array(freqs), np.array(first), np.array(size))


@pytest.mark.parametrize("rows", [[3], [-1], [0.0], [[0]]])
def test_rows_that_do_not_exist_are_refused(rows):
    with pytest.raises(InputError, match="rows"):
        EncodePort().code(np.zeros(1, np.int32), np.array(rows), random_tables(4, 3, 30))


def test_encoding_needs_one_symbol_per_row():
    with pytest.raises(InputError, match="needs symbols"):
        EncodePort().code(None, np.zeros(1, int), random_tables(4, 3, 30))
    with pytest.raises(InputError, match="one row per symbol"):
        EstimatePort().code(np.zeros(2, np.int32), np.zeros(1, int), random_tables(4, 3, 30))


@quick
@given(seed=st.integers(0, 1 << 30), counts=st.lists(st.integers(0, 40), min_size=1, max_size=5))
def test_several_ports_at_once_are_what_one_after_the_other_gives(seed, counts):
    rng = np.random.default_rng(seed)
    tables = random_tables(seed, 7, 20)
    rows = rng.integers(0, 7, sum(counts)).astype(np.uint8)
    symbols = (tables.first[rows] + rng.integers(-3, 24, len(rows))).astype(np.int32)  # some are escapes
    parts = np.split(np.arange(len(rows)), np.cumsum(counts)[:-1])
    alone = [encoded(symbols[part], rows[part], tables) for part in parts]
    writers = [EncodePort() for _ in counts]
    assert np.array_equal(code_each(writers, counts, symbols, rows, tables), symbols)
    assert [port.finish() for port in writers] == alone
    readers = [DecodePort(data) for data in alone]
    assert np.array_equal(code_each(readers, counts, None, rows, tables), symbols)
    for reader in readers:
        reader.finish()
