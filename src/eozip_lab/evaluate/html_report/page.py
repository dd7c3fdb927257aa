"""One self-contained page from a report's numbers and crops: no network, no script or font from elsewhere.

    write_report(Path("report"))        # report/report.json, report/crops/ > report/report.html, report/figures/

`data` reads, `sentences` puts numbers into words, `tables` and `plots` show them,
`crops` makes the viewer's pictures; page.html, macros.html, page.css and page.js are the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from eozip_lab.evaluate.html_report import plots, sentences, tables
from eozip_lab.evaluate.html_report.crops import viewer_data
from eozip_lab.evaluate.html_report.data import AT, Report, load_report
from eozip_lab.evaluate.html_report.markup import (
    bullets,
    environment,
    heading,
    image,
    joined,
    paragraph,
    viewer,
    words,
)
from eozip_lab.evaluate.html_report.markup import table as html_table
from eozip_lab.evaluate.html_report.sentences import beginnings, bound_verdicts, place_losses, verdicts
from eozip_lab.evaluate.provenance import write_bytes, write_text

NAME, _FIGURES, _VIEWER = "report.html", "figures", "viewer"
_MOST_BYTES = 3_000_000  # of the page: people mail it
_RESERVE = 100_000  # of them for what surrounds sections
_MOST_ROWS = 1000  # of all points, and of every pair and place

_Progress = Callable[[int, int], None]
"""Called with parts done and in all."""


@dataclass(frozen=True)
class Section:
    """A part of the page that the report's numbers do not make.

    Attributes:
        anchor: short, unique; its address within the page.
        title: a heading.
        body: markup, with its pictures in it.
    """

    anchor: str
    title: str
    body: Markup


_LEGEND = "Codecs of eozip are solid lines, baselines broken ones."
_BD = (
    "Percent of rate at equal PSNR (below 0: fewer bits), dB at equal rate. Averaged over the range that both curves "
    "cover; a small share of the reference's range says little."
)


def write_report(
    folder: str | Path, progress: _Progress = lambda done, total: None, more: Sequence[Section] = ()
) -> Path:
    """Make FOLDER/report.html of FOLDER/report.json and its crops; an older one is replaced when it is complete.

    The page's plots are written beside it, FOLDER/figures/*.svg.

    Args:
        folder: where `eozip evaluate` wrote.
        progress: called with parts of the page done and in all.
        more: what else it shall have, between the report's own words and its figures.

    Returns:
        the page's path.

    Raises:
        InputError: no report.json of this schema, a crop that cannot be read, or matplotlib is not installed.
        OutputError: the page cannot be written.
    """
    path, report = Path(folder) / NAME, load_report(folder)
    drawn = plots.plots(report)
    text = page(report, drawn, progress, more)
    for name, plot in drawn.items():
        write_bytes(path.parent / _FIGURES / f"{name}.svg", plot.svg)
    write_text(path, text)
    return path


def page(
    report: Report,
    drawn: Mapping[str, plots.Plot],
    progress: _Progress = lambda done, total: None,
    more: Sequence[Section] = (),
) -> str:
    """The page as text, below `_MOST_BYTES`: pictures get what numbers leave; `drawn`: its plots."""
    first, *others = _sections(report, drawn, progress)
    told = [{"anchor": one.anchor, "title": one.title, "body": one.body} for one in more]
    sections = [first, *told, *others]
    left = _MOST_BYTES - _RESERVE - sum(len(section["body"].encode()) for section in sections)
    pictures = viewer_data(report, max(left, 0))
    for section in sections:
        section["body"] = _viewer(report, pictures) if section["anchor"] == _VIEWER else section["body"]
    return (
        environment()
        .get_template("page.html")
        .render(
            title=_title(report),
            style=Markup(_part("css")),
            script=Markup(_part("js")),
            sections=sections,
            data=Markup(
                json.dumps(pictures).replace("<", "\\u003c")
            ),  # "</script>" in a name would end the script
        )
    )


def _sections(report: Report, drawn: Mapping[str, plots.Plot], progress: _Progress) -> list[dict[str, str]]:
    """Each section's anchor, title and body; the pictures come last, into the room that is left."""
    sections = {
        "words": ("In words", lambda: _findings(report)),
        "rd": ("Rate-distortion", lambda: _curves(drawn["rd"].webp)),
        "bits": ("Bits at equal quality", lambda: _bits(report, drawn["bits"].webp)),
        "bounds": ("Largest error promised", lambda: _bounds(report)),
        "bd": (
            "Bjontegaard differences",
            lambda: paragraph(_BD) + tables.bd_table(report, _is_small(report)),
        ),
        "speed": (f"Speed against rate at {AT} dB", lambda: _speed(report, drawn["speed"].webp)),
        "bands": ("PSNR of each band", lambda: _bands(report, drawn["bands"].webp)),
        _VIEWER: ("Pictures", Markup),
        "metrics": (f"Other metrics at {AT} dB", lambda: tables.metric_tables(report)),
        "spans": ("Span of the settings", lambda: tables.span_table(report)),
        "made": ("How it was made", lambda: _made(report)),
    }
    made = []
    for done, (anchor, (title, body)) in enumerate(sections.items()):
        progress(done, len(sections))
        made.append({"anchor": anchor, "title": title, "body": body()})
    progress(len(sections), len(sections))
    return made


