"""The gallery of worst failures: a strip of small pictures for each task, WebP."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from eozip_lab.evaluate.provenance import write_bytes
from eozip_lab.tasks.run import Shown

_SIDE, _GAP, _ENLARGED, _QUALITY = 128, 4, 192, 55


def write_strips(shown: list[Shown], folder: Path) -> dict[str, Path]:
    """Writes a picture for each task; needs Pillow, which matplotlib brings.

    Returns:
        task > file.
    """
    files = {}
    for one in shown:
        files[one.task] = folder / f"{one.task.replace(' ', '-')}.webp"
        write_bytes(files[one.task], webp(strip(one.panels)))
    return files


def strip(panels: dict[str, np.ndarray]) -> np.ndarray:
    """Panels beside each other, cut to the window where the last two differ most, uint8 [h, w, 3]."""
    *_, before, after = panels.values()
    window = _window((before != after).any(2))
    cut = [_enlarged(panel[window]) for panel in panels.values()]
    gap = np.full((cut[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([part for panel in cut for part in (panel, gap)][:-1], 1)


def webp(picture: np.ndarray) -> bytes:
    """A small file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=_QUALITY, method=6)
    return buffer.getvalue()


def _window(different: np.ndarray) -> tuple[slice, slice]:
    """The `_SIDE` x `_SIDE` window with most differences, on a grid of eighths of it."""
    sides = [min(_SIDE, n) for n in different.shape]
    starts = [range(0, n - side + 1, max(1, side // 8)) for n, side in zip(different.shape, sides)]
    corners = [(y, x) for y in starts[0] for x in starts[1]]
    y, x = max(corners, key=lambda at: different[at[0] : at[0] + sides[0], at[1] : at[1] + sides[1]].sum())
    return slice(y, y + sides[0]), slice(x, x + sides[1])


def _enlarged(panel: np.ndarray) -> np.ndarray:
    times = max(1, _ENLARGED // max(panel.shape[:2]))
    return panel.repeat(times, 0).repeat(times, 1)
