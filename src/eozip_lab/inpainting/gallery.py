"""One PNG per case: what was hidden, what the predictors made of it, and the truth. Drawn for each place and cover once."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eozip.errors import InputError
from eozip.inpaint.predict import Predictor
from eozip.picture import new_figure
from eozip_lab.evaluate.provenance import write_bytes
from eozip_lab.inpainting.synthetic_clouds import Case

_PANEL = 3.0  # inches
_HIDDEN = (0.85, 0.1, 0.6)


def _draw(
    path: Path, truth: np.ndarray, hidden: np.ndarray, found: Mapping[str, np.ndarray], title: str
) -> None:
    """Writes a picture.

    Args:
        path: PNG file.
        truth: DN [3, H, W], red, green, blue.
        hidden: bool [H, W].
        found: name > DN [3, H, W].
        title: above everything.

    Raises:
        InputError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    low, high = np.percentile(truth, (2, 98))
    views = {name: _view(np.where(hidden, x, truth), low, high) for name, x in found.items()}
    shown = _view(truth, low, high)
    panels = {"given": np.where(hidden[..., None], _HIDDEN, shown), **views, "truth": shown}
    figure = new_figure(_PANEL * len(panels), _PANEL + 0.6)
    figure.suptitle(title)
    for axes, (name, panel) in zip(figure.subplots(1, len(panels)), panels.items()):
        axes.imshow(panel, interpolation="nearest")
        axes.set_title(name)
        axes.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    write_bytes(path, buffer.getvalue())


def _view(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((np.moveaxis(x, 0, 2) - low) / max(high - low, 1), 0, 1)


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
        """Draw what was gathered, unless its place and cover have a picture."""
        case, found = self._case, self._found
        self._case, self._found = None, {}
        if case is None or (case.place, case.cover) in self._drawn:
            return
        self._drawn.add((case.place, case.cover))
        name = f"{case.place} {case.cover:g}"
        name = "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in name)
        title = f"{case.place}, {100 * case.cover:g} % hidden, {case.kind}"
        hidden = case.series.hidden[case.date]
        _draw(self.folder / f"{name}.png", case.truth[self._colours()], hidden, found, title)

    def _colours(self) -> list[int]:
        if not set(_COLOURS) <= set(self.bands):
            raise InputError(f"pictures: expected bands {', '.join(_COLOURS)}, got {', '.join(self.bands)}")
        return [list(self.bands).index(name) for name in _COLOURS]
