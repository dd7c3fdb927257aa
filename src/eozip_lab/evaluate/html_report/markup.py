"""Pieces of HTML. A number cell names where in report.json its value lies, so that anyone can check the two."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

from eozip_lab.evaluate.html_report.data import Key, Report, pointer

MISSING = "-"


def number(report: Report, digits: str, *keys: Key) -> str:
    """A cell with the value under some keys of report.json.

    Args:
        report: where it is from.
        digits: format such as ".4f"; never rescales, so that text and JSON compare.
        keys: keys of the value; missing and null are shown as "-".
    """
    shown = _shown(report.at(*keys), digits)
    return f'<td class="n" data-at="{escape(pointer(*keys))}">{shown}</td>'


def interval(report: Report, digits: str, *keys: Key) -> str:
    """A cell "low to high" of the object under some keys."""
    return _two(report, digits, keys, ("low", "high"), " to ")


def counts(report: Report, *keys: Key) -> str:
    """A cell "places of of": how many places a mean is over."""
    return _two(report, "d", keys, ("places", "of"), " of ")


def words(value: Any) -> str:
    """A cell of text."""
    return f"<td>{escape(str(value))}</td>"


def name(value: str, own: bool = False) -> str:
    """A row's heading; codecs of eozip are bold."""
    return f'<th scope="row"{" class=own" if own else ""}>{escape(value)}</th>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table that scrolls sideways if it must; cells are HTML, headings text."""
    heading = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in rows)
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{above}<thead><tr>{heading}</tr></thead>\n<tbody>{body}</tbody></table></div>\n'


def section(anchor: str, title: str, *parts: str) -> str:
    """A section with its heading."""
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>\n{"".join(parts)}</section>\n'


def paragraph(text: str) -> str:
    """Text."""
    return f"<p>{escape(text)}</p>\n"


def bullets(sentences: Sequence[str], kind: str = "") -> str:
    """A list of sentences; nothing if there are none."""
    items = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in sentences)
    return f'<ul class="{kind}">{items}</ul>\n' if items else ""


def folded(summary: str, *parts: str) -> str:
    """Parts that open at a click."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>\n"


def image(data: bytes, kind: str, alt: str) -> str:
    """A picture within the page; kind: "svg+xml" or "png"."""
    return f'<img class="plot" alt="{escape(alt)}" src="{data_uri(data, kind)}">\n'


def data_uri(data: bytes, kind: str) -> str:
    """Bytes of an image as an address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _two(report: Report, digits: str, keys: tuple[Key, ...], ends: tuple[str, str], between: str) -> str:
    spans = [
        f'<span data-at="{escape(pointer(*keys, end))}">{_shown(report.at(*keys, end), digits)}</span>'
        for end in ends
    ]
    return f'<td class="n">{between.join(spans)}</td>'


def _shown(value: float | None, digits: str) -> str:
    return MISSING if value is None else format(value, digits)
