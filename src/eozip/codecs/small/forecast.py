"""What tec-tt-small expects of cells that nobody has seen, such as those under a cloud: its means, and how sure it is.

The traversal is that of coding, with a `Code` that sends nothing: visible cells are their own quantised latents, hidden ones
their means, given what is visible of their date and all dates that are visible altogether. Coding goes from coarse to
fine and from group to group, so a hidden block average knows nothing of visible cells that are coded after it: a picture put
under the hole may stand in for the first groups (`given`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eozip.codecs.skip_mask import check_cells
from eozip.codecs.small.image_codec import SmallCodec, padded
from eozip.codecs.small.linear_entropy import Step, rows
from eozip.codecs.small.networks import PATCH, at_level
from eozip.codecs.small.series_walk import PAST, grown
from eozip.codecs.small.temporal_entropy import Date
from eozip.entropy.fixed_point import ExactArithmetic

HYPER = 4  # latent cells per cell of the hyper-latent, each way
HALF = PATCH // 2  # pixels
DEVIATION = math.pi / math.sqrt(3)  # standard deviation of a logistic of scale 1


@dataclass(frozen=True)
class Expectation:
    """Stands in the traversal of dates where a port stands in coding.

    Attributes:
        y: rows of the latents in steps, [B, h*w, M].
        z: of the hyper-latent.
        hidden: bool [B, h*w].
        z_hidden: bool [B, n], of the cells of the hyper-latent.
        given: so many groups keep what y says in hidden cells, unrounded.
        deviation: standard deviations in steps, [B, h*w, M]; filled in where hidden.
        arithmetic: of the traversal.
    """

    y: Tensor
    z: Tensor
    hidden: Tensor
    z_hidden: Tensor
    given: int
    deviation: Tensor
    arithmetic: ExactArithmetic

    def __call__(self, step: Step) -> Tensor:
        if step.channels is None:
            return self.settled(step, self.z[:, step.cells], self.z_hidden, step.mean)
        seen = self.y[:, step.cells, step.channels]
        spread = step.log_scale.exp() * DEVIATION * self.hidden[:, step.cells, None]
        self.deviation[:, step.cells, step.channels] = spread.to(self.deviation)
        return self.settled(step, seen, self.hidden, seen if step.group < self.given else step.mean)

    def settled(self, step: Step, seen: Tensor, hidden: Tensor, held: Tensor) -> Tensor:
        """Rounded where visible, `held` where not."""
        rounded = (seen - step.mean).round() + step.mean
        value = torch.where(hidden[:, step.cells, None], held.to(rounded), rounded)
        return self.arithmetic.place(value.to(step.mean))


@torch.inference_mode()
def forecast(
    codec: SmallCodec, x: np.ndarray, hidden: np.ndarray, quality: float, given: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts the hidden cells of a stack, each date from those without hidden cells, of which the last is the nearest.

    Args:
        codec: tec-tt-small.
        x: float32 [T, C, H, W], DN; where hidden, anything finite, or with `given` a first guess.
        hidden: bool [T, ceil(H / 8), ceil(W / 8)].
        quality: 0..100, of the latents of visible cells.
        given: so many groups of channels, the coarsest first, are taken from x in hidden cells too.

    Returns:
        x_hat and sigma, float32 [T, C, H, W], DN; sigma is 0 where nothing near is hidden. Dates without hidden cells
        come back as they are; those with some know nothing of each other.

    Raises:
        InputError: `hidden` is of another shape.
    """
    frames, _, height, width = x.shape
    check_cells("hidden", hidden, x.shape)
    model, t = codec.model, codec.level(quality, frames)
    y = model.analyse(model.standardise(padded(torch.from_numpy(x))), t)
    some = hidden.any(axis=(1, 2))
    y_hat, deviation = walked(codec, y, grown(hidden, tuple(y.shape[2:])), t, given)
    pictures, sigma = x.copy(), np.zeros_like(x)
    if some.any():
        pictures[some] = codec.picture(y_hat, x[some].shape, quality)
        sigma[some] = (in_pixels(codec, deviation, t[some]) * model.unit)[:, :, :height, :width]
    return pictures, sigma


def walked(codec: SmallCodec, y: Tensor, hidden: Tensor, t: Tensor, given: int) -> tuple[Tensor, Tensor]:
    """y [T, M, h, w] in steps, hidden bool [T, h, w] -> y_hat and standard deviations, of dates with hidden cells alone."""
    size = tuple(y.shape[2:])
    entropy, arithmetic = codec.exact(t.device)
    z = entropy.hyper_latent(y)
    z_hidden = F.max_pool2d(hidden[:, None].float(), HYPER).flatten(1).bool()

    def walk(some: Tensor, past: list[Date]) -> tuple[Tensor, Date, Tensor]:
        ys, zs, flags = rows(y[some]), rows(z[some]), hidden[some].flatten(1)
        code = Expectation(ys, zs, flags, z_hidden[some], given, torch.zeros_like(ys), arithmetic)
        y_hat, date = entropy.traverse_after(past, code, t[some].double(), size, arithmetic)
        return y_hat.float(), date, code.deviation

    some = hidden.flatten(1).any(1)
    past: list[Date] = []
    if not some.all():
        # what space did not foresee of a visible date does not depend on its past: all of them at once
        _, seen, _ = walk(~some, [])
        each = seen.innovation[-PAST:].split(1)
        past = [Date(innovation.expand(int(some.sum()), -1, -1)) for innovation in each]
    y_hat, _, deviation = walk(some, past)
    return y_hat, deviation.transpose(1, 2).unflatten(2, size)


def in_pixels(codec: SmallCodec, deviation: Tensor, t: Tensor) -> Tensor:
    """Standard deviations of standardised pixels, by the linear part of g_s; latents taken as independent."""
    model = codec.model
    variance = (deviation * (-at_level(model.log_gain, t)).exp()).square()
    return F.pixel_shuffle(F.conv2d(variance, model.g_s.linear.weight.square()), PATCH).sqrt()


@torch.inference_mode()
def through_transforms(codec: SmallCodec, x: np.ndarray, quality: float) -> np.ndarray:
    """Pictures as the transforms can say them: g_a, then g_s, nothing rounded between.

    192 numbers stand for 768 pixels, so what no land has (the grain of a regression) goes, and what land has stays. The mean
    of two grids of cells, half a cell apart, so that none shows.

    Args:
        codec: any of the small codecs.
        x: float32 [B, C, H, W], DN, finite; any size.
        quality: 0..100.

    Returns:
        float32 like x.
    """
    model, t = codec.model, codec.level(quality, len(x))

    def seen(pictures: Tensor) -> Tensor:
        y = model.analyse(model.standardise(padded(pictures)), t)
        return codec.picture(y, pictures.shape, quality)

    pictures = torch.from_numpy(x)
    shifted = seen(F.pad(pictures, (HALF, 0, HALF, 0), mode="replicate"))[..., HALF:, HALF:]
    return ((seen(pictures) + shifted) / 2).numpy()
