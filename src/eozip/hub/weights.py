"""Tensors of one network with what is known about them, and the check of names, shapes and dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eozip.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors of one network, and what their names and shapes say about it.

    Attributes:
        kind: "tec-fp", "tec-elic", "tec-tt" or "flextec"; for shipped weights as their config.json says.
        config: Sizes read from the shapes (bands, n, m, ...), or the content of config.json.
        tensors: By name, without prefixes and derived buffers, float32.
        source: Where they come from, for messages.
    """

    kind: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False)
    source: str


def check_tensors(weights: Weights, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Hold names, shapes and dtypes of tensors against what a network expects.

    Args:
        weights: what was read.
        expected: name > shape of each parameter.

    Raises:
        WeightsError: Anything missing, unexpected, of another shape or not finite; every one is listed.
    """
    import torch  # lists of models do without

    tensors = weights.tensors
    missing = [f"missing {name} {list(shape)}" for name, shape in expected.items() if name not in tensors]
    extra = [f"unexpected {name} {list(t.shape)}" for name, t in tensors.items() if name not in expected]
    wrong = [
        f"{name}: expected float {list(expected[name])}, got {t.dtype} {list(t.shape)}"
        for name, t in tensors.items()
        if name in expected and (tuple(t.shape) != expected[name] or not t.is_floating_point())
    ]
    broken = [f"{name}: holds NaN or infinity" for name, t in tensors.items() if not torch.isfinite(t).all()]
    faults = missing + extra + wrong + broken
    if faults:
        lines = "\n  ".join(faults)
        raise WeightsError(
            f"{weights.source}: {len(faults)} tensors do not fit a {weights.kind} network:\n  {lines}\n"
            "Give a checkpoint in the published layout."
        )
