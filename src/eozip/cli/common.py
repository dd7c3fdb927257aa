"""What commands share: options, numbers for people, JSON for programs, a progress bar for long runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from eozip import threads
from eozip.arguments import Place, counted, place
from eozip.errors import InputError

_SHOW_AFTER = 2.0
"""Seconds before a progress bar appears: short runs stay quiet."""
_SAY_AGAIN = 60.0
"""Seconds between lines of progress where there is no terminal."""

RASTER = click.Path(path_type=str)
"""A file, a folder, or a name that GDAL resolves (/vsizip//..., https://...): a pathlib path would lose a slash."""


class _StorePath(click.ParamType[Any]):
    """A store on this machine, or on an object store.

    Args:
        reading: nothing is written there: a store that a web server holds will do.
    """

    name = "path"

    def __init__(self, reading: bool = False) -> None:
        self._reading = reading

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        return place(param.name if param and param.name else self.name, value, reading=self._reading)


STORE, READ_STORE = _StorePath(), _StorePath(reading=True)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else."
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
threads_option = click.option("--threads", type=click.IntRange(min=1), help="CPU threads of the networks.")

_UNITS = ("B", "kB", "MB", "GB", "TB")


class Size(click.ParamType[int]):
    """Bytes such as 200kB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        from eozip.purpose import parse_size  # slow to import

        try:
            return parse_size(value)
        except InputError as error:
            self.fail(str(error), param, ctx)


class CommaList(click.ParamType[Any]):
    """Values separated by commas; whole numbers are positions, counted from 1."""

    name = "a,b,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[str | int]:
        if isinstance(value, list):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(parts):
            self.fail(f"expected values separated by commas, got {value!r}", param, ctx)
        positions = [counted(part) for part in parts]
        return [
            part if position is None else position for part, position in zip(parts, positions, strict=True)
        ]


class NumberList(click.ParamType[Any]):
    """So many numbers separated by commas.

    Args:
        count: how many.
    """

    name = "numbers"

    def __init__(self, count: int) -> None:
        self.count = count

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        if isinstance(value, list):
            return value
        try:
            found = [float(part) for part in value.split(",")]
        except ValueError:
            found = []
        if len(found) != self.count:
            self.fail(f"expected {self.count} numbers separated by commas, got {value!r}", param, ctx)
        return found


def say(note: str) -> None:
    """A sentence that a person should read, on stderr."""
    tell(f"Note: {note}", err=True)


def tell(text: str, err: bool = False) -> None:
    """Print text for people: names in it may come from strangers' files, and do nothing to a terminal."""
    click.echo(shown(text), err=err)


def shown(text: str, also: str = "\n") -> str:
    """Text whose characters can all be seen: others are spelt as in Python.

    Args:
        text: any.
        also: characters that may stay although they cannot be seen.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in also else c.encode("unicode_escape").decode() for c in text)


def print_json(document: dict[str, Any]) -> None:
    """One object on stdout."""
    click.echo(json.dumps(document, allow_nan=False))


def use_threads(count: int | None) -> None:
    """Bounds the CPU threads of this process."""
    threads.choose(count)


def many(count: int, noun: str) -> str:
    """Such as `1 date` or `3 dates`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def speed_text(mpx_per_s: float) -> str:
    """Such as `0.017 MPx/s`: two digits that say something, however slow it was."""
    return f"{mpx_per_s:.2g} MPx/s" if mpx_per_s < 1 else f"{mpx_per_s:.1f} MPx/s"


def bytes_text(count: int) -> str:
    """Such as `12.3 MB` (decimal)."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}" if unit else f"{count} B"


def decibels(value: float | None) -> str:
    """Such as `41.23 dB`; equal pixels have no PSNR."""
    return "exact" if value is None else f"{value:.2f} dB"


def day(date: str | None) -> str | None:
    """An ISO date for people, without a time of midnight: most such are known to the day only."""
    return None if date is None else date.removesuffix("T00:00:00")


def date_table(
    dates: Sequence[str | None],
    psnr: Sequence[float | None],
    bits: Sequence[float | None] = (),
    pixels: int = 1,
    dropped: Sequence[float] = (),
    first: int = 0,
) -> list[str]:
    """One line a date: what it costs and how good it is.

    Args:
        dates: [T] ISO, None where unknown.
        psnr: [T] dB; None: exact.
        bits: [T] estimated bits; None where the codec cannot tell; empty or all None: no such column.
        pixels: pixels of a date, all bands.
        dropped: [T] share of pixels that are forecast; empty: no such column.
        first: dates of the store before these.
    """
    is_told = any(one is not None for one in bits)
    title = "  date                 PSNR" + ("   dropped" if dropped else "")
    title += "      estimated bits per pixel and band" if is_told else ""
    lines = [title] if dates else []
    for t, (date, value) in enumerate(zip(dates, psnr)):
        cost = f"   {_cost(bits[t], pixels)}" if is_told else ""
        quality = "-" if dropped and dropped[t] and value is None else decibels(value)
        left_out = f"  {100 * dropped[t]:6.1f} %" if dropped else ""
        lines.append(f"  {day(date) or f'number {first + t + 1}':19}  {quality:>8}{left_out}{cost}")
    if any(one is None for one in bits):
        which = "where that is not told, " if is_told else ""
        lines.append(f"  what a date cost: {which}unknown, as its codec does not tell dates of a group apart")
    return lines


def _cost(bits: float | None, pixels: int) -> str:
    if bits is None:
        return "-"
    return f"{bits / pixels:.4f} ({bytes_text(round(bits / 8))})"


@contextmanager
def progress_bar(title: str, unit: str, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that appears after two seconds; where that is no terminal, a line then and each minute.

    Args:
        title: what is going on.
        unit: what is counted.
        quiet: never show it.

    Yields:
        a callback for counts done and in all.
    """
    bar = _Bar(title, unit, quiet)
    try:
        yield bar.update
    finally:
        bar.stop()


class _Bar:
    def __init__(self, title: str, unit: str, quiet: bool) -> None:
        self._title, self._unit, self._quiet = title, unit, quiet
        self._started = time.monotonic()
        self._due = self._started + _SHOW_AFTER
        self._progress: Any = None
        self._task: Any = None

    def update(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total)
        elif not self._quiet and time.monotonic() > self._due:
            self._start(done, total)

    def _start(self, done: int, total: int) -> None:
        from rich import console, progress  # slow to import

        screen = console.Console(stderr=True)
        if not screen.is_terminal:
            self._due = time.monotonic() + _SAY_AGAIN
            tell(f"{self._title}: {done:,} of {total:,} {self._unit}", err=True)
            return
        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn(self._unit),
            progress.TimeRemainingColumn(),
        )
        self._progress = progress.Progress(*columns, console=screen)
        self._task = self._progress.add_task(self._title, total=total, completed=done)
        self._progress.start()

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()


