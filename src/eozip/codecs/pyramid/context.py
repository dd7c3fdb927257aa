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
DIFFERENCE_MAX = 63 * VALUE  # units; so 24 products of 13 and 7 bits stay below 2**24
PREDICTION_MAX = 256 * VALUE
ACTIVATION_MAX, OUTPUT_MAX = 255, 127
BANK = 12  # filters of the picture below that become features
WINDOW = 5
BITS_PER_SQUARED_STEP = 9.2  # what an error is worth to an encoder: least bytes at equal PSNR, as tried
PASSES = 2
OUTPUTS = 12  # per detail orientation: gates of the reference, the picture below, the neighbours; a log scale
LEVELS = 5  # stages: each of the finest levels of a group, and all others


class Stage(Protocol):
    """One level's network over a batch of planes.

    Arrays are float32 that hold integers in the units above. Those over one colour alone are packed to half the width:
    cell j of row y stands for column 2 j + (y + colour) % 2, and half = ceil(w / 2); the last one is void where there is no
    such column.
    """

    def start(
        self,
        below: np.ndarray,
        features: np.ndarray,
        constant: np.ndarray,
        octaves: np.ndarray | None = None,
    ) -> tuple[Any, np.ndarray]:
        """Sums that both passes share, and the predictions [N, 3, h, w] from the picture below.

        Args:
            below: the decoded picture, int32 [N, h, w].
            features: [N, channels, h, w], parents, siblings and (with references) what they tell.
            constant: [N, 8], side information and flags, the same for all cells; with octaves [N, 8, 8], by octave.
            octaves: uint8 [N, h, w], by how many doublings a cell's own unit is coarser: its window and its predictions
                count in it. None: nowhere.
        """
        ...

    def step(
        self, shared: Any, known: np.ndarray | None, seen: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Outputs [N, 12, h, half] of one pass, and predictions [N, 3, h, half] from known neighbours (None in the first).

        Args:
            shared: what `start` gave.
            known: details of the first colour, int32 [N, 3, h, half]; None in the first pass.
            seen: the same in their own units, of which features are made; None: as `known`.
        """
        ...


@dataclass(frozen=True)
class Functions:
    """Staircases of one integer argument.

    Attributes:
        squash: float32 [2 * SQUASH_REACH + 1], in 1/16, of a value in -SQUASH_REACH..SQUASH_REACH units.
        tanh: float32 [255], gate (a fraction) of an output in -127..127 units.
    """

    squash: np.ndarray
    tanh: np.ndarray

    def features(self, values: np.ndarray) -> np.ndarray:
        """Squash integers in units of 1/64 step: [...] -> float32 [...]."""
        return self.squash.take(values.astype(np.intp) + SQUASH_REACH, mode="clip")

    def gates(self, outputs: np.ndarray) -> np.ndarray:
        """Gates of integers in -127..127: float32 [...] -> float32 [...]."""
        return self.tanh.take(outputs.astype(np.intp) + OUTPUT_MAX, mode="clip")


def functions(stored: Mapping[str, np.ndarray]) -> Functions:
    """The staircases from their stored integers."""
    side = stored["squash"].astype(np.float32)
    return Functions(
        squash=np.concatenate([-side[:0:-1], side]),
        tanh=stored["tanh"].astype(np.float32) / GATE,
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


def half(width: int) -> int:
    """Cells of one colour in a row."""
    return (width + 1) // 2


def packed(v: np.ndarray, color: int) -> np.ndarray:
    """The cells of one colour: [..., h, w] -> [..., h, half]; 0 where a row has one less."""
    out = np.zeros((*v.shape[:-1], half(v.shape[-1])), v.dtype)
    for parity in (0, 1):
        cells = v[..., parity::2, parity ^ color :: 2]
        out[..., parity::2, : cells.shape[-1]] = cells
    return out


def unpacked(first: np.ndarray, second: np.ndarray, width: int) -> np.ndarray:
    """Cells of both colours in their places: two of [..., h, half] -> [..., h, w]."""
    out = np.empty((*first.shape[:-1], width), first.dtype)
    for color, v in enumerate((first, second)):
        for parity in (0, 1):
            cells = out[..., parity::2, parity ^ color :: 2]
            cells[...] = v[..., parity::2, : cells.shape[-1]]
    return out
