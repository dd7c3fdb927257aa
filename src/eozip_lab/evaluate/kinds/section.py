"""Figures by kind, natively on groups, as a section of the page that `eozip evaluate` makes; exact pixels and bounds too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from eozip.errors import InputError
from eozip_lab.evaluate.html_report import markup
from eozip_lab.evaluate.html_report.page import Section
from eozip_lab.evaluate.kinds import measure, tables

_ANCHOR, _TITLE = "kinds", "By kind of data, native samples counted"
_EXACT = "lossless.json"
_ABOUT = (
    "Open data that no codec was trained on; bits of all bytes over samples that an instrument measured (of cubes, whose 20 "
    "and 60 m bands were interpolated: all of them). A number is the bits of eozip over those of the best other codec at "
    "that PSNR."
)
_ABOUT_BYTES = (
    "At equal bytes: dB at the bytes with which eozip has 40 dB, and what the best other codec has there."
)
_ABOUT_EXACT = (
    "Every sample exact, natively on groups: bits a sample, and bytes over those of reversible pictures."
)
_ABOUT_BOUNDED = (
    "No sample off by more than so many DN, first date of each, natively: bits a sample. lossless uses no network, "
    "max-error is the default codec with corrections, or no network where that is smaller."
)


def page_section(folder: Path) -> Section:
    """Make the report's section of what lies in a folder: kinds/kinds.json, and lossless.json if it is there.

    Args:
        folder: such as results.

    Raises:
        InputError: no kinds.json of ours there, or a lossless.json that is none.
    """
    path = folder / "kinds" / measure.NAME
    if not path.is_file():
        raise InputError(f"{path}: no such file; run `eozip evaluate SETS.toml --out {path.parent}` first")
    return Section(_ANCHOR, _TITLE, markup.joined(_parts(measure.load(path), folder / _EXACT)))


def _parts(found: Sequence[measure.Found], exact: Path) -> Iterator[Markup]:
    yield markup.paragraph(_ABOUT)
    yield _table(*tables.psnr_cells(found))
    yield markup.paragraph(tables.means(found))
    lost = tables.losses(found)
    yield markup.folded(f"Where another codec is best ({len(lost)})", markup.bullets(lost, "losses"))
    yield markup.paragraph(_ABOUT_BYTES)
    yield _table(*tables.bytes_cells(found))
    every = f"Every contender: bits per sample at {tables.AT:g} dB"
    yield markup.folded(every, _table(*tables.everyone_cells(found)))
    if exact.is_file():
        yield from _exact(exact)


def _exact(path: Path) -> Iterator[Markup]:
    try:
        held = json.loads(path.read_text())
        rows, bounded = (
            list(map(_exact_row, held["rows"])),
            list(map(_bounded_row, held.get("bounded", []))),
        )
        ways = list(held["bounded"][0]["bytes"]) if bounded else []
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise InputError(
            f"{path}: expected what benchmarks/lossless.py writes, got {error!r}; run it again"
        ) from error
    yield markup.paragraph(_ABOUT_EXACT)
    yield _table(["data", "bits a sample", "over JPEG 2000", "over JPEG XL"], rows)
    if bounded:
        yield markup.paragraph(_ABOUT_BOUNDED)
        yield _table(["data", "no error over, DN", *ways], bounded)


def _exact_row(row: Mapping[str, Any]) -> list[str]:
    over = [f"{row['eozip'] / row[other]:.3f}" for other in ("jpeg2000", "jpegxl")]
    return [str(row["data"]), f"{8 * row['eozip'] / row['samples']:.3f}", *over]


def _bounded_row(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["data"]),
        str(row["error"]),
        *(f"{8 * size / row['samples']:.3f}" for size in row["bytes"].values()),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    return markup.table(head, [[markup.words(cell) for cell in row] for row in rows])
