"""The report's plots, drawn by matplotlib: SVG with outlined text for files, WebP, a fifth of that, for the page."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eozip_lab.evaluate.html_report.data import AT, Report, geometric_mean
from eozip_lab.evaluate.html_report.markup import drawing, lossless_webp
from eozip_lab.evaluate.rate import mean_rate_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

MEANS = np.arange(30.0, 56.0, 0.5)  # dB at which the means are drawn
# Okabe and Ito's palette: told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES = ("--", ":", "-.")  # of baselines: colours repeat with another dash
_BASELINE_STYLE: dict[str, Any] = {"linestyle": "--", "linewidth": 1.2}
OWN_STYLE: dict[str, Any] = {"linestyle": "-", "linewidth": 2.2}


_COLUMNS = 3  # panels side by side
_DOTS = 130  # an inch, of the page's pictures


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        svg: a file of its own.
        webp: the same as pixels.
    """

    svg: bytes
    webp: bytes


def plots(report: Report) -> dict[str, Plot]:
    """Everything below by name."""
    drawn = {"rd": _rd_plot, "bits": _bits_plot, "speed": _speed_plot, "bands": _band_plot}
    return {name: draw(report) for name, draw in drawn.items()}


def _rd_plot(report: Report) -> Plot:
    """PSNR over log rate; the mean over places, then every place."""
    figure, panels = _panels(1 + len(report.places), (4.6, 3.9))
    for method in _curved(report):
        curves = [report.curve(method, place) for place in report.places]
        _draw_mean(panels[0], curves, _style(report, method))
        for panel, curve in zip(panels[1:], curves):
            panel.plot(*_columns(curve), marker=".", markersize=4, **_style(report, method))
    for panel, title in zip(panels, ["mean over places of the rate", *report.places]):
        panel.set_title(_literal(title), fontsize="medium")
        panel.set(xlabel="bits per pixel per band (log)", ylabel="PSNR, dB")
        _scale(panel, xscale="log")
        panel.grid(True, which="both", alpha=0.25)
    return _drawn(figure, legend=panels)


def _bits_plot(report: Report) -> Plot:
    """a panel for each PSNR; a large dot for each method that reaches it everywhere, a small one for each place."""
    dbs, methods = report.dbs or [AT], _curved(report)
    figure, panels = _panels(len(dbs), (4.2, 1.6 + 0.22 * len(methods)))
    for number, (panel, db) in enumerate(zip(panels, dbs)):
        for row, method in enumerate(methods):
            _draw_rate(panel, report, method, db, row)
        names = [_literal(method) for method in methods] if number % _COLUMNS == 0 else []
        panel.set_yticks(range(len(methods)), names or [""] * len(methods))
        panel.set_ylim(len(methods) - 0.5, -0.5)
        panel.margins(x=0.25)  # for the numbers
        panel.set_title(f"{db} dB", fontsize="medium")
        _scale(panel, xscale="log")
        panel.set_xlabel("bits per pixel per band (log)")
        panel.grid(True, axis="both", alpha=0.25)
    return _drawn(figure)


def _speed_plot(report: Report) -> Plot:
    """encode and decode MPx per CPU second over the rate at 40 dB; crosses: places, dots: geometric means."""
    figure, panels = _panels(2, (6.4, 5.4))
    for panel, field in zip(panels, ("encode_mpx_cpu_s", "decode_mpx_cpu_s")):
        for method in report.methods:
            _draw_speed(panel, report, method, field)
        _scale(panel, xscale="log", yscale="log")
        panel.set_xlabel(f"bits per pixel per band at {AT} dB (log)")
        panel.set_ylabel(f"{field.partition('_')[0]}, MPx per CPU second (log)")
        panel.grid(True, which="both", alpha=0.25)
    return _drawn(figure)


def _band_plot(report: Report) -> Plot:
    """PSNR of each band where the overall PSNR is 40 dB, a panel a place."""
    figure, panels = _panels(len(report.places), (5.6, 3.9))
    for panel, place in zip(panels, report.data["places"]):
        for method in report.methods:
            found = report.at("summary", "at_psnr", AT, method, place["name"], "band_psnr")
            if found is not None:
                values = [math.nan if db is None else db for db in found]
                panel.plot(range(len(values)), values, marker=".", **_style(report, method))
        panel.set_title(_literal(place["name"]), fontsize="medium")
        panel.set_xticks(range(len(place["bands"])), place["bands"], fontsize="small")
        panel.set_ylabel("PSNR of the band, dB")
        panel.grid(True, alpha=0.25)
        _scale(panel)
    return _drawn(figure, legend=panels)


