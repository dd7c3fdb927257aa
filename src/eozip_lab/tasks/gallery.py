"""The gallery of worst failures: chips on which our codec lost most, and what a classical one lost there."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eozip_lab.evaluate.provenance import write_bytes
from eozip_lab.tasks.pictures import LOST
from eozip_lab.tasks.task import Chip, Judge, Measure, Tally, Task

_SIDE, _GAP, _ENLARGED, _QUALITY = 96, 4, 192, 55
_WORST = 2  # failures of a measure that are shown, of different places
_LEAST_COUNTED = 10  # pixels: a chip with fewer says little


@dataclass(frozen=True)
class Row:
    """What one method made of a chip.

    Attributes:
        method: its name.
        bytes: of the chip.
        value: of the measure there.
        panels: title > uint8 [H, W, 3], of equal size; the last says what is lost.
    """

    method: str
    bytes: int
    value: float
    panels: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Shown:
    """One picture of the gallery.

    Attributes:
        task, measure, subject, chip: names.
        number: 1 is the worst of the measure.
        quality: of our codec, whose bytes the other method has too.
        original: value of the measure on original pixels.
        scale: shown values are multiplied by this.
        rows: our codec, and the best classical one.
    """

    task: str
    measure: str
    subject: str
    chip: str
    number: int
    quality: float
    original: float
    scale: float
    rows: Sequence[Row]

    @property
    def file(self) -> str:
        """Name of the picture's file."""
        return f"{self.task} {self.measure} {self.number}.webp".replace(",", "").replace(" ", "-")

    def facts(self) -> dict[str, Any]:
        """All but the pixels, as tasks.json has it."""
        names = ("task", "measure", "subject", "chip", "number", "quality", "original", "scale", "file")
        rows = [{"method": row.method, "bytes": row.bytes, "value": row.value} for row in self.rows]
        return {
            **{name: getattr(self, name) for name in names},
            "panels": list(self.rows[0].panels),
            "rows": rows,
        }


@dataclass
class Failures:
    """Keeps what a gallery needs of one task, method by method: ours comes before the baselines.

    Attributes:
        task, judge, chips: see `eozip_lab.tasks.task`.
        original: tallies of original pixels.
    """

    task: Task
    judge: Judge
    chips: Sequence[Chip]
    original: Sequence[Tally]
    _quality: float = 0.0
    _ours: dict[tuple[str, int], Row] = field(default_factory=dict)
    _theirs: dict[str, dict[tuple[str, int], Row]] = field(default_factory=dict)

    def take_ours(self, row: Any, tallies: Sequence[Tally]) -> None:
        """Find the chips on which our codec loses most; `row`: see `eozip_lab.tasks.run.Coded`."""
        self._quality = row.quality or 0.0
        at = [(m.name, k) for m in _shown_measures(self.task) for k in self._worst(m, tallies)]
        self._ours = self._rows(at, row, tallies)

    def take_other(self, row: Any, tallies: Sequence[Tally]) -> None:
        """What a baseline made of the same chips."""
        self._theirs[row.method] = self._rows(self._ours, row, tallies)

    def shown(self, best: Mapping[str, str]) -> Iterator[Shown]:
        """Pictures; `best`: measure > the baseline that does best with as many bytes."""
        numbers: dict[str, int] = {}
        measures = {m.name: m for m in self.task.measures}
        for (name, k), ours in self._ours.items():
            numbers[name] = numbers.get(name, 0) + 1
            theirs = self._theirs.get(best.get(name, ""), {}).get((name, k))
            yield Shown(
                self.task.name,
                name,
                measures[name].subject or self.task.name,
                self.chips[k].name,
                numbers[name],
                self._quality,
                _value(self.original[k], name),
                measures[name].scale,
                [ours, *([] if theirs is None else [theirs])],
            )

    def _rows(self, at: Any, row: Any, tallies: Sequence[Tally]) -> dict[tuple[str, int], Row]:
        return {
            (name, k): Row(
                row.method,
                row.bytes[k],
                _value(tallies[k], name),
                self.judge.panels(k, row.decoded[k], name),  # type: ignore[attr-defined]
            )
            for name, k in at
        }

    def _worst(self, measure: Measure, tallies: Sequence[Tally]) -> list[int]:
        """Chips that lost most against original pixels, each of another place."""
        sign = 1 if measure.more else -1
        harms = {
            k: sign * (_value(self.original[k], measure.name) - _value(tally, measure.name))
            for k, tally in enumerate(tallies)
            if tally.sums.get(measure.name, (0, 0))[1] >= _LEAST_COUNTED
        }
        found: dict[str, int] = {}
        for k in sorted(harms, key=harms.__getitem__, reverse=True):
            if harms[k] > 0:
                found.setdefault(tallies[k].place, k)
        return list(found.values())[:_WORST]


def _shown_measures(task: Task) -> list[Measure]:
    return [m for number, m in enumerate(task.measures) if number == 0 or m.subject]


def _value(tally: Tally, measure: str) -> float:
    above, below = tally.sums[measure]
    return above / below if below else float("nan")


def write_strips(shown: Sequence[Shown], folder: Path) -> None:
    """Write the pictures; needs Pillow, which matplotlib brings."""
    for one in shown:
        write_bytes(folder / one.file, _webp(strip([row.panels for row in one.rows])))


def strip(rows: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Panels beside each other, a row for each method, cut to the window where the first loses most, uint8 [h, w, 3]."""
    *_, lost = rows[0].values()
    window = _window((lost == LOST).all(2))
    return _joined([_joined([_enlarged(panel[window]) for panel in row.values()], 1) for row in rows], 0)


def _joined(parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Parts with white between them."""
    shape = list(parts[0].shape)
    shape[axis] = _GAP
    gap = np.full(shape, 255, np.uint8)
    return np.concatenate([part for one in parts for part in (one, gap)][:-1], axis)


def _webp(picture: np.ndarray) -> bytes:
    """A small file."""
    from PIL import Image  # optional

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=_QUALITY, method=6)
    return buffer.getvalue()


def _window(lost: np.ndarray) -> tuple[slice, slice]:
    """The `_SIDE` x `_SIDE` window with most losses, on a grid of eighths of it."""
    sides = [min(_SIDE, n) for n in lost.shape]
    starts = [range(0, n - side + 1, max(1, side // 8)) for n, side in zip(lost.shape, sides)]
    corners = [(y, x) for y in starts[0] for x in starts[1]]
    y, x = max(corners, key=lambda at: lost[at[0] : at[0] + sides[0], at[1] : at[1] + sides[1]].sum())
    return slice(y, y + sides[0]), slice(x, x + sides[1])


def _enlarged(panel: np.ndarray) -> np.ndarray:
    times = max(1, _ENLARGED // max(panel.shape[:2]))
    return panel.repeat(times, 0).repeat(times, 1)
