"""Weights: where they are, what they are, and whether they are what they claim.

Three sources: weights shipped in the package, checkpoints on disk (.safetensors, or a .pt of plain tensors),
and repositories on Hugging Face. This layer knows names, shapes and hashes; it builds no network, which
`eozip.codecs.terracodec.published` does.
"""

from __future__ import annotations

from pathlib import Path

from eozip.errors import WeightsError
from eozip.hub.checkpoints import read_tensors, recognise
from eozip.hub.published import PUBLISHED, ModelInfo, cached_checkpoints, pull
from eozip.hub.shipped import (
    CONFIG,
    TENSORS,
    read_config,
    read_folder,
    shipped,
    shipped_path,
    write_folder,
)
from eozip.hub.weights import Weights, check_tensors

__all__ = [
    "CONFIG",
    "TENSORS",
    "ModelInfo",
    "Weights",
    "cached_checkpoints",
    "check_tensors",
    "list_models",
    "load",
    "pull",
    "read_config",
    "read_folder",
    "read_tensors",
    "recognise",
    "shipped",
    "shipped_path",
    "write_folder",
]


def list_models() -> tuple[ModelInfo, ...]:
    """Shipped weights, then the published repositories (no network needed)."""
    own = [(name, read_config(shipped_path(name))) for name in shipped()]
    infos = [
        ModelInfo(name, str(c.get("kind", "")), str(c.get("sensor", "")), shipped=True) for name, c in own
    ]
    return (*infos, *PUBLISHED)


def load(source: str | Path, lmbda: float | str | None = None) -> Weights:
    """Read weights from a file, a folder, a shipped id or a published repository.

    Args:
        source: A path, a shipped id, or "owner/name" with the rate as "@lambda-40" or as `lmbda`.
        lmbda: Rate of a published repository, if the name does not say it; see `pull`.

    Raises:
        WeightsError: Not found, not readable, not reachable, or not a known network.
    """
    path = Path(source)
    if path.is_dir():
        return read_folder(path)
    if path.is_file():
        return recognise(read_tensors(path), str(path))
    name = str(source)
    if name in shipped():
        return read_folder(shipped_path(name))
    if name.partition("@")[0] in {info.id for info in PUBLISHED}:
        return recognise(read_tensors(pull(name, lmbda)), name)
    known = ", ".join(info.id for info in list_models())
    raise WeightsError(f"{name!r} is neither a file, a folder nor a known model; known: {known}")
