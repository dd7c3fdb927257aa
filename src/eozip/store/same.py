"""Whether new dates lie on a store's grid and have its bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from eozip.errors import InputError
from eozip.raster import Profile, Scene
from eozip.raster.open import same_field
from eozip.sensors import get
from eozip.store.description import Description

_MAY_DIFFER = ("colorinterp", "units", "band_names")  # say nothing about pixels or place


def in_band_order(scene: Scene, found: Description) -> Scene:
    """The bands of a scene that a store has, in the order of the store's source.

    They are matched by what they mean, else by equal names; where neither tells, as many bands as the store has are
    taken to be its bands in their order.

    Raises:
        InputError: bands that are others than the store's.
    """
    codes, own = band_codes(found), found.profile.band_names
    for expected, have in ((codes, scene.band_codes), (own, scene.band_names)):
        if expected and None not in expected and all(have.count(name) == 1 for name in expected):
            return scene.select([have.index(name) for name in expected])
    alike = [code in (None, mean) for code, mean in zip(scene.band_codes, codes)]
    if len(own) != scene.shape[1] or not (own == scene.band_names or all(alike)):
        raise InputError(
            f"{found.path}: band_names: expected {_listed(codes or own)} ({len(own)} bands), as the store has them, got "
            f"{_listed(scene.band_names)} ({scene.shape[1]} bands); choose or name bands with --bands (bands=)"
        )
    return scene


def band_codes(found: Description) -> tuple[str, ...]:
    """[C] canonical names of a store's bands in the source's order; empty where its sensor is not known."""
    known = _sensor_names(found)
    return tuple(known[i] for i in found.band_order) if len(known) == len(found.band_order) else ()


def _sensor_names(found: Description) -> tuple[str, ...]:
    try:
        return get(found.codec.sensor).band_names
    except InputError:  # a sensor of one's own that is not here
        return ()


def check_same_pixels(found: Description, scene: Scene) -> None:
    """Compares what pixels to be held against each other must share: size, data type, place.

    Raises:
        InputError: they differ; the message names what.
    """
    for name in ("height", "width", "dtype", "crs", "transform"):
        expected, got = getattr(found.profile, name), getattr(scene.profile, name)
        if not same_field(name, expected, got):
            raise InputError(
                f"{scene.paths[0]}: {name}: expected {expected}, as {found.path} has it, got {got}; give the files that "
                "were encoded"
            )


def check_same_source(expected: Profile, got: Profile, store: Path) -> None:
    """Compares what all dates of one store share.

    Args:
        expected: profile of the store's source.
        got: profile of the new dates, their bands in the same order.
        store: for the message.

    Raises:
        InputError: they differ; the message names what, expected and got.
    """
    for field in fields(Profile):
        here, there = getattr(expected, field.name), getattr(got, field.name)
        if field.name not in _MAY_DIFFER and not same_field(field.name, here, there):
            raise InputError(
                f"{store}: {field.name}: expected {here}, as the store has it, got {there}. Dates of one store share "
                "one grid and one set of bands: warp the new ones onto the store's grid, or encode them into a store "
                "of their own"
            )


def _listed(names: Sequence[str | None]) -> str:
    return " ".join(name or "-" for name in names)
