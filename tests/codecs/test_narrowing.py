"""Reading by the kernel: the symbols of `DecodePort`, and the pixels of numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eozip.codecs import registry
from eozip.codecs.pyramid import haar, layers, narrowing, ports, references, registration, spectral
from eozip.codecs.pyramid.ports import NativePort, NativeWriter, reading_port
from eozip.entropy.range_coder import DecodePort, EncodePort, Tables
from eozip.errors import FormatError, InputError
from pyramidscenes import FLEXIBLE, codec_of, season, shipped_tensors, wild

pytestmark = pytest.mark.skipif(narrowing.library() is None, reason="no compiled kernel on this machine")

TABLES = registry.get(FLEXIBLE).model.tables
BINARY = registry.get(FLEXIBLE).laws.binary


def streams(rng: np.random.Generator) -> tuple[bytes, list[tuple[np.ndarray, np.ndarray, Tables]]]:
    """Some calls with symbols likely and unlikely, and the bytes that hold them."""
    port, other, calls = EncodePort(), NativeWriter(), []
    for _ in range(rng.integers(1, 5)):
        count, reach = int(rng.integers(0, 60)), int(rng.choice([1, 6, 300, 1 << 30]))
        tables = TABLES if rng.integers(2) else BINARY
        rows = rng.integers(0, len(tables.size), count).astype(np.uint8)
        symbols = rng.integers(-reach, reach + 1, count).astype(np.int32)
        port.code(symbols, rows, tables)
        other.code(symbols, rows, tables)
        calls.append((symbols, rows, tables))
    data = port.finish()
    assert other.finish() == data
    return data, calls


@pytest.mark.parametrize("seed", range(40))
def test_it_reads_what_was_written(seed):
    data, calls = streams(np.random.default_rng(seed))
    port = NativePort(data)
    for symbols, rows, tables in calls:
        assert np.array_equal(port.code(None, rows, tables), symbols)
    port.finish()


def told(port: DecodePort | NativePort, calls: list[tuple[np.ndarray, np.ndarray, Tables]]) -> list[object]:
    """Symbols of each call up to the first that is refused, and why."""
    found: list[object] = []
    try:
        for _, rows, tables in calls:
            found.append(port.code(None, rows, tables).tolist())
        port.finish()
    except FormatError as error:
        found.append(str(error))
    return found


@settings(max_examples=300, deadline=None)
@example(114952, "noise")  # impossible bytes after the last symbol
@given(st.integers(0, 1 << 30), st.sampled_from(["flip", "cut", "more", "zeros", "noise"]))
def test_damaged_bytes_are_read_or_refused_alike(seed, kind):
    rng = np.random.default_rng(seed)
    data, calls = streams(rng)
    bad = bytearray(data)
    if kind == "flip" and bad:
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        bad = bad[: rng.integers(len(bad) + 1)]
    elif kind == "more":
        bad += rng.bytes(int(rng.integers(1, 12)))
    elif kind == "zeros":
        bad += bytes(int(rng.integers(1, 12)))
    elif kind == "noise":
        bad = bytearray(rng.bytes(len(bad)))
    assert told(NativePort(bytes(bad)), calls) == told(DecodePort(bytes(bad)), calls)


def test_rows_that_there_are_not_are_refused():
    with pytest.raises(InputError, match="rows"):
        NativePort(b"abc").code(None, np.array([len(TABLES.size)]), TABLES)


@pytest.mark.parametrize("seed", range(4))
def test_without_a_kernel_numpy_reads_the_same_pixels(seed, monkeypatch):
    codec, shape = registry.get(FLEXIBLE), (3, 3, 41, 38)
    if seed == 3:  # every tensor in use, whatever training has made of the shipped ones
        codec = codec_of(wild(shipped_tensors(FLEXIBLE), 5), FLEXIBLE)
    coded = codec.encode(season(shape, {}, seed).astype(np.float32), 60)
    for there in (3, 8, len(coded.sections)):
        cut = replace(coded, sections=coded.sections[:there])
        by_kernel = codec.decode(cut, shape, 0)
        with monkeypatch.context() as patch:
            for module in (haar, layers, narrowing, ports, references, registration, spectral):
                patch.setattr(module, "library", lambda: None)
            assert isinstance(reading_port(b""), DecodePort)
            assert np.array_equal(codec.decode(cut, shape, 0), by_kernel)
