"""The context network by numpy and by torch: the same numbers, at different speeds."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from eozip.codecs.pyramid.context import (
    ACTIVATION_MAX,
    BANK,
    DIFFERENCE_MAX,
    FEATURE,
    FEATURE_MAX,
    LEVELS,
    PREDICTION_MAX,
    SQUASH_REACH,
    VALUE,
    WEIGHT,
    Functions,
    functions,
    window,
)

_BIAS = WEIGHT * FEATURE  # biases have the grid of products


class NumpyStage:
    """`Stage` by matrix products of float32; see there for arguments."""

    def __init__(self, stored: Mapping[str, np.ndarray], functions: Functions) -> None:
        self._w = _floats(stored)
        self._functions = functions

    def start(self, below: np.ndarray, features: np.ndarray, constant: np.ndarray) -> tuple[Any, np.ndarray]:
        w = self._w
        filtered = _product(w["window"], window(below))
        bank = self._functions.features(_units(filtered[:, :BANK]))
        shared = _convolved(np.concatenate([bank, features], 1), w["trunk"][:, : BANK + features.shape[1]])
        shared += w["trunk_bias"][:, None, None]
        shared += (constant @ w["constant"].T)[:, :, None, None]
        return shared, _prediction(filtered[:, BANK:])

    def step(self, shared: Any, known: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        w, number, near, v = self._w, 0, None, shared
        if known is not None:
            f = self._functions.features(_units(known))
            v = v + _convolved(np.concatenate([f, np.abs(f)], 1), w["known"]) + w["known_bias"][:, None, None]
            clipped = np.clip(known, -DIFFERENCE_MAX, DIFFERENCE_MAX)
            number, near = 1, _prediction(_convolved(clipped, w["neighbours"]))
        v = _activation(v)
        for name in ("first", "second"):
            v = _activation(v + _activation(self._dense(f"{name}{number}", v)))
        out = np.rint(self._dense(f"out{number}", v) * FEATURE) / FEATURE
        return np.clip(out, -FEATURE_MAX, FEATURE_MAX), near

    def _dense(self, name: str, v: np.ndarray) -> np.ndarray:
        return _product(self._w[name], v) + self._w[f"{name}_bias"][:, None, None]


def _floats(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Integers as float32 on their grids."""
    return {
        name: value.astype(np.float32) / np.float32(_BIAS if name.endswith("_bias") else WEIGHT)
        for name, value in stored.items()
    }


def _units(v: np.ndarray) -> np.ndarray:
    """Steps as int32 units of 1/64, rounded to even, clipped to what the squash tells apart."""
    reach = SQUASH_REACH / VALUE
    return np.rint(np.clip(v, -reach, reach) * VALUE).astype(np.int32)


def _activation(v: np.ndarray) -> np.ndarray:
    out = np.rint(v * FEATURE)
    out /= FEATURE
    return np.clip(out, 0.0, ACTIVATION_MAX, out=out)


def _prediction(v: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(v * VALUE) / VALUE, -PREDICTION_MAX, PREDICTION_MAX)


def _product(weights: np.ndarray, v: np.ndarray) -> np.ndarray:
    """1 x 1 convolution: [O, C], [N, C, h, w] -> [N, O, h, w]."""
    n, c, h, w = v.shape
    return np.matmul(weights, v.reshape(n, c, h * w)).reshape(n, -1, h, w)


