"""Gathers predictions of the first case of each place and cover, and draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eozip.errors import InputError
from eozip.inpaint.predict import Predictor
from eozip_lab.inpainting.pictures import draw
from eozip_lab.inpainting.trial import Case

_COLOURS = ("B04", "B03", "B02")


@dataclass
class Gallery:
    """Keeps what one picture needs until the next case begins.

    Attributes:
        folder: for the PNG files.
        bands: [C] of all series.
    """

    folder: Path
    bands: Sequence[str]
    _case: Case | None = None
    _found: dict[str, np.ndarray] = field(default_factory=dict)
    _drawn: set[tuple[str, float]] = field(default_factory=set)

    def take(self, case: Case, predictor: Predictor, x_hat: np.ndarray) -> None:
        """One prediction [C, H, W] of a case; cases come one after the other."""
        if self._case is None or self._case.key != case.key:
            self.finish()
            self._case = case
        self._found[predictor.name] = x_hat[self._colours()]

    def finish(self) -> None:
        """Draws what was gathered, unless its place and cover have a picture."""
        case, found = self._case, self._found
        self._case, self._found = None, {}
        if case is None or (case.place, case.cover) in self._drawn:
            return
        self._drawn.add((case.place, case.cover))
        name = f"{case.place} {case.cover:g}"
        name = "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in name)
        title = f"{case.place}, {100 * case.cover:g} % hidden, {case.kind}"
        hidden = case.series.hidden[case.date]
        draw(self.folder / f"{name}.png", case.truth[self._colours()], hidden, found, title)

    def _colours(self) -> list[int]:
        if not set(_COLOURS) <= set(self.bands):
            raise InputError(f"pictures: expected bands {', '.join(_COLOURS)}, got {', '.join(self.bands)}")
        return [list(self.bands).index(name) for name in _COLOURS]
