"""`report.json` (docs/evaluation.md) as the report reads it: checked, and addressed by JSON pointers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eozip.errors import InputError

_SCHEMA = "eozip-evaluate/1"
AT = "40"  # dB at which everything but rates is compared

Key = str | int


@dataclass(frozen=True)
class Report:
    """A report's numbers, and the folder that its crops are relative to.

    Attributes:
        folder: holds report.json.
        data: what it says, in the schema `_SCHEMA`.
    """

    folder: Path
    data: Mapping[str, Any]

    @property
    def places(self) -> list[str]:
        """Names, in the order measured."""
        return [place["name"] for place in self.data["places"]]

    @property
    def methods(self) -> list[str]:
        """Ids of the methods that were measured: codecs of eozip first."""
        measured = {point["method"] for point in self.data["points"]}
        return [method["id"] for method in self.data["methods"] if method["id"] in measured]

    @property
    def codecs(self) -> list[str]:
        """Those of `methods` that are codecs of eozip."""
        kinds = {method["id"]: method["kind"] for method in self.data["methods"]}
        return [name for name in self.methods if kinds[name] == "codec"]

    @property
    def baselines(self) -> list[str]:
        """Those of `methods` that are not."""
        return [name for name in self.methods if name not in self.codecs]

    @property
    def dbs(self) -> list[str]:
        """PSNRs at which rates are compared, as the keys of the summary."""
        return list(next(iter(self.data["summary"]["rates_at_psnr"].values()), {}))

    def at(self, *keys: Key) -> Any:
        """The value under some keys; None where one of them is missing or leads through null."""
        return walk(self.data, keys)

    def curve(self, method: str, place: str) -> list[tuple[float, float]]:
        """(bpppb, dB) points, rate rising; exact points have no dB and are left out."""
        found = [p for p in self.data["points"] if p["method"] == method and p["place"] == place]
        return sorted((p["bpppb"], p["psnr"]) for p in found if p["psnr"] is not None)


def load_report(folder: str | Path) -> Report:
    """Read FOLDER/report.json.

    Raises:
        InputError: there is none, it is no JSON, of another schema, or without one of the schema's parts.
    """
    path = Path(folder) / "report.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run `eozip evaluate` first") from error
    except ValueError as error:
        raise InputError(f"{path}: expected JSON as `eozip evaluate` writes it, got {error}") from error
    _check(path, data)
    return Report(Path(folder), data)


def pointer(*keys: Key) -> str:
    """Keys as a JSON pointer (RFC 6901), such as /summary/spans/x."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def walk(data: Any, keys: tuple[Key, ...]) -> Any:
    """The value under some keys of nested objects and arrays, or None."""
    for key in keys:
        if isinstance(data, Mapping):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            return None
    return data


def geometric_mean(values: list[float]) -> float:
    """Of positive numbers, at least one."""
    return math.exp(sum(map(math.log, values)) / len(values))


def _check(path: Path, data: Any) -> None:
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != _SCHEMA:
        raise InputError(f"{path}: expected schema {_SCHEMA!r}, got {schema!r}; run `eozip evaluate` again")
    parts = ("provenance", "definitions", "places", "methods", "points", "failures", "summary", "crops")
    missing = [name for name in parts if name not in data]
    if missing:
        what = ", ".join(missing)
        raise InputError(
            f"{path}: expected every part of {_SCHEMA}, got no {what}; run `eozip evaluate` again"
        )
