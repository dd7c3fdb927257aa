"""Which networks can be trained. To add one, add a `Kind` to `KINDS`."""

from __future__ import annotations

from dataclasses import replace

from eozip import sensors
from eozip.errors import InputError
from eozip_lab.train.kind import Kind
from eozip_lab.train.kinds_published import PUBLISHED
from eozip_lab.train.kinds_temporal import TEMPORAL
from eozip_lab.train.recipe import Recipe

KINDS: dict[str, Kind] = {**PUBLISHED, **TEMPORAL}


def kind_of(name: str) -> Kind:
    """A kind by name.

    Raises:
        InputError: not a trainable network.
    """
    if name not in KINDS:
        raise InputError(f"kind: expected one of {', '.join(KINDS)}, got {name!r}")
    return KINDS[name]


def kind_for(recipe: Recipe) -> Kind:
    """The kind of a recipe, for the recipe's sensor.

    Raises:
        InputError: not a trainable network, or a sensor that is not known or not readable.
    """
    kind = kind_of(recipe.kind)
    return replace(kind, sensor=sensors.named(recipe.sensor).id) if recipe.sensor else kind
