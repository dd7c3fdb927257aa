"""Checkpoints on disk: reading them safely, and recognising which network they hold."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from eozip.errors import WeightsError
from eozip.hub.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

_LIKELIHOOD = r"(_offset|_quantized_cdf|_cdf_length|likelihood_lower_bound\.bound"  # of every entropy model
_GAUSSIAN = rf"{_LIKELIHOOD}|scale_table|scale_bound|lower_bound_scale\.bound"
# Buffers that the published package's modules register beside their parameters: ignored, ours are rebuilt.
_BUFFERS = {
    "tec-fp": (
        rf"entropy_bottleneck\.{_LIKELIHOOD}|target)",
        r"g_[as]\.\d+\.(beta|gamma)_reparam\.(pedestal|lower_bound\.bound)",
    ),
    "tec-elic": (
        rf"latent_codec\.hyper\.entropy_bottleneck\.{_LIKELIHOOD}|target)",
        rf"latent_codec\.y\.latent_codec\.y\d+\.y\.gaussian_conditional\.{_GAUSSIAN})",
        r"latent_codec\.y\.latent_codec\.y\d+\.context_prediction\.mask",
    ),
    "tec-tt": (
        rf"entropy_model\.bottleneck\._entropy_model\.{_GAUSSIAN}|_indexes_table|_prior_mean|_prior_scale"
        r"|lower_bound_zero\.bound|upper_bound_(mean|scale)\.bound)",
        r"entropy_model\.decoder\.layers\.encoder_layer_\d+\.look_ahead_mask",
    ),
}
_BUFFERS["flextec"] = _BUFFERS["tec-tt"]
# CompressAI before 1.2.7 numbers the layers of a factorised prior like this; since then "matrices.0" and so on.
_OLD_PRIOR = re.compile(
    r"(?P<prior>(?:^|.*\.)entropy_bottleneck\.)_(?P<part>matrix|bias|factor)(?P<layer>\d+)"
)
_NEW_PRIOR = {"matrix": "matrices", "bias": "biases", "factor": "factors"}
_WIDEST = 1 << 14  # of any layer; the published ones are at most 3072 wide
_ELIC_LEAST = 129  # latent channels: 128 in the first four groups, the rest in the fifth
_MOST_PACKED = 4  # bytes of tensors for a byte of their file; honest ones have less than one
_ROOTS = (
    "g_a.",
    "g_s.",
    "latent_codec.",
    "entropy_bottleneck.",
    "transform.",
    "entropy_model.",
    "_dequantizer.",
    "_temporal_pad_token_maker.",
)
_PREFIXES = ("module.", "model.")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file, or of a .pt opened without running any code in it.

    Raises:
        WeightsError: Not readable, damaged, or holding anything but tensors.
    """
    from safetensors.torch import load_file  # torch: lists of models do without

    try:
        content = load_file(path) if path.suffix == ".safetensors" else _read_pt(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: expected plain tensors, got a pickle with other objects, refused because it could run "
            f"code; save its state_dict alone, or as .safetensors ({str(error).splitlines()[0]})"
        ) from error
    except _UNREADABLE as error:
        raise WeightsError(f"{path}: cannot be read as weights: {error}") from error
    return _plain(content, path)


# what torch.load and safetensors raise on files that are damaged, cut or made up
_UNREADABLE = (
    OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    ArithmeticError, MemoryError, zipfile.BadZipFile, SafetensorError,
)  # fmt: skip


def _read_pt(path: Path) -> Any:
    import torch  # lists of models do without

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            _check_packed(sum(entry.file_size for entry in file.infolist()), path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_packed(size: int, path: Path) -> None:
    """Refuses content that is far larger than its file, before anything is allocated for it."""
    most = _MOST_PACKED * path.stat().st_size + (1 << 20)
    if size > most:
        raise WeightsError(
            f"{path}: expected at most {most} bytes of tensors in a file of {path.stat().st_size}, got {size}; "
            "save the tensors plainly (torch.save of contiguous tensors, or .safetensors)"
        )


def _plain(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path}: expected tensors by name, got {type(content).__name__}")
    others = sorted(
        str(name) for name, value in content.items() if not (isinstance(name, str) and _is_plain(value))
    )
    if others:
        raise WeightsError(
            f"{path}: expected only tensors by name, dense and in memory, got others under "
            f"{', '.join(others[:8])}"
        )
    _check_packed(sum(t.numel() * t.element_size() for t in content.values()), path)
    return dict(content)


def _is_plain(value: Any) -> bool:
    """A dense CPU tensor whose elements are all there; an expanded one (stride 0) holds fewer than it claims."""
    import torch  # lists of models do without

    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    return not value.is_quantized and value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def recognise(tensors: Mapping[str, Tensor], source: str) -> Weights:
    """Tell by names and shapes which kind of network tensors belong to, and its sizes.

    Args:
        tensors: by name, as a checkpoint has them.
        source: where they are from, for messages.

    Raises:
        WeightsError: Not a network in the published layout.
    """
    tensors = {_modern(name): t for name, t in _strip_prefixes(tensors).items()}
    kind = _kind(tensors, source)
    tensors = {name: t for name, t in tensors.items() if not _is_buffer(kind, name)}
    floats = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    sizes = _SIZES[kind](floats, source)
    _check_sizes(sizes, kind, source)
    return Weights(kind, sizes, floats, source)


def _is_buffer(kind: str, name: str) -> bool:
    """Whether the package's modules of this kind register a buffer of this name, which parameters determine."""
    return any(re.fullmatch(pattern, name) for pattern in _BUFFERS[kind])


def _modern(name: str) -> str:
    """Names of older versions of CompressAI, as newer ones have them."""
    match = _OLD_PRIOR.fullmatch(name)
    return name if match is None else f"{match['prior']}{_NEW_PRIOR[match['part']]}.{match['layer']}"


def _strip_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Takes "module." and "model." off all names that have them, however often.

    Temporal checkpoints hold a training wrapper: its network is under "model.", what lies beside is dropped.
    """
    names = dict(tensors)
    while prefix := next((p for p in _PREFIXES if any(name.startswith(p) for name in names)), None):
        wrapped = any(name.startswith(prefix + "entropy_model.") for name in names)
        names = {
            name.removeprefix(prefix): t
            for name, t in names.items()
            if name.startswith((prefix, *_ROOTS)) or not wrapped
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


def _check_sizes(sizes: Mapping[str, Any], kind: str, source: str) -> None:
    """Sizes that a network can have at all, before one is built of them.

    Raises:
        WeightsError: They are none.
    """
    widths = [n for value in sizes.values() for n in (value if isinstance(value, tuple) else (value,))]
    least = ("m", _ELIC_LEAST) if kind == "tec-elic" else ("bands", 1)
    if min(widths) < 1 or max(widths) > _WIDEST or sizes[least[0]] < least[1]:
        raise WeightsError(
            f"{source}: expected a {kind} network of widths from 1 to {_WIDEST} ({least[0]} at least {least[1]}), "
            f"got {dict(sizes)}"
        )


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
