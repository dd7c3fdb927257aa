"""`--mask` and `--drop` of encode and append: pixels that nothing is spent on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from eozip.cli.common import decibels

Command = TypeVar("Command", bound=Callable[..., Any])


def drop_options(command: Command) -> Command:
    """Adds both options."""
    drop = click.option(
        "--drop",
        type=click.Choice(["masked"]),
        help="Spend nothing on what --mask hides: cells of 8 x 8 pixels without a clear one are forecast, and marked. "
        "Needs a codec that can (tec-tt-small).",
    )
    mask = click.option(
        "--mask",
        metavar="SPEC",
        help="What clouds hide, as for `eozip inpaint`: scl:3,8,9,10[@PATH], prob:0.4[@PATH], allclear@PATH, or a raster "
        "that is not 0 there. With --drop.",
    )
    return mask(drop(command))


def check_drop_options(mask: str | None, drop: str | None) -> None:
    """Refuses one without the other.

    Raises:
        click.UsageError: see above.
    """
    if (mask is None) != (drop is None):
        given, other = ("--mask", "--drop masked") if drop is None else ("--drop", "--mask SPEC")
        raise click.UsageError(f"{given} does nothing alone; give {other} too, or neither.")


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
