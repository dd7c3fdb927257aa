"""Inpainting: what was measured stays, nothing hidden is used, errors have names, the default beats copying."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import eozip
from eozip.errors import InputError
from eozip.inpaint import get_predictor, inpaint
from eozip.inpaint.fill import MISSING, UNFILLED
from eozip.inpaint.normalized_convolution import _box, grown, spread
from eozip.inpaint.predict import make_series
from eozip.inpaint.registry import DEFAULT, NAMES
from eozip.inpaint.regression import held_out
from eozip.inpaint.uncertainty import CLASSES, class_of, factor_of, sigma_of_errors
from eozip_lab.inpainting.synthetic_clouds import SHAPES, cloud_mask
from inpaintfiles import masks, season


def hidden_error(dn, mask, name=DEFAULT):
    """Mean absolute error over hidden pixels, DN."""
    filled = inpaint(dn, mask, predictor=name)
    return np.abs(filled.dn.astype(float) - dn).transpose(1, 0, 2, 3)[:, mask].mean()


@pytest.mark.parametrize("name", NAMES)
def test_measured_pixels_are_identical_and_marked(name):
    dn, mask = season(), masks()
    filled = eozip.inpaint(dn, mask, predictor=name)
    clear = np.broadcast_to(~mask[:, None], dn.shape)
    assert (filled.dn[clear] == dn[clear]).all()
    assert filled.dn.dtype == dn.dtype
    assert ((filled.provenance == 0) == ~mask).all()
    assert (filled.sigma[clear] == 0).all()
    assert (filled.sigma[~clear] > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_hidden_pixels_have_no_influence(name):
    dn, mask = season(), masks()
    other = np.where(mask[:, None], np.uint16(9999), dn)
    a, b = inpaint(dn, mask, predictor=name), inpaint(other, mask, predictor=name)
    assert (a.dn == b.dn)[np.broadcast_to(mask[:, None], dn.shape)].all()
    assert np.array_equal(a.sigma, b.sigma)


def test_same_input_same_output():
    dn, mask = season(), masks()
    a, b = inpaint(dn, mask), inpaint(dn, mask)
    assert np.array_equal(a.dn, b.dn)
    assert np.array_equal(a.sigma, b.sigma)


def test_default_beats_every_baseline_by_far():
    dn, mask = season(), masks()
    errors = {name: hidden_error(dn, mask, name) for name in NAMES}
    assert min(errors, key=errors.get) == DEFAULT
    assert errors[DEFAULT] < 0.5 * min(error for name, error in errors.items() if name != DEFAULT)
    assert hidden_error(dn, mask, None) == errors[DEFAULT]


@pytest.mark.parametrize("cover", [0.0, 0.01, 0.5, 0.97, 1.0])
def test_any_cover_of_one_date(cover):
    dn, mask = season(), np.zeros((4, 48, 40), bool)
    mask[1] = cloud_mask((48, 40), cover, np.random.default_rng(1)) if cover else False
    filled = inpaint(dn, mask)
    assert (filled.provenance[1][mask[1]] >= 1).all()
    assert filled.cover[1] == pytest.approx(cover, abs=0.01)
    assert bool(filled.methods[1]) == (cover > 0)
    assert (filled.methods[0], filled.methods[2]) == ("", "")


@pytest.mark.parametrize("shape", ["pixel", "row", "frame", "checks"])
def test_masks_of_every_shape(shape):
    dn, mask = season(), np.zeros((4, 48, 40), bool)
    at = {
        "pixel": np.s_[10:11, 7:8], "row": np.s_[20, :], "frame": np.s_[:, [0, -1]], "checks": np.s_[::2, ::2]
    }[shape]  # fmt: skip
    mask[2][at] = True
    filled = inpaint(dn, mask)
    assert ((filled.dn != dn).any(axis=1) <= mask).all()
    assert np.abs(filled.dn[2].astype(float) - dn[2])[:, mask[2]].mean() < 100


def test_provenance_counts_the_dates_that_show_a_pixel():
    dn, mask = season(), np.zeros((4, 48, 40), bool)
    mask[:, 5, 5] = True  # nobody sees it
    mask[0, 6, 6] = mask[1, 6, 6] = True  # dates 2 and 3 do
    filled = inpaint(dn, mask)
    assert (filled.provenance[:, 5, 5] == 1).all()
    assert filled.provenance[0, 6, 6] == 3


def test_nodata_is_neither_used_nor_filled_nor_made():
    dn, mask = season(), masks()
    dn[1, :, :20, :20] = 0
    mask[1, :20, :20] = False
    filled = inpaint(dn, mask, nodata=0)
    assert (filled.provenance[1, :20, :20] == MISSING).all()
    assert (filled.dn[1, :, :20, :20] == 0).all()
    assert (filled.dn.transpose(1, 0, 2, 3)[:, mask] != 0).all()
    dark = np.where(season() > 450, season(), 1).astype(np.uint16)
    assert (inpaint(dark, masks(), nodata=0).dn > 0).all()


def test_offset_is_taken_off_and_put_back():
    dn, mask = season(), masks()
    plain, shifted = inpaint(dn, mask), inpaint((dn + 1000).astype(np.uint16), mask, offset=1000)
    assert np.abs(shifted.dn.astype(int) - plain.dn - 1000).max() <= 1


def test_windows_join_without_a_seam():
    dn, mask = season(3, 2, 128, 200), masks(3, 128, 200)
    mask[1:] = False
    whole, parts = inpaint(dn, mask, window=256), inpaint(dn, mask, window=128)
    at = np.broadcast_to(mask[:, None], dn.shape)
    assert np.abs(whole.dn.astype(float) - parts.dn)[at].mean() < 15
    errors = [np.abs(f.dn.astype(float) - dn)[at].mean() for f in (whole, parts)]
    assert errors[1] < 1.3 * errors[0]


def test_a_window_that_no_date_shows_is_left_and_marked():
    dn, mask = season(3, 2, 128, 400), np.zeros((3, 128, 400), bool)
    mask[:, :, :130] = True
    filled = inpaint(dn, mask, window=128, predictor="mean-clear")
    assert (filled.provenance[:, :, :50] == UNFILLED).all()
    assert (filled.provenance[:, :, 60:130] == 1).all()
    assert (filled.dn[:, :, :, :50] == dn[:, :, :, :50]).all()


def test_seam_of_a_copied_date_is_closed_inside_the_mask_only():
    dn = np.full((2, 1, 40, 40), 1000, np.uint16)
    dn[1] = 1300
    mask = np.zeros((2, 40, 40), bool)
    mask[0, 10:30, 10:30] = True
    filled = inpaint(dn, mask, predictor="nearest-clear").dn[0, 0].astype(int)
    assert abs(filled[10, 20] - 1000) < 60
    assert filled[20, 20] > filled[10, 20]
    assert (filled[~mask[0]] == 1000).all()


@pytest.mark.parametrize(
    ("dn", "mask", "message"),
    [
        (season(1), masks(1), "single date"),
        (season()[0], masks(1), "single date"),
        (season(), masks()[:, :-1], "mask: expected bool"),
        (season(), masks()[:3], "one plane per date"),
        (season(), masks().astype(np.uint8), "mask: expected bool"),
        (season(), np.ones((4, 48, 40), bool), "all 4 dates are hidden"),
        (season().astype(np.float32), masks(), "uint16 or int16"),
    ],
)
def test_wrong_input_is_named(dn, mask, message):
    with pytest.raises(InputError, match=message):
        inpaint(dn, mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": masks().tolist()}, "mask: expected an array"),
        ({"dn": season().tolist()}, "dn: expected an array"),
        ({"days": ["2020-01-01"] * 4}, "days: expected 4 finite numbers"),
        ({"days": [0, 1j, 2, 3]}, "days: expected 4 finite numbers"),
        ({"nodata": 70000}, "nodata: expected 0 to 65535"),
        ({"nodata": float("nan")}, "nodata: expected a whole number"),
        ({"offset": float("nan")}, "offset: expected"),
        ({"offset": 10**9}, "offset: expected"),
        ({"min_clear": float("nan")}, "min_clear: expected a share"),
        ({"window": "wide"}, "window: expected a number"),
        ({"predictor": 3}, "predictor: expected a name"),
    ],
)
def test_arguments_that_cannot_be_are_named(options, message):
    with pytest.raises(InputError, match=message):
        inpaint(**{"dn": season(), "mask": masks(), **options})


@pytest.mark.parametrize("days", [None, [0, 0, 5, 5], [0, 1, 2, 1e9]])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 7), (17, 18)])
def test_pictures_of_any_size_and_days(size, days):
    height, width = size
    dn, mask = season(4, 1, *size), np.random.default_rng(0).random((4, height, width)) < 0.4
    mask[0], mask[1] = True, False
    filled = inpaint(dn.astype(np.int16) - 700, mask, days=days)
    assert (filled.provenance[mask] > 0).all()
    assert np.isfinite(filled.sigma).all()


def test_one_of_four_hundred_dates():
    dn = np.concatenate([season(4, 2, 12, 12, seed=seed) for seed in range(100)])
    mask = np.zeros((400, 12, 12), bool)
    mask[200], mask[300, 4:6] = True, True
    filled = inpaint(dn, mask, days=np.arange(400.0))
    assert filled.methods[200] == "kriging"
    assert filled.methods[300] == "regression"
    assert (filled.provenance[200] == 41).all()  # the nearest forty
    assert (filled.provenance[300][mask[300]] == 251).all()


def test_no_reference_clear_enough_is_named():
    mask = np.ones((4, 48, 40), bool)
    mask[:, :3] = False
    with pytest.raises(InputError, match="no reference clear enough"):
        inpaint(season(), mask)
    assert inpaint(season(), mask, min_clear=0.01).provenance[mask].min() == 1


def test_unknown_predictor_is_named():
    with pytest.raises(InputError, match="nearest-clear"):
        get_predictor("nonsense")
    with pytest.raises(InputError, match="cannot forecast"):
        get_predictor("tec-fp-small")


def test_days_must_rise():
    with pytest.raises(InputError, match="rising"):
        make_series(season().astype(np.float32), masks(), [0, 5, 3, 9])


def test_linear_follows_the_days():
    x = np.stack([np.full((1, 8, 8), value, np.float32) for value in (100, 0, 400)])
    hidden = np.zeros((3, 8, 8), bool)
    hidden[1] = True
    found = get_predictor("linear-in-time").predict(make_series(x, hidden, [0, 10, 30]), 1)
    assert np.allclose(found.x_hat, 200)


def test_harmonic_finds_a_season():
    days = np.arange(0, 365, 15.0)
    curve = 1000 + 400 * np.cos(2 * np.pi * (days - 40) / 365.25)
    x = np.broadcast_to(curve[:, None, None, None], (len(days), 1, 6, 6)).astype(np.float32).copy()
    hidden = np.zeros((len(days), 6, 6), bool)
    hidden[9] = True
    found = get_predictor("harmonic").predict(make_series(x, hidden, days), 9)
    assert np.abs(found.x_hat - curve[9]).max() < 25


def whole_date(x, date, days):
    """A series with one date hidden altogether."""
    hidden = np.zeros((len(x), *x.shape[2:]), bool)
    hidden[date] = True
    return make_series(x.astype(np.float32), hidden, days)


def test_a_date_of_which_nothing_is_seen_is_kriged_where_days_are_known():
    x = season()
    dated, undated = (whole_date(x, 1, days) for days in ([0, 5, 10, 90], None))
    assert get_predictor(DEFAULT).predict(dated, 1).method == "kriging"
    for name in (DEFAULT, "kriging"):
        assert get_predictor(name).predict(undated, 1).method == "weighted-filled"


def test_kriging_counts_near_dates_most_and_the_same_season_too():
    x = np.array([100, 0, 130, 500, 140], np.float32)[:, None, None, None] * np.ones(
        (1, 2, 12, 12), np.float32
    )
    days = [0, 5, 10, 190, 370]
    assert np.abs(get_predictor("kriging").predict(whole_date(x, 1, days), 1).x_hat - 115).max() < 25
    assert np.abs(get_predictor("kriging").predict(whole_date(x, 4, days), 4).x_hat - 110).max() < 80


def test_kriging_believes_a_strange_date_less():
    random = np.random.default_rng(0)
    land = random.uniform(300, 900, (1, 3, 24, 24))
    x = (land + random.normal(0, 10, (8, 3, 24, 24))).astype(np.float32)
    flooded = x.copy()
    flooded[3, :, :12] = 3000  # the date before the hidden one
    days = np.arange(8) * 10.0
    plain, wet = (get_predictor("kriging").predict(whole_date(a, 4, days), 4) for a in (x, flooded))
    assert np.abs(wet.x_hat - x[4])[:, :12].mean() < 120  # of 2400; half of that between two neighbours
    assert wet.sigma[:, 4].mean() > 5 * plain.sigma[:, 4].mean()  # that it came once, it may again


@pytest.mark.parametrize("days", [[0, 0, 0, 0], [0, 1e6, 2e6, 3e6], [0, 0.01, 0.02, 0.03]])
def test_kriging_bears_any_days(days):
    found = get_predictor("kriging").predict(whole_date(season(), 2, days), 2)
    assert np.isfinite(found.x_hat).all()
    assert (found.sigma > 0).all()
    assert np.isfinite(found.sigma).all()


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("cover", [0.05, 0.3, 0.9])
def test_made_clouds_have_the_cover_asked_for(kind, cover):
    shapes = [cloud_mask((96, 128), cover, np.random.default_rng(seed), kind) for seed in (1, 1, 2)]
    assert shapes[0].mean() == pytest.approx(cover, abs=0.005)
    assert np.array_equal(shapes[0], shapes[1])
    assert not np.array_equal(shapes[0], shapes[2])


def test_box_means_agree_with_plain_windows():
    a = np.random.default_rng(0).random((3, 9, 14)).astype(np.float32)
    for radius in (1, 5, 8):
        for axis in (-1, -2):
            widths = [(0, 0)] * 3
            widths[axis] = (radius, radius)
            plain = np.lib.stride_tricks.sliding_window_view(np.pad(a, widths), 2 * radius + 1, axis=axis)
            assert np.allclose(_box(a, radius, axis), plain.mean(-1), atol=1e-6)


def test_grown_masks():
    mask = np.zeros((9, 9), bool)
    mask[4, 4] = True
    assert grown(mask, 2).sum() == 25
    assert grown(mask, 0).sum() == 1


def test_spread_residual_fades_with_distance():
    known = np.zeros((8, 200), bool)
    known[:, :20] = True
    found = spread(np.full((1, 8, 200), 100, np.float32), known)[0, 4]
    assert found[5] > 90
    assert found[5] > found[30] > found[50] > found[70]
    assert found[199] == 0


def test_held_out_pixels_are_clear_and_not_all():
    for cover in (0.02, 0.3, 0.6, 0.95):
        mask = masks(1, cover=cover)[0]
        held = held_out(mask)
        assert not (held & mask).any()
        assert (~mask & ~held).any()


def test_sigma_holds_nine_of_ten_errors():
    random = np.random.default_rng(0)
    scale = np.linspace(5, 100, 80)[:, None]
    errors = (random.standard_t(3, (2, 80, 80)) * scale).astype(np.float32)
    sigma = sigma_of_errors(errors, np.ones((80, 80), bool))
    assert (np.abs(errors) <= 1.6449 * sigma).mean() == pytest.approx(0.9, abs=0.01)
    assert sigma[0, 70].mean() > 1.5 * sigma[0, 10].mean()


def test_every_predictor_is_calibrated():
    for name in NAMES:
        assert all(0.2 < factor_of(name, cover) < 5 for cover in (0.05, 0.3, 0.5, 0.8, 1))
    assert factor_of("regression, weighted-filled", 0.3) >= factor_of("regression", 0.3)
    assert factor_of("nobody", 0.3) is None
    assert [class_of(cover) for cover in (0, 0.1, 0.11, 1)] == [0, 0, 1, len(CLASSES) - 1]


def test_package_and_function_share_a_name_and_need_no_torch():
    code = (
        "import sys, eozip, numpy as np\n"
        "dn = np.random.default_rng(0).integers(1, 999, (2, 2, 16, 16), np.uint16)\n"
        "mask = np.zeros((2, 16, 16), bool); mask[0, 4:8, 4:8] = True\n"
        "from eozip.inpaint import Filled\n"
        "assert isinstance(eozip.inpaint(dn, mask), Filled)\n"
        "assert not {'torch', 'rasterio', 'zarr'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
