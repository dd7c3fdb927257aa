"""Results of tasks as a section of the page that `eozip evaluate` makes: what tasks.md says, its pictures in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from eozip.errors import InputError
from eozip_lab.evaluate.html_report import markup
from eozip_lab.evaluate.html_report.page import Section
from eozip_lab.tasks import report

_ANCHOR, _TITLE = "tasks", "What it does to the work that follows"


def page_section(folder: Path) -> Section:
    """Make the report's section of what `eozip evaluate-tasks` wrote into a folder.

    Raises:
        InputError: no tasks.json of ours there, or one of its pictures is missing.
    """
    document = report.load(folder / report.NAME)
    return Section(_ANCHOR, _TITLE, markup.joined(_parts(document, folder)))


def _parts(document: Mapping[str, Any], folder: Path) -> Iterator[Markup]:
    head, rows = report.headlines(document)
    yield markup.paragraph(_plain(report.preface(document)))
    yield markup.table(head, [[markup.words(_plain(cell)) for cell in row] for row in rows])
    yield markup.bullets([_plain(told) for told in report.verdicts(document)])
    gallery = document.get("gallery", ())
    if gallery:
        yield markup.heading("The worst failures")
        yield markup.paragraph(report.GALLERY)
    for subject, shown in report.by_subject(gallery).items():
        yield markup.folded(subject, *_pictures(shown, folder))


def _pictures(shown: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[Markup]:
    for one in shown:
        path = folder / report.FOLDER / one["file"]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}); run `eozip evaluate-tasks` again"
            ) from error
        told = _plain(report.caption(one))
        yield markup.image(data, "webp", told)
        yield markup.paragraph(told)


def _plain(text: str) -> str:
    """Markdown's marks taken off."""
    return text.replace("`", "").replace("**", "").removeprefix("- ").strip()