Command = TypeVar("Command", bound=Callable[..., Any])


def drop_options(command: Command) -> Command:
    """Add both options."""
    drop = click.option(
        "--drop",
        type=click.Choice(["masked"]),
        help="Spend nothing on what --mask hides: cells of 8 x 8 pixels without a clear one are forecast, and marked. "
        "Needs a codec that takes any bands (tec-elic-small, tec-tt-small, tec-fp-small, flextec-small).",
    )
    mask = click.option(
        "--mask",
        metavar="SPEC",
        help="What clouds hide, as for `eozip inpaint`: scl:3,8,9,10[@PATH], prob:0.4[@PATH], allclear@PATH, or a raster "
        "that is not 0 there; of products a raster beside the bands by its name, too, such as clouds of Level-1C. With "
        "--drop, or where there is one --masked-quality.",
    )
    return mask(drop(command))


def check_drop_options(mask: str | None, drop: str | None, masked_quality: float | str | None = None) -> None:
    """Refuse a mask that nothing is done with, or what is done with a mask without one.

    Raises:
        click.UsageError: see above.
    """
    if drop is not None and masked_quality is not None:
        raise click.UsageError("--drop and --masked-quality are two ways with a mask; give one of them.")
    is_used = drop is not None or masked_quality is not None
    if (mask is not None) != is_used:
        done = "--drop" if masked_quality is None else "--masked-quality"
        given, other = (done, "--mask SPEC") if is_used else ("--mask", "--drop masked")
        raise click.UsageError(f"{given} does nothing alone; give {other} too, or neither.")


