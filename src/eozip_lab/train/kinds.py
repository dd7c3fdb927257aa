"""Which networks can be trained. To add one, add a `Kind` to `KINDS`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from eozip import sensors
from eozip.codecs.small.image_model import SmallImageModel
from eozip.codecs.small.networks import SmallConfig
from eozip.codecs.small.series_model import SeriesModel
from eozip.codecs.small.weight_files import load_small, save_small, trained_tensors
from eozip.errors import InputError
from eozip_lab.train import start
from eozip_lab.train.calibrate import calibrate
from eozip_lab.train.kind import Kind
from eozip_lab.train.kinds_published import PUBLISHED
from eozip_lab.train.kinds_temporal import TEMPORAL
from eozip_lab.train.objective import series_loss
from eozip_lab.train.recipe import Recipe
from eozip_lab.train.start_linear import set_linear_entropy
from eozip_lab.train.start_series import begin_series


def _small_logarithms(model: nn.Module) -> Collection[str]:
    return {f"entropy.{name}" for name in model.entropy.logarithms}


def _small(entropy: str) -> Kind:
    begin = partial(start.begin, set_priors=set_linear_entropy)
    fixed = {"entropy": entropy}
    files = (save_small, load_small, calibrate, trained_tensors)
    return Kind(SmallConfig, SmallImageModel, begin, _small_logarithms, *files, fixed=fixed)


def _calibrate_series(folder: Path, series: Sequence[np.ndarray]) -> None:
    calibrate(folder, [one for batch in series for one in batch])


def _series() -> Kind:
    files = (save_small, load_small, _calibrate_series, trained_tensors)
    fixed = {"entropy": "time"}
    return Kind(SmallConfig, SeriesModel, begin_series, _small_logarithms, *files, series_loss, fixed)


KINDS: dict[str, Kind] = {
    "tec-elic-small": _small("context"),
    "tec-fp-small": _small("linear"),
    "tec-tt-small": _series(),
    **PUBLISHED,
    **TEMPORAL,
}


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
