"""From what someone holds to a Product: which layout each input has, read by that layout's reader."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from eozip.arguments import choice, listed, real
from eozip.errors import InputError
from eozip.raster.delivered.assemble import SOLAR_DAY, Joining, assemble
from eozip.raster.delivered.bandfiles import file_deliveries
from eozip.raster.delivered.delivery import Bad, Delivery
from eozip.raster.delivered.safe import is_safe, safe_delivery
from eozip.raster.delivered.stac import is_stac, stac_deliveries
from eozip.raster.files import PathLike, is_elsewhere, printable
from eozip.raster.product import Product
from eozip.sensors.sensor import canonical_name

_DEPTH = 4  # folders that are looked into for products: place/year/month/product.SAFE


def open_product(
    inputs: PathLike | Sequence[PathLike],
    bands: Sequence[str | int] | None = None,
    offset: float | None = None,
    *,
    mosaic: str | None = None,
    harmonise: bool = False,
    lattice: float | Sequence[float] | None = None,
    assets: Sequence[str] | None = None,
    skip_bad: bool = False,
) -> Product:
    """Describe what someone holds; reads no pixels.

    Args:
        inputs: GeoTIFFs (dates), folders of them, files of one band each, .SAFE products (folder, zip or their XML),
            STAC items or item collections (file or URL).
        bands: names or 1-based positions of the bands to take; see `eozip.raster.open_scene`.
        offset: DN added to the offset-free DN, of all bands and dates; None takes what the products say.
        mosaic: "solar-day" merges several deliveries of one tile and one solar day into one date.
        skip_bad: leave out what is damaged or incomplete, which is told in the product; all pixels are read for that.
        lattice: step, or step and value of DN 0, of the lattice on which floats are coded; None: 1e-4, from -0.0999 on.
        assets: keys of the assets of STAC items to take; None: the bands, and what is known to lie beside.
        harmonise: bring all dates to one radiometric offset, the largest; else each keeps its own.

    Raises:
        InputError: nothing to read, or something that cannot be kept; the message says what and what to do.
    """
    bands = choice("bands", bands)
    known = None if offset is None else real("offset", offset)
    if known is not None and not math.isfinite(known):
        raise InputError(f"expected a whole number of DN for offset, got {offset}")
    keys = check_taking(mosaic, harmonise, lattice, assets, skip_bad)
    bad = Bad(skip_bad)
    deliveries, notes = _deliveries(inputs, bands, known, keys, bad)
    if not deliveries:
        raise InputError(f"every date is damaged or incomplete: {'; '.join(bad.left_out)}")
    product = assemble(deliveries, Joining(bands, known, mosaic, harmonise, lattice_of(lattice)), notes, bad)
    return replace(product, left_out=tuple(bad.left_out), notes=(*product.notes, *bad.left_out))


def check_taking(
    mosaic: object, harmonise: object, lattice: object, assets: object, skip_bad: object
) -> list[str] | None:
    """Refuses what says nothing about how inputs are taken; see `open_product`.

    Returns:
        the keys of the assets, None for all.

    Raises:
        InputError: see above.
    """
    if mosaic not in (None, SOLAR_DAY):
        raise InputError(f"mosaic: expected {SOLAR_DAY!r}, got {mosaic!r}")
    if not isinstance(skip_bad, bool) or not isinstance(harmonise, bool):
        raise InputError(
            f"skip_bad, harmonise: expected True or False, got {skip_bad!r:.80}, {harmonise!r:.80}"
        )
    lattice_of(lattice)  # type: ignore[arg-type]
    return None if assets is None else [str(key) for key in listed("assets", assets)]


def lattice_of(asked: float | Sequence[float] | None) -> tuple[float, float | None] | None:
    """Step and base of a lattice as a caller asks for it.

    Raises:
        InputError: no numbers, or a step that is not above 0.
    """
    if asked is None:
        return None
    given = [asked] if isinstance(asked, int | float) else listed("lattice", asked)
    numbers = [real("lattice", value) for value in given]
    if not 1 <= len(numbers) <= 2 or not all(map(math.isfinite, numbers)) or numbers[0] <= 0:
        raise InputError(f"lattice: expected a step above 0, or a step and the value of DN 0, got {asked!r}")
    return numbers[0], (numbers[1] if len(numbers) == 2 else None)


def _deliveries(
    inputs: PathLike | Sequence[PathLike],
    bands: Sequence[str | int] | None,
    offset: float | None,
    assets: Sequence[str] | None,
    bad: Bad,
) -> tuple[list[Delivery], list[str]]:
    given: list[Any] = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    found: list[Delivery] = []
    plain: list[PathLike] = []
    notes: list[str] = []
    for path in given:
        products = _products(path)
        if isinstance(path, str | os.PathLike) and is_stac(printable(path)):
            items, said = stac_deliveries(os.fspath(path), _codes(bands), offset, assets, bad)
            found, notes = [*found, *items], [*notes, *said]
        elif products:
            for product in products:
                found += bad.tried(partial(safe_delivery, product, _codes(bands), offset))
        else:
            plain.append(path)
    if not plain and (found or bad.left_out):
        return found, notes
    more, said = file_deliveries(plain if found or bad.left_out else inputs, offset, bad)
    return [*found, *more], [*notes, *said]


def _products(path: PathLike) -> list[str]:
    """The .SAFE products that a path names: itself, or those in a folder."""
    if not isinstance(path, str | os.PathLike) or isinstance(path, bytes) or is_elsewhere(os.fspath(path)):
        return []
    name = os.fspath(path)
    if not os.path.exists(name):
        return []
    if is_safe(name):
        return [name]
    if not os.path.isdir(name):
        return []
    return [str(p) for p in sorted(_below(Path(name), _DEPTH)) if is_safe(str(p))]


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """What may be a .SAFE product, in a folder or the folders in it."""
    for inner in folder.iterdir():
        if inner.suffix.upper() in (".SAFE", ".ZIP"):
            yield inner
        elif depth > 1 and inner.is_dir() and not inner.name.startswith(".") and inner.suffix != ".zarr":
            yield from _below(inner, depth - 1)


def _codes(bands: Sequence[str | int] | None) -> list[str] | None:
    """Canonical names of the bands wanted; None where they are not all known by name."""
    codes = [canonical_name(one) if isinstance(one, str) else None for one in bands or ()]
    return [code for code in codes if code is not None] if codes and None not in codes else None
