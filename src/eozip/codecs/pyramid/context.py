"""The context network: from what is decoded to the mean and the table of every symbol that comes next, in exact arithmetic.

For one plane at one level (`Stage`), in two passes over a checkerboard:

    L, the decoded picture below  -> 5 x 5 differences from each cell's centre -> filters -----+-> prediction of the details
    parents, siblings, reference  -> squashed to 8 bits --------------------------+            |
                                                                    3 x 3 -> 1 x 1 -> 1 x 1 -> gates, log scale
    second pass: details of the other colour -> 3 x 3 -------------------^            +-> prediction from neighbours

All numbers are multiples of a power of two, and every sum stays below 2**24 units, so float32 holds each partial sum exactly
and no order of summation, thread count or instruction set can change it:

    weights 1/64 in -127/64..127/64, features and outputs 1/16 in -127/16..127/16, activations 1/16 in 0..255/16,
    values (pictures, details, means) 1/64 of a step, gates 1/128 in -1..1

Functions that are not sums are tables of integers, stored with the weights.

Source: the gated sums of predictions follow Minnen & Singh 2020 ("Channel-wise autoregressive entropy models") in spirit;
here space, scale and spectrum are the context, and no hyper-latent is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

VALUE = 64  # units of a step
FEATURE = 16  # units of features, activations, outputs and log scales
WEIGHT = 64
GATE = 128
SQUASH_REACH = 256 * VALUE  # beyond it the squash is constant
DIFFERENCE_MAX = 63.0  # steps; so 24 products of 13 and 7 bits stay below 2**24
PREDICTION_MAX = 256.0  # steps
ACTIVATION_MAX, FEATURE_MAX = 255 / FEATURE, 127 / FEATURE
BANK = 12  # filters of the picture below that become features
WINDOW = 5
PASSES = 2
OUTPUTS = 12  # per detail orientation: gates of the reference, the picture below, the neighbours; a log scale
LEVELS = 3  # stages: the finest level of a group, the next, all others


class Stage(Protocol):
    """One level's network over a batch of planes; arrays are float32 [N, channels, h, w] with the grids above."""

    def start(self, below: np.ndarray, features: np.ndarray, constant: np.ndarray) -> tuple[Any, np.ndarray]:
        """Sums that both passes share, and the predictions [N, 3, h, w] from the picture below.

        Args:
            below: the decoded picture [N, 1, h, w], in steps.
            features: parents, siblings and (with a reference) its details and their magnitudes.
            constant: [N, 8], side information and flags, the same for all cells.
        """
        ...

    def step(self, shared: Any, known: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Outputs [N, 12, h, w] of one pass, and the predictions [N, 3, h, w] from known neighbours (None in the first).

        Args:
            shared: what `start` gave.
            known: details of the first colour, in steps, 0 elsewhere; None in the first pass.
        """
        ...


@dataclass(frozen=True)
class Functions:
    """Staircases of one integer argument.

    Attributes:
        squash: float32 [2 * SQUASH_REACH + 1], of a value in -SQUASH_REACH..SQUASH_REACH units.
        tanh: float32 [255], gate of an output in -127..127 units.
        sigmoid: float32 [255], likewise.
    """

    squash: np.ndarray
    tanh: np.ndarray
    sigmoid: np.ndarray

    def features(self, steps: np.ndarray) -> np.ndarray:
        """Squash values in units of 1/64 step: int32 [...] -> float32 [...]."""
        clipped = np.clip(steps, -SQUASH_REACH, SQUASH_REACH) + SQUASH_REACH
        return self.squash[clipped]


def functions(stored: Mapping[str, np.ndarray]) -> Functions:
    """The staircases from their stored integers."""
    side = stored["squash"].astype(np.float32) / FEATURE
    return Functions(
        squash=np.concatenate([-side[:0:-1], side]),
        tanh=stored["tanh"].astype(np.float32) / GATE,
        sigmoid=stored["sigmoid"].astype(np.float32) / GATE,
    )


def staircases() -> dict[str, np.ndarray]:
    """The float > integer crossing of the functions; made once, when weights are exported."""
    v = np.arange(SQUASH_REACH + 1) / VALUE
    o = np.arange(-127, 128) / FEATURE
    return {
        "squash": np.minimum(np.rint(1.5 * np.log1p(v) * FEATURE), 127).astype(np.int16),
        "tanh": np.rint(np.tanh(o + 0.5) * GATE).astype(np.int16),
        "sigmoid": np.rint(GATE / (1 + np.exp(-o))).astype(np.int16),
    }


def window(below: np.ndarray) -> np.ndarray:
    """Differences of the 24 cells around each from it, clipped: [N, 1, h, w] steps -> [N, 24, h, w]."""
    h, w = below.shape[-2:]
    reach = WINDOW // 2
    padded = np.pad(below[:, 0], ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    out = np.empty((len(below), WINDOW * WINDOW - 1, h, w), np.float32)
    places = [(y, x) for y in range(WINDOW) for x in range(WINDOW) if (y, x) != (reach, reach)]
    for k, (y, x) in enumerate(places):
        np.subtract(padded[:, y : y + h, x : x + w], below[:, 0], out=out[:, k])
    return np.clip(out, -DIFFERENCE_MAX, DIFFERENCE_MAX, out=out)
