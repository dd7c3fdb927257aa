"""Predictors from temporal codecs: published TEC-TT with formula weights, and the hook for codecs that forecast."""

from __future__ import annotations

import numpy as np
import pytest

import vectors
from eozip import hub
from eozip.codecs import registry, tec_tt
from eozip.errors import InputError
from eozip.inpaint import get_predictor, inpaint
from eozip.inpaint.learned import ForecastPredictor, TokenPredictor, cells, predictor_of
from eozip.inpaint.predict import make_series
from eozip.inpaint.regression import Regression, filled_references
from inpaintfiles import masks, season

SIDE = 64


@pytest.fixture(scope="module")
def token_codec():
    return tec_tt.from_weights(hub.recognise(vectors.weights("tt-small"), "tt-small"), 4)


def series(hide=None):
    hidden = np.zeros((4, SIDE, SIDE), bool)
    hidden[1] = masks(1, SIDE, SIDE)[0] if hide is None else hide
    return make_series(season(4, 12, SIDE, SIDE).astype(np.float32), hidden)


class Echo:
    """A codec that forecasts the last date but one, and records what it was given."""

    id, bands = "echo-small-s2l2a-v1", 12

    def forecast(self, x, hidden, quality):
        self.given = (x, hidden, quality)
        return np.broadcast_to(x[-2], x.shape), np.full(x.shape, 25, np.float32)


def test_cells_touched_by_one_pixel_are_hidden():
    mask = np.zeros((17, 20), bool)
    mask[8, 7] = mask[16, 19] = True
    expected = np.zeros((3, 3), bool)
    expected[1, 0] = expected[2, 2] = True
    assert np.array_equal(cells(mask, 8), expected)


def test_tokens_are_predicted_where_hidden(token_codec):
    predictor = TokenPredictor(token_codec, samples=2)
    hide = np.zeros((SIDE, SIDE), bool)
    hide[20:24, 20:24] = True
    given = series(hide)
    a, b = predictor.predict(given, 1), predictor.predict(given, 1)
    assert a.x_hat.shape == (12, SIDE, SIDE)
    assert np.isfinite(a.x_hat).all()
    assert np.array_equal(a.x_hat, b.x_hat)
    assert np.array_equal(a.sigma, b.sigma)
    assert a.sigma.min() >= 1
    assert a.sigma[:, 16:32, 16:32].mean() > 1  # drawn latents differ in the hidden cell
    assert (a.references == 2).all()


def test_tokens_agree_with_the_models_own_inpainting(token_codec):
    import torch

    given = series()
    found = TokenPredictor(token_codec, samples=1).predict(given, 1)
    past = filled_references(given, 1, Regression().references(given, 1)[:2][::-1])
    target = np.where(given.hidden[1], past[-1], given.x[1])
    with torch.inference_mode():
        y = tec_tt.latents(token_codec.model, np.concatenate([past, target[None]])[None], "s2-l2a")[0]
        cloudy = torch.from_numpy(cells(given.hidden[1], 16))[None]
        frame = token_codec.model.inpaint(y[2:], cloudy, [torch.round(y[:1]), torch.round(y[1:2])])
        mean, std = tec_tt.statistics("s2-l2a")
        expected = (token_codec.model.g_s(frame.dequantised)[0] * std + mean).numpy()
    assert np.abs(found.x_hat - expected).max() < 0.05


def test_forecasting_codec_gets_filled_references_and_hidden_cells():
    codec, given = Echo(), series()
    found = ForecastPredictor(codec).predict(given, 1)
    x, hidden, quality = codec.given
    assert x.shape == (4, 12, SIDE, SIDE)
    assert np.array_equal(x[2], given.x[0])  # of two dates as near, the earlier is the nearest: last
    assert np.array_equal(hidden[3], cells(given.hidden[1], 8))
    assert not hidden[:3].any()
    assert quality == 60
    assert np.array_equal(found.x_hat, given.x[0])
    assert (found.sigma == 25).all()


def test_the_regressions_picture_can_be_the_last_reference():
    codec, given = Echo(), series()
    found = ForecastPredictor(codec, draft=Regression(hinges=8)).predict(given, 1)
    assert len(codec.given[0]) == 5
    clear = ~given.hidden[1]
    assert np.array_equal(found.x_hat[:, clear], given.x[1][:, clear])
    assert found.method == "echo-small-s2l2a-v1+regression"


def test_tool_takes_a_codec_by_name_and_says_that_sigma_is_not_calibrated():
    registry.REGISTRY.add(Echo.id, Echo)
    try:
        assert isinstance(get_predictor("echo-small"), ForecastPredictor)
        dn, mask = season(), masks()
        filled = inpaint(dn, mask, predictor="echo-small")
    finally:
        registry.REGISTRY.remove(Echo.id)
    assert not filled.calibrated
    assert set(filled.methods) == {Echo.id}
    assert (filled.dn == dn)[np.broadcast_to(~mask[:, None], dn.shape)].all()


def test_codecs_that_do_not_fit_are_refused(token_codec):
    given = make_series(season(3, 4, SIDE, SIDE).astype(np.float32), masks(3, SIDE, SIDE))
    for predictor in (TokenPredictor(token_codec), ForecastPredictor(Echo())):
        with pytest.raises(InputError, match="expected 12 bands, got 4"):
            predictor.predict(given, 1)
    with pytest.raises(InputError, match="cannot forecast"):
        predictor_of(registry.get("tec-fp-small-s2l2a-v1"))


def test_an_unknown_draft_is_named():
    with pytest.raises(InputError, match="after the \\+"):
        get_predictor("tec-tt-small+mirror")
