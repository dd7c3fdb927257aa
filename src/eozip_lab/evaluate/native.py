"""The yardstick on native grids: only samples that an instrument measured count, in errors and in bits.

    PSNR   peak 10,000 DN, clip(x, 0, 10000), mean squared error over all samples of all groups
    bpns   bits per native sample, all bytes, each date alone

Contenders: JPEG 2000 and AV1 on Karhunen-Loeve components of each group, and the same with the 10 m bands given the decoded
20 m bands, which is the strongest classical coding of native grids known here (`conditional`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

import eozip
from eozip_lab.evaluate import baselines

PEAK = 10_000.0
_MIDDLE = 12_000  # added to what is left after a prediction, so that it is unsigned
_RIDGE = 2.0  # DN squared
Groups = Mapping[int, np.ndarray]  # resolution in m > uint16 [T, C, h, w]
Point = tuple[float, float]  # dB, bits per native sample


class _Coder(Protocol):
    """A baseline of `eozip_lab.evaluate`."""

    def encode(self, dn: np.ndarray, setting: float) -> bytes: ...

    def decode(self, blob: bytes) -> np.ndarray: ...


@dataclass(frozen=True)
class Contender:
    """A way to code the groups of one date.

    Attributes:
        name: as in tables.
        settings: from few bits to many.
        code: groups of one date and a setting -> bytes and decoded groups.
    """

    name: str
    settings: Sequence[float]
    code: Callable[[Groups, float], tuple[int, Groups]]


def contenders() -> list[Contender]:
    """The classical ones, each group alone and 10 m given 20 m."""
    found = []
    for name in ("klt+jpeg2000", "klt+av1"):
        coder, sweep = (
            baselines.contender(name),
            sorted(baselines.ENTRIES[name].sweep, reverse=name == "klt+av1"),
        )
        found.append(Contender(name, sweep, _apart(coder)))
        found.append(Contender(f"{name}, 10 m given 20 m", sweep, _conditional(coder)))
    return found


def learned(codec: str, qualities: Sequence[float]) -> Contender:
    """A codec of eozip."""

    def code(groups: Groups, quality: float) -> tuple[int, Groups]:
        blob = eozip.encode_groups(dict(groups), codec=codec, quality=quality)
        return len(blob), eozip.decode_groups(blob)

    return Contender(codec, qualities, code)


def curve(contender: Contender, groups: Groups) -> list[Point]:
    """Points of rising PSNR over all dates, each alone."""
    samples = sum(pixels.size for pixels in groups.values())
    dates = len(next(iter(groups.values())))
    points = []
    for setting in contender.settings:
        size, error = 0, 0.0
        for t in range(dates):
            date = {m: pixels[t : t + 1] for m, pixels in groups.items()}
            length, made = contender.code(date, setting)
            size += length
            error += sum(_squared(date[m], made[m]) for m in date)
        points.append((10 * math.log10(PEAK**2 * samples / max(error, 1e-9)), 8 * size / samples))
    return sorted(points)


def bits_at(points: Sequence[Point], decibels: float) -> float:
    """Log-linear interpolation; nan beyond the points."""
    psnr, bits = np.array(points).T
    if not psnr.min() <= decibels <= psnr.max():
        return math.nan
    return float(np.exp(np.interp(decibels, psnr, np.log(bits))))


def _squared(a: np.ndarray, b: np.ndarray) -> float:
    return float(((np.clip(a, 0, PEAK).astype(float) - np.clip(b, 0, PEAK)) ** 2).sum())


def _apart(coder: _Coder) -> Callable[[Groups, float], tuple[int, Groups]]:
    def code(groups: Groups, setting: float) -> tuple[int, Groups]:
        blobs = {m: coder.encode(pixels, setting) for m, pixels in groups.items()}
        return sum(map(len, blobs.values())), {m: coder.decode(blob) for m, blob in blobs.items()}

    return code


def _conditional(coder: _Coder) -> Callable[[Groups, float], tuple[int, Groups]]:
    """20 m first; 10 m as what a linear map of it, interpolated and sharpened, leaves; the map is charged as float16."""
    apart = _apart(coder)

    def code(groups: Groups, setting: float) -> tuple[int, Groups]:
        if not {10, 20} <= set(groups):
            return apart(groups, setting)
        size, made = apart({m: pixels for m, pixels in groups.items() if m != 10}, setting)
        predicted, charged = _predicted(groups[10][0], made[20][0])
        left = np.clip(np.rint(groups[10][0] - predicted) + _MIDDLE, 0, 32767).astype(np.uint16)
        blob = coder.encode(left[None], setting)
        back = np.rint(coder.decode(blob)[0].astype(float) - _MIDDLE + predicted)
        return size + charged + len(blob), {**made, 10: np.clip(back, 0, 65535)[None]}

    return code


def _predicted(fine: np.ndarray, coarse: np.ndarray) -> tuple[np.ndarray, int]:
    """Of bands [C, H, W] from decoded [K, h, w], and the bytes of the map."""
    lifted = _doubled(coarse.astype(float))[:, : fine.shape[1], : fine.shape[2]]
    functions = np.concatenate([lifted, lifted - _smoothed(lifted)]).reshape(2 * len(coarse), -1)
    centred = functions - functions.mean(1, keepdims=True)
    goal = fine.reshape(len(fine), -1).astype(float)
    square = centred @ centred.T / centred.shape[1] + _RIDGE * np.eye(len(centred))
    weights = np.linalg.solve(square, centred @ (goal - goal.mean(1, keepdims=True)).T / centred.shape[1])
    weights = weights.T.astype(np.float16).astype(float)
    return (weights @ centred).reshape(fine.shape), 2 * weights.size


def _doubled(x: np.ndarray) -> np.ndarray:
    """Cubic interpolation to half the spacing, cells halved."""
    taps = np.array([-0.0234375, 0.2265625, 0.8671875, -0.0703125])

    def along(v: np.ndarray) -> np.ndarray:
        padded = np.pad(v, [(0, 0), (0, 0), (2, 2)], mode="edge")
        size = v.shape[2]
        first = sum(t * padded[:, :, k : k + size] for k, t in enumerate(taps))
        second = sum(t * padded[:, :, k + 1 : k + 1 + size] for k, t in enumerate(taps[::-1]))
        return np.stack([first, second], -1).reshape(*v.shape[:2], -1)

    return along(along(x).swapaxes(1, 2)).swapaxes(1, 2)


def _smoothed(x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1)], mode="edge")
    h, w = x.shape[1:]
    return sum(padded[:, y : y + h, k : k + w] for y in range(3) for k in range(3)) / 9