def _title(report: Report) -> str:
    return f"eozip evaluate: {_count(len(report.methods), 'method')} on {_count(len(report.places), 'place')}"


def _findings(report: Report) -> Markup:
    rates = report.data["summary"]["rates_at_psnr"]
    losses = [
        *place_losses(rates, report.codecs, beginnings(report.data["points"])),
        *sentences.metric_losses(report),
        *sentences.reach_sentences(report),
    ]
    return joined(
        [
            paragraph("Every sentence is generated from report.json; rates are means over all places."),
            bullets(verdicts(rates, report.codecs, beginnings(report.data["points"]))),
            bullets(bound_verdicts(report.at("summary", "at_bound") or {}, report.codecs)),
            bullets([*sentences.ratio_sentences(report), *sentences.few_places(report)]),
            heading("Where a baseline wins"),
            bullets(losses, "losses") or paragraph("Nowhere in what was measured."),
            heading("What is missing"),
            bullets(sentences.gaps(report)) or paragraph("Nothing that was asked for."),
        ]
    )


def _curves(webp: bytes) -> Markup:
    return _plot(webp, "PSNR over rate") + paragraph(_LEGEND)


def _bits(report: Report, webp: bytes) -> Markup:
    note = "Large dots: mean over places, where every place is reached; small dots: every place. "
    ratios = (
        "Bits of the codec / bits of the other, geometric mean over places; interval: bootstrap over places."
    )
    return joined(
        [
            _plot(webp, "bits per pixel per band at equal PSNR"),
            paragraph(note + _definition(report, "rate")),
            tables.rate_tables(report),
            paragraph(ratios),
            tables.ratio_table(report),
        ]
    )


def _bounds(report: Report) -> Markup:
    note = (
        "Bits per pixel per band where no pixel may be off by more than so many DN (0: every pixel exact), mean over "
        "places; methods that promise no such thing are not here, whatever their largest error was."
    )
    return paragraph(note) + tables.bound_table(report)


def _speed(report: Report, webp: bytes) -> Markup:
    note = (
        "Crosses: every place; dots: geometric mean. CPU time of all threads in one run per point, model loaded: other "
        "work on the machine hardly changes it. An order of magnitude, not a benchmark."
    )
    return _plot(webp, f"MPx per CPU second over rate at {AT} dB") + paragraph(note)


def _bands(report: Report, webp: bytes) -> Markup:
    plot = _plot(webp, f"PSNR of each band at {AT} dB overall")
    return plot + tables.band_tables(report)


def _viewer(report: Report, pictures: dict[str, Any]) -> Markup:
    if not pictures["places"]:
        return paragraph("No crops were stored.")
    note = (
        "Move the slider: original, then the middle method comes in from the left, then the right one. Of each method the "
        "point nearest in bytes to the reference's is shown, nothing is interpolated; bytes and PSNR are those of the "
        "whole place, the pictures its middle."
    )
    left_out = pictures["left_out"]
    kept = f"Pictures of {', '.join(left_out)} would make the page too large: see crops/." if left_out else ""
    return paragraph(note) + (paragraph(kept) if kept else Markup()) + viewer()


def _made(report: Report) -> Markup:
    made = report.data["provenance"]
    facts = {
        "command": made["command"],
        "when": made["when"],
        "commit": made["commit"],
        "versions": ", ".join(f"{name} {text}" for name, text in made["versions"].items()),
        "machine": ", ".join(f"{name}: {text}" for name, text in made["machine"].items()),
        "run": ", ".join(f"{name}: {text}" for name, text in (report.at("run") or {}).items()),
        **{f"definition: {name}": text for name, text in report.data["definitions"].items()},
    }
    rows = [[words(name), words(text)] for name, text in facts.items()]
    first = [tables.place_table(report), tables.method_table(report)]
    points = tables.point_table(report) if _is_small(report) else paragraph("Every point: report.json.")
    return html_table(["", ""], rows) + joined(first) + points


def _is_small(report: Report) -> bool:
    """Whether tables of every point and place leave room for the rest."""
    pairs = report.data["summary"]["pairs"]
    return len(report.data["points"]) + len(pairs) * len(report.places) <= _MOST_ROWS


def _definition(report: Report, name: str) -> str:
    return str(report.at("definitions", name) or "")


def _plot(webp: bytes, alt: str) -> Markup:
    return image(webp, "webp", alt)


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _part(ending: str) -> str:
    return (
        resources.files("eozip_lab.evaluate.html_report")
        .joinpath(f"page.{ending}")
        .read_text(encoding="utf-8")
    )
