"""Small windows of original and decoded pixels at nearly equal bytes, for looking at."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eozip_lab.evaluate.inputs import Place, pixel_hash
from eozip_lab.evaluate.methods import CODEC, Method
from eozip_lab.evaluate.provenance import write_bytes
from eozip_lab.evaluate.runner import prepared

FOLDER = "crops"
_ORIGINAL = "original"
_APART = 1.5  # bytes of the one over those of the other, at most

_Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Crop:
    """One file of pixels; see `crops` in docs/evaluation.md."""

    place: str
    method: str
    kind: str
    level: int | None
    setting: float | None
    bytes: int | None
    bpppb: float | None
    psnr: float | None
    key: str | None
    file: str


def chosen(rows: _Rows, methods: Sequence[Method], place: str, db: float) -> list[Mapping[str, Any]]:
    """On one place the first codec's point nearest a PSNR, and of each other method the one nearest in bytes.

    Methods that come no nearer than `_APART` are left out: such pictures would compare nothing.
    """
    of = {m.id: [row for row in rows if row["method"] == m.id and row["place"] == place] for m in methods}
    reference = next((m.id for m in methods if of[m.id]), None)
    if reference is None:
        return []
    anchor = min(of[reference], key=lambda row: abs((row["psnr"] or math.inf) - db))

    def away(row: Mapping[str, Any]) -> float:
        return abs(math.log(row["bytes"] / anchor["bytes"]))

    nearest = [min(found, key=away) for name, found in of.items() if found and name != reference]
    return [anchor, *(row for row in nearest if away(row) <= math.log(_APART))]


def write_crops(
    rows: _Rows,
    methods: Sequence[Method],
    places: Sequence[Place],
    folder: Path,
    side: int,
    levels: Sequence[float],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Code the chosen points once more and keep the middle `side` x `side` pixels of each.

    Files that an earlier run wrote are kept: their names hold the point's key.

    Returns:
        `crops` of report.json.
    """
    wanted = [
        (place, level, row)
        for place in places
        for level, db in enumerate(levels)
        for row in chosen(rows, methods, place.name, db)
    ]
    found = [_original(place, folder, side) for place in places]
    for done, (place, level, row) in enumerate(wanted):
        progress(done, len(wanted))
        found.append(_decoded(place, level, row, folder, side))
    progress(len(wanted), len(wanted))
    reference = next((m.id for m in methods if m.kind == CODEC), methods[0].id)
    return {
        "levels": [{"level": number, "reference": reference, "psnr": db} for number, db in enumerate(levels)],
        "files": found,
    }


def window(shape: Sequence[int], side: int) -> tuple[int, int, int, int]:
    """(y0, x0, h, w) of the middle of frames [..., H, W]."""
    height, width = (min(side, length) for length in shape[-2:])
    return (shape[-2] - height) // 2, (shape[-1] - width) // 2, height, width


def _original(place: Place, folder: Path, side: int) -> _Crop:
    file = f"{FOLDER}/{_plain(place.name)}-{_ORIGINAL}-{pixel_hash(place.dn)[:12]}-{side}.npz"
    if not (folder / file).is_file():
        _write(folder / file, place.dn, side)
    return _Crop(place.name, _ORIGINAL, _ORIGINAL, None, None, None, None, None, None, file)


def _decoded(place: Place, level: int, row: Mapping[str, Any], folder: Path, side: int) -> _Crop:
    method = row["method"]
    file = f"{FOLDER}/{_plain(place.name)}-{_plain(method)}-{row['key']}-{side}.npz"
    if not (folder / file).is_file():
        one = prepared(method, place)
        _write(folder / file, one.decode(one.encode(place.dn, row["setting"])), side)
    kept = (row["setting"], row["bytes"], row["bpppb"], row["psnr"], row["key"])
    return _Crop(place.name, method, row["kind"], level, *kept, file)


def _write(path: Path, dn: np.ndarray, side: int) -> None:
    y, x, h, w = window(dn.shape, side)
    data = io.BytesIO()
    np.savez_compressed(data, dn=dn[..., y : y + h, x : x + w], window=np.array([y, x, h, w]))
    write_bytes(path, data.getvalue())


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name)
