"""Whether new dates lie on a store's grid and have its bands."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from eozip.errors import InputError
from eozip.raster import Profile, Scene
from eozip.raster.open import same_field

_MAY_DIFFER = ("colorinterp", "units")  # say nothing about pixels or place


def in_band_order(scene: Scene, profile: Profile) -> Scene:
    """The scene with its bands in the order of a store's source, where names tell and are the same."""
    names = list(scene.band_names)
    same = all(names) and len(set(names)) == len(names) and set(names) == set(profile.band_names)
    return scene.select([names.index(name) for name in profile.band_names]) if same else scene


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
