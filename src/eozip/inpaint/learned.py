"""Predictors from codecs.

    ForecastPredictor    cells touched by cloud are forecast by tec-tt-small from the other dates
    TokenPredictor       the same with a published TEC-TT: cells of 16 x 16 pixels, two earlier frames
    Polished             the regression's picture, seen through the transforms of a codec

Past and future dates serve alike: they are put in order so that the nearest comes last. Their holes are filled as the
regression fills its own, and they are mapped to the date by what its clear pixels say: a codec knows how land looks, not
how light or dry this day was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from eozip.codecs.small.forecast import through_transforms
from eozip.codecs.small.image_codec import SmallCodec
from eozip.codecs.terracodec.common import LATENT_STRIDE, latent_grid, statistics
from eozip.codecs.terracodec.tec_tt import TemporalCodec, grid_of, latents
from eozip.codecs.terracodec.temporal import TemporalModel
from eozip.codecs.terracodec.transformer import Prediction as Said
from eozip.errors import InputError
from eozip.inpaint.normalized_convolution import spread
from eozip.inpaint.predict import Prediction, Predictor, Series
from eozip.inpaint.regression import Draft, Regression, WeightedFilled, held_out, mapped_references
from eozip.inpaint.uncertainty import HELD_OUT, LEAST, enough, height_of, sigma_of_errors

_CELL = 8  # pixels per latent cell of tec-tt-small
_SEAM = (1, 2, 4)  # radii in pixels over which a difference at clear pixels is carried into the hole


class _Forecaster(Protocol):
    """A codec that forecasts hidden cells by itself."""

    id: str
    bands: int

    def forecast(
        self, x: np.ndarray, hidden: np.ndarray, quality: float, given: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Forecasts hidden cells of the dates of a stack.

        Args:
            x: float32 [T, C, H, W], DN.
            hidden: bool [T, ceil(H / 8), ceil(W / 8)]: cells that are to be forecast.
            quality: 0..100.
            given: so many groups of channels, the coarsest first, are taken from x in hidden cells too; of the others x
                must have no influence there.

        Returns:
            x_hat and sigma, float32 [T, C, H, W], DN.
        """
        ...


