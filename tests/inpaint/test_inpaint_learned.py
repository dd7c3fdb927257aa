"""Predictors from temporal codecs: published TEC-TT with formula weights, and the hook for codecs that forecast."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest
import torch

import vectors
from eozip import hub
from eozip.codecs import registry
from eozip.codecs.small.forecast import forecast
from eozip.codecs.terracodec import tec_tt
from eozip.errors import InputError
from eozip.inpaint import get_predictor, inpaint, learned
from eozip.inpaint.learned import ForecastPredictor, Polished, TokenPredictor, cells, predictor_of
from eozip.inpaint.predict import make_series
from eozip.inpaint.regression import Regression, mapped_references
from eozip.inpaint.uncertainty import factor_of
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
    """A codec that forecasts the last date without hidden cells, and records what it was given."""

    id, bands, weights_hash = "echo-small-s2l2a-v1", 12, bytes(8)

    def forecast(self, x, hidden, quality, given):
        self.given = (x, hidden, quality, given)
        newest = np.flatnonzero(~hidden.any(axis=(1, 2)))[-1]
        return np.broadcast_to(x[newest], x.shape), np.full(x.shape, 25, np.float32)


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
    given = series()
    found = TokenPredictor(token_codec, samples=1).predict(given, 1)
    past = mapped_references(given, 1, Regression().references(given, 1)[:2][::-1])
    target = np.where(given.hidden[1], past[-1], given.x[1])
    with torch.inference_mode():
        y = tec_tt.latents(token_codec.model, np.concatenate([past, target[None]])[None], "s2-l2a")[0]
        cloudy = torch.from_numpy(cells(given.hidden[1], 16))[None]
        frame = token_codec.model.inpaint(y[2:], cloudy, [torch.round(y[:1]), torch.round(y[1:2])])
        mean, std = tec_tt.statistics("s2-l2a")
        expected = (token_codec.model.g_s(frame.dequantised)[0] * std + mean).numpy()
    assert np.abs(found.x_hat - expected).max() < 0.05


def thirteen(weights):
    """A twelve-band checkpoint with a thirteenth band, the last one again."""
    first, last = (
        "transform.analysis_transform.transforms.0.weight",
        "transform.synthesis_transform.transforms.14.",
    )
    wider = {name: torch.cat([weights[name], weights[name][:, -1:]], 1) for name in (first, last + "weight")}
    bias = weights[last + "bias"]
    return {**weights, **wider, last + "bias": torch.cat([bias, bias[-1:]])}


def test_level_1c_checkpoints_take_thirteen_bands():
    codec = tec_tt.from_weights(hub.recognise(thirteen(vectors.weights("tt-small")), "tt-small-l1c"), 4)
    assert (codec.sensor, codec.bands) == ("s2-l1c", 13)
    dn, mask = season(4, 13, SIDE, SIDE), masks(4, SIDE, SIDE)
    mask[0] = mask[2] = False
    filled = inpaint(dn, mask, predictor=codec)  # as `eozip.load` gives it
    assert filled.methods == ("", codec.id, "", codec.id)
    at = np.broadcast_to(mask[:, None], dn.shape)
    assert (filled.dn == dn)[~at].all()
    assert (filled.sigma[at] > 0).all()
    assert not filled.calibrated


def test_clear_tokens_are_their_own_latents_whatever_lies_under_the_cloud(token_codec):
    given = series()
    y = tec_tt.latents(token_codec.model, given.x[None], "s2-l2a")[0]
    cloudy = torch.from_numpy(cells(given.hidden[1], 16))[None]
    past = [torch.round(y[:1]), torch.round(y[2:3])]
    other = torch.where(cloudy[:, None], torch.full_like(y[1:2], 7.0), y[1:2])
    tokens, said, hidden = learned._walked(token_codec.model, y[1:2], cloudy[0], past)
    again = learned._walked(token_codec.model, other, cloudy[0], past)[0]
    known = torch.round(token_codec.model.entropy_model.tokens(y[1:2]))
    assert torch.equal(tokens, again)
    assert torch.equal(tokens[~hidden], known[~hidden])
    assert torch.equal(tokens[hidden], torch.round(said.mean)[hidden])
    assert 0 < hidden.float().mean() < 1


@pytest.mark.slow
def test_full_size_checkpoints_fill_cells():
    codec = tec_tt.from_weights(hub.recognise(vectors.weights("tt-base"), "tt-base"))
    given = make_series(season(3, 12, SIDE, SIDE).astype(np.float32), masks(3, SIDE, SIDE))
    found = TokenPredictor(codec, samples=1).predict(given, 1)
    assert found.x_hat.shape == (12, SIDE, SIDE)
    assert np.isfinite(found.x_hat).all()


def test_forecasting_codec_gets_mapped_references_and_hidden_cells():
    codec, given = Echo(), series()
    found = ForecastPredictor(codec).predict(given, 1)
    x, hidden, quality, groups = codec.given
    assert x.shape == (5, 12, SIDE, SIDE)  # references, the date, and the date with more hidden
    mapped = mapped_references(given, 1, [3, 2, 0])  # of two dates as near, the earlier is the nearest: last
    assert np.array_equal(x[:3], mapped)
    assert np.array_equal(hidden[3], cells(given.hidden[1], 8))
    assert (hidden[4] > hidden[3]).any()
    assert (hidden[4] >= hidden[3]).all()
    assert not hidden[:3].any()
    assert (quality, groups) == (60, 2)
    assert np.array_equal(x[3][:, ~given.hidden[1]], given.x[1][:, ~given.hidden[1]])
    assert np.array_equal(found.x_hat, mapped[2])


def test_sigma_of_a_forecast_is_as_high_as_its_errors_on_pixels_hidden_from_it():
    given = series()
    found = ForecastPredictor(Echo()).predict(given, 1)
    truth = season(4, 12, SIDE, SIDE)[1].astype(float)
    at = given.hidden[1]
    assert np.ptp(found.sigma, axis=(1, 2)).max() == 0  # the codec said the same everywhere
    inside = (np.abs(found.x_hat - truth) <= 1.645 * found.sigma)[:, at].mean()
    assert 0.8 < inside < 0.98
    whole = ForecastPredictor(Echo()).predict(series(np.ones((SIDE, SIDE), bool)), 1)
    assert (whole.sigma == 25).all()  # nothing to learn from
    assert (found.calibration, whole.calibration) == ("regression", Echo.id)


def test_references_are_mapped_to_the_light_of_the_date():
    x = np.repeat(season(1, 4, SIDE, SIDE).astype(np.float32), 3, axis=0)
    x[1] = 1.4 * x[0] + 200
    hidden = np.zeros((3, SIDE, SIDE), bool)
    hidden[1] = masks(1, SIDE, SIDE)[0]
    given = make_series(x, hidden)
    assert np.abs(mapped_references(given, 1, [0, 2]) - x[1]).mean() < 5
    hidden[1] = True  # nothing to map by
    assert np.array_equal(mapped_references(make_series(x, hidden), 1, [0]), x[:1])


# --- tec-tt-small as it is shipped ---


@pytest.fixture(scope="module")
def shipped():
    return registry.get(registry.resolve("tec-tt-small-s2l2a-v1"))


def test_hidden_cells_are_forecast_and_others_left(shipped):
    given = series(np.pad(np.ones((24, 16), bool), ((16, 24), (8, 40))))
    x = np.where(given.hidden[:, None], 700, given.x)
    hidden = np.stack([cells(plane, 8) for plane in given.hidden])
    x_hat, sigma = forecast(shipped, x, hidden, 60)
    assert (x_hat.shape, x_hat.dtype) == (x.shape, np.float32)
    for t in (0, 2, 3):
        assert np.array_equal(x_hat[t], x[t])
        assert not sigma[t].any()
    inside = np.s_[:, 16:40, 8:24]
    assert sigma[1][inside].min() > 0
    other = np.where(
        given.hidden[:, None], 2500, given.x
    )  # what lies under the hole enters by its neighbours' g_a alone
    assert np.abs(forecast(shipped, other, hidden, 60)[0] - x_hat)[1][inside].mean() < 30
    assert np.abs(forecast(shipped, other, hidden, 60, given=4)[0] - 2500)[1][inside].mean() < 300


def test_a_date_may_be_hidden_altogether_or_not_at_all(shipped):
    x = season(3, 12, 40, 33).astype(np.float32)
    nothing = np.zeros((3, 5, 5), bool)
    assert np.array_equal(forecast(shipped, x, nothing, 60)[0], x)
    nothing[2] = True
    x_hat, sigma = forecast(shipped, x, nothing, 60)
    assert np.isfinite(x_hat).all()
    assert sigma[2].min() > 0
    with pytest.raises(InputError, match="flag for every cell"):
        forecast(shipped, x, nothing[:, :-1], 60)


def test_tec_tt_small_beats_copying_and_is_repeatable(shipped):
    dn, mask = season(4, 12, SIDE, SIDE), masks(4, SIDE, SIDE)
    mask[0] = mask[2] = False
    filled = {
        name: inpaint(dn, mask, predictor=name)
        for name in ("tec-tt-small", "nearest-clear", "linear-in-time")
    }
    at = np.broadcast_to(mask[:, None], dn.shape)
    errors = {name: np.abs(found.dn.astype(float) - dn)[at].mean() for name, found in filled.items()}
    assert min(errors, key=errors.get) == "tec-tt-small"
    again = inpaint(dn, mask, predictor="tec-tt-small")
    assert np.array_equal(again.dn, filled["tec-tt-small"].dn)
    assert np.array_equal(again.sigma, filled["tec-tt-small"].sigma)
    assert (again.dn == dn)[~at].all()


# --- the regression through the transforms ---


class Mean:
    """Stands for `through_transforms`: every picture becomes a blend of itself and another."""

    def __init__(self, other, share):
        self.other, self.share = other, share

    def __call__(self, codec, x, quality):
        return ((1 - self.share) * x + self.share * self.other).astype(np.float32)


def test_polishing_is_kept_where_held_out_pixels_gain_by_it(shipped, monkeypatch):
    clear = season(4, 12, SIDE, SIDE).astype(np.float32)
    given = series()
    plain = Regression().predict(given, 1)
    monkeypatch.setattr(learned, "through_transforms", Mean(clear[1], 0.5))  # half of the truth
    better = Polished(shipped).predict(given, 1)
    assert (better.method, better.calibration) == (f"{shipped.id}+regression", "regression")
    at = given.hidden[1]
    assert np.abs(better.x_hat - clear[1])[:, at].mean() < 0.7 * np.abs(plain.x_hat - clear[1])[:, at].mean()
    assert better.sigma.mean() < plain.sigma.mean()
    monkeypatch.setattr(learned, "through_transforms", Mean(5000.0, 0.5))
    worse = Polished(shipped).predict(given, 1)
    assert worse.method == "regression"
    assert np.array_equal(worse.x_hat, plain.x_hat)
    assert np.array_equal(worse.sigma, plain.sigma)


def test_polishing_uses_no_hidden_pixel_and_falls_back_where_nothing_is_shown(shipped):
    given = series()
    assert np.isfinite(Polished(shipped).predict(given, 1).x_hat).all()
    hidden = given.hidden.copy()
    hidden[1] = True
    blind = make_series(given.x, hidden)
    assert Polished(shipped).predict(blind, 1).method == "weighted-filled"


def test_tool_takes_a_codec_by_name_and_says_that_sigma_is_not_calibrated():
    registry.REGISTRY.add(Echo.id, Echo)
    try:
        assert isinstance(get_predictor("echo-small"), ForecastPredictor)
        dn, mask = season(), masks()
        filled = inpaint(dn, mask, predictor="echo-small")
        mask[0] = True
        blind = inpaint(dn, mask, predictor="echo-small")
    finally:
        registry.REGISTRY.remove(Echo.id)
    assert filled.calibrated  # by pixels held out of each date
    assert not blind.calibrated
    assert set(filled.methods) == {Echo.id}
    assert (filled.dn == dn)[np.broadcast_to(~mask[:, None], dn.shape)].all()


def test_codecs_that_do_not_fit_are_refused(token_codec):
    given = make_series(season(3, 4, SIDE, SIDE).astype(np.float32), masks(3, SIDE, SIDE))
    for predictor in (TokenPredictor(token_codec), ForecastPredictor(Echo()), Polished(Echo())):
        with pytest.raises(InputError, match="expected 12 bands, got 4"):
            predictor.predict(given, 1)
    with pytest.raises(InputError, match="cannot forecast"):
        predictor_of(registry.get("tec-fp-small-s2l2a-v1"))


def test_only_small_codecs_polish(token_codec):
    with pytest.raises(InputError, match="small codec before"):
        predictor_of(token_codec, polish=True)
    with pytest.raises(InputError, match="expected one of"):
        get_predictor("mirror+regression")
    assert get_predictor("tec-fp-small-s2l2a-v1+regression").name.endswith("+regression")


def test_what_was_learnt_for_other_weights_is_not_used(shipped):
    known = json.loads(resources.files("eozip.inpaint").joinpath("calibration.json").read_text())
    assert set(known["weights"]) == {name for name in known["factors"] if name.startswith("tec-")}
    assert factor_of(shipped.id, 1.0) is not None  # else: benchmarks/inpainting.py renew
    assert known["weights"][shipped.id] == shipped.weights_hash.hex()
    assert factor_of("tec-tt-small", 0.3) is None
    assert factor_of("tec-tt-small-s2l2a-v999", 0.3) is None
