"""The predictor from published TEC-TT, with formula weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vectors
from eozip import hub
from eozip.codecs.terracodec import tec_tt
from eozip.errors import InputError
from eozip.inpaint import get_predictor, inpaint, learned
from eozip.inpaint.filled import mapped_references
from eozip.inpaint.learned import TokenPredictor, cells
from eozip.inpaint.predict import make_series
from eozip.inpaint.regression import Regression
from inpaintfiles import masks, season

SIDE = 64


@pytest.fixture(scope="module")
def token_codec():
    return tec_tt.from_weights(hub.recognise(vectors.weights("tt-small"), "tt-small"), 4)


def series(hide=None):
    hidden = np.zeros((4, SIDE, SIDE), bool)
    hidden[1] = masks(1, SIDE, SIDE)[0] if hide is None else hide
    return make_series(season(4, 12, SIDE, SIDE).astype(np.float32), hidden)


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


def test_references_are_mapped_to_the_light_of_the_date():
    x = np.repeat(season(1, 4, SIDE, SIDE).astype(np.float32), 3, axis=0)
    x[1] = 1.4 * x[0] + 200
    hidden = np.zeros((3, SIDE, SIDE), bool)
    hidden[1] = masks(1, SIDE, SIDE)[0]
    given = make_series(x, hidden)
    assert np.abs(mapped_references(given, 1, [0, 2]) - x[1]).mean() < 5
    hidden[1] = True  # nothing to map by
    assert np.array_equal(mapped_references(make_series(x, hidden), 1, [0]), x[:1])


def test_codecs_that_do_not_fit_are_refused(token_codec):
    given = make_series(season(3, 4, SIDE, SIDE).astype(np.float32), masks(3, SIDE, SIDE))
    with pytest.raises(InputError, match="expected 12 bands, got 4"):
        TokenPredictor(token_codec).predict(given, 1)
    for name in ("tec-fp-small", "tec-tt-small"):
        with pytest.raises(InputError, match="cannot forecast"):
            get_predictor(name)
    with pytest.raises(InputError, match="expected one of"):
        get_predictor("mirror+regression")
