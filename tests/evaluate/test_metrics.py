"""Metrics against scikit-image and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage import metrics as skimage_metrics

from eozip import sensors
from eozip.errors import InputError
from eozip_lab.evaluate import metrics, structure

BANDS = sensors.get("s2-l2a").band_names


def stacks(size: int = 64, noise: float = 90.0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth scene with values beyond 0..10000 after noise, and the noisy copy: int16 [2, 12, size, size]."""
    rng = np.random.default_rng(1)
    scene = ndimage.gaussian_filter(rng.normal(size=(2, 12, size, size)), (0, 1, 4, 4))
    scene = 3000 + 2500 * scene / scene.std()
    return scene.clip(1).astype(np.int16), (scene + rng.normal(0, noise, scene.shape)).astype(np.int16)


def test_psnr_and_mse_agree_with_scikit_image():
    dn, dn_hat = stacks()
    x, x_hat = metrics.reflected(dn), metrics.reflected(dn_hat)
    assert (x != dn).any(), "the scene should reach beyond 0..10000, or clipping goes untested"
    found = metrics.measure(dn, dn_hat, BANDS)
    expected = skimage_metrics.peak_signal_noise_ratio(x, x_hat, data_range=10_000)
    assert found.psnr == pytest.approx(expected, abs=1e-6)
    assert found.mse == pytest.approx(skimage_metrics.mean_squared_error(x, x_hat))
    for c in range(12):
        one = skimage_metrics.peak_signal_noise_ratio(x[:, c], x_hat[:, c], data_range=10_000)
        assert found.band_psnr[c] == pytest.approx(one, abs=1e-6)


def test_ssim_agrees_with_scikit_image():
    x, x_hat = (metrics.reflected(a) for a in stacks(noise=600))
    expected = [_skimage_ssim(a, b)[0] for a, b in zip(x.reshape(-1, 64, 64), x_hat.reshape(-1, 64, 64))]
    assert 0.5 < structure.ssim(x, x_hat) < 0.99
    assert structure.ssim(x, x_hat) == pytest.approx(np.mean(expected), abs=1e-9)


def test_ms_ssim_agrees_with_its_formula_on_scikit_images_maps():
    a, b = (metrics.reflected(s)[0, 0].astype(np.float64) for s in stacks(size=181, noise=900))
    expected = _ms_ssim_by_maps(a, b)
    assert structure.ms_ssim(a[None, None], b[None, None]) == pytest.approx(expected, abs=1e-9)
    assert expected < 0.999


def test_ms_ssim_needs_five_scales():
    dn, dn_hat = stacks()
    found = metrics.measure(dn, dn_hat, BANDS)
    assert found.ms_ssim is None
    assert found.ssim is not None
    tiny = metrics.measure(dn[..., :9, :9], dn_hat[..., :9, :9], BANDS)
    assert tiny.ssim is None
    with pytest.raises(InputError, match="176 x 176"):
        structure.ms_ssim(dn, dn_hat)


@pytest.mark.parametrize("degrees", [1e-4, 0.5, 30.0, 90.0])
def test_spectral_angle_of_a_rotation(degrees):
    x, x_hat = np.zeros((2, 1, 12, 2, 3))
    x[:, 4] = 2000
    x_hat[:, 4], x_hat[:, 7] = (900 * f(math.radians(degrees)) for f in (math.cos, math.sin))
    assert metrics.spectral_angle(x, x_hat) == pytest.approx(degrees, rel=1e-6)


def test_spectral_angle_of_dark_pixels():
    x, x_hat = np.zeros((2, 1, 12, 1, 2))
    x_hat[..., 0, 1] = 5
    assert metrics.spectral_angle(x, x_hat).tolist() == [[[0.0, 90.0]]]


def test_indices_by_hand():
    dn, dn_hat = np.full((2, 1, 12, 1, 2), 1000, np.uint16)
    dn[:, BANDS.index("B08"), 0, 0] = 3000  # NDVI 0.5, NDWI -0.5
    dn_hat[:, BANDS.index("B08"), 0, 0] = 4000  # NDVI 0.6, NDWI -0.6
    found = metrics.measure(dn, dn_hat, BANDS)
    assert found.ndvi_error == pytest.approx(0.1 / 2)
    assert found.ndwi_error == pytest.approx(0.1 / 2)
    assert found.max_error == 1000