def _convolved(v: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """3 x 3 convolution with zeros around: [N, C, h, w], [O, C, 3, 3] -> [N, O, h, w]."""
    n, c, h, w = v.shape
    padded = np.zeros((n, c, h + 2, w + 2), np.float32)
    padded[:, :, 1:-1, 1:-1] = v
    columns = np.empty((n, c, 3, 3, h, w), np.float32)
    for y in range(3):
        for x in range(3):
            columns[:, :, y, x] = padded[:, :, y : y + h, x : x + w]
    flat = weights.reshape(len(weights), -1)
    return np.matmul(flat, columns.reshape(n, c * 9, h * w)).reshape(n, -1, h, w)


class TorchStage(NumpyStage):
    """`Stage` with convolutions by torch, or by numpy while torch may round inside of them."""

    def __init__(self, stored: Mapping[str, np.ndarray], functions: Functions) -> None:
        import torch  # an extra: reading by numpy must not need it

        super().__init__(stored, functions)
        self._torch = torch
        self._t = {name: torch.from_numpy(value) for name, value in self._w.items()}

    def start(self, below: np.ndarray, features: np.ndarray, constant: np.ndarray) -> tuple[Any, np.ndarray]:
        torch, t = self._torch, self._t
        if not _is_exact(torch):
            return super().start(below, features, constant)
        with torch.inference_mode():
            filtered = _dense(torch, torch.from_numpy(window(below)), t["window"]).numpy()
            bank = self._functions.features(_units(filtered[:, :BANK]))
            v = torch.from_numpy(np.concatenate([bank, features], 1))
            weights = t["trunk"][:, : v.shape[1]].contiguous()
            shared = torch.conv2d(v, weights, t["trunk_bias"], padding=1)
            shared += (torch.from_numpy(constant) @ t["constant"].T)[:, :, None, None]
        return shared, _prediction(filtered[:, BANK:])

    def step(self, shared: Any, known: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        torch, t, number, near, v = self._torch, self._t, 0, None, shared
        if isinstance(shared, np.ndarray):  # `start` was numpy's
            return super().step(shared, known)
        with torch.inference_mode():
            if known is not None:
                f = self._functions.features(_units(known))
                both = torch.from_numpy(np.concatenate([f, np.abs(f)], 1))
                v = v + torch.conv2d(both, t["known"], t["known_bias"], padding=1)
                clipped = torch.from_numpy(known).clamp(-DIFFERENCE_MAX, DIFFERENCE_MAX)
                near = _prediction(torch.conv2d(clipped, t["neighbours"], padding=1).numpy())
                number = 1
            v = _settled(v.clone() if known is None else v)
            for name in ("first", "second"):
                inner = _dense(torch, v, t[f"{name}{number}"], t[f"{name}{number}_bias"])
                v = _settled(_settled(inner).add_(v))
            out = _dense(torch, v, t[f"out{number}"], t[f"out{number}_bias"])
            out.mul_(FEATURE).round_().div_(FEATURE).clamp_(-FEATURE_MAX, FEATURE_MAX)
        return out.numpy(), near


def _is_exact(torch: Any) -> bool:
    """Whether torch's float32 products are IEEE's under the settings of now.

    Elsewhere than on x86, and without oneDNN, torch may take transforms that round (Winograd) for convolutions.
    """
    from eozip.entropy.fixed_point import carrier_for  # imports torch

    strict = os.environ.get("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT").upper() == "STRICT"
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return is_x86 and strict and carrier_for(torch.device("cpu")) == torch.float32


def _dense(torch: Any, v: Any, weights: Any, bias: Any = None) -> Any:
    n, c, h, w = v.shape
    out = torch.matmul(weights, v.reshape(n, c, h * w))
    if bias is not None:
        out += bias[:, None]
    return out.view(n, -1, h, w)


def _settled(v: Any) -> Any:
    return v.mul_(FEATURE).round_().div_(FEATURE).clamp_(0.0, ACTIVATION_MAX)


def stages(stored: Mapping[str, np.ndarray], fast: bool) -> list[NumpyStage]:
    """The networks of all levels from their stored integers.

    Args:
        stored: tensors named "0.trunk", ..., as `eozip_lab` exports them.
        fast: by torch, which has to be installed; else by numpy. Both give the same numbers.
    """
    kind = TorchStage if fast else NumpyStage
    f = functions(stored)
    return [kind(_part(stored, f"{level}."), f) for level in range(LEVELS)]


def _part(stored: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
