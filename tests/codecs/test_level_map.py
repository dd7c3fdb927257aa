"""Quality by cell: the level map of the pyramid codecs."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import eozip
from eozip import bitstream
from eozip.cli import cli
from eozip.codecs import level_map, registry
from eozip.codecs.base import Encoded
from eozip.codecs.level_map import NOTHING, encode_levels
from eozip.codecs.pyramid.codec import PyramidCodec
from eozip.codecs.pyramid.grids import Grid
from eozip.errors import EozipError, FormatError, InputError
from pyramidscenes import (
    BILINEAR,
    CODEC,
    CUBIC,
    FAST,
    SERIES,
    codec_of,
    season,
    shipped_tensors,
    texture,
    wild,
    wild_corrections,
)
from reference import pyramid
from toy_codec import TOY, registered

IDS = (CODEC, SERIES)
INTERPOLATED = {1: Grid(BILINEAR, 2, 1, 0), 2: Grid(CUBIC, 6, 4, 1)}
SHAPE = (3, 3, 50, 61)


def levels_for(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Any levels, each of them somewhere if there is room."""
    size = level_map._size_of(shape)
    return np.random.default_rng(seed).permuted(np.resize(np.arange(16, dtype=np.uint8), size))


def pixels(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.rint(texture(shape, seed)).astype(np.uint16)


# --- the same pixels everywhere ---


class Pair:
    """A codec of the package, and the decoder after the page with the same weights."""

    def __init__(self, tensors: dict[str, np.ndarray], name: str) -> None:
        self.codec: PyramidCodec = codec_of(tensors, name)
        self.weights = pyramid.weights_of(tensors)

    def chunk_of(self, coded: Encoded, shape: tuple[int, ...]) -> bitstream.Chunk:
        header = bitstream.Header(
            self.codec.id, "uint16", shape, quality=50.0, checks=coded.checks, levels=True
        )
        return bitstream.Chunk(header, b"", b"", coded.sections, levels=encode_levels(coded.levels))


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("weights", [0, 20, 127])
@pytest.mark.parametrize("found", [{}, INTERPOLATED], ids=["one grid", "three ladders"])
def test_the_page_decodes_the_same_pixels(name, weights, found):
    tensors = shipped_tensors()
    pair = Pair(wild(tensors, weights) if weights else tensors, name)
    x = season(SHAPE, found, weights).astype(np.float32)
    coded = pair.codec.encode(x, 85, levels=levels_for(x.shape, weights))
    chunk = pair.chunk_of(coded, x.shape)
    for reduce, dates in ((1, None), (4, [2, 1])):
        expected = pair.codec.decode_scaled(coded, x.shape, reduce, dates=dates)
        assert np.array_equal(pyramid.decode(pair.weights, chunk, reduce, dates), expected), (reduce, dates)


def test_any_corrections_count_in_octaves(monkeypatch):
    wild_corrections(monkeypatch)
    pair, shape = Pair(wild(shipped_tensors(), 20), SERIES), (3, 6, 50, 61)
    noise = np.random.default_rng(4).integers(0, 900, shape)
    coded = pair.codec.encode(np.float32(season(shape, {}, 4) + noise), 85, levels=levels_for(shape, 4))
    expected = pair.codec.decode_scaled(coded, shape)
    assert np.array_equal(pyramid.decode(pair.weights, pair.chunk_of(coded, shape)), expected)


def test_the_page_decodes_the_same_groups():
    pair = Pair(wild(shipped_tensors(), 30), SERIES)
    groups = [(1, texture((2, 2, 33, 41), 1)), (2, texture((2, 3, 17, 21), 2)), (6, texture((2, 1, 6, 7), 3))]
    shape, pairs = (2, 6, 33, 41), [(factor, x.shape[1]) for factor, x in groups]
    coded = pair.codec.encode_groups(
        [(f, x.astype(np.float32)) for f, x in groups], 80, levels=levels_for(shape)
    )
    decoded = pair.codec.decode_groups(coded, shape, pairs)
    made = pyramid.decode_groups(pair.weights, pair.chunk_of(coded, shape))
    assert all(np.array_equal(own, expected) for (_, own), expected in zip(made, decoded, strict=True))


@pytest.mark.parametrize("name", IDS)
def test_encoders_know_what_decoders_make(name):
    codec, x = registry.get(name), texture(SHAPE, 5).astype(np.float32)
    holes = np.zeros(x.shape, bool)
    holes[1, :, :20, :30] = True
    coded = codec.encode(x, 70.0, holes, levels_for(x.shape))
    assert np.array_equal(coded.decoded()[0], codec.decode(coded, x.shape, 70.0))


@pytest.mark.parametrize("name", IDS)
def test_some_dates_and_bands_are_those_of_the_whole(name):
    blob = eozip.encode(pixels((5, 3, 40, 37)), name, 80, level_map=levels_for((5, 3, 40, 37)))
    whole = eozip.decode(blob)
    assert np.array_equal(eozip.decode(blob, dates=[3, 1], bands=[2, 0]), whole[[3, 1]][:, [2, 0]])


def test_a_reduced_picture_is_the_average_of_the_whole():
    blob = eozip.encode(pixels((1, 3, 64, 64)), CODEC, 80, level_map=levels_for((1, 3, 64, 64)))
    averages = eozip.decode(blob).reshape(1, 3, 16, 4, 16, 4).mean((3, 5))
    assert np.abs(eozip.decode(blob, reduce=4) - averages).max() <= 2


def test_a_reduced_picture_needs_the_first_bytes_alone():
    blob = eozip.encode(pixels(), CODEC, 80, level_map=levels_for(SHAPE))
    first = blob[: eozip.inspect(blob).reduced[8]]
    assert len(first) < len(blob)
    assert np.array_equal(eozip.decode(first, reduce=8), eozip.decode(blob, reduce=8))


# --- what a level does ---


@pytest.mark.parametrize("name", [*IDS, FAST])
def test_the_same_level_everywhere_is_a_coarser_quality(name):
    """Two octaves: the networks work as they were trained to."""
    codec, x = registry.get(name), texture((2, 4, 70, 75), 1).astype(np.float32)
    everywhere = np.full(level_map._size_of(x.shape), 4, np.uint8)
    by_map, by_quality = (
        codec.encode(x, 80, levels=everywhere),
        codec.encode(x, 80 - 100 * np.log(4) / np.log(75)),
    )
    sizes = [sum(map(len, coded.sections)) for coded in (by_map, by_quality)]
    errors = [np.square(coded.decoded()[0] - x).mean() ** 0.5 for coded in (by_map, by_quality)]
    assert sizes[0] < 1.05 * sizes[1]
    assert errors[0] < 1.05 * errors[1]


def test_each_level_errs_more_and_costs_less():
    dn = pixels((1, 3, 48, 64))
    blobs = [eozip.encode(dn, CODEC, 90, level_map=np.full((3, 4), level)) for level in range(0, 16, 3)]
    sizes, decibels = [len(blob) for blob in blobs], [eozip.psnr(dn, eozip.decode(blob)) for blob in blobs]
    assert sizes == sorted(sizes, reverse=True)
    assert decibels == sorted(decibels, reverse=True)


def test_nothing_is_sent_of_the_highest_level():
    noise = np.random.default_rng(0).integers(1000, 5000, (1, 3, 64, 64)).astype(np.uint16)
    blobs = [eozip.encode(noise, CODEC, 90, level_map=np.full((4, 4), level)) for level in (0, NOTHING)]
    assert len(blobs[1]) < 0.05 * len(blobs[0])


def test_the_best_cells_stay_as_good_as_without_a_map():
    dn, levels = pixels((1, 3, 64, 64)), np.full((4, 4), 8)
    levels[1:3, 1:3] = 0
    inside = np.s_[..., 16:48, 16:48]
    errors = []
    for given_map in (None, levels):
        decoded = eozip.decode(eozip.encode(dn, CODEC, 80, level_map=given_map))
        errors.append(np.square(decoded[inside] - dn[inside].astype(float)).mean())
    assert errors[1] < 1.1 * errors[0]


def test_groups_take_the_map_of_the_finest_grid():
    groups = {10: pixels((1, 3, 96, 96)), 20: pixels((1, 2, 48, 48), 1), 60: pixels((1, 1, 16, 16), 2)}
    levels = np.zeros((6, 6), int)
    levels[:, 3:] = 10
    decoded = eozip.decode_groups(eozip.encode_groups(groups, quality=85, level_map=levels))
    for key, dn in groups.items():
        error, middle = np.square(decoded[key] - dn.astype(float)), dn.shape[3] // 2
        assert error[..., middle + 1 :].mean() > 2 * error[..., : middle - 1].mean(), key


def test_cells_can_be_dropped_beside_a_map():
    dn, drop = pixels(), np.zeros((3, 50, 61), bool)
    drop[1, :24, :24] = True
    blob = eozip.encode(dn, SERIES, 70, drop=drop, level_map=levels_for(SHAPE))
    assert np.array_equal(eozip.dropped(blob), drop)
    assert eozip.decode(blob).shape == dn.shape


# --- promises ---


def test_a_largest_error_holds_everywhere():
    dn = pixels()
    decoded = eozip.decode(eozip.encode(dn, CODEC, 60, max_error=30, level_map=levels_for(SHAPE)))
    assert np.abs(decoded.astype(int) - dn).max() <= 30


def test_a_target_is_reached():
    dn, levels = pixels((1, 3, 64, 64)), np.zeros((4, 4), int)
    levels[2:] = 6
    blob, report = eozip.encode_report(dn, CODEC, target_psnr=38, level_map=levels)
    assert report.reached
    assert eozip.psnr(dn, eozip.decode(blob)) >= 38


def test_quality_100_promises_nothing_of_coarser_cells():
    report = eozip.encode_report(pixels(), CODEC, 100, level_map=np.full(level_map._size_of(SHAPE), 8))[1]
    assert (report.residual, report.codec) == (0, CODEC)


# --- the map itself ---


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 70), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_any_map_comes_back(dates, height, width, seed):
    shape = (dates, 1, height, width)
    levels = np.random.default_rng(seed).integers(0, 16, level_map._size_of(shape)).astype(np.uint8)
    levels.flat[0] = 3
    assert np.array_equal(level_map.decode_levels(encode_levels(levels), shape), levels)


