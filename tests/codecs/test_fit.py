"""The closing fit: what the encoder sends is what the decoder applies, and it pays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eozip.codecs.rdoq import BITS_PER_SQUARED_STEP
from eozip.codecs.small.post_filter import CHOICE_ROW, basis_of, chosen, kinds, read_fit, send_fit, soft_class
from eozip.entropy.logistic_tables import logistic_tables
from eozip.entropy.range_coder import DecodePort, EncodePort, EstimatePort
from eozip.errors import EozipError, FormatError, InputError
from smallmodels import scene, series_scene, tiny_codec, tiny_series_codec, unfitted

TABLES = logistic_tables()
STEP = 40.0
CLASSES = (7, 3)


def picture(height: int = 40, width: int = 44, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(scene(1, height, width, seed)[0])


def worsened(x: torch.Tensor) -> torch.Tensor:
    """Bands that go together otherwise, a shift, and some noise."""
    mixed = x + 0.2 * (x.roll(1, 0) - x.mean()) + 30
    return mixed + 5 * torch.randn(x.shape, generator=torch.manual_seed(1))


def there_and_back(x, x_hat, step=STEP, past=None, classes=CLASSES):
    port = EncodePort()
    sent = send_fit(port, TABLES, x, x_hat, step, past, classes).applied(x_hat)
    data = port.finish()
    read = DecodePort(data)
    received = read_fit(read, TABLES, x_hat, step, past, classes)
    read.finish()
    return sent, received, data


def mse(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).square().mean())


def test_the_decoder_applies_what_the_encoder_fitted():
    x = picture()
    x_hat = worsened(x)
    sent, received, data = there_and_back(x, x_hat)
    assert torch.equal(sent, received)
    assert mse(received, x) < 0.1 * mse(x_hat, x)
    assert len(data) < 500


def test_a_past_date_helps_where_it_knows_more():
    past = picture()
    x = 1.1 * past + 100
    x_hat = x + 60 * torch.randn(x.shape, generator=torch.manual_seed(2))
    _, alone, _ = there_and_back(x, x_hat)
    _, after, _ = there_and_back(x, x_hat, past=past)
    assert mse(after, x) < 0.2 * mse(alone, x)


def test_classes_help_where_kinds_of_pixels_differ():
    """Plants lost another share of a band than bare land did."""
    x = picture(64, 64)
    x[7, :, 32:] += 3000
    x_hat = x.clone()
    x_hat[5, :, 32:] *= 0.9
    (_, alone, _), (sent, told, data) = (there_and_back(x, x_hat, classes=c) for c in ((), CLASSES))
    assert torch.equal(sent, told)
    assert mse(told, x) < 0.3 * mse(alone, x)
    assert len(data) < 500


def test_soft_classes_stay_within_bounds():
    x = picture()
    x[3], x[7] = x[3] - 4000, -x[3]  # sums of 0 and below
    inside = soft_class(x, 7, 3)
    assert inside.isfinite().all()
    assert inside.abs().max() <= 1


def test_an_exact_picture_is_left_alone():
    x = picture()
    _, received, data = there_and_back(x, x)
    assert torch.equal(received, x)
    assert len(data) < 20


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (130, 130)])
def test_any_size(size):
    x = picture(*size)
    sent, received, _ = there_and_back(x, worsened(x))
    assert torch.equal(sent, received)
    assert received.isfinite().all()


@given(value=st.floats(-3000, 20000, width=32), step=st.floats(0.5, 2000))
def test_constant_pictures(value, step):
    x = torch.full((12, 9, 11), value)
    sent, received, _ = there_and_back(x, x + 50, step)
    assert torch.equal(sent, received)
    assert mse(received, x) <= 50**2 + 0.1  # rounding


def test_functions_are_orthonormal():
    basis = basis_of(10 * picture(64, 64), None, CLASSES)  # strong enough for the ridge not to count
    error = basis.sum(torch.eye(12, 61, dtype=torch.float64) * 64)
    torch.testing.assert_close(
        basis.coefficients(error), torch.eye(12, 61).double() * 64, rtol=1e-3, atol=1e-2
    )


def test_every_coefficient_is_of_one_kind():
    for more in range(3):
        columns = list(kinds(12, more))
        assert columns[0] == slice(0, 1)
        assert [c.stop - c.start for c in columns] == [1] + [12] * (4 + more)
        assert all(a.stop == b.start for a, b in zip(columns, columns[1:]))  # noqa: RUF007


def test_what_does_not_pay_is_not_sent():
    choice, symbols = chosen(np.full(100, 0.2), TABLES)
    assert choice == 0
    choice, symbols = chosen(np.full(100, 9.8), TABLES)
    assert choice > 0
    assert (symbols == 10).all()


def test_a_choice_that_no_encoder_makes_is_refused():
    port = EncodePort()
    port.code(np.array([8], np.int32), np.array([CHOICE_ROW]), TABLES)
    with pytest.raises(FormatError, match="choice of"):
        read_fit(DecodePort(port.finish()), TABLES, picture(), STEP, None, CLASSES)


def test_pictures_that_are_not_finite_are_refused():
    x = picture()
    broken = x.clone()
    broken[3, 0, 0] = torch.inf
    with pytest.raises(InputError, match="out of range"):
        send_fit(EstimatePort(), TABLES, x, broken, STEP, None, CLASSES)
    port = EncodePort()
    send_fit(port, TABLES, x, worsened(x), STEP, None, CLASSES)
    with pytest.raises(FormatError, match="not finite"):
        read_fit(DecodePort(port.finish()), TABLES, broken, STEP, None, CLASSES)


@given(data=st.binary(max_size=400))
def test_any_bytes_give_a_picture_or_a_named_error(data):
    x_hat = picture(8, 8)
    try:
        port = DecodePort(data)
        received = read_fit(port, TABLES, x_hat, STEP, None, CLASSES)
        port.finish()
    except EozipError:
        return
    assert received.shape == x_hat.shape


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    return {
        "image": tiny_codec("tec-elic-tiny", tmp_path_factory.mktemp("image")),
        "series": tiny_series_codec(tmp_path_factory.mktemp("series")),
    }


@pytest.mark.parametrize("kind", ["image", "series"])
def test_codecs_gain_by_it(codecs, kind):
    """Error saved is worth more than its bits, at what a squared step is worth."""
    codec, x = codecs[kind], series_scene(3, 96, 96)
    x[:, 3] = 0.5 * x[:, 3] + 0.7 * x[:, 7]

    def cost(codec):
        coded = codec.encode(x, 50)
        steps = (codec.decode(coded, x.shape, 50) - x) / codec.step(50)
        return 8 * len(coded.sections[0]) + BITS_PER_SQUARED_STEP * np.square(steps).sum()

    assert cost(codec) < 0.95 * cost(unfitted(codec))


def test_bits_by_date_hold_the_fits(codecs):
    x = series_scene(3, 64, 64)
    coded = codecs["series"].encode(x, 60)
    assert sum(coded.bits) == pytest.approx(8 * len(coded.sections[0]), abs=200)


def test_dropped_pixels_are_not_fitted(codecs):
    """Whatever stands where cells are dropped, the bytes are the same."""
    codec, x = codecs["series"], series_scene(2, 64, 64)
    cells = np.zeros((2, 8, 8), bool)
    cells[1, 2:4, 3:6] = True
    other = x.copy()
    other[1, :, 16:32, 24:48] = 9000
    first, second = (codec.encode_without(v, 60, cells) for v in (x, other))
    kept = np.s_[1, :, :8]
    a, b = (codec.decode(c, x.shape, 60) for c in (first, second))
    assert np.abs(a[kept] - b[kept]).mean() < np.abs(a[kept] - x[kept]).mean()


def test_a_codec_without_it_reads_none(codecs):
    plain = unfitted(codecs["image"])
    coded = codecs["image"].encode(scene(1, 64, 64), 60)
    with pytest.raises(FormatError):
        plain.decode(replace(coded), (1, 12, 64, 64), 60)
