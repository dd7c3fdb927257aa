"""Lossless pixels of bands that were interpolated: exact whatever they hold, and for little more than their own cells."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

import eozip
from eozip.bitstream import lossless as plain
from eozip.codecs.lossless import decode_array, encode_array
from eozip.codecs.pyramid.grids import Grid
from eozip.errors import FormatError
from eozip_lab.evaluate.baselines.lossless import ExactJpeg2000, ExactJpegXl
from products import DATA, real
from pyramidscenes import BILINEAR, CUBIC, NEAREST, cube

CELLS = 3  # the mode
TWENTY = Grid(BILINEAR, 2, 1, 0)
grids = st.builds(
    lambda kernel, factor, row, column: Grid(kernel, factor, row % factor, column % factor),
    st.sampled_from([BILINEAR, NEAREST, CUBIC]),
    st.sampled_from([2, 3, 6]),
    st.integers(0, 5),
    st.integers(0, 5),
)
sides = st.integers(24, 50)


@settings(max_examples=40, deadline=None)
@given(grids, grids, sides, sides, st.sampled_from(["uint16", "int16"]), st.integers(0, 99))
def test_whatever_lies_on_grids_comes_back(first, second, height, width, dtype, seed):
    dn = cube((2, 4, height, width), {1: first, 3: second}, seed).astype(dtype)
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(0, 4)):  # some pixels that no interpolation makes
        dn[tuple(rng.integers(0, dn.shape))] = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max)
    back = decode_array(encode_array(dn), dn.shape, dtype)
    assert back.dtype == dtype
    assert (back == dn).all()


@pytest.mark.parametrize(
    "grid", [TWENTY, Grid(CUBIC, 2, 0, 1), Grid(NEAREST, 2, 1, 1), Grid(BILINEAR, 6, 4, 3)]
)
def test_bands_on_a_grid_cost_little_more_than_their_cells(grid):
    dn = cube((1, 3, 120, 120), {1: grid, 2: grid})
    rows, columns = (grid.cells(120, axis)[1] for axis in (0, 1))
    cells = cube((1, 2, rows, columns), {}, 7)
    alone = len(plain.encode_array(dn[:, :1])) + len(plain.encode_array(cells))
    assert len(encode_array(dn)) < 1.1 * alone + 400
    assert encode_array(dn)[0] == CELLS


def test_bands_without_a_grid_are_as_they_were():
    dn = cube((1, 3, 60, 60), {})
    assert encode_array(dn) == plain.encode_array(dn)


def test_flat_pixels_stay_tiny():
    assert len(encode_array(np.full((4, 12, 128, 128), 3000, np.uint16))) < 200


def test_holes_cost_nothing_of_what_stands_in_them():
    dn = cube((1, 4, 80, 80), {1: TWENTY, 2: TWENTY})
    holes = np.zeros(dn.shape, bool)
    holes[:, :, 45:75, 40:70] = True
    filled = np.where(holes, 3000, dn)
    data = encode_array(filled, holes)
    assert data[0] == CELLS
    assert (decode_array(data, dn.shape, "uint16") == dn)[~holes].all()
    assert len(data) < 1.02 * len(encode_array(dn))


def test_a_chunk_with_nodata_comes_back():
    dn = cube((2, 4, 60, 60), {1: TWENTY, 3: TWENTY})
    dn[:, :, :20, :30] = 0
    dn[0, 1, 40, 40] = 65535
    blob = eozip.encode(dn, "lossless", nodata=0)
    assert (eozip.decode(blob) == dn).all()


def test_any_bytes_give_pixels_or_a_format_error():
    """Bytes of an encoder up to a place, then anything."""
    dn = cube((1, 3, 24, 26), {1: TWENTY, 2: Grid(CUBIC, 6, 5, 0)})
    valid, decodes = encode_array(dn), set()
    assert valid[0] == CELLS

    @settings(max_examples=200, deadline=None)
    @given(data=st.binary(max_size=60), start=st.integers(0, 40) | st.integers(0, len(valid)))
    def check(data, start):
        decodes.add(does_decode(valid[:start] + data, dn.shape))

    check()
    assert False in decodes


def test_flipped_bytes_give_pixels_or_a_format_error():
    dn = cube((1, 2, 24, 24), {1: TWENTY})
    valid = encode_array(dn)
    damaged = [valid[:k] + bytes([valid[k] ^ 0x41]) + valid[k + 1 :] for k in range(len(valid))]
    decodes = {does_decode(data, dn.shape) for data in damaged}  # another error fails the test
    assert does_decode(valid, dn.shape)
    assert False in decodes


@pytest.mark.parametrize(
    ("at", "byte", "said"),
    [
        (1, 9, "does not exist"),
        (4, 7, "known grid"),
        (5, 5, "known grid"),
        (6, 2, "phases"),
    ],
)
def test_grids_that_are_none_are_refused_by_name(at, byte, said):
    dn = cube((1, 2, 24, 24), {1: TWENTY})
    data = bytearray(encode_array(dn))
    data[at] = byte
    with pytest.raises(FormatError, match=said):
        decode_array(bytes(data), dn.shape, "uint16")


def does_decode(data: bytes, shape: tuple[int, int, int, int]) -> bool:
    try:
        decode_array(data, shape, "uint16")
    except FormatError:
        return False
    return True


@pytest.mark.parametrize("place", ["0080717", "0181476"])
def test_real_cubes_cost_a_third_less(place):
    path = DATA / "val" / f"ssl4eos12_val_{place}_0.tif"
    if not path.exists():
        pytest.skip(f"no {path}: EOZIP_DATA names the folder that holds data")
    with rasterio.open(path) as file:
        dn = file.read()[None, :, :192, :192]
    data = encode_array(dn)
    assert (decode_array(data, dn.shape, dn.dtype.name) == dn).all()
    assert len(data) < 0.68 * len(plain.encode_array(dn))


@pytest.mark.parametrize("place", ["brazil_l1c", "iceland_l1c", "finland", "vietnam_l1c"])
def test_native_products_are_smaller_than_picture_codecs_make_them(place):
    found = real(place)
    if found is None:
        pytest.skip(f"no native_{place}.npz: EOZIP_DATA names the folder that holds data")
    groups = {
        m: np.stack(list(bands.values()))[None, :, : 2400 // m, : 2400 // m] for m, bands in found.items()
    }
    own = len(eozip.encode_groups(groups, codec="lossless"))
    assert own < 0.93 * sum(len(ExactJpeg2000().encode(dn, 0)) for dn in groups.values())
    assert own < 0.97 * sum(len(ExactJpegXl(7).encode(dn, 0)) for dn in groups.values())
