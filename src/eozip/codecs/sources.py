"""From a path, a published name, or the id and hash in a stream to a codec.

Weights folders say in their config.json what kind of network they hold; `registry.LOADERS` says who reads it. Everything
else is taken for a checkpoint in the published layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from eozip import hub, sensors
from eozip.codecs import registry
from eozip.codecs.base import Codec
from eozip.codecs.terracodec import published
from eozip.errors import EozipError, WeightsError
from eozip.own import SENSOR_FILE, own_files

_CHECKPOINTS = (".pt", ".safetensors")
_PUBLISHED_ID = re.compile(
    r"(?P<kind>tec-fp|tec-elic|tec-tt|flextec)-base-(?P<sensor>[a-z0-9]+)-[0-9a-f]{16}"
)


def load(source: str | Path, lmbda: float | str | None = None) -> Codec:
    """A codec from weights, which `encode` and `decode` know in this process from then on.

    Args:
        source: A listed codec's full id or short name, the path of a weights folder or checkpoint, or
            "owner/name@lambda-40".
        lmbda: Which checkpoint of a repository, instead of "@lambda-...".

    Raises:
        WeightsError: Nothing there, not reachable, or tensors that do not fit; the message lists them.
    """
    if registry.knows(str(source)):
        return registry.get(registry.resolve(str(source)))
    codec = opened(source, lmbda)
    registry.keep(codec)
    return codec


def opened(source: str | Path, lmbda: float | str | None = None) -> Codec:
    """As `load`, of weights alone, and without making them known."""
    path = Path(source)
    if path.is_dir():
        return _of_folder(path)
    return published.from_weights(hub.load(source, lmbda))


def found(codec_id: str, weights_hash: bytes | None = None) -> Codec | None:
    """Searches the folders of own codecs, and published checkpoints that were downloaded; None if it is not there.

    Args:
        codec_id: As the bytes of a chunk say it.
        weights_hash: Likewise; None takes the first of that id.

    Raises:
        WeightsError: Weights that say they are these cannot be read.
    """
    for path in _candidates(codec_id, weights_hash):
        codec = _of_folder(path) if path.is_dir() else published.from_weights(hub.load(path))
        if codec.id == codec_id and weights_hash in (None, codec.weights_hash):
            return codec
    return None


def own_codecs() -> list[tuple[str, Path]]:
    """What the folders of own codecs hold: the id that config.json says, or the file's name; and where."""
    listed = []
    for file in own_files():
        if file.name == hub.TENSORS:
            listed.append((str(_config(file.parent).get("id", file.parent.name)), file.parent))
        elif file.suffix in _CHECKPOINTS:
            listed.append((file.name, file))
    return listed


def _of_folder(folder: Path) -> Codec:
    """The codec of a weights folder, and its sensor."""
    if not (folder / hub.TENSORS).is_file():
        raise WeightsError(
            f"{folder}: expected a folder of weights, with {hub.TENSORS} and config.json, got {_inside(folder)}"
        )
    if (folder / SENSOR_FILE).is_file():
        sensors.add(sensors.read(folder / SENSOR_FILE))
    config = _config(folder)
    if (kind := config.get("kind")) in registry.LOADERS:
        return registry.load_folder(folder, str(kind))
    weights = hub.load(folder / hub.TENSORS)
    return published.from_weights(replace(weights, config={**weights.config, **_sensor(config)}))


def _inside(folder: Path) -> str:
    names = sorted(child.name for child in folder.iterdir())
    return ", ".join(names[:8]) or "an empty one"


def _config(folder: Path) -> dict[str, Any]:
    return hub.read_config(folder) if (folder / hub.CONFIG).is_file() else {}


def _sensor(config: dict[str, Any]) -> dict[str, Any]:
    return {"sensor": config["sensor"]} if "sensor" in config else {}


def _candidates(codec_id: str, weights_hash: bytes | None) -> Iterator[Path]:
    """Weights that may be those, the likeliest first; few are ever opened."""
    folders = [file.parent for file in own_files() if file.name == hub.TENSORS]
    declared = [(folder, _config(folder)) for folder in folders]
    digest = weights_hash.hex() if weights_hash else None
    yield from (folder for folder, config in declared if digest and config.get("sha256") == digest)
    yield from (folder for folder, config in declared if config.get("id") == codec_id)
    match = _PUBLISHED_ID.fullmatch(codec_id)
    if match is None:
        return
    kind = match["kind"]
    sensor = next((name for name in sensors.names() if name.replace("-", "") == match["sensor"]), "")
    yield from (folder for folder, config in declared if _kind_of_folder(folder, config) == kind)
    yield from (file for file in _checkpoints() if _kind_of(file) == kind)
    yield from hub.cached_checkpoints(kind, sensor)


def _checkpoints() -> list[Path]:
    return [f for f in own_files() if f.suffix in _CHECKPOINTS and f.name != hub.TENSORS]


def _kind_of_folder(folder: Path, config: dict[str, Any]) -> str | None:
    return str(config["kind"]) if "kind" in config else _kind_of(folder / hub.TENSORS)


def _kind_of(file: Path) -> str | None:
    """The kind of a checkpoint; None where it is none that eozip knows (others may lie in the same folder)."""
    try:
        return hub.load(file).kind
    except EozipError:
        return None