def test_a_chunk_tells_its_map():
    levels = levels_for(SHAPE)
    blob = eozip.encode(pixels(), CODEC, 60, level_map=levels)
    assert np.array_equal(eozip.level_map_of(blob), levels)
    assert eozip.inspect(blob).header.levels


def test_a_chunk_without_a_map_has_level_0_everywhere():
    assert not eozip.level_map_of(eozip.encode(pixels(), CODEC, 60)).any()


def test_a_map_of_zeros_costs_no_byte():
    assert eozip.encode(pixels(), CODEC, 60, level_map=np.zeros((4, 4))) == eozip.encode(pixels(), CODEC, 60)


def test_a_map_by_pixel_gives_cells_their_lowest_level():
    by_pixel = np.full((50, 61), 9)
    by_pixel[20, 40] = 2
    expected = np.full((3, 4, 4), 9)
    expected[:, 1, 2] = 2
    blob = eozip.encode(pixels(), CODEC, 60, level_map=by_pixel)
    assert np.array_equal(eozip.level_map_of(blob), expected)


def test_a_map_serves_every_series_of_a_batch():
    batch, levels = np.stack([pixels(seed=seed) for seed in (1, 2)]), levels_for(SHAPE)
    blobs = eozip.encode_batch(batch, SERIES, 60, level_map=levels)
    assert all(np.array_equal(eozip.level_map_of(blob), levels) for blob in blobs)


