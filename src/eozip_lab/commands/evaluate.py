"""`eozip evaluate DATA... --out FOLDER`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eozip import threads
from eozip.cli.common import CommaList, json_option, print_json, progress_bar, tell, threads_option
from eozip_lab import evaluate as evaluating
from eozip_lab import tasks as tasking

if TYPE_CHECKING:
    from eozip_lab.evaluate.evaluation import Plan
    from eozip_lab.evaluate.html_report.page import Section
    from eozip_lab.evaluate.methods import Method


class Numbers(CommaList):
    """Numbers separated by commas."""

    name = "n,n,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        if isinstance(value, list):
            return value
        try:
            return [float(part) for part in value.split(",")]
        except ValueError:
            return self.fail(f"expected numbers separated by commas, got {value!r}", param, ctx)


@click.command()
@click.argument("data", nargs=-1, type=click.Path(path_type=Path), metavar="[DATA...]")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the report; a killed run goes on.",
)
@click.option("--codecs", type=CommaList(), help="Codecs, by comma; default: all of the sensor; 'none'.")
@click.option("--baselines", type=CommaList(), help="Baselines, by comma; default: all; 'none'.")
@click.option("--qualities", type=Numbers(), help="Qualities of the codecs; default: 0,5,..,100.")
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Of a baseline's settings take each N-th, and the last: quicker, and coarser between.",
)
@click.option(
    "--size",
    type=click.IntRange(min=0),
    default=256,
    show_default=True,
    help="Side of the window taken from larger frames; 0 takes whole frames.",
)
@click.option(
    "--grid",
    type=click.IntRange(1, 32),
    default=1,
    show_default=True,
    help="So many windows a side, evenly spread, each a place; 1 is the top left one.",
)
@click.option("--bands", type=CommaList(), help="Bands to take, by name or position.")
@click.option("--sensor", help="Sensor whose bands these are, if the file does not name its bands.")
@click.option("--offset", type=int, help="Radiometric offset in DN; default: the file's.")
@click.option(
    "--nodata",
    type=int,
    help="DN of missing pixels, which count nowhere; default: the file's, and the sensor's (0) for .npz stacks.",
)
@click.option(
    "--crops",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Side of crops to keep for looking at, such as 128; 0 keeps none.",
)
@click.option(
    "--tasks-from",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder that `eozip evaluate-tasks` wrote: the page shows its results, too.",
)
@click.option(
    "--kinds-from",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with kinds/kinds.json, and lossless.json if there is one: the page shows them, too.",
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes.")
@threads_option
@json_option
def evaluate(
    data: tuple[Path, ...],
    out: Path,
    tasks_from: Path | None,
    kinds_from: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure codecs and baselines on your own images.

    DATA is GeoTIFFs, folders of them (dates of one place, or one place a folder; <place>_<number>.tif are
    dates of a place), or .npz stacks [T, C, H, W]. Writes FOLDER/report.json and report.html; finished points are kept, and
    the same command continues a run that was stopped. Without DATA nothing is measured, and report.html is made of the
    report in FOLDER. Or DATA is one .toml that lists sets by kind, natively on groups (docs/evaluation.md): then
    FOLDER/kinds.json and kinds.md are written.
    """

    if len(data) == 1 and data[0].suffix == ".toml":
        _by_kind(data[0], out, as_json, options)
        return
    more = [] if kinds_from is None else [evaluating.page_section(kinds_from)]
    more += [] if tasks_from is None else [tasking.page_section(tasks_from)]
    if not data:
        _page(out, more, as_json)
        return
    plan = _plan(data, options)
    with _Phases(quiet=as_json) as phases:
        sweep, crops = phases.begin("Evaluating", "points"), phases.begin("Crops", "files")
        report = evaluating.evaluate(
            plan, out, evaluating.Notices(sweep, crops, _say_unavailable, _say_left_out)
        )
        page = evaluating.write_report(out, phases.begin("Report", "parts"), more)
    if as_json:
        print_json({"report": str(out / evaluating.REPORT), "page": str(page), **_facts(report)})
    else:
        tell(f"{_text(report, out / evaluating.REPORT)}\nto look at: {page}")
    if report["failures"]:
        first = report["failures"][0]
        raise click.ClickException(
            f"{len(report['failures'])} points failed; the report lists them. The first: {first.method} at "
            f"{first.setting:g} on {first.place}: {first.error}"
        )


def _page(out: Path, more: Sequence[Section], as_json: bool) -> None:
    with _Phases(quiet=as_json) as phases:
        page = evaluating.write_report(out, phases.begin("Report", "parts"), more)
    if as_json:
        print_json({"page": str(page)})
    else:
        tell(f"to look at: {page}")