class _OtherQuality(click.ParamType[Any]):
    """A quality, or "none"."""

    name = "quality"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == "none":
            return "none"
        return click.FloatRange(0, 100).convert(value, param, ctx)


def place_options(command: Command) -> Command:
    """Quality by place."""
    options = [
        click.option(
            "--roi",
            type=RASTER,
            metavar="FILE",
            help="Region of interest at --quality, the rest at --outside-quality: a raster on the scene's grid, not 0 "
            "inside, or a vector (GeoJSON; others with fiona).",
        ),
        click.option(
            "--outside-quality",
            type=_OtherQuality(),
            metavar="Q|none",
            help="Of what lies outside --roi; none: the coarsest averages alone.",
        ),
        click.option(
            "--masked-quality",
            type=_OtherQuality(),
            metavar="Q|none",
            help="Of what --mask hides, such as clouds, instead of --drop masked.",
        ),
        click.option(
            "--relative",
            type=click.FloatRange(0, 4),
            default=0.0,
            metavar="POWER",
            help="Errors in proportion to a power of brightness: 1 favours spectral angles and indices of dark pixels.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def coded_psnr(psnr: float | None, dropped: float | None) -> str:
    """PSNR for people, and which pixels it counts."""
    if not dropped:
        return decibels(psnr)
    return "of nothing, all was dropped" if psnr is None else f"{decibels(psnr)} of what was coded"


def dropped_lines(dropped: float | None) -> list[str]:
    """How much was dropped, a share of all pixels; empty without a mask."""
    if dropped is None:
        return []
    return [f"  {100 * dropped:.1f} % of the pixels dropped: forecast, not coded, and counted in no PSNR"]


def shares(counts: Sequence[int] | None, pixels: int) -> list[float]:
    """[T] pixels of dates > shares of `pixels`; empty without a mask."""
    return [count / pixels for count in counts or ()]


def numbers_of(given: list[str | int] | None, option: str) -> list[float] | None:
    """Numbers of a list that a person gave; None of none.

    Raises:
        click.BadParameter: some are none.
    """
    try:
        return None if given is None else [float(text) for text in given]
    except ValueError as error:
        raise click.BadParameter(
            f"expected numbers, got {','.join(map(str, given or []))}", param_hint=option
        ) from error


for_option = click.option(
    "--for",
    "purposes",
    multiple=True,
    metavar="PURPOSE",
    help="What it must be good for, instead of a quality: 'ndvi<0.02' (any formula of bands; 95 % of the pixels, or "
    "mean(), rms(), p99(), max()), 'psnr>=42', 'angle<2', 'max-error<=20', 'agreement>=99%', 'size<100MB', "
    "'ratio>=50'; may be repeated.",
)


def purpose_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a store must be good for."""
    command = click.option(
        "--classes",
        type=RASTER,
        metavar="FILE",
        help="Raster of classes on the scene's grid, for the purpose 'agreement>=99%'.",
    )(command)
    return for_option(command)


def worst_text(value: float | None) -> str:
    """Such as `worst 0.0187`; None is the best there is."""
    return "exact" if value is None else f"worst {value:,.6g}"