def test_info_counts_the_cells_of_each_level(tmp_path):
    (tmp_path / "a.eoz").write_bytes(_coded())
    told = CliRunner().invoke(cli, ["info", "--json", str(tmp_path / "a.eoz")])
    assert (
        json.loads(told.stdout)["level_cells"]
        == np.bincount(levels_for(SHAPE).ravel(), minlength=16).tolist()
    )


# --- bad input ---


@pytest.mark.parametrize(
    ("given_map", "message"),
    [
        (np.zeros((5, 4)), "wrong size: expected"),
        (np.zeros((2, 4, 4)), "wrong size"),
        (np.zeros(4), "wrong size"),
        (np.zeros((0, 0)), "wrong size"),
        (3, "wrong size"),
        (np.full((4, 4), 16), "expected 0..15, got 16..16"),
        (np.full((4, 4), -1), "expected 0..15"),
        (np.full((4, 4), np.nan), "fill NaN"),
        (np.full((4, 4), np.inf), "whole numbers"),
        (np.full((4, 4), 0.5), "whole numbers"),
        (np.zeros((4, 4), bool), "array of bool"),
        (np.zeros((4, 4), "U1"), "whole numbers"),
        ("map.tif", "whole numbers"),
        ([[0, 1], [2]], "whole numbers"),
        (np.ma.zeros((4, 4)), "plain array"),
    ],
)
def test_no_map_is_refused(given_map, message):
    with pytest.raises(InputError, match=f"level_map.*{message}"):
        eozip.encode(pixels(), CODEC, 60, level_map=given_map)


@pytest.mark.parametrize("codec", ["lossless", TOY])
def test_codecs_that_code_all_cells_alike_refuse_a_map(codec):
    with registered(), pytest.raises(InputError, match="codes all cells alike"):
        eozip.encode(pixels((1, 12, 32, 32)), codec, level_map=np.ones((2, 2)))


# --- hostile bytes ---


@given(st.binary(max_size=60))
@settings(max_examples=40, deadline=None)
def test_any_bytes_for_a_map_give_pixels_or_a_named_error(data):
    chunk = bitstream.unpack(_coded())
    forged = replace(chunk, levels=data, header=replace(chunk.header, levels=bool(data)))
    with suppress(EozipError):  # another error fails the test
        assert eozip.decode(bitstream.pack(forged)).shape == SHAPE


def test_an_empty_map_is_refused():
    with pytest.raises(FormatError, match="without bytes"):
        level_map.decode_levels(b"", SHAPE)


def test_another_map_does_not_give_another_picture():
    chunk = bitstream.unpack(_coded())
    other = replace(chunk, levels=encode_levels(levels_for(SHAPE, 9)))
    with pytest.raises(EozipError):
        eozip.decode(bitstream.pack(other))


@pytest.mark.parametrize("codec", ["lossless", TOY])
def test_a_map_in_a_chunk_of_another_codec_is_refused(codec):
    with registered():
        chunk = bitstream.unpack(eozip.encode(pixels((1, 12, 32, 32)), codec))
        forged = replace(chunk, levels=b"\1", header=replace(chunk.header, levels=True))
        with pytest.raises(FormatError, match="level map"):
            eozip.decode(bitstream.pack(forged))


def _coded() -> bytes:
    return eozip.encode(pixels(), CODEC, 60, level_map=levels_for(SHAPE))
