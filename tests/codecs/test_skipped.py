"""Cells that were left out: their details have no symbols, and every decoder knows which these are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import eozip
from eozip import bitstream
from eozip.bitstream import Chunk, Header
from eozip.codecs import level_map, skip_mask
from eozip.codecs.base import Encoded
from eozip.codecs.pyramid import holes
from eozip.codecs.pyramid.grids import Grid
from eozip.codecs.pyramid.layout import Group, ladders
from eozip.errors import DesyncError, EozipError
from pyramidscenes import (
    BILINEAR,
    CODEC,
    CUBIC,
    FLEXIBLE,
    NEAREST,
    SERIES,
    codec_of,
    season,
    shipped_tensors,
    texture,
    wild,
)
from reference import flexible, pyramid

IDS = (CODEC, SERIES, FLEXIBLE)
LAYOUTS = {
    "one grid": {},
    "ladders": {1: Grid(BILINEAR, 2, 1, 0), 2: Grid(CUBIC, 6, 4, 1)},
    "nearest": {0: Grid(NEAREST, 3, 1, 2), 2: Grid(BILINEAR, 6, 5, 0)},
}
SHAPE = (3, 3, 58, 67)


def cells_of(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Solid and ragged parts, of the middle date everything."""
    cells = np.random.default_rng(seed).random(skip_mask.cells_of(shape)) < 0.3
    cells[0, 1:6, 2:7] = True
    cells[len(cells) // 2] = True
    return cells


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("has_map", [False, True], ids=["no map", "map"])
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("weights", [0, 20])
def test_the_page_decodes_the_same_pixels(name: str, has_map: bool, layout: str, weights: int) -> None:
    tensors = shipped_tensors(name)
    tensors = wild(tensors, weights) if weights else tensors
    codec, theirs = codec_of(tensors, name), pyramid.weights_of(tensors)
    x, cells = season(SHAPE, LAYOUTS[layout], weights).astype(np.float32), cells_of(SHAPE, weights)
    size = level_map._size_of(SHAPE)
    levels = np.random.default_rng(1).integers(0, 16, size).astype(np.uint8) if has_map else None
    coded = codec.encode_without(x, 85, cells, None, levels)
    told = {"checks": coded.checks, "budgets": coded.budgets, "skip": True, "levels": has_map}
    sections = {"skip": skip_mask.encode_cells(cells)}
    if levels is not None:
        sections["levels"] = level_map.encode_levels(levels)
    chunk = Chunk(Header(name, "uint16", SHAPE, 50.0, bytes(8), **told), b"", b"", coded.sections, **sections)
    page = flexible if name == FLEXIBLE else pyramid
    for reduce, dates in ((1, None), (4, [2, 1])):
        expected = codec.decode_scaled(coded, SHAPE, reduce, dates=dates)
        assert np.array_equal(page.decode(theirs, chunk, reduce, dates), expected), (reduce, dates)


@pytest.mark.parametrize("name", IDS)
def test_pixels_of_a_canvas_that_begins_before_them(name: str) -> None:
    """In a ladder whose coarser grid begins before the finest one: which of its cells are left out."""
    codec, theirs = codec_of(shipped_tensors(name), name), pyramid.weights_of(shipped_tensors(name))
    shape, found = (1, 3, 86, 93), {0: Grid(BILINEAR, 2, 1, 0)}
    cells = np.random.default_rng(0).random(skip_mask.cells_of(shape)) < 0.02
    coded = codec.encode_without(season(shape, found, 1).astype(np.float32), 85, cells)
    told = {"checks": coded.checks, "budgets": coded.budgets, "skip": True}
    header = Header(name, "uint16", shape, 50.0, bytes(8), **told)
    chunk = Chunk(header, b"", b"", coded.sections, skip=skip_mask.encode_cells(cells))
    (ladder,) = ladders(codec.reader(coded, shape, None).groups, *shape[2:])
    assert [place.before for _, place in ladder] == [(1, 2), (1, 1)]
    page = flexible if name == FLEXIBLE else pyramid
    assert np.array_equal(page.decode(theirs, chunk), codec.decode_scaled(coded, shape))


@pytest.mark.parametrize("name", IDS)
def test_encoders_know_what_decoders_make(name: str) -> None:
    codec, x = codec_of(shipped_tensors(name), name), texture(SHAPE, 5).astype(np.float32)
    coded = codec.encode_without(x, 70.0, cells_of(SHAPE))
    assert np.array_equal(coded.decoded()[0], codec.decode(coded, SHAPE, 70.0))


@pytest.mark.parametrize("name", IDS)
def test_the_more_is_left_out_the_fewer_bytes(name: str) -> None:
    shape = (2, 3, 96, 96)
    x, cells = np.rint(texture(shape, 5)).astype(np.uint16), np.zeros((2, 12, 12), bool)
    sizes = []
    for size in (0, 4, 8, 12):
        cells[1, :, :size] = True
        drop = skip_mask.pixels_of(cells, shape[2:])
        sizes.append(len(eozip.encode(x, name, 70, drop=drop)))
    assert (np.diff(sizes) < 0.08 * sizes[0]).all()  # which date tells of the other may change
    assert sizes[-1] < 0.85 * sizes[0]


def test_flags_of_other_cells_are_refused() -> None:
    """Symbols would be those of other details: it does not decode to another picture."""
    x, cells = np.rint(texture(SHAPE, 5)).astype(np.uint16), cells_of(SHAPE)
    chunk = bitstream.unpack(eozip.encode(x, SERIES, 80, drop=skip_mask.pixels_of(cells, SHAPE[2:])))
    for one in np.argwhere(~cells)[::17]:
        other = cells.copy()
        other[tuple(one)] = True
        with pytest.raises(EozipError):
            eozip.decode(bitstream.pack(replace(chunk, skip=skip_mask.encode_cells(other))))


def test_a_decoder_without_the_flags_finds_other_pixels() -> None:
    codec, x = codec_of(shipped_tensors(CODEC), CODEC), texture(SHAPE, 5).astype(np.float32)
    coded = codec.encode_without(x, 70.0, cells_of(SHAPE))
    with pytest.raises((DesyncError, EozipError)):
        codec.decode(Encoded(coded.sections, coded.checks), SHAPE, 70.0)


# --- cells that no needed pixel depends on ---


@pytest.mark.parametrize("kernel", [BILINEAR, NEAREST, CUBIC])
@pytest.mark.parametrize("factor", [2, 3, 6])
def test_cells_are_hidden_where_no_shown_pixel_changes_with_them(kernel: int, factor: int) -> None:
    size, rng = (31, 44), np.random.default_rng(factor)
    group = Group((0,), Grid(kernel, factor, 1, factor - 1))
    [[(_, place)]] = ladders([group], *size)
    mask = np.ones((1, *size), bool)
    mask[0, 9:11, 13:15] = False
    mask[0, 20:, :4] = False
    found = holes.on_canvas(group, place, mask)[0]
    assert group.grid is not None
    cells = rng.integers(0, 9, found.shape).astype(float)
    before, _ = group.grid.interpolated(cells, *size)
    for cell in np.ndindex(found.shape):
        cells[cell] += 1
        after, _ = group.grid.interpolated(cells, *size)
        assert found[cell] == (after == before)[~mask[0]].all(), cell
        cells[cell] -= 1


# --- what is put in their place ---


def test_a_hole_is_filled_smoothly_and_nothing_else_changes() -> None:
    i, j = np.indices((37, 50))
    x = np.float32(np.stack([3 * i + j, 1000 - 2 * j])[None])
    hidden = np.zeros((1, 37, 50), bool)
    hidden[0, 10:23, 8:31] = hidden[0, 30:, 44:] = True
    out = holes.filled(np.where(hidden[:, None], 30_000, x), hidden)
    np.testing.assert_array_equal(out[0][:, ~hidden[0]], x[0][:, ~hidden[0]])
    assert np.abs(out - x).max() < 30


def test_a_date_that_shows_nothing_is_the_nearest_that_does() -> None:
    x = np.float32(texture((4, 2, 20, 30), 3))
    hidden = np.zeros((4, 20, 30), bool)
    hidden[0] = hidden[1] = hidden[2, 5:9] = True
    out = holes.filled(x, hidden)
    np.testing.assert_array_equal(out[1], out[2])
    np.testing.assert_array_equal(out[0], out[2])
    assert np.isfinite(holes.filled(x, np.ones_like(hidden))).all()
