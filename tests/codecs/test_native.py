"""Native grids: found where interpolation put bands, told to the decoder, and worth their bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eozip.codecs.small.native_grid import (
    FLAG_ROW,
    KERNELS,
    LARGEST,
    LEAST,
    NARROW_ROW,
    Grid,
    Placing,
    groups_of,
    guessed,
    interpolation,
    placings_by_draft,
    placings_by_pixels,
    projected,
    put_on_grids,
    read_grids,
    send_grids,
)
from eozip.entropy.logistic_tables import logistic_tables
from eozip.entropy.range_coder import DecodePort, EncodePort
from eozip.errors import EozipError, FormatError
from smallmodels import gridless, scene, tiny_codec, tiny_series_codec

TABLES = logistic_tables()
GROUPS = groups_of("s2-l2a", 12)
BILINEAR, NEAREST, CUBIC = range(len(KERNELS))


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
    found = {p.group: p for p in placings_by_pixels(x, GROUPS)}
    assert [found[g].grid if g in found else None for g in GROUPS] == grids
    assert all(p.kept.all() for p in found.values())


def test_cubic_by_two_makes_the_pictures_of_bilinear():
    x = interpolated([Grid(CUBIC, 2, 1, 0), None])
    assert guessed(x, GROUPS[0]) == Grid(BILINEAR, 2, 1, 0)


def noise(x: torch.Tensor, strength: float) -> torch.Tensor:
    return strength * torch.randn(x.shape, generator=torch.manual_seed(1))


@pytest.mark.parametrize("by", ["draft", "pixels"])
@pytest.mark.parametrize("fault", ["a date", "a corner", "the last columns", "an island"])
def test_what_lies_on_no_grid_is_left_out(fault, by):
    """Wherever the fault is, also where no whole tile lies."""
    x = interpolated([Grid(BILINEAR, 2, 0, 1), None])
    bad = np.s_[1, 5]
    if fault == "a date":
        x[bad] = x[bad].roll(1, 0)
    elif fault == "a corner":
        x[bad][:20, :20] = 700
    elif fault == "the last columns":
        x[bad][:, -6:] = x[bad][:, -6:].roll(1, 1)
    else:
        x[bad][:] = 700
        x[bad][30:40, 30:40] = 3000
        x[bad][33, 33] = 0
    x_hat = x + noise(x, 3)
    if by == "draft":
        (placing,) = placings_by_draft(x, x_hat, GROUPS, 1.0)
    else:
        (placing,) = placings_by_pixels(x, GROUPS)
    assert placing.grid == Grid(BILINEAR, 2, 0, 1)
    left_out = [(int(d), int(b)) for d, b in (~placing.kept).nonzero()]
    assert left_out == [(1, 1)]
    put = x_hat.clone()
    put_on_grids(put, [placing])
    assert torch.equal(put[bad], x_hat[bad])
    assert not torch.equal(put, x_hat)


@pytest.mark.parametrize("fault", ["noise", "too small", "too large"])
def test_none_is_named_where_there_is_none(fault):
    x = interpolated([Grid(BILINEAR, 2, 0, 1), None])
    if fault == "noise":
        x += noise(x, 10)
    elif fault == "too small":
        x = x[:, :, : LEAST - 1]
    else:
        x = x.repeat(1, 1, 1, LARGEST // x.shape[3] + 1)
    assert placings_by_pixels(x, GROUPS) == []
    assert placings_by_draft(x, x + noise(x, 3), GROUPS, 1.0) == []


def test_a_draft_without_errors_to_take_away_names_none():
    x = interpolated([Grid(BILINEAR, 2, 0, 1), None])
    assert placings_by_draft(x, x + 0.1, GROUPS, 1e-3) == []


def test_pixels_that_do_not_count_keep_no_picture_from_its_grid():
    x = interpolated([Grid(BILINEAR, 2, 0, 1), None])
    x_hat, seen = x + noise(x, 3), torch.ones(2, 72, 80, dtype=torch.bool)
    x[0, :, 10:20, 10:20], seen[0, 8:24, 8:24] = 9000, False
    (placing,) = placings_by_draft(x, x_hat, GROUPS, 1.0, seen)
    assert placing.kept.all()
    assert not placings_by_draft(x, x_hat, GROUPS, 1.0)[0].kept.all()


@given(
    kernel=st.sampled_from(range(len(KERNELS))),
    size=st.tuples(st.integers(LEAST, 60), st.integers(LEAST, 60)),
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


def placing(grid: Grid, dates: int, out: tuple[tuple[int, int], ...] = ()) -> Placing:
    group = next(g for g in GROUPS if g.factor == grid.factor)
    kept = torch.ones(dates, len(group.bands), dtype=torch.bool)
    for date, band in out:
        kept[date, band] = False
    return Placing(group, grid, kept)


def test_only_what_is_placed_moves():
    x = torch.from_numpy(scene(2, 30, 31))
    put = x.clone()
    put_on_grids(put, [])
    assert torch.equal(put, x)
    put_on_grids(put, [placing(Grid(BILINEAR, 6, 1, 2), 2, ((1, 0),))])
    moved = (put != x).flatten(2).any(2).nonzero().tolist()
    assert moved == [[0, 0], [0, 9], [1, 9]]


@st.composite
def placings(draw, dates: int = 3) -> list[Placing]:
    found = []
    for group in GROUPS:
        if draw(st.booleans()):
            phases = (draw(st.integers(0, group.factor - 1)) for _ in range(2))
            grid = Grid(draw(st.integers(0, len(KERNELS) - 1)), group.factor, *phases)
            cells = st.tuples(st.integers(0, dates - 1), st.integers(0, len(group.bands) - 1))
            found.append(placing(grid, dates, tuple(draw(st.lists(cells, max_size=4)))))
    return found


@given(placings())
def test_there_and_back(sent):
    port = EncodePort()
    send_grids(port, TABLES, GROUPS, sent)
    data = port.finish()
    read = DecodePort(data)
    got = read_grids(read, TABLES, GROUPS, (3, 12, 64, 64))
    read.finish()
    assert [(p.group, p.grid) for p in got] == [(p.group, p.grid) for p in sent]
    assert all(torch.equal(a.kept, b.kept) for a, b in zip(got, sent, strict=True))
    assert len(data) <= 8 + 1.3 * sum(int((~p.kept).sum()) for p in sent)


def written(*values: tuple[int, int]) -> DecodePort:
    """Symbols under rows."""
    port = EncodePort()
    for value, row in values:
        port.code(np.array([value], np.int32), np.array([row]), TABLES)
    return DecodePort(port.finish())


KERNEL = (0, NARROW_ROW)


@pytest.mark.parametrize(
    "values",
    [
        [(3, NARROW_ROW)],
        [(-2, NARROW_ROW)],
        [KERNEL, (2, NARROW_ROW)],
        [KERNEL, KERNEL, (-1, NARROW_ROW)],
        [KERNEL, KERNEL, KERNEL, (2, FLAG_ROW)],
        [KERNEL, KERNEL, KERNEL, (-1, FLAG_ROW)],
    ],
)
def test_what_no_encoder_writes_is_refused(values):
    with pytest.raises(FormatError, match="native grid"):
        read_grids(written(*values), TABLES, GROUPS, (1, 12, 64, 64))


def test_no_grid_may_ask_for_hours():
    with pytest.raises(FormatError, match="above 2048 pixels"):
        read_grids(written(KERNEL), TABLES, GROUPS, (1, 12, 32, LARGEST + 1))


@given(data=st.binary(max_size=60))
def test_any_bytes_give_grids_or_a_named_error(data):
    try:
        found = read_grids(DecodePort(data), TABLES, GROUPS, (1, 12, 7, 5))
    except EozipError:
        return
    x = torch.ones(1, 12, 7, 5)
    put_on_grids(x, found)
    assert x.isfinite().all()


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    return {
        "image": tiny_codec("tec-elic-tiny", tmp_path_factory.mktemp("image")),
        "series": tiny_series_codec(tmp_path_factory.mktemp("series")),
    }


@pytest.mark.parametrize("kind", ["image", "series"])
def test_codecs_gain_by_it(codecs, kind):
    """Fewer errors in the bands that have grids, none more in the others, for a few bytes."""
    codec, x = codecs[kind], interpolated([Grid(BILINEAR, 2, 0, 1), Grid(BILINEAR, 6, 4, 3)]).numpy()
    plain = gridless(codec)
    (error, size), (error_before, size_before) = (
        (np.square(c.decode(coded, x.shape, 60) - x).mean((0, 2, 3)), sum(map(len, coded.sections)))
        for c in (codec, plain)
        for coded in [c.encode(x, 60)]
    )
    coarse = [k for group in GROUPS for k in group.bands]
    assert (error[coarse] < error_before[coarse]).all()
    np.testing.assert_array_equal(np.delete(error, coarse), np.delete(error_before, coarse))
    assert size - size_before <= 6


def test_dropped_pixels_keep_no_picture_from_its_grid(codecs):
    """Whatever stands where cells are dropped, the bytes are the same."""
    x = interpolated([Grid(BILINEAR, 2, 0, 1), None]).numpy()
    cells = np.zeros((2, 9, 10), bool)
    cells[1, 2:4, 3:6] = True
    codec = codecs["series"]
    with_grid, plain = (
        c.decode(c.encode_without(x, 80, cells), x.shape, 80) for c in (codec, gridless(codec))
    )
    clear = ~cells.repeat(8, 1).repeat(8, 2)
    error, before = (np.square(v - x).transpose(0, 2, 3, 1)[clear].mean(0) for v in (with_grid, plain))
    assert (error[list(GROUPS[0].bands)] < before[list(GROUPS[0].bands)]).all()
