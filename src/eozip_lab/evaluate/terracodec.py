"""The published `terracodec` package as a baseline, where someone has installed it; eozip never depends on it.

Used through its public interface alone (0.3): functions `terracodec_v1_fp_s2l2a(pretrained=True, compression=10)`
and the like give a model; `model.compress(x)` gives a dict of byte strings, shapes and numbers, and
`model.decompress(**that)` (FlexTEC: `compress(x, quality=8)`, `decompress(that)`) the pixels. Its own count of bits
covers the strings of the first image alone, so bytes are counted here: strings, lengths, shapes and the rest.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from eozip import sensors
from eozip.errors import EozipError, FormatError, InputError
from eozip_lab.evaluate.packing import checked_stack, pack, restored, unpack
from eozip_lab.evaluate.trees import flattened, restored_tree

SENSOR = "s2-l2a"
_BITS = "bits"
_SIDE = 256  # all but TEC-FP take no other size
_UINT16_MAX = 65535


@dataclass(frozen=True)
class TerraCodec:
    """One family of published checkpoints; setting: lambda of the checkpoint, or FlexTEC's quality 1..16.

    Attributes:
        model: the package's function, such as "terracodec_v1_fp_s2l2a".
        temporal: takes [B, T, C, H, W]; else each date is an image of its own.
        flexible: one checkpoint, quality given when coding.
    """

    model: str
    temporal: bool = False
    flexible: bool = False

    @property
    def name(self) -> str:
        return self.model.replace("_v1_", "-").replace("_s2l2a", "").replace("_", "-")

    @property
    def settings(self) -> str:
        how = "all dates together" if self.temporal else "each date alone"
        return f"terracodec.{self.model}(pretrained=True), {how}; every byte that decompress needs is counted"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        checked_stack(dn, _UINT16_MAX)
        self._check_size(dn.shape)
        mean, std = _statistics()
        x = ((dn - mean) / std).astype(np.float32)
        coded = [self._compress(batch, setting) for batch in (x[None, None] if self.temporal else x[:, None])]
        return pack(dn, [np.float64(setting).tobytes(), *(part for one in coded for part in flattened(one))])

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        if not parts or len(parts[0]) != np.dtype(np.float64).itemsize:
            raise FormatError("terracodec stream: expected a setting; the stream is damaged")
        setting, rest = float(np.frombuffer(parts[0], np.float64)[0]), parts[1:]
        frames = []
        for _ in range(1 if self.temporal else shape[0]):
            coded, rest = restored_tree(rest)
            frames.append(self._decompress(coded, setting))
        mean, std = _statistics()
        pixels = np.concatenate([frame.reshape(-1, *shape[1:]) for frame in frames])
        return restored(pixels * std + mean, shape, dtype)

    def _check_size(self, shape: tuple[int, ...]) -> None:
        bands = len(sensors.get(SENSOR).bands)
        if shape[1] != bands:
            raise InputError(f"{self.name}: expected {bands} bands of {SENSOR}, got {shape[1]}")
        if "_fp_" not in self.model and shape[2:] != (_SIDE, _SIDE):
            raise InputError(
                f"{self.name}: expected {_SIDE} x {_SIDE} pixels, got {shape[2:]}; set --size {_SIDE}"
            )

    def prepare(self, setting: float) -> None:
        """Loads the checkpoint of a setting, so that no measured second is the loading's."""
        self._model(setting)

    def _model(self, setting: float) -> Any:
        return _loaded(self.model, None if self.flexible else setting)

    def _compress(self, x: np.ndarray, setting: float) -> Any:
        import torch

        model = self._model(setting)
        options = {"quality": int(setting)} if self.flexible else {}
        with torch.no_grad(), _named_errors(self.name):
            found = model.compress(torch.from_numpy(x), **options)
        # the decoder takes every field, but its own count of bits tells it nothing: not stored, 0 stands for it
        return {**found, _BITS: 0} if isinstance(found, Mapping) and _BITS in found else found

    def _decompress(self, coded: Any, setting: float) -> np.ndarray:
        import torch

        model = self._model(setting)
        with torch.no_grad(), _named_errors(self.name):
            is_one = self.flexible or not isinstance(coded, Mapping)
            out = model.decompress(coded) if is_one else model.decompress(**coded)
        return _pixels(out)


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Whatever the package raises of its own accord names it."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, AssertionError, IndexError) as error:
        raise EozipError(f"{name}: the package terracodec raised {error!r}; expected version 0.3") from error


@lru_cache(maxsize=1)  # the temporal ones hold 225 million parameters each
def _loaded(name: str, lmbda: float | None) -> Any:
    package = importlib.import_module("terracodec")
    build = getattr(package, name, None)
    if build is None:
        raise InputError(
            f"terracodec: expected a function {name}, got none; it needs terracodec 0.3 or newer"
        )
    with _named_errors(name):
        if lmbda is None:
            return build(pretrained=True).eval()
        return build(pretrained=True, compression=int(lmbda) if lmbda == int(lmbda) else lmbda).eval()


@cache
def _statistics() -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [C, 1, 1] in DN: those of SSL4EO-S12, which the package asks for."""
    known = sensors.get(SENSOR)
    return tuple(np.array(values)[:, None, None] for values in (known.mean, known.std))  # type: ignore[return-value]


def _pixels(out: Any) -> np.ndarray:
    """The reconstruction as an array: the first of what a model returns, or its `x_hat`."""
    if isinstance(out, Mapping):
        out = out.get("x_hat", next(iter(out.values())))
    if isinstance(out, tuple | list):
        out = out[0]
    pixels = np.asarray(out.detach().cpu().numpy(), np.float64)
    if not math.isfinite(float(np.abs(pixels).max())):
        raise FormatError("terracodec: expected finite pixels back")
    return pixels
