"""What tec-tt-small expects of cells that nobody has seen, such as those under a cloud: its means, and how sure it is.

The traversal is that of coding, with a `Code` that sends nothing: visible cells are their own quantised latents, hidden ones
their means, given everything visible of their date and of the dates before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eozip.codecs.series_codec import PAST, SeriesCodec, cells_of, grown
from eozip.codecs.small_codec import padded
from eozip.entropy.exact import ExactArithmetic
from eozip.errors import InputError
from eozip.networks.small import PATCH, at_level
from eozip.networks.small_linear import Step, rows
from eozip.networks.small_time import Date

HYPER = 4  # latent cells per cell of the hyper-latent, each way
DEVIATION = math.pi / math.sqrt(3)  # standard deviation of a logistic of scale 1


@dataclass(frozen=True)
class Expectation:
    """Stands in the traversal of one date where a port stands in coding.

    Attributes:
        y: rows of the latents in steps, [1, h*w, M].
        z: of the hyper-latent.
        hidden: bool [h*w].
        z_hidden: bool, of the cells of the hyper-latent.
        deviation: standard deviations in steps, [h*w, M]; filled in where hidden.
        arithmetic: of the traversal.
    """

    y: Tensor
    z: Tensor
    hidden: Tensor
    z_hidden: Tensor
    deviation: Tensor
    arithmetic: ExactArithmetic

    def __call__(self, step: Step) -> Tensor:
        if step.channels is None:
            seen, known = self.z[:, step.cells], ~self.z_hidden[step.cells]
        else:
            seen, known = self.y[:, step.cells, step.channels], ~self.hidden[step.cells]
            spread = torch.where(known[:, None], 0.0, step.log_scale[0].exp() * DEVIATION)
            self.deviation[step.cells, step.channels] = spread.to(self.deviation)
        rounded = (seen - step.mean).round() + step.mean
        return self.arithmetic.place(torch.where(known[:, None], rounded, step.mean).to(step.mean))


@torch.inference_mode()
def forecast(
    codec: SeriesCodec, x: np.ndarray, hidden: np.ndarray, quality: float
) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts the hidden cells of a stack, each date from those before it.

    Args:
        codec: tec-tt-small.
        x: float32 [T, C, H, W], DN; anything finite where hidden.
        hidden: bool [T, ceil(H / 8), ceil(W / 8)].
        quality: 0..100, of the latents of visible cells.

    Returns:
        x_hat and sigma, float32 [T, C, H, W], DN; sigma is 0 where nothing near is hidden.

    Raises:
        InputError: `hidden` is of another shape.
    """
    frames, _, height, width = x.shape
    expected = cells_of(x.shape)
    if hidden.shape != expected:
        raise InputError(f"hidden: expected a flag for every cell, {expected}, got {hidden.shape}")
    model, t = codec.model, codec.level(quality, frames)
    y = model.analyse(model.standardise(padded(torch.from_numpy(x))), t)
    size = tuple(y.shape[2:])
    covered = grown(hidden, size)
    y_hat, deviation = walked(codec, y, covered, t, size)
    pixels = model.restore(model.synthesise(y_hat, t))
    sigma = in_pixels(codec, deviation, t) * model.unit
    return tuple(v[:, :, :height, :width].numpy() for v in (pixels, sigma))


def walked(
    codec: SeriesCodec, y: Tensor, hidden: Tensor, t: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """-> y_hat and standard deviations [T, M, h, w], in steps."""
    entropy, arithmetic = codec.exact(t.device)
    z = entropy.hyper_latent(y)
    z_hidden = F.max_pool2d(hidden[:, None].float(), HYPER).flatten(1).bool()
    past: list[Date] = []
    found, deviations = [], []
    for k in range(len(y)):
        deviation = y.new_zeros(size[0] * size[1], y.shape[1])
        one = slice(k, k + 1)
        code = Expectation(
            rows(y[one]), rows(z[one]), hidden[k].flatten(), z_hidden[k], deviation, arithmetic
        )
        y_hat, date = entropy.traverse_after(past[-PAST:], code, t[one].double(), size, arithmetic)
        past.append(date)
        found.append(y_hat.float())
        deviations.append(deviation.T.unflatten(1, size))
    return torch.cat(found), torch.stack(deviations)


def in_pixels(codec: SeriesCodec, deviation: Tensor, t: Tensor) -> Tensor:
    """Standard deviations of standardised pixels, by the linear part of g_s; latents taken as independent."""
    model = codec.model
    variance = (deviation * (-at_level(model.log_gain, t)).exp()).square()
    return F.pixel_shuffle(F.conv2d(variance, model.g_s.linear.weight.square()), PATCH).sqrt()
