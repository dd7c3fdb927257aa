"""A predictor from a codec: a published TEC-TT forecasts cells of 16 x 16 pixels touched by cloud from two other dates.

Past and future dates serve alike: they are put in order so that the nearest comes last. Their holes are filled as the
regression fills its own, and they are mapped to the date by what its clear pixels say: a codec knows how land looks, not
how light or dry this day was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eozip.codecs.terracodec.common import LATENT_STRIDE, latent_grid, statistics
from eozip.codecs.terracodec.tec_tt import TemporalCodec, grid_of, latents
from eozip.codecs.terracodec.temporal import TemporalModel
from eozip.codecs.terracodec.transformer import Prediction as Said
from eozip.errors import InputError
from eozip.inpaint.filled import WeightedFilled, mapped_references
from eozip.inpaint.predict import Prediction, Predictor, Series
from eozip.inpaint.regression import Regression
from eozip.inpaint.uncertainty import LEAST


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


def predictor_of(codec: Any) -> Predictor:
    """The predictor of a codec.

    Raises:
        InputError: it cannot forecast.
    """
    if isinstance(codec, TemporalCodec):
        return TokenPredictor(codec)
    raise InputError(
        f"predictor: expected a published temporal codec (TEC-TT), got {codec.id}, which cannot forecast"
    )


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
