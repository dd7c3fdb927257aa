"""Purposes: how they are read, what they measure, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eozip.chunk.pixels import psnr
from eozip.errors import FormatError, InputError
from eozip.purpose import Classifier, Pixels, fit_classes, parse_purpose, parse_purposes
from storefiles import NAMES, scene_pixels

PIXELS = Pixels(NAMES, 0, 1e-4, 0)


def pair(noise: float = 10) -> tuple[np.ndarray, np.ndarray]:
    original = np.stack([scene_pixels(seed) for seed in range(2)])
    rng = np.random.default_rng(5)
    decoded = np.where(original == 0, 0, original + rng.normal(0, noise, original.shape)).astype("uint16")
    return original, decoded


@pytest.mark.parametrize(
    ("text", "what", "statistic", "limit"),
    [
        ("ndvi<0.02", "ndvi", "p95", 0.02),
        (" p99( ndvi ) <= 2e-2 ", "ndvi", "p99", 0.02),
        ("mean(nir - red)<0.1", "nir - red", "mean", 0.1),
        ("max(ndvi)<0.1", "ndvi", "max", 0.1),
        ("max(B04, B08)<0.1", "max(B04, B08)", "p95", 0.1),
        ("(nir-red)/(nir+red)<0.02", "(nir-red)/(nir+red)", "p95", 0.02),
        ("psnr>=42", "psnr", "", 42),
        ("psnr>=42 dB", "psnr", "", 42),
        ("angle<2", "angle", "p95", 2),
        ("mean(angle)<2deg", "angle", "mean", 2),
        ("max-error<=20", "max-error", "", 20),
        ("max_error<=20DN", "max-error", "", 20),
        ("size<100MB", "size", "", 1e8),
        ("size<=1GiB", "size", "", 1 << 30),
        ("ratio>=50", "ratio", "", 50),
        ("agreement>=99%", "agreement", "", 0.99),
        ("agreement>=0.5", "agreement", "", 0.5),
    ],
)
def test_a_purpose_is_read(text: str, what: str, statistic: str, limit: float) -> None:
    found = parse_purpose(text)
    assert (found.what, found.statistic, found.limit) == (what, statistic, pytest.approx(limit))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ndvi",
        "ndvi<",
        "<0.02",
        "ndvi<0.02<0.03",
        "ndvi==0.02",
        "ndvi<-1",
        "ndvi<nan",
        "ndvi<1e999",
        "ndvi>0.02",
        "psnr<42",
        "psnr>=42MB",
        "ratio<50",
        "size>1MB",
        "size<1 lightyear",
        "agreement>=101%",
        "mean(psnr)>=42",
        "p0(ndvi)<0.1",
        "__import__('os').system('true')<1",
        "ndvi+<1",
        "9" * 600 + "<1",
    ],
)
def test_what_is_no_purpose_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InputError, match=r"expected|has no"):
        parse_purpose(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("p100(ndvi)<0.1", "expected p1 to p99.9, got p100"),
        ("mean(mean(ndvi))<0.1", r"got mean\(\)"),
        ("median(ndvi)<0.1", r"got median\(\)"),
    ],
)
def test_a_statistic_that_nobody_knows_is_named(text: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        parse_purpose(text)


@given(st.text(max_size=40))
def test_any_text_is_a_purpose_or_refused(text: str) -> None:
    try:
        parse_purpose(text)
    except InputError:
        return


def test_a_strict_limit_is_not_reached_by_the_limit_itself() -> None:
    assert parse_purpose("angle<=2").is_served(2)
    assert not parse_purpose("angle<2").is_served(2)
    of_40_dn = 81 * 1e-4 - 41 * 1e-4  # 0.003999999999999999, by rounding
    assert not parse_purpose("B04<0.004").is_served(of_40_dn)
    assert parse_purpose("B04<=0.004").is_served(0.5 - 0.496)  # 0.0040000000000000036
    assert parse_purpose("size<1TB").is_served(10**12 - 1)
    assert parse_purpose("psnr>=42").is_served(float("inf"))
    assert not parse_purpose("psnr>=42").is_served(float("nan"))


def test_psnr_is_that_of_eozip() -> None:
    original, decoded = pair()
    expected = psnr(original, decoded, original != 0, 0)
    assert parse_purpose("psnr>=1").measure(original, decoded, PIXELS) == pytest.approx(expected, abs=1e-4)


def test_the_error_of_an_index_is_that_of_so_many_pixels() -> None:
    original, decoded = pair()
    valid = (original != 0).all(axis=1)

    def index(dn: np.ndarray) -> np.ndarray:
        nir, red = (dn[:, i][valid].astype(float) for i in (7, 3))
        return (nir - red) / (nir + red)

    errors = np.abs(index(original) - index(decoded))
    value = parse_purpose("ndvi<1").measure(original, decoded, PIXELS)
    assert 0.95 <= np.mean(errors <= value + 1e-12) < 0.951
    assert parse_purpose("max(ndvi)<1").measure(original, decoded, PIXELS) == pytest.approx(errors.max())
    assert parse_purpose("mean(ndvi)<1").measure(original, decoded, PIXELS) == pytest.approx(errors.mean())


def test_equal_pixels_serve_everything() -> None:
    original, _ = pair()
    for text in ("ndvi<0.001", "psnr>=100", "angle<0.01", "max-error<=0"):
        purpose = parse_purpose(text)
        assert purpose.is_served(purpose.measure(original, original, PIXELS))


def test_the_angle_is_that_of_the_spectra() -> None:
    original = np.full((1, 2, 1, 1), 1000, "uint16")
    decoded = np.array([1000, 0], "uint16").reshape(1, 2, 1, 1)
    pixels = Pixels(("B02", "B03"), 0, 1e-4, None)
    assert parse_purpose("angle<90").measure(original, decoded, pixels) == pytest.approx(45)


def test_dropped_and_missing_pixels_do_not_count() -> None:
    original, decoded = pair()
    dropped = np.zeros((2, *original.shape[2:]), bool)
    dropped[:, 20:] = True
    decoded[:, :, 20:] = 9999
    purpose = parse_purpose("max-error<=20")
    assert purpose.measure(original, decoded, PIXELS, dropped) < 100
    assert purpose.measure(original, decoded, PIXELS) > 5000


def test_a_purpose_of_two_parts_holds_for_both_together() -> None:
    original, decoded = pair(40)
    for text in ("ndvi<1", "rms(ndvi)<1", "angle<90", "max-error<=999"):
        purpose = parse_purpose(text)
        parts = [purpose.measure(original[[i]], decoded[[i]], PIXELS) for i in range(2)]
        assert purpose.measure(original, decoded, PIXELS) <= max(parts)


def test_an_index_without_a_value_any_more_is_endlessly_off() -> None:
    original = np.full((1, 12, 4, 4), 500, "uint16")
    decoded = original.copy()
    decoded[:, [3, 7]] = 0
    assert parse_purpose("ndvi<1").measure(original, decoded, Pixels(NAMES, 0, 1e-4, None)) == np.inf


def test_a_formula_of_bands_that_are_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no band 'foo'"):
        parse_purpose("foo<1").check(PIXELS, None)
    with pytest.raises(InputError, match="no band"):
        parse_purpose("ndvi<0.1").check(Pixels(("B02", "B03"), 0, 1e-4, None), None)


def test_agreement_wants_classes() -> None:
    with pytest.raises(InputError, match="--classes"):
        parse_purpose("agreement>=99%").check(PIXELS, None)


def test_classes_are_learned_and_survive_small_errors() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 4, 3000)
    spectra = np.array([[0.1, 0.3, 0.5], [0.5, 0.1, 0.2]])[:, labels - 1] + rng.normal(0, 0.02, (2, 3000))
    found = fit_classes(spectra, labels)
    assert np.mean(found.of(spectra) == labels) > 0.99
    assert Classifier.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("labels", [np.zeros(100, int), np.arange(100), np.arange(1000)])
def test_what_is_no_raster_of_classes_is_refused(labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="classes: expected"):
        fit_classes(np.random.default_rng(0).normal(size=(2, len(labels))), labels)


@pytest.mark.parametrize(
    "table", [None, {}, {"values": [1], "weights": []}, {"values": ["a"], "weights": [[1]]}]
)
def test_a_table_that_is_no_classifier_is_refused(table: object) -> None:
    with pytest.raises(FormatError, match="classes"):
        Classifier.from_dict(table)


def test_no_purpose_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="got none"):
        parse_purposes([])


@pytest.mark.parametrize(
    "text",
    [
        "ndvi<0",
        "angle<0",
        "max-error<0",
        "size<0MB",
        "size<=0",
        "size<1B",
        "agreement>100%",
        "mean(ndvi) < 0",
    ],
)
def test_what_no_pixels_can_serve_is_refused_as_it_is_read(text: str) -> None:
    with pytest.raises(InputError, match="limit that can be kept"):
        parse_purpose(text)


@pytest.mark.parametrize("text", ["ndvi<=0", "max-error<=0", "agreement>=100%", "psnr>=1000"])
def test_what_exact_pixels_serve_is_not(text: str) -> None:
    assert parse_purpose(text).text == text


@pytest.mark.parametrize(
    ("formula", "why"),
    [
        ("nir/0", "has no value"),
        ("log(nir-nir)", "has no value"),
        ("sqrt(-1-nir)", "has no value"),
        ("nir-nir", "the same value"),
        ("red*0+1", "the same value"),
        ("(nir+red)/(red+nir)", "the same value"),
    ],
)
def test_a_formula_that_says_nothing_of_pixels_holds_nothing(formula: str, why: str) -> None:
    """Every quality would serve it."""
    with pytest.raises(InputError, match=why):
        parse_purpose(f"{formula}<0.1").check(PIXELS, None)


@pytest.mark.parametrize(
    "formula", ["ndvi", "sqrt(nir-red)", "log(swir1)", "evi", "(b8a-b12)/(b8a+b12)", "min(red,0.2)"]
)
def test_a_formula_that_has_values_here_and_there_is_a_purpose(formula: str) -> None:
    parse_purpose(f"{formula}<0.1").check(PIXELS, None)
