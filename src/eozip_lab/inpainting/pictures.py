"""One PNG per case: what was hidden, what the predictors made of it, and the truth."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from eozip.errors import InputError
from eozip_lab.evaluate.provenance import write_bytes

_PANEL = 3.0  # inches
_HIDDEN = (0.85, 0.1, 0.6)


def draw(
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
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("pictures need matplotlib: pip install 'eozip[evaluate]'") from error
    low, high = np.percentile(truth, (2, 98))
    views = {name: _view(np.where(hidden, x, truth), low, high) for name, x in found.items()}
    shown = _view(truth, low, high)
    panels = {"given": np.where(hidden[..., None], _HIDDEN, shown), **views, "truth": shown}
    figure = Figure(figsize=(_PANEL * len(panels), _PANEL + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
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