def test_indices_where_nothing_is_known():
    dn = np.zeros((1, 12, 2, 2), np.uint16)
    found = metrics.measure(dn, dn, BANDS)
    assert (found.ndvi_error, found.ndwi_error) == (None, None)
    assert found.psnr == math.inf


def test_offset_counts():
    dn, dn_hat = (np.clip(a, 0, 5000) for a in stacks())
    plain = metrics.measure(dn, dn_hat, BANDS)
    assert metrics.measure(dn + 1000, dn_hat + 1000, BANDS, offset=1000) == plain
    assert metrics.measure(dn + 1000, dn_hat + 1000, BANDS) != plain


def test_classes_by_hand():
    spectra = {"water": (400, 600, 400, 100), "dense vegetation": (300, 500, 300, 4000)}
    spectra |= {"vegetation": (500, 800, 1000, 2500), "bright": (6000, 6000, 6000, 6500)}
    spectra |= {"other": (1200, 1500, 2000, 2600)}
    x = np.zeros((1, 12, 1, 5), np.float32)
    for i, name in enumerate(metrics.CLASSES):
        for band, value in zip(("B02", "B03", "B04", "B08"), spectra[name]):
            x[0, BANDS.index(band), 0, i] = value
    assert metrics._classify(x, BANDS).tolist() == [[[0, 1, 2, 3, 4]]]
    moved = x.copy()
    moved[..., 0] = moved[..., 1]
    found = metrics.measure(x.astype(np.int16), moved.astype(np.int16), BANDS)
    assert (found.class_change, found.class_shift) == pytest.approx((0.2, 0.2))


def test_groups_are_means_of_squares_not_of_decibels():
    groups = metrics.group_psnr([40.0, 40.0, 30.0, 50.0, math.inf], [10, 10, 20, 20, 60])
    assert groups == {10: pytest.approx(40.0), 20: pytest.approx(32.967, abs=1e-3), 60: math.inf}


def test_wrong_input_is_named():
    dn, dn_hat = stacks()
    with pytest.raises(InputError, match="one shape"):
        metrics.measure(dn, dn_hat[:1], BANDS)
    with pytest.raises(InputError, match="B03"):
        metrics.measure(dn[:, :2], dn_hat[:, :2], BANDS[:2])


def _skimage_ssim(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    return skimage_metrics.structural_similarity(
        a.astype(np.float64),
        b.astype(np.float64),
        data_range=10_000,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )


def _ms_ssim_by_maps(a: np.ndarray, b: np.ndarray) -> float:
    """Contrast parts as scikit-image's map divided by the luminance part."""
    product = 1.0
    for weight in (0.0448, 0.2856, 0.3001, 0.2363):
        blur = [ndimage.gaussian_filter(v, 1.5, truncate=3.5) for v in (a, b)]
        luminance = (2 * blur[0] * blur[1] + 100**2) / (blur[0] ** 2 + blur[1] ** 2 + 100**2)
        product *= (_skimage_ssim(a, b)[1] / luminance)[5:-5, 5:-5].mean() ** weight
        a, b = (_by_twos(v) for v in (a, b))
    return product * _skimage_ssim(a, b)[0] ** 0.1333


def _by_twos(v: np.ndarray) -> np.ndarray:
    v = v[: len(v) // 2 * 2, : v.shape[1] // 2 * 2]
    return (v[::2, ::2] + v[1::2, ::2] + v[::2, 1::2] + v[1::2, 1::2]) / 4


def test_pixels_without_data_count_nowhere():
    rng = np.random.default_rng(0)
    dn = rng.integers(300, 4000, (2, 12, 16, 16), np.uint16)
    dn_hat = dn + rng.integers(0, 30, dn.shape, np.uint16)
    valid = np.ones((2, 16, 16), bool)
    valid[:, :5] = False
    expected = metrics.measure(dn[:, :, 5:], dn_hat[:, :, 5:], BANDS)
    junk = dn_hat.copy()
    junk[:, :, :5] = 9000
    found = metrics.measure(dn, junk, BANDS, valid=valid)
    for name in ("psnr", "mse", "spectral_angle", "max_error", "ndvi_error", "ndwi_error", "class_change"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name)), name
    assert found.band_psnr == pytest.approx(expected.band_psnr)
    assert found.ssim > 0.99