def _draw_mean(panel: Axes, curves: list[list[tuple[float, float]]], style: dict[str, Any]) -> None:
    whole = all(len(curve) >= 2 for curve in curves)
    found = [(mean_rate_at(curves, float(db)), float(db)) for db in MEANS] if whole else []
    panel.plot(*_columns([(rate, db) for rate, db in found if rate is not None]), **style)


def _draw_rate(panel: Axes, report: Report, method: str, db: str, row: int) -> None:
    cell = report.at("summary", "rates_at_psnr", method, db) or {"mean": None, "places": {}}
    colour = "#0072B2" if method in report.codecs else "#777777"
    places = [rate for rate in cell["places"].values() if rate is not None]
    panel.plot(places, [row] * len(places), linestyle="", marker="o", markersize=2.5, color="black")
    if cell["mean"] is not None:
        panel.plot([cell["mean"]], [row], linestyle="", marker="o", markersize=7, color=colour, alpha=0.7)
        at = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": "x-small"}
        panel.annotate(f"{cell['mean']:.4f}", (max(places), row), **at)


def _curved(report: Report) -> list[str]:
    """Methods that reach some PSNR of the summary on some place: those that promise exactness alone do not."""
    rates = report.data["summary"]["rates_at_psnr"]
    reached = {m for m, row in rates.items() for cell in row.values() if any(cell["places"].values())}
    return [method for method in report.methods if method in reached]


def _draw_speed(panel: Axes, report: Report, method: str, field: str) -> None:
    places = (report.at("summary", "at_psnr", AT, method) or {}).values()
    found = [(row["bpppb"], row[field]) for row in places if row and row.get(field)]
    own = method in report.codecs
    marker = {"color": "#0072B2" if own else "#555555", "linestyle": ""}
    panel.plot(*_columns(found), marker="x", markersize=4, alpha=0.5, **marker)
    if found:
        centre = tuple(geometric_mean(list(axis)) for axis in zip(*found))
        panel.plot(*_columns([centre]), marker="o", markersize=9 if own else 6, **marker)
        at = {"xytext": (6, 3), "textcoords": "offset points", "fontsize": "x-small"}
        panel.annotate(_literal(method), centre, color=marker["color"], **at)


def _style(report: Report, method: str) -> dict[str, Any]:
    """Codecs solid and wide, baselines broken; colours repeat with another dash."""
    number = report.methods.index(method)
    style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "label": _literal(method)}
    if method in report.codecs:
        return {**style, "linestyle": "-", "linewidth": 2.2}
    return {**style, "linestyle": DASHES[number // len(COLOURS) % len(DASHES)], "linewidth": 1.2}


def _scale(panel: Axes, **scales: str) -> None:
    """Sets scales where something was drawn (a log axis without values cannot be); else says so."""
    if any(len(line.get_xdata()) for line in panel.lines):
        panel.set(**scales)
        for name in scales:
            _plain_numbers(getattr(panel, f"{name[0]}axis"))
    else:
        panel.text(0.5, 0.5, "reached by no method", ha="center", transform=panel.transAxes)
        panel.set(xticks=[], yticks=[])


def _plain_numbers(axis: Axis) -> None:
    """0.02, 0.05, 0.1 on a logarithmic axis."""
    ticker = drawing("matplotlib.ticker")
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _literal(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")


def _columns(points: Sequence[tuple[float, ...]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def _panels(count: int, size: tuple[float, float], columns: int = _COLUMNS) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, each `size` inches, in rows."""
    wide = min(count, columns)
    rows = -(-count // wide)
    figure = drawing("matplotlib.figure").Figure(
        figsize=(wide * size[0], rows * size[1]), layout="constrained"
    )
    drawing("matplotlib.backends.backend_svg").FigureCanvasSVG(figure)
    panels = list(figure.subplots(rows, wide, squeeze=False).flat)
    for unused in panels[count:]:
        unused.remove()
    return figure, panels[:count]


def _drawn(figure: Figure, legend: Sequence[Axes] = ()) -> Plot:
    """The figure, the same for the same numbers."""
    entries = {text: line for panel in legend for line, text in zip(*panel.get_legend_handles_labels())}
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4, fontsize="small")
    out = io.BytesIO()
    with drawing().rc_context({"svg.hashsalt": "eozip", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    figure.set_dpi(_DOTS)
    canvas = drawing("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    canvas.draw()
    return Plot(out.getvalue(), lossless_webp(np.asarray(canvas.buffer_rgba())[..., :3], 4))