def _by_kind(listing: Path, out: Path, as_json: bool, options: dict[str, Any]) -> None:
    """Codecs, baselines and qualities as asked for; other options are for images."""
    from eozip_lab.evaluate.kinds import contenders, measure, sets, tables  # slow to import
    from eozip_lab.evaluate.provenance import write_text  # likewise

    threads.choose(options["threads"])
    qualities = _qualities(options["qualities"]) or contenders.QUALITIES
    names = _names(options["codecs"])
    ways = [contenders.own(name, qualities) for name in (contenders.OWN if names is None else names)]
    ways += contenders.classical(_names(options["baselines"]))
    listed = sets.listed(listing)
    absent = {one.name: missing for one in listed if (missing := one.missing())}
    for name, missing in absent.items():
        _say_left_out(f"{name}: no {', '.join(missing)}")
    there = [sets.read(one) for one in listed if one.name not in absent]
    with _Phases(quiet=as_json) as phases:
        progress = phases.begin("Evaluating", "pairs")
        found = measure.measured(there, ways, out / measure.NAME, progress, absent)
    write_text(out / "kinds.md", tables.page(found))
    if as_json:
        print_json({"points": str(out / measure.NAME), "tables": str(out / "kinds.md"), "sets": len(found)})
    else:
        tell(f"{out / 'kinds.md'}: {len(found)} sets\n\n{tables.equal_psnr(found)}")


class _Phases:
    """Progress bars one after the other: the first call for a phase ends the bar of the one before."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._shown, self._stack = quiet, "", ExitStack()

    def __enter__(self) -> _Phases:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def begin(self, title: str, unit: str) -> Callable[[int, int], None]:
        """The callback of a phase; its bar appears when it is called."""
        current: list[Callable[[int, int], None]] = []

        def update(done: int, total: int) -> None:
            if self._shown != title:
                self._stack.close()
                current[:] = [self._stack.enter_context(progress_bar(title, unit, self._quiet))]
                self._shown = title
            current[0](done, total)

        return update


def _plan(data: tuple[Path, ...], options: dict[str, Any]) -> Plan:

    bands = tuple(options["bands"]) if options["bands"] else None
    reading = evaluating.Reading(
        options["size"] or None,
        options["grid"],
        bands,
        options["sensor"],
        options["offset"],
        options["nodata"],
    )
    return evaluating.Plan(
        data,
        reading,
        _names(options["codecs"]),
        _names(options["baselines"]),
        _qualities(options["qualities"]),
        options["jobs"],
        options["threads"],
        options["crops"],
        every=options["every"],
    )


def _names(values: list[str | int] | None) -> tuple[str, ...] | None:
    if values is None:
        return None
    return () if values == ["none"] else tuple(map(str, values))


def _qualities(values: list[float] | None) -> tuple[float, ...] | None:
    if values is not None and not all(0 <= value <= 100 for value in values):
        raise click.BadParameter(f"expected qualities of 0 to 100, got {values}", param_hint="--qualities")
    return None if values is None else tuple(values)


def _say_unavailable(found: list[Method]) -> None:
    for method in found:
        if not method.available:
            tell(f"{method.id}: left out: {method.reason}", err=True)


def _say_left_out(why: str) -> None:
    tell(f"left out: {why}", err=True)


def _facts(report: dict[str, Any]) -> dict[str, Any]:
    summary = report["summary"]
    return {
        "points": report["run"]["points"],
        "resumed": report["run"]["resumed"],
        "failures": len(report["failures"]),
        "places": [place["name"] for place in report["places"]],
        "unavailable": {m.id: m.reason for m in report["methods"] if not m.available},
        "mean_bpppb": {
            name: {db: cell["mean"] for db, cell in rates.items()}
            for name, rates in summary["rates_at_psnr"].items()
        },
    }


def _text(report: dict[str, Any], path: Path) -> str:
    facts, count = report["run"], len(report["places"])
    means = _facts(report)["mean_bpppb"]
    width, dbs = max(map(len, means)), next(iter(means.values()))
    rows = ["  ".join([name.ljust(width), *map(_cell, rates.values())]) for name, rates in means.items()]
    return "\n".join(
        [
            f"{path}: {facts['points']} points on {count} places, {facts['resumed']} of them from before",
            "bits per pixel and band at equal PSNR (peak 10,000 DN), mean over places:",
            "  ".join(["".ljust(width), *(f"{db} dB".rjust(8) for db in dbs)]),
            *rows,
        ]
    )


def _cell(rate: float | None) -> str:
    return ("-" if rate is None else f"{rate:.4f}").rjust(8)
