"""Which codecs there are, by name; each is imported and loaded on first use.

To add a codec, add one line to `ENTRIES`. Full ids say sensor and version (``tec-elic-small-s2l2a-v1``); the
short name is the id without them (``tec-elic-small``) and means the newest version.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Callable

from eozip.codecs.base import Codec
from eozip.errors import UnknownCodecError

LOSSLESS = "lossless"

# Full id > "module:callable without arguments that returns a Codec".
ENTRIES: dict[str, str] = {
    "tec-elic-small-s2l1c-v1": "eozip.codecs.tec_elic:small_s2l1c_v1",
    "tec-fp-small-s2l1c-v1": "eozip.codecs.tec_fp:small_s2l1c_v1",
    "tec-elic-small-s2l1c-v2": "eozip.codecs.tec_elic:small_s2l1c_v2",
    "tec-elic-small-s2l1c-v3": "eozip.codecs.tec_elic:small_s2l1c_v3",
    "tec-elic-small-s2l2a-v1": "eozip.codecs.tec_elic:small_s2l2a_v1",
    "tec-elic-small-s2l2a-v2": "eozip.codecs.tec_elic:small_s2l2a_v2",
    "tec-elic-small-s2l2a-v3": "eozip.codecs.tec_elic:small_s2l2a_v3",
    "tec-elic-small-s2l1c-v4": "eozip.codecs.tec_elic:small_s2l1c_v4",
    "tec-elic-small-s2l2a-v4": "eozip.codecs.tec_elic:small_s2l2a_v4",
    "tec-tt-small-s2l2a-v3": "eozip.codecs.tec_tt_small:small_s2l2a_v3",
    "flextec-small-s2l2a-v3": "eozip.codecs.flextec_small:small_s2l2a_v3",
    "tec-fp-small-s2l1c-v3": "eozip.codecs.tec_fp:small_s2l1c_v3",
    "tec-fp-small-s2l2a-v3": "eozip.codecs.tec_fp:small_s2l2a_v3",
    "tec-tt-small-s2l2a-v1": "eozip.codecs.tec_tt_small:small_s2l2a_v1",
    "tec-tt-small-s2l2a-v2": "eozip.codecs.tec_tt_small:small_s2l2a_v2",
    "flextec-small-s2l2a-v1": "eozip.codecs.flextec_small:small_s2l2a_v1",
    "flextec-small-s2l2a-v2": "eozip.codecs.flextec_small:small_s2l2a_v2",
    "tec-fp-small-s2l1c-v2": "eozip.codecs.tec_fp:small_s2l1c_v2",
    "tec-fp-small-s2l2a-v1": "eozip.codecs.tec_fp:small_s2l2a_v1",
    "tec-fp-small-s2l2a-v2": "eozip.codecs.tec_fp:small_s2l2a_v2",
}

_FULL_ID = re.compile(r"(?P<short>.+)-(?P<sensor>[a-z0-9]+)-v(?P<version>[0-9]+)")


class Registry:
    """Codec names, and the codecs loaded so far in this process.

    Args:
        entries: full id > "module:callable", or a callable itself; the callable returns a `Codec`.
    """

    def __init__(self, entries: dict[str, str | Callable[[], Codec]]) -> None:
        self._entries = dict(entries)
        self._loaded: dict[str, Codec] = {}
        self._lock = threading.RLock()

    def add(self, full_id: str, loader: str | Callable[[], Codec]) -> None:
        """Adds or replaces one codec (plug-ins, checkpoints from elsewhere, tests)."""
        with self._lock:
            self._entries[full_id] = loader
            self._loaded.pop(full_id, None)

    def remove(self, full_id: str) -> None:
        """Takes one codec out again."""
        with self._lock:
            self._entries.pop(full_id, None)
            self._loaded.pop(full_id, None)

    def names(self) -> tuple[str, ...]:
        """Full ids of all learned codecs, sorted, and ``lossless``."""
        return (*sorted(self._entries), LOSSLESS)

    def resolve(self, name: str, sensor: str = "s2-l2a") -> str:
        """Full id of a full id or short name; of several versions for the sensor, the newest.

        Raises:
            UnknownCodecError: no such codec; the message lists the known ones.
        """
        if name in self._entries or name == LOSSLESS:
            return name
        found = [(version, full) for full in self._entries if (version := _version(full, name, sensor)) >= 0]
        if not found:
            raise UnknownCodecError(
                f"unknown codec {name!r} for sensor {sensor!r}; known: {', '.join(self.names())}"
            )
        return max(found)[1]

    def knows(self, name: str, sensor: str = "s2-l2a") -> bool:
        """Whether `resolve` finds a codec of this name."""
        return name in self.names() or any(_version(full, name, sensor) >= 0 for full in self._entries)

    def get(self, full_id: str) -> Codec:
        """The codec of a full id, loaded once per process.

        Raises:
            UnknownCodecError: no such codec; the message lists the known ones.
            WeightsError: its weights are missing or damaged.
        """
        with self._lock:
            if full_id not in self._loaded:
                self._loaded[full_id] = _load(self._loader(full_id))
            return self._loaded[full_id]

    def _loader(self, full_id: str) -> str | Callable[[], Codec]:
        if full_id not in self._entries:
            known = ", ".join(self.names())
            raise UnknownCodecError(f"unknown codec {full_id!r}; known: {known}. A newer eozip may have it.")
        return self._entries[full_id]


def _version(full_id: str, short: str, sensor: str) -> int:
    match = _FULL_ID.fullmatch(full_id)
    fits = match and match["short"] == short and match["sensor"] == sensor.replace("-", "")
    return int(match["version"]) if match and fits else -1


def _load(loader: str | Callable[[], Codec]) -> Codec:
    if not isinstance(loader, str):
        return loader()
    module, _, name = loader.partition(":")
    return getattr(importlib.import_module(module), name)()


REGISTRY = Registry(dict(ENTRIES))
names = REGISTRY.names
resolve = REGISTRY.resolve
knows = REGISTRY.knows
get = REGISTRY.get
