"""Weights in folders (model.safetensors, config.json with its hash, card.md); those this package ships."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eozip.errors import WeightsError
from eozip.hub.checkpoints import read_tensors
from eozip.hub.weights import Weights
from eozip.outputs import publish

if TYPE_CHECKING:
    from torch import Tensor

_SHIPPED = Path(__file__).parents[1] / "weights"
TENSORS, CONFIG, _CARD = "model.safetensors", "config.json", "card.md"
_HASH_DIGITS = 16  # hexadecimal digits of the declared SHA-256 prefix


def shipped() -> tuple[str, ...]:
    """List the ids of the weights in this package, sorted."""
    return tuple(sorted(folder.parent.name for folder in _SHIPPED.glob(f"*/{CONFIG}")))


def shipped_path(name: str) -> Path:
    """Folder of shipped weights.

    Raises:
        WeightsError: No such weights; the message lists those there are.
    """
    if name not in shipped():
        raise WeightsError(f"no shipped weights {name!r}; there are: {', '.join(shipped()) or 'none'}")
    return _SHIPPED / name


def read_folder(folder: Path) -> Weights:
    """Read the weights of a folder with model.safetensors and config.json, whose declared hash must match.

    Raises:
        WeightsError: A file is missing, or the tensors are not those that config.json declares.
    """
    config = read_config(folder)
    path = folder / TENSORS
    if not path.is_file():
        raise WeightsError(f"{folder}: expected {TENSORS}, which is missing; install eozip again")
    declared, got = str(config.get("sha256", "")), _file_hash(path)
    if declared[:_HASH_DIGITS] != got:
        raise WeightsError(
            f"{path}: expected SHA-256 {declared[:_HASH_DIGITS] or '(none)'} as {CONFIG} declares, got {got}; "
            "the file was changed or belongs to other weights: restore both files together"
        )
    if "kind" not in config:
        raise WeightsError(
            f"{folder / CONFIG}: expected a key 'kind' that names the network, got {sorted(config)}"
        )
    return Weights(str(config["kind"]), config, read_tensors(path), str(folder))


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a weights folder.

    Raises:
        WeightsError: Missing, or not a JSON object.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / CONFIG}: expected a readable JSON file, got: {error}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{folder / CONFIG}: expected a JSON object, got {type(config).__name__}")
    return config


def write_folder(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    card: str,
) -> None:
    """Write weights as `read_folder` reads them; config.json comes last, with the hash of the tensors.

    Args:
        folder: made where it is not there; files in it are replaced.
        tensors: by name.
        config: what config.json says: `kind`, `id`, `codecs`, `sensor`, and what the kind needs.
        card: text of card.md: what the weights are, and how they were made.
    """
    from safetensors.torch import save_file  # torch: lists of models do without

    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{TENSORS}.part"
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, part)
    part.chmod(0o644)  # safetensors writes for the owner alone; weights are packaged for everyone
    publish(part, folder / TENSORS, overwrite=True)
    _write_text(folder / _CARD, card)
    declared = {**config, "sha256": _file_hash(folder / TENSORS)}
    _write_text(folder / CONFIG, json.dumps(declared, indent=1) + "\n")


def _file_hash(path: Path) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_HASH_DIGITS]


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    publish(part, path, overwrite=True)
