"""`--mask` and `--drop` of encode and append: pixels that nothing is spent on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import click

from eozip.cli.common import decibels

if TYPE_CHECKING:
    from eozip.raster import Scene
    from eozip.raster.masks import MaskReader

Bands = list[str | int] | None
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


def pixels_and_mask(
    mask: str | None, open_bands: Callable[[Bands], Scene], bands: Bands
) -> tuple[Scene, Scene | None]:
    """The input, and its band that is the mask; None where there is no mask or it has files of its own.

    Args:
        mask: text of `--mask`.
        open_bands: opens the input with these bands; None: all.
        bands: bands that the user chose.
    """
    from eozip.raster.masks import parse_mask, split_mask

    if mask is None:
        return open_bands(bands), None
    spec = parse_mask(mask)
    if spec.band is None:
        return open_bands(bands), None
    pixels, band = split_mask(open_bands(None), spec)
    return (pixels if bands is None else open_bands(bands)), band


def opened_mask(
    mask: str | None, scene: Scene, band: Scene | None
) -> AbstractContextManager[MaskReader | None]:
    """The mask on the grid of a scene; None where none was asked for."""
    from eozip.raster.masks import open_mask, parse_mask

    if mask is None:
        return nullcontext()
    times, _, height, width = scene.shape
    return open_mask(parse_mask(mask), (times, height, width), band)


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
