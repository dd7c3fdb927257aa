"""One PNG: original, reconstruction and error side by side, as a person would look at them."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eozip.lazy import optional
from eozip.outputs import naming, publish, resolved, temporary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 100
_PANEL = 5.12  # inches: 512 pixels
_LETTERS = 54  # of a title's font (12 points) that fit over a panel, digits too
_LINE = 0.25  # inches of one line of a title
_ERROR_GAIN = 10


def comparison(
    original: np.ndarray | None,
    decoded: np.ndarray,
    caption: str,
    out: str | Path,
    valid: np.ndarray,
    *,
    overwrite: bool = False,
) -> None:
    """Draw original, reconstruction and error; without an original the reconstruction alone.

    Args:
        original: DN [3, h, w], red, green, blue; None where there is none.
        decoded: the same of the reconstruction.
        caption: written above.
        out: PNG file.
        valid: bool [h, w]; other pixels are left white and do not set the stretch.
        overwrite: whether a file that exists may be replaced.

    Raises:
        InputError: matplotlib is not installed.
        OutputError: the file exists, or cannot be written.
    """
    if original is None:
        figure = _draw({"reconstruction": _alone(decoded, valid)}, caption)
    else:
        titles = ("original", "reconstruction", f"error, {_ERROR_GAIN} times")
        figure = _draw(dict(zip(titles, _panels_of(original, decoded, valid))), caption)
    target = resolved(Path(out))
    with naming(target), temporary(target, folder=False) as part:
        figure.savefig(part, format="png", dpi=_DPI)
        publish(part, target, overwrite=overwrite)


def _panels_of(original: np.ndarray, decoded: np.ndarray, valid: np.ndarray) -> list[np.ndarray]:
    """Three float images [h, w, 3] in 0..1; both pictures share the original's stretch."""
    low, high = _stretch(original, valid)
    span = high - low
    difference = decoded.astype(np.float32) - original.astype(np.float32)
    images = [(original - low) / span, (decoded - low) / span, 0.5 + _ERROR_GAIN * difference / (2 * span)]
    return [_as_picture(image, valid) for image in images]


def _alone(dn: np.ndarray, valid: np.ndarray) -> np.ndarray:
    low, high = _stretch(dn, valid)
    return _as_picture((dn - low) / (high - low), valid)


def _stretch(dn: np.ndarray, valid: np.ndarray) -> tuple[float, float]:
    """2nd and 98th percentile over the valid pixels of all three bands, at least one DN apart."""
    if not valid.any():
        return 0.0, 1.0
    low, high = np.percentile(dn[:, valid], (2, 98))
    return float(low), float(max(high, low + 1))


def _as_picture(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    picture = np.clip(np.moveaxis(image, 0, 2), 0, 1)
    return np.where(valid[..., None], picture, 1.0)


def _draw(panels: dict[str, np.ndarray], caption: str) -> Figure:
    """Panels side by side under their titles."""
    height, width = next(iter(panels.values())).shape[:2]
    lines = textwrap.wrap(caption, len(panels) * _LETTERS)
    figure = new_figure(len(panels) * _PANEL, _PANEL * height / width + 0.55 + _LINE * len(lines))
    figure.suptitle("\n".join(lines))
    rows = figure.subplots(1, len(panels), squeeze=False)
    for axes, (title, panel) in zip(rows[0], panels.items()):
        axes.imshow(panel, interpolation="nearest")
        axes.set_title(title)
        axes.axis("off")
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of matplotlib, in inches, that belongs to no window.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = optional("matplotlib.figure", "pictures need matplotlib: pip install 'eozip[picture]'")
    return figure.Figure(figsize=(width, height), layout="constrained")
