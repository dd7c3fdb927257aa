"""Pieces of HTML, made by Jinja2 from macros.html, which escapes every text.

A cell with a number names where in report.json its value lies, so that anyone can check the two.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from eozip.lazy import optional
from eozip_lab.evaluate.html_report.data import Key, Report, pointer

_MISSING = "-"


@cache
def environment() -> Environment:
    """Templates of this folder; what they are given is escaped unless it is `Markup`."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def number(report: Report, digits: str, *keys: Key) -> Markup:
    """A cell with the value under some keys of report.json.

    Args:
        report: where it is from.
        digits: format such as ".4f"; never rescales, so that text and JSON compare.
        keys: keys of the value; missing and null are shown as "-".
    """
    return _piece("number", pointer(*keys), _shown(report.at(*keys), digits))


def interval(report: Report, digits: str, *keys: Key) -> Markup:
    """A cell "low to high" of the object under some keys."""
    return _two(report, digits, keys, ("low", "high"), " to ")


def counts(report: Report, *keys: Key) -> Markup:
    """A cell "places of of": how many places a mean is over."""
    return _two(report, "d", keys, ("places", "of"), " of ")


def words(value: Any) -> Markup:
    """A cell of text."""
    return _piece("words", value)


def name(value: str, own: bool = False) -> Markup:
    """A row's heading; codecs of eozip are bold."""
    return _piece("name", value, own)


def table(head: Sequence[str], rows: Sequence[Sequence[Markup]], caption: str = "") -> Markup:
    """A table that scrolls sideways if it must; cells are markup, headings text."""
    return _piece("table", head, rows, caption)


def paragraph(text: str) -> Markup:
    """Text."""
    return _piece("paragraph", text)


def heading(text: str) -> Markup:
    """A heading within a section."""
    return _piece("heading", text)


def bullets(sentences: Sequence[str], kind: str = "") -> Markup:
    """A list of sentences; nothing if there are none."""
    return _piece("bullets", sentences, kind)


def folded(summary: str, *parts: Markup) -> Markup:
    """Parts that open at a click."""
    return _piece("folded", summary, parts)


def image(data: bytes, kind: str, alt: str) -> Markup:
    """A picture within the page; kind: "webp"."""
    return _piece("image", alt, data_uri(data, kind))


def viewer() -> Markup:
    """The elements that page.js fills with pictures."""
    return _piece("viewer")


def joined(parts: Iterable[Markup]) -> Markup:
    """Parts one after the other."""
    return Markup().join(parts)


def lossless_webp(picture: np.ndarray, method: int) -> bytes:
    """WebP of uint8 [h, w, 3] without loss; `method` is the effort, 0..6.

    Raises:
        InputError: imagecodecs is not installed.
    """
    imagecodecs = optional("imagecodecs", "the report needs imagecodecs: pip install 'eozip[evaluate]'")
    return bytes(imagecodecs.webp_encode(np.ascontiguousarray(picture), lossless=True, method=method))


def drawing(module: str = "matplotlib") -> Any:
    """matplotlib, or a module of it.

    Raises:
        InputError: matplotlib is not installed.
    """
    return optional(module, "the report needs matplotlib: pip install 'eozip[evaluate]'")


def data_uri(data: bytes, kind: str) -> str:
    """Bytes of an image as an address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@cache
def _macros() -> Any:
    return environment().get_template("macros.html").module


def _piece(macro: str, *arguments: Any) -> Markup:
    return getattr(_macros(), macro)(*arguments)


def _two(report: Report, digits: str, keys: tuple[Key, ...], ends: tuple[str, str], between: str) -> Markup:
    cells = [(pointer(*keys, end), _shown(report.at(*keys, end), digits)) for end in ends]
    return _piece("numbers", cells, between)


def _shown(value: float | None, digits: str) -> str:
    return _MISSING if value is None else format(value, digits)