@dataclass(frozen=True)
class ForecastPredictor:
    """A codec with `forecast`, given the usable dates, the nearest last, and then the date itself.

    The coarsest groups of hidden cells come from the mean of the mapped references, drawn to the clear pixels beside the
    hole: coding orders cells so that a hidden average would know nothing of this date. Where sigma is high and where low
    the codec says; how high, the errors of a second forecast, of clear pixels that are hidden from it.

    Attributes:
        codec: the codec.
        quality: 0..100.
        given: groups that come from the mapped references; 0: none.
    """

    codec: _Forecaster
    quality: float = 60.0
    given: int = 2
    usable: Regression = field(default_factory=Regression)
    fallback: Predictor = field(default_factory=WeightedFilled)

    @property
    def name(self) -> str:
        return self.codec.id

    def predict(self, series: Series, date: int) -> Prediction:
        references = self.usable.references(series, date)
        if not references:
            return self.fallback.predict(series, date)
        _check_bands(self.codec, series)
        past = mapped_references(series, date, references[::-1])
        clear = ~series.hidden[date]
        held = held_out(series.hidden[date])
        held &= enough(held)
        x_hat, sigma = self._forecasts(series.x[date], past, np.stack([clear, clear & ~held]))
        sigma = np.maximum(sigma, np.float32(LEAST))
        height = height_of(series.x[date] - x_hat[1], sigma[1], held)
        count = (~series.hidden[references]).sum(axis=0).astype(np.uint8)
        sigma = np.maximum(height * sigma[0], np.float32(LEAST))
        return Prediction(x_hat[0], sigma, count, self.name, factors=HELD_OUT if held.any() else "")

    def _forecasts(self, x: np.ndarray, past: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The date [C, H, W] as forecast from what each of `shown` [2, H, W] leaves of it."""
        mean = past.mean(axis=0)
        frames = [np.where(known, x, mean + spread(x - mean, known)) for known in shown]
        hidden = np.stack([cells(~known, _CELL) for known in shown])
        flags = np.concatenate([np.zeros((len(past), *hidden.shape[1:]), bool), hidden])
        x_hat, sigma = self.codec.forecast(np.concatenate([past, frames]), flags, self.quality, self.given)
        return x_hat[-2:], sigma[-2:]


@dataclass(frozen=True)
class Polished:
    """The regression's picture through a codec's transforms, where that brings held-out pixels nearer to the truth.

    Attributes:
        codec: a small codec.
        draft: the regression.
        quality: 0..100, of the transforms.
    """

    codec: SmallCodec
    draft: Regression = field(default_factory=Regression)
    quality: float = 60.0

    @property
    def name(self) -> str:
        return f"{self.codec.id}+{self.draft.name}"

    def predict(self, series: Series, date: int) -> Prediction:
        _check_bands(self.codec, series)
        draft = self.draft.draft(series, date)
        if draft is None:
            return self.draft.predict(series, date)
        clear = ~series.hidden[date]
        x_hat, tried = self._polished(series.x[date], draft, clear)
        if _error(tried, series.x[date], draft.judged) >= _error(draft.tried, series.x[date], draft.judged):
            return self.draft.settled(series, date, draft)
        sigma = sigma_of_errors(series.x[date] - tried, draft.judged)
        return Prediction(x_hat, sigma, draft.references, self.name, seamless=True, factors=HELD_OUT)

    def _polished(self, x: np.ndarray, draft: Draft, clear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both pictures of the draft, each beside the pixels it was shown, through the transforms."""
        shown = np.stack([clear, clear & ~draft.held])
        under = np.stack([draft.x_hat, draft.tried])
        pictures = through_transforms(self.codec, np.where(shown[:, None], x, under), self.quality)
        met = [picture + spread(x - picture, known, _SEAM) for picture, known in zip(pictures, shown)]
        return met[0], met[1]


def _error(x_hat: np.ndarray, x: np.ndarray, at: np.ndarray) -> float:
    return float(np.abs(x_hat - x)[:, at].mean())


@dataclass(frozen=True)
class TokenPredictor:
    """A published TEC-TT checkpoint.

    Attributes:
        codec: the codec; 12 bands of Level-2A or 13 of Level-1C.
        samples: latents drawn from the model's own distribution, to see what its sigma means in pixels.
    """

    codec: TemporalCodec
    samples: int = 4
    usable: Regression = field(default_factory=Regression)
    fallback: Predictor = field(default_factory=WeightedFilled)

    @property
    def name(self) -> str:
        return self.codec.id

    @torch.inference_mode()
    def predict(self, series: Series, date: int) -> Prediction:
        references = self.usable.references(series, date)[:2]
        if not references:
            return self.fallback.predict(series, date)
        _check_bands(self.codec, series)
        past = mapped_references(series, date, references[::-1])
        frames = np.concatenate([past, _over(series, date, past[-1])[None]])
        y = latents(self.codec.model, frames[None], self.codec.sensor)[0]
        cloudy = _token_cells(series.hidden[date])
        pictures = self._pictures(y[-1:], cloudy, list(torch.round(y[:-1]).split(1)))
        height, width = series.hidden.shape[1:]
        x_hat, drawn = pictures[0][..., :height, :width], pictures[1:][..., :height, :width]
        sigma = np.sqrt(((drawn - x_hat) ** 2).mean(axis=0))
        count = (~series.hidden[references]).sum(axis=0).astype(np.uint8)
        return Prediction(x_hat, np.maximum(sigma, np.float32(LEAST)), count, self.name)

    def _pictures(self, y: Tensor, cloudy: Tensor, past: list[Tensor]) -> np.ndarray:
        """The forecast [1 + samples, C, H, W] with hidden cells at their means, then as drawn."""
        model = self.codec.model
        tokens, said, hidden = _walked(model, y, cloudy, past)
        generator = torch.Generator().manual_seed(0)
        pictures = [self._picture(tokens, said, y)]
        for _ in range(self.samples):
            noise = torch.randn(said.mean.shape, generator=generator)
            drawn = torch.where(hidden, torch.round(said.mean + said.scale * noise), tokens)
            pictures.append(self._picture(drawn, said, y))
        return np.stack(pictures)

    def _picture(self, tokens: Tensor, said: Said, y: Tensor) -> np.ndarray:
        model, grid = self.codec.model, grid_of(y[:, None])
        y_hat, features = (model.entropy_model.grid(part, grid) for part in (tokens, said.features))
        mean, std = statistics(self.codec.sensor)
        return (model.g_s(model._dequantizer(y_hat, features))[0] * std + mean).numpy()


def _walked(
    model: TemporalModel, y: Tensor, cloudy: Tensor, past: list[Tensor]
) -> tuple[Tensor, Said, Tensor]:
    """Tokens of a frame, cloudy ones at their rounded means; what the model said; which are cloudy."""
    network = model.entropy_model
    hidden = network.tokens(cloudy[None, None].expand_as(y))
    known = torch.round(network.tokens(y))

    def settle(i: int, mean: Tensor, _scale: Tensor) -> Tensor:
        return torch.where(hidden[:, i], torch.round(mean), known[:, i])

    older, newer = (network.past(frame) for frame in (past[0], past[-1]))
    memories = network.memories(network.context(older, newer))
    tokens, said = network.walk(memories, settle).stacked()
    return tokens, said, hidden


def predictor_of(codec: Any, polish: bool = False) -> Predictor:
    """The predictor of a codec; with `polish`, its transforms behind the regression.

    Raises:
        InputError: it cannot forecast, or has no transforms of its own.
    """
    if polish and isinstance(codec, SmallCodec):
        return Polished(codec)
    if polish:
        raise InputError(f"predictor: expected a small codec before +regression, got {codec.id}")
    if hasattr(codec, "forecast"):
        return ForecastPredictor(codec)
    if isinstance(codec, TemporalCodec):
        return TokenPredictor(codec)
    raise InputError(f"predictor: expected a temporal codec (tec-tt), got {codec.id}, which cannot forecast")


def _check_bands(codec: Any, series: Series) -> None:
    """Holds the series against what the network takes.

    Raises:
        InputError: another number of bands.
    """
    if codec.bands != series.x.shape[1]:
        raise InputError(
            f"{codec.id}: expected {codec.bands} bands, got {series.x.shape[1]}; use the default predictor, which "
            "takes any bands"
        )


def cells(hidden: np.ndarray, side: int) -> np.ndarray:
    """Bool [H, W] > bool [ceil(H / side), ceil(W / side)]: cells with any hidden pixel."""
    height, width = hidden.shape
    padded = np.pad(hidden, ((0, -height % side), (0, -width % side)))
    return np.asarray(padded.reshape(padded.shape[0] // side, side, -1, side).any(axis=(1, 3)))


def _token_cells(hidden: np.ndarray) -> Tensor:
    """Cells of 16 x 16 pixels of the padded frame; cells of padding alone count as clear: they repeat the picture."""
    found = cells(hidden, LATENT_STRIDE)
    height, width = latent_grid(*hidden.shape)
    return torch.from_numpy(np.pad(found, ((0, height - found.shape[0]), (0, width - found.shape[1]))))


def _over(series: Series, date: int, under: np.ndarray) -> np.ndarray:
    """The date's clear pixels over another picture [C, H, W]."""
    return np.where(series.hidden[date], under, series.x[date])
