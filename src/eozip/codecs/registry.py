"""Which codecs there are, by name; each is imported and loaded on first use.

Every folder in ``eozip/weights`` lists the ids of its codecs in its config.json, and names the kind of its network, for
which `LOADERS` has the function that loads it. Full ids say sensor and version (``toy-s2l2a-v1``), or that any
sensor will do (``tec-elic-small-any-v1``); the short name is the id without them and means the newest version.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from eozip.codecs.base import Codec
from eozip.errors import EozipError, InputError, UnknownCodecError, WeightsError
from eozip.own import VARIABLE, places

__all__ = ["LOADERS", "Registry", "load_folder", "shipped_codecs"]

LOSSLESS, NEAR_LOSSLESS = WITHOUT_NETWORK = ("lossless", "near-lossless")
ANY_SENSOR = "any"  # in the ids of codecs that take any bands of any sensor

WEIGHTS = Path(__file__).parents[1] / "weights"

Loader = Callable[[], Codec]

# Kind of network in config.json > "module:function" that takes the folder of its weights and (where the folder lists
# several) the id wanted, and returns the codec.
LOADERS = {
    "pyramid": "eozip.codecs.pyramid.files:load_codec",
}

BY_NUMPY = ("pyramid",)  # kinds that need no torch

_FULL_ID = re.compile(r"(?P<short>.+)-(?P<sensor>[a-z0-9]+)-v(?P<version>[0-9]+)")
_HASHED = re.compile(r"(?P<id>.+)@(?P<hash>[0-9a-f]{16})")
OPEN, FIND = "eozip.codecs.sources:opened", "eozip.codecs.sources:found"


class Registry:
    """Codec names, and the codecs loaded so far in this process.

    Codecs of one's own are told apart by their weights: their name here is "id@hash", and bytes that were coded with them
    say both. Nobody's own weights can take the name of a codec that is listed.

    Args:
        entries: full id > a callable that returns a `Codec`.
    """

    def __init__(self, entries: Mapping[str, Loader]) -> None:
        self._entries = dict(entries)
        self._loaded: dict[str, Codec] = {}
        self._own: dict[str, Codec] = {}
        self._lock = threading.RLock()

    def add(self, full_id: str, loader: Loader) -> None:
        """Add or replace one codec (plug-ins, tests)."""
        with self._lock:
            self._entries[full_id] = loader
            self._loaded.pop(full_id, None)

    def remove(self, full_id: str) -> None:
        """Take one codec out again."""
        with self._lock:
            self._entries.pop(full_id, None)
            self._loaded.pop(full_id, None)
            self._own = {name: codec for name, codec in self._own.items() if full_id not in (name, codec.id)}

    def keep(self, codec: Codec) -> str:
        """Make a codec from elsewhere known, by its name here: its id where that is a listed one or holds its hash."""
        digest = codec.weights_hash.hex()
        with self._lock:
            if codec.id in self._entries and self.get(codec.id).weights_hash == codec.weights_hash:
                return codec.id
            name = codec.id if codec.id.endswith(digest) else f"{codec.id}@{digest}"
            self._own.pop(name, None)
            self._own[name] = codec  # the newest comes last
            return name

    def names(self) -> tuple[str, ...]:
        """Full ids of all learned codecs that are listed, sorted, and ``lossless``."""
        return (*sorted(self._entries), LOSSLESS)

    def resolve(self, codec: str | Path | Codec, sensor: str = "s2-l2a") -> str:
        """The name here of a codec.

        Args:
            codec: full id; short name (of several versions for the sensor, the newest); path of weights; published
                name such as "owner/name@lambda-40"; id of weights in a folder of own codecs; or a codec.
            sensor: id of the sensor that a short name is meant for.

        Raises:
            UnknownCodecError: no such codec; the message lists the known ones.
            WeightsError: weights that are not there, not reachable or do not fit.
        """
        if not isinstance(codec, str | Path):
            return self.keep(codec)
        name = str(codec)
        if name in self._entries or name == LOSSLESS:
            return name
        fitting = [full for full in self._entries if _version(full, name, sensor) >= 0]
        if fitting:
            return max(fitting, key=lambda full: (not _is_of_any(full), _version(full, name, sensor)))
        with self._lock:
            try:
                kept = self._kept(name) or _called(FIND, *_parted(name))
            except WeightsError as fault:
                if _is_source(codec) or not _lacks_torch(fault):
                    raise
                raise _not_shipped(name) from fault
            if kept is not None:
                return self.keep(kept)
            if _is_source(codec):
                return self.keep(_called(OPEN, codec))
        raise UnknownCodecError(
            f"unknown codec {name!r} for sensor {sensor!r}; known: {', '.join(self.names())}; or a path of weights, a "
            f"published owner/name, or weights in a folder that {VARIABLE} names"
        )

    def knows(self, name: str, sensor: str = "s2-l2a") -> bool:
        """Whether a codec of this full id or short name is listed."""
        return name in self.names() or any(_version(full, name, sensor) >= 0 for full in self._entries)

    def is_listed(self, name: str) -> bool:
        """Whether a codec of this full id or short name is listed, for whatever sensor."""
        shorts = {match["short"] for full in self._entries if (match := _FULL_ID.fullmatch(full))}
        return name in self.names() or name in shorts

    def get(self, full_id: str, weights_hash: bytes | None = None) -> Codec:
        """The codec of a name that `resolve` gives, or of an id and hash in a stream; loaded once per process.

        Args:
            full_id: the name.
            weights_hash: of its weights; None: whatever they are.

        Raises:
            UnknownCodecError: no such codec, here or in a folder of own codecs.
            WeightsError: its weights are missing or damaged, or there are others under this name.
        """
        name, digest = _parted(full_id)
        digest = weights_hash or digest
        with self._lock:
            listed = self._listed(name)
            if listed is not None and digest in (None, listed.weights_hash):
                return listed
            try:
                kept = self._kept(name, digest) or _called(FIND, name, digest)
            except WeightsError as fault:
                if listed is None or not _lacks_torch(fault):
                    raise
                kept = None  # other weights than the listed ones; without torch no own ones are searched
            if kept is not None:
                self.keep(kept)
                return kept
        raise self._missing(name, digest, listed)

    def _listed(self, full_id: str) -> Codec | None:
        if full_id in self._entries and full_id not in self._loaded:
            self._loaded[full_id] = self._entries[full_id]()
        return self._loaded.get(full_id)

    def _kept(self, name: str, digest: bytes | None = None) -> Codec | None:
        fitting = [
            codec
            for key, codec in self._own.items()
            if name in (key, codec.id) and digest in (None, codec.weights_hash)
        ]
        return fitting[-1] if fitting else None

    def _missing(self, name: str, digest: bytes | None, listed: Codec | None) -> EozipError:
        folders = ", ".join(map(str, places())) or "none"
        where = (
            f"put them (a weights folder or checkpoint) into a folder that {VARIABLE} names (now: {folders}), or load them "
            "with eozip.load first"
        )
        if listed is not None and digest is not None:
            return WeightsError(
                f"{name}: coded with weights {digest.hex()}, installed are {listed.weights_hash.hex()}; {where}"
            )
        hashed = f" with weights {digest.hex()}" if digest else ""
        return UnknownCodecError(
            f"unknown codec {name!r}{hashed}; known: {', '.join(self.names())}. If it is your own or a published one, "
            f"{where}; else a newer eozip may have it."
        )


def _parted(name: str) -> tuple[str, bytes | None]:
    """Id and hash of "id@hash"; no hash in other names."""
    match = _HASHED.fullmatch(name)
    return (match["id"], bytes.fromhex(match["hash"])) if match else (name, None)


def _is_source(codec: str | Path) -> bool:
    """Whether a name can be meant for a file, a folder or a repository."""
    return isinstance(codec, Path) or "/" in codec or os.sep in codec or Path(codec).exists()


def _called(function: str, *arguments: Any) -> Any:
    """Calls "module:function"; such modules may import torch, and this one.

    Raises:
        WeightsError: they need torch, and it is not installed.
    """
    module, _, name = function.partition(":")
    try:
        return getattr(importlib.import_module(module), name)(*arguments)
    except ModuleNotFoundError as fault:
        if fault.name != "torch":
            raise
        given = next((one for one in arguments[::-1] if isinstance(one, str)), arguments[0])
        raise WeightsError(
            f"{given}: needs torch, which is not installed: pip install 'eozip[torch]', or use a codec that does without: "
            f"{', '.join(sorted(_by_numpy()))}, {LOSSLESS}"
        ) from fault


def _lacks_torch(fault: WeightsError) -> bool:
    return isinstance(fault.__cause__, ModuleNotFoundError)


def _not_shipped(name: str) -> UnknownCodecError:
    """Of a name that is neither listed nor a path, where there is no torch to look for it elsewhere."""
    return UnknownCodecError(
        f"there is no codec {name!r} among those that are shipped: {', '.join(REGISTRY.names())}. Published ones and your "
        "own need torch, which is not installed: pip install 'eozip[torch]'"
    )


def _version(full_id: str, short: str, sensor: str) -> int:
    match = _FULL_ID.fullmatch(full_id)
    fits = match and match["short"] == short and match["sensor"] in (sensor.replace("-", ""), ANY_SENSOR)
    return int(match["version"]) if match and fits else -1


def _is_of_any(full_id: str) -> bool:
    """Whether an id is that of a codec for any sensor; one for the sensor asked for comes before it."""
    match = _FULL_ID.fullmatch(full_id)
    return match is not None and match["sensor"] == ANY_SENSOR


def load_folder(folder: Path, kind: str, full_id: str | None = None) -> Codec:
    """The codec of a weights folder whose config.json says this kind, one of `LOADERS`.

    Args:
        folder: with model.safetensors and config.json.
        kind: kind of network.
        full_id: which of the codecs that config.json lists; None: the first.

    Raises:
        WeightsError: weights that are missing, damaged or do not fit.
    """
    codec: Codec = _called(LOADERS[kind], folder, full_id)
    return codec


def shipped_codecs() -> dict[str, Loader]:
    """The codecs of the weights in this package: full id > what loads it."""
    found: dict[str, Loader] = {}
    for path in sorted(WEIGHTS.glob("*/config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        for full_id in config["codecs"]:
            found[full_id] = partial(load_folder, path.parent, config["kind"], full_id)
    return found


def load(source: str | Path, lmbda: float | str | None = None) -> Codec:
    """Load a codec from shipped weights, a weights folder, a checkpoint, or a published repository.

    In this process ``encode(dn, codec=codec)`` and `decode` know it from then on. Other processes find it where the
    environment variable EOZIP_CODECS names the folder that it lies in.

    Args:
        source: full id or short name, path of a weights folder or checkpoint, or "owner/name@lambda-40".
        lmbda: which checkpoint of a repository, instead of "@lambda-..."; the nearest there is, with a warning.

    Returns:
        The codec.

    Raises:
        InputError: neither a name nor a path.
        UnknownCodecError: no such codec is shipped, and there is no torch for others.
        WeightsError: nothing there, not reachable, or tensors that do not fit; the message lists them.
    """
    if not isinstance(source, str | Path):
        raise InputError(f"expected the name or path of a codec, got {source!r}")
    if knows(str(source)):
        return get(resolve(str(source)))
    try:
        codec: Codec = _called("eozip.codecs.sources:load", source, lmbda)
    except WeightsError as fault:
        if _is_source(source) or not _lacks_torch(fault):
            raise
        raise _not_shipped(str(source)) from fault
    return codec


@lru_cache(1)
def _by_numpy() -> frozenset[str]:
    """Full ids of shipped codecs that need no torch."""
    configs = [json.loads(path.read_text(encoding="utf-8")) for path in WEIGHTS.glob("*/config.json")]
    return frozenset(name for config in configs if config["kind"] in BY_NUMPY for name in config["codecs"])


def needs_torch(full_id: str) -> bool:
    """Whether coding by a codec of this name is torch's work, as far as the name tells."""
    return full_id not in WITHOUT_NETWORK and full_id not in _by_numpy()


REGISTRY = Registry(shipped_codecs())
names = REGISTRY.names
keep = REGISTRY.keep
resolve = REGISTRY.resolve
knows = REGISTRY.knows
is_listed = REGISTRY.is_listed
get = REGISTRY.get
