"""Checkpoints on disk: reading them safely, and recognising which network they hold."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import WeightsError
from .weights import Weights

# Last part of the names of buffers that are computed from parameters: ignored, ours are rebuilt.
DERIVED = re.compile(
    r"(^|\.)(_?quantized_cdf|_?cdf|_?(cdf_)?offset|_?cdf_(length|size|shape)|_?scale_table|target|mask|pedestal|bound)$"
)
ROOTS = (
    "g_a.",
    "g_s.",
    "latent_codec.",
    "entropy_bottleneck.",
    "transform.",
    "entropy_model.",
    "_dequantizer.",
    "_temporal_pad_token_maker.",
)
PREFIXES = ("module.", "model.")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of a .pt opened without running any code in it.

    Raises:
        WeightsError: Not readable, damaged, or holding anything but tensors.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _read_pt(path)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as weights: {error}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: expected plain tensors, got a pickle with other objects, refused because it could run "
            f"code; save its state_dict alone, or as .safetensors ({str(error).splitlines()[0]})"
        ) from error
    return _plain(content, path)


def _read_pt(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _plain(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path}: expected tensors by name, got {type(content).__name__}")
    others = sorted(str(name) for name, value in content.items() if not isinstance(value, Tensor))
    if others:
        raise WeightsError(f"{path}: expected only tensors, got others under {', '.join(others[:8])}")
    return dict(content)


def recognise(tensors: Mapping[str, Tensor], source: str) -> Weights:
    """Names and shapes > kind of network and its sizes.

    Raises:
        WeightsError: Not a network in the published layout.
    """
    tensors = {name: t for name, t in strip_prefixes(tensors).items() if not DERIVED.search(name)}
    kind = _kind(tensors, source)
    floats = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    return Weights(kind, _SIZES[kind](floats, source), floats, source)


def strip_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Takes "module." and "model." off all names that have them, however often.

    Temporal checkpoints hold a training wrapper: its network is under "model.", what lies beside is dropped.
    """
    names = dict(tensors)
    while prefix := next((p for p in PREFIXES if any(name.startswith(p) for name in names)), None):
        wrapped = any(name.startswith(prefix + "entropy_model.") for name in names)
        names = {
            name.removeprefix(prefix): t
            for name, t in names.items()
            if name.startswith((prefix, *ROOTS)) or not wrapped
        }
    return names


def _kind(tensors: Mapping[str, Tensor], source: str) -> str:
    marks = {
        "flextec": "entropy_model.mask_token",
        "tec-tt": "entropy_model.",
        "tec-elic": "latent_codec.",
        "tec-fp": "entropy_bottleneck.",
    }
    for kind, mark in marks.items():
        if any(name.startswith(mark) for name in tensors):
            return kind
    raise WeightsError(
        f"{source}: expected the tensors of TEC-FP, TEC-ELIC, TEC-TT or FlexTEC, got {len(tensors)} others: "
        f"{', '.join(sorted(tensors)[:5])}"
    )


def _image_sizes(last: str) -> Any:
    def sizes(tensors: Mapping[str, Tensor], source: str) -> dict[str, int]:
        first = _shape(tensors, "g_a.0.weight", 4, source)
        return {"bands": first[1], "n": first[0], "m": _shape(tensors, last, 4, source)[0]}

    return sizes


def _temporal_sizes(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    analysis = "transform.analysis_transform.transforms."
    stages = [_shape(tensors, f"{analysis}{i}.weight", 4, source) for i in (0, 4, 9, 13)]
    depths = {part: _depth(tensors, part) for part in ("encoder_sep", "encoder_joint", "decoder")}
    d = _shape(tensors, "entropy_model.encoder_embedding.weight", 2, source)[0]
    return {"bands": stages[0][1], "widths": tuple(s[0] for s in stages), "d": d, **depths}


_SIZES = {
    "tec-fp": _image_sizes("g_a.6.weight"),
    "tec-elic": _image_sizes("g_a.13.weight"),
    "tec-tt": _temporal_sizes,
    "flextec": _temporal_sizes,
}


def _shape(tensors: Mapping[str, Tensor], name: str, dims: int, source: str) -> tuple[int, ...]:
    shape = tuple(tensors[name].shape) if name in tensors else ()
    if len(shape) != dims:
        raise WeightsError(f"{source}: expected a tensor {name} of {dims} axes, got {shape or 'none'}")
    return shape


def _depth(tensors: Mapping[str, Tensor], part: str) -> int:
    layer = re.compile(rf"entropy_model\.{part}\.layers\.encoder_layer_(\d+)\.")
    return len({match[1] for name in tensors if (match := layer.match(name))})
