"""Native grids: found where interpolation put bands, told to the decoder, and worth their bits."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eozip.codecs.native import (
    KERNELS,
    LEAST,
    MIDDLE,
    ROW,
    Grid,
    found,
    groups_of,
    interpolation,
    on_grids,
    projected,
    read_grids,
    send_grids,
)
from eozip.coder import DecodePort, EncodePort
from eozip.entropy.logistic_tables import logistic_tables
from eozip.errors import EozipError, FormatError
from smallmodels import scene, tiny_codec, tiny_flex_codec, tiny_series_codec

TABLES = logistic_tables()
GROUPS = groups_of("s2-l2a", 12)
NEAREST, BILINEAR, CUBIC = range(len(KERNELS))


def interpolated(grids: list[Grid | None], dates: int = 2, height: int = 72, width: int = 80) -> torch.Tensor:
    """A scene whose coarser bands were interpolated so, then rounded: [T, 12, H, W]."""
    x = torch.from_numpy(scene(dates, height, width).astype(np.float64))
    for group, grid in zip(GROUPS, grids, strict=True):
        if grid:
            rows = torch.from_numpy(interpolation(grid.kernel, grid.factor, grid.rows, height))
            columns = torch.from_numpy(interpolation(grid.kernel, grid.factor, grid.columns, width))
            rng = np.random.default_rng(5)
            cells = rng.uniform(500, 3000, (dates, len(group.bands), rows.shape[1], columns.shape[1]))
            x[:, list(group.bands)] = rows @ torch.from_numpy(cells) @ columns.T
    return x.round().float()


def test_groups_are_the_coarser_bands():
    assert [(group.bands, group.factor) for group in GROUPS] == [((4, 5, 6, 8, 10, 11), 2), ((0, 9), 6)]
    assert groups_of("s2-l2a", 3) == ()


@pytest.mark.parametrize("kernel", range(len(KERNELS)))
@pytest.mark.parametrize(("factor", "phase"), [(2, 0), (2, 1), (6, 0), (6, 4)])
def test_interpolation_keeps_a_constant_and_a_ramp(kernel, factor, phase):
    """Cells know their place: a ramp over cells is a ramp over pixels (nearest: stairs around it)."""
    up = interpolation(kernel, factor, phase, 60)
    inside = slice(3 * factor, -3 * factor)
    np.testing.assert_allclose(up.sum(1)[inside], 1)
    ramp = (up @ (factor * np.arange(up.shape[1])))[inside]
    step = np.diff(ramp)
    if kernel == NEAREST:
        assert set(step) == {0, factor}
        assert (np.arange(60)[inside][:-1][step > 0] % factor == (phase - 1) % factor).all()
    else:
        np.testing.assert_allclose(step, 1)


def test_bilinear_is_what_torch_interpolates():
    cells = torch.rand(1, 1, 10, 12, dtype=torch.float64)
    theirs = torch.nn.functional.interpolate(cells, scale_factor=2, mode="bilinear", align_corners=False)
    rows, columns = (torch.from_numpy(interpolation(BILINEAR, 2, 0, n)) for n in (20, 24))
    padded = torch.nn.functional.pad(cells, (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(rows @ padded @ columns.T, theirs)


@pytest.mark.parametrize(
    "grids",
    [
        [Grid(BILINEAR, 2, 0, 1), Grid(BILINEAR, 6, 4, 3)],
        [Grid(NEAREST, 2, 1, 0), Grid(NEAREST, 6, 5, 0)],
        [Grid(NEAREST, 2, 1, 1), Grid(CUBIC, 6, 2, 1)],
        [None, Grid(BILINEAR, 6, 0, 0)],
        [None, None],
    ],
)
def test_grids_are_found(grids):
    x = interpolated(grids)
    assert [found(x, group) for group in GROUPS] == grids


def test_cubic_by_two_makes_the_pictures_of_bilinear():
    x = interpolated([Grid(CUBIC, 2, 1, 0), None])
    assert found(x, GROUPS[0]) == Grid(BILINEAR, 2, 1, 0)


@pytest.mark.parametrize("fault", ["one date", "a corner", "noise", "too small"])
def test_none_is_named_where_not_all_lies_on_it(fault):
    x = interpolated([Grid(BILINEAR, 2, 0, 1), None])
    if fault == "one date":
        x[1] = x[1].roll(1, 1)
    elif fault == "a corner":
        x[0, 5, :20, :20] = 700
    elif fault == "noise":
        x += 3 * torch.randn(x.shape, generator=torch.manual_seed(1))
    else:
        x = x[:, :, : LEAST - 1]
    assert found(x, GROUPS[0]) is None


@given(
    kernel=st.sampled_from(range(len(KERNELS))),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    phases=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_projection_is_one(kernel, size, phases):
    """Never further from a picture of the grid, and a second time changes nothing."""
    grid = Grid(kernel, 6, *phases)
    rows, columns = (interpolation(kernel, 6, p, n) for p, n in zip(phases, size, strict=True))
    rng = np.random.default_rng(0)
    own = torch.from_numpy(rows @ rng.uniform(0, 5000, (rows.shape[1], columns.shape[1])) @ columns.T).float()
    seen = own + 100 * torch.randn(size, generator=torch.manual_seed(2))
    put = projected(seen, grid)
    assert (put - own).square().sum() <= (seen - own).square().sum() * 1.001 + 1
    torch.testing.assert_close(projected(put, grid), put, rtol=1e-4, atol=0.5)


def test_only_bands_of_a_group_with_a_grid_move():
    x = torch.from_numpy(scene(1, 30, 31))
    assert on_grids(x, GROUPS, [None, None]) is x
    put = on_grids(x, GROUPS, [None, Grid(BILINEAR, 6, 1, 2)])
    moved = (put != x).flatten(2).any(2)[0].nonzero().flatten().tolist()
    assert moved == [0, 9]


@given(
    st.tuples(
        *(
            st.none() | st.builds(Grid, st.integers(0, 2), st.just(f), *[st.integers(0, f - 1)] * 2)
            for f in (2, 6)
        )
    )
)
def test_there_and_back(grids):
    port = EncodePort()
    send_grids(port, TABLES, grids)
    data = port.finish()
    read = DecodePort(data)
    assert tuple(read_grids(read, TABLES, GROUPS)) == grids
    read.finish()
    assert len(data) <= 8


@pytest.mark.parametrize("values", [[4], [-1], [2, 2], [2, 0, -1]])
def test_what_no_encoder_writes_is_refused(values):
    port = EncodePort()
    for value in values:
        port.code(np.array([value - MIDDLE], np.int32), np.array([ROW]), TABLES)
    with pytest.raises(FormatError, match="native grid"):
        read_grids(DecodePort(port.finish()), TABLES, GROUPS)


@given(data=st.binary(max_size=60))
def test_any_bytes_give_grids_or_a_named_error(data):
    try:
        grids = read_grids(DecodePort(data), TABLES, GROUPS)
    except EozipError:
        return
    assert on_grids(torch.zeros(1, 12, 7, 5), GROUPS, grids).shape == (1, 12, 7, 5)


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    return {
        "image": tiny_codec("tec-elic-tiny", tmp_path_factory.mktemp("image")),
        "series": tiny_series_codec(tmp_path_factory.mktemp("series")),
        "flex": tiny_flex_codec(tmp_path_factory.mktemp("flex")),
    }


def without(codec):
    model = copy.copy(codec.model)
    model.config = replace(model.config, native=False)
    return replace(codec, model=model)


@pytest.mark.parametrize("kind", ["image", "series", "flex"])
def test_codecs_gain_by_it(codecs, kind):
    """Fewer errors in the bands that have grids, none more in the others, for a few bytes."""
    codec, x = codecs[kind], interpolated([Grid(BILINEAR, 2, 0, 1), Grid(BILINEAR, 6, 4, 3)]).numpy()
    plain = without(codec)
    (error, size), (error_before, size_before) = (
        (np.square(c.decode(coded, x.shape, 60) - x).mean((0, 2, 3)), sum(map(len, coded.sections)))
        for c in (codec, plain)
        for coded in [c.encode(x, 60)]
    )
    coarse = [k for group in GROUPS for k in group.bands]
    assert (error[coarse] < error_before[coarse]).all()
    np.testing.assert_array_equal(np.delete(error, coarse), np.delete(error_before, coarse))
    assert size - size_before <= 6


def test_dropped_pixels_tell_no_grid(codecs):
    x = interpolated([Grid(BILINEAR, 2, 0, 1), None]).numpy()
    cells = np.zeros((2, 9, 10), bool)
    cells[1, 2:4, 3:6] = True
    other = x.copy()
    other[1, :, 16:32, 24:48] = 9000
    a, b = (codecs["series"].encode_without(v, 60, cells) for v in (x, other))
    assert codecs["series"].decode(a, x.shape, 60).shape == codecs["series"].decode(b, x.shape, 60).shape
