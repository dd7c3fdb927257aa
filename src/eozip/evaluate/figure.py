"""Rate-distortion curves as a picture: log rate across, PSNR up, one panel a place and one for the means."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eozip.evaluate.sweep import Point, curves, mean_rate
from eozip.evaluate.tables import names, place_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEANS = np.arange(30.0, 56.0, 0.5)  # dB at which the means are drawn
# Okabe and Ito's palette: told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
BASELINE_STYLE: dict[str, Any] = {"linestyle": "--", "linewidth": 1.2}
OWN_STYLE: dict[str, Any] = {"linestyle": "-", "linewidth": 2.2}


def rd_figure(points: Sequence[Point], own: Sequence[str], title: str) -> bytes:
    """PNG of the curves.

    Args:
        points: of a sweep.
        own: contenders drawn as solid lines; the others are dashed.
        title: above the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places = place_names(points)
    figure = Figure(figsize=(5.2 * (1 + len(places)), 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 1 + len(places), sharey=True, squeeze=False)[0]
    for number, name in enumerate(names(points)):
        style = {"color": COLOURS[number % len(COLOURS)], **(OWN_STYLE if name in own else BASELINE_STYLE)}
        _draw_mean(panels[0], points, name, style)
        for panel, place in zip(panels[1:], places):
            _draw_place(panel, points, name, place, style)
    for panel, heading in zip(panels, ["mean over places of the rate", *places]):
        panel.set(xscale="log", xlabel="bits per pixel per band, all bytes", title=heading)
        panel.grid(True, which="both", alpha=0.25)
    panels[0].set_ylabel("PSNR, dB (peak 10,000 DN, all bands and dates)")
    panels[0].legend(fontsize="small")
    figure.suptitle(title)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    return png.getvalue()


def _draw_mean(panel: Axes, points: Sequence[Point], name: str, style: dict[str, Any]) -> None:
    found = [(rate, db) for db in MEANS if (rate := mean_rate(points, name, float(db))) is not None]
    panel.plot([rate for rate, _ in found], [db for _, db in found], label=name, **style)


def _draw_place(panel: Axes, points: Sequence[Point], name: str, place: str, style: dict[str, Any]) -> None:
    found = [point for point in sorted(curves(points, name)[place]) if np.isfinite(point[1])]
    panel.plot([rate for rate, _ in found], [db for _, db in found], marker=".", markersize=5, **style)
