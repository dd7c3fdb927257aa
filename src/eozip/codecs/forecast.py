"""What tec-tt-small expects of cells that nobody has seen, such as those under a cloud: its means, and how sure it is.

The traversal is that of coding, with a `Code` that sends nothing: visible cells are their own quantised latents, hidden ones
their means, given everything visible of their date and of the dates before. Coding goes from coarse to fine and from group
to group, so a hidden block average knows nothing of visible cells that are coded after it: a picture put under the hole may
stand in for the first groups (`given`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eozip.codecs.dropping import check_cells
from eozip.codecs.series_codec import PAST, SeriesCodec, grown
from eozip.codecs.small_codec import SmallCodec, padded
from eozip.entropy.exact import ExactArithmetic
from eozip.networks.small import PATCH, at_level
from eozip.networks.small_linear import Step, rows
from eozip.networks.small_time import Date

HYPER = 4  # latent cells per cell of the hyper-latent, each way
DEVIATION = math.pi / math.sqrt(3)  # standard deviation of a logistic of scale 1


@dataclass(frozen=True)
class Expectation:
    """Stands in the traversal of dates where a port stands in coding.

    Attributes:
        y: rows of the latents in steps, [B, h*w, M].
        z: of the hyper-latent.
        hidden: bool [h*w].
        z_hidden: bool, of the cells of the hyper-latent.
        given: so many groups keep what y says in hidden cells, unrounded.
        deviation: standard deviations in steps, [h*w, M]; filled in where hidden.
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
            seen, known = self.z[:, step.cells], ~self.z_hidden[step.cells]
        else:
            seen, known = self.y[:, step.cells, step.channels], ~self.hidden[step.cells]
            spread = torch.where(known[:, None], 0.0, step.log_scale[0].exp() * DEVIATION)
            self.deviation[step.cells, step.channels] = spread.to(self.deviation)
        rounded = (seen - step.mean).round() + step.mean
        held = seen if step.channels is not None and step.group < self.given else step.mean
        return self.arithmetic.place(torch.where(known[:, None], rounded, held.to(rounded)).to(step.mean))


@torch.inference_mode()
def forecast(
    codec: SeriesCodec, x: np.ndarray, hidden: np.ndarray, quality: float, given: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts the hidden cells of a stack, each date from those before it.

    Args:
        codec: tec-tt-small.
        x: float32 [T, C, H, W], DN; where hidden, anything finite, or with `given` a first guess.
        hidden: bool [T, ceil(H / 8), ceil(W / 8)].
        quality: 0..100, of the latents of visible cells.
        given: so many groups of channels, the coarsest first, are taken from x in hidden cells too.

    Returns:
        x_hat and sigma, float32 [T, C, H, W], DN; sigma is 0 where nothing near is hidden. Dates without hidden cells
        come back as they are.

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
        found = (
            model.restore(model.synthesise(y_hat, t[some])),
            in_pixels(codec, deviation, t[some]) * model.unit,
        )
        pictures[some], sigma[some] = (v[:, :, :height, :width].numpy() for v in found)
    return pictures, sigma


def walked(codec: SeriesCodec, y: Tensor, hidden: Tensor, t: Tensor, given: int) -> tuple[Tensor, Tensor]:
    """y [T, M, h, w] in steps, hidden bool [T, h, w] -> y_hat and standard deviations, of dates with hidden cells alone."""
    size = tuple(y.shape[2:])
    entropy, arithmetic = codec.exact(t.device)
    z = entropy.hyper_latent(y)
    z_hidden = F.max_pool2d(hidden[:, None].float(), HYPER).flatten(1).bool()

    def expectation(part: slice | Tensor, k: int) -> Expectation:
        flags = hidden[k].flatten(), z_hidden[k]
        deviation = y.new_zeros(size[0] * size[1], y.shape[1])
        return Expectation(rows(y[part]), rows(z[part]), *flags, given, deviation, arithmetic)

    some = hidden.flatten(1).any(1)
    dates: dict[int, Date] = {}
    clear = [int(k) for k in torch.nonzero(~some)]
    if clear:
        # what space did not foresee of a visible date does not depend on its past: all of them at once
        part = torch.tensor(clear)
        _, both = entropy.traverse_after([], expectation(part, clear[0]), t[part].double(), size, arithmetic)
        dates = {k: Date(both.innovation[i : i + 1]) for i, k in enumerate(clear)}
    found, deviations = [y[:0]], [y[:0]]
    for k in (int(k) for k in torch.nonzero(some)):
        past = [dates[j] for j in range(k)][-PAST:]
        code = expectation(slice(k, k + 1), k)
        y_hat, dates[k] = entropy.traverse_after(past, code, t[k : k + 1].double(), size, arithmetic)
        found.append(y_hat.float())
        deviations.append(code.deviation.T.unflatten(1, size)[None])
    return torch.cat(found), torch.cat(deviations)


def in_pixels(codec: SeriesCodec, deviation: Tensor, t: Tensor) -> Tensor:
    """Standard deviations of standardised pixels, by the linear part of g_s; latents taken as independent."""
    model = codec.model
    variance = (deviation * (-at_level(model.log_gain, t)).exp()).square()
    return F.pixel_shuffle(F.conv2d(variance, model.g_s.linear.weight.square()), PATCH).sqrt()


@torch.inference_mode()
def through_transforms(codec: SmallCodec, x: np.ndarray, quality: float) -> np.ndarray:
    """Pictures as the transforms can say them: g_a, then g_s, nothing rounded between.

    192 numbers stand for 768 pixels, so what no land has (the grain of a regression) goes, and what land has stays.

    Args:
        codec: any of the small codecs.
        x: float32 [B, C, H, W], DN, finite.
        quality: 0..100.

    Returns:
        float32 like x.
    """
    model, t = codec.model, codec.level(quality, len(x))
    y = model.analyse(model.standardise(padded(torch.from_numpy(x))), t)
    return model.restore(model.synthesise(y, t))[..., : x.shape[2], : x.shape[3]].numpy()
