"""Trellis-coded quantisation: what is chosen costs least, kernel and numpy write and read the same, any bytes are safe."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eozip.codecs.pyramid import ports
from eozip.entropy import trellis
from eozip.entropy.logistic_tables import trellis_masses
from eozip.entropy.range_coder import DecodePort, EncodePort, EstimatePort, Tables
from eozip.entropy.tables import pack_tables
from eozip.errors import FormatError, InputError

SCALES = (0.1, 0.4, 1.0, 3.0, 20.0)
needs_kernel = pytest.mark.skipif(ports.library() is None, reason="no compiled kernel on this machine")


def _tables() -> Tables:
    masses = [trellis_masses(scale, turn) for turn in range(2) for scale in SCALES]
    return pack_tables(masses, [-(len(m) // 2) for m in masses])


TABLES = _tables()


def _drawn(count: int, seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Values in spacings and rows that fit them."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(SCALES), count).astype(np.uint8)
    return (rng.logistic(0, 1, count) * np.array(SCALES)[rows] * spread).astype(np.float32), rows


def _cost(residual: np.ndarray, rows: np.ndarray, symbols: np.ndarray, thrift: float) -> float:
    port = EstimatePort()
    values = port.code_trellis(symbols, rows, TABLES)
    return port.bits + thrift * float(np.square(residual - values).sum())


def test_no_other_symbols_cost_less() -> None:
    residual, rows = _drawn(6)
    best = _cost(residual, rows, trellis.chosen(residual, rows, TABLES, 3.0), 3.0)
    near = np.rint(residual / 2).astype(int)
    tried = [
        _cost(residual, rows, near + np.array(moves), 3.0)
        for moves in itertools.product((-1, 0, 1), repeat=6)
    ]
    assert best == pytest.approx(min(tried), rel=1e-5)


def test_fewer_bits_at_equal_error_than_rounding_to_steps() -> None:
    rng = np.random.default_rng(1)
    values = rng.logistic(0, 1, 20_000).astype(np.float32)
    rows = np.zeros(len(values), np.uint8)

    def point(step: float, thrift: float) -> tuple[float, float]:
        masses = [trellis_masses(1 / step, turn) for turn in range(2)]
        tables, port = pack_tables(masses, [-(len(m) // 2) for m in masses]), EstimatePort()
        symbols = trellis.chosen(values / np.float32(step), rows, tables, thrift)
        found = port.code_trellis(symbols, rows, tables) * step
        return port.bits / len(values), float(np.square(found - values).mean())

    def rounded(step: float) -> tuple[float, float]:
        symbols = np.rint(values / step)
        shares = np.unique(symbols, return_counts=True)[1] / len(values)
        return float(-(shares * np.log2(shares)).sum()), float(np.square(symbols * step - values).mean())

    bits, error = point(0.9, 3.5)
    steps = np.linspace(0.5, 3, 60)
    curve = sorted((e, b) for b, e in map(rounded, steps))
    assert bits < 0.97 * np.interp(error, *zip(*curve, strict=True))


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 1000, 5000])
def test_values_come_back_through_every_port(count: int) -> None:
    residual, rows = _drawn(count, spread=2.0)
    symbols = ports.chosen(residual, rows, TABLES, 3.5)
    for writer, reader in itertools.product(
        (EncodePort, ports.writing_port), (DecodePort, ports.reading_port)
    ):
        port = writer()
        wanted = port.code_trellis(symbols, rows, TABLES)
        read = reader(port.finish())
        np.testing.assert_array_equal(read.code_trellis(None, rows, TABLES), wanted)
        read.finish()


@needs_kernel
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 900), st.integers(0, 2**32 - 1), st.sampled_from((0.1, 1.0, 30.0)))
def test_kernel_chooses_and_writes_what_numpy_does(count: int, seed: int, spread: float) -> None:
    residual, rows = _drawn(count, seed, spread)
    symbols = trellis.chosen(residual, rows, TABLES, 3.5)
    np.testing.assert_array_equal(ports.chosen(residual, rows, TABLES, 3.5), symbols)
    mine, theirs = ports.NativeWriter(), EncodePort()
    whole = np.arange(count, dtype=np.int32) % 7 - 3
    for port in (mine, theirs):
        port.code(whole, rows, TABLES)
        port.code_trellis(symbols, rows, TABLES)
        port.code(symbols, rows, TABLES)
    assert mine.finish() == theirs.finish()


@needs_kernel
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("far", [3e6, 1e7, 2.2e9, 5e9, 1e12, 1e25, np.inf, np.nan])
def test_values_beyond_all_symbols_get_the_farthest(far: float) -> None:
    residual = np.array([far, -far, 1.0, far / 2, 0.2] * 60, np.float32)
    rows = (np.arange(300) % len(SCALES)).astype(np.uint8)
    symbols = ports.chosen(residual, rows, TABLES, 3.5)
    np.testing.assert_array_equal(trellis.chosen(residual, rows, TABLES, 3.5), symbols)
    values = EstimatePort().code_trellis(symbols, rows, TABLES)
    goal = np.clip(np.nan_to_num(residual, nan=np.inf), -2 * trellis.FARTHEST, 2 * trellis.FARTHEST)
    assert np.abs(values - goal).max() <= 4


def test_far_symbols_are_escapes_and_come_back() -> None:
    symbols = np.array([0, 10**6, -(10**6), 3, -40_000, 1, 2], np.int32)
    rows = np.array([0, 1, 2, 3, 4, 0, 0], np.uint8)
    strings = set()
    for writer in (EncodePort, ports.writing_port):
        port = writer()
        wanted = port.code_trellis(symbols, rows, TABLES)
        strings.add(port.finish())
    assert len(strings) == 1
    assert wanted[1] in (2 * 10**6, 2 * 10**6 - 1)
    for reader in (DecodePort, ports.reading_port):
        np.testing.assert_array_equal(reader(next(iter(strings))).code_trellis(None, rows, TABLES), wanted)


def test_an_estimate_is_what_is_written() -> None:
    residual, rows = _drawn(4000)
    symbols = trellis.chosen(residual, rows, TABLES, 3.5)
    guess, port = EstimatePort(), EncodePort()
    guess.code_trellis(symbols, rows, TABLES)
    port.code_trellis(symbols, rows, TABLES)
    assert 8 * len(port.finish()) == pytest.approx(guess.bits, rel=0.002, abs=40)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 1200))
def test_any_bytes_give_values_or_a_named_error(data: bytes, count: int) -> None:
    _, rows = _drawn(count)
    found = []
    for reader in (DecodePort, ports.reading_port):
        try:
            found.append(reader(data).code_trellis(None, rows, TABLES).tolist())
        except FormatError as fault:
            found.append(str(fault))
    assert found[0] == found[1]


def test_rows_that_the_tables_lack_are_refused() -> None:
    for port in (EncodePort(), ports.writing_port()):
        with pytest.raises(InputError, match="rows in 0"):
            port.code_trellis(np.zeros(1, np.int32), np.array([len(SCALES)]), TABLES)
        with pytest.raises(InputError, match="expected"):
            port.code_trellis(np.zeros(2, np.int32), np.array([0]), TABLES)
