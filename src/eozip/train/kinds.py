"""Which networks can be trained. To add one, add a `Kind` to `KINDS`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from eozip import sensors
from eozip.codecs.series_model import SeriesModel
from eozip.codecs.small_model import SmallImageModel
from eozip.errors import InputError
from eozip.networks.small import SmallConfig
from eozip.train import start
from eozip.train.objective import loss_of, series_loss
from eozip.train.recipe import Recipe
from eozip.train.start_linear import set_linear_entropy
from eozip.train.start_series import begin_series
from eozip.train.tables import from_table

Begin = Callable[[nn.Module, Tensor, Mapping[str, Tensor]], None]


@dataclass(frozen=True)
class Kind:
    """One trainable network.

    Attributes:
        config: a frozen dataclass of sizes with `bands`, `levels` and `lmbda(t)`.
        build: config -> module with `forward(x, t, hard)` -> (x_hat, bits), `standardise`, `restore` and
            `config`.
        begin: sets a fresh module to its start, from crops float32 [N, C, H, W] and tensors of an
            earlier run.
        logarithms: names of the parameters that are logarithms of scales.
        save: (folder, module on the CPU, full id, sensor, card) writes a weights folder.
        load: folder -> a `Codec`, for real bytes.
        calibrate: (folder, batches of crops float32 [N, C, H, W]) fits exported tables to what is coded.
        loss: (model, batch of DN, levels [B]) -> loss, bpppb [B], MSE [B].
        given: folder of exported weights -> its tensors as training holds them, to start from.
        fixed: sizes that make it this kind.
        sensor: id of the sensor.
    """

    config: type
    build: Callable[[Any], nn.Module]
    begin: Begin
    logarithms: Callable[[nn.Module], Collection[str]]
    save: Callable[[Path, nn.Module, str, str, str], None]
    load: Callable[[Path], Any]
    calibrate: Callable[[Path, Sequence[np.ndarray]], None]
    given: Callable[[Path], Mapping[str, Tensor]]
    loss: Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] = loss_of
    fixed: Mapping[str, Any] = field(default_factory=dict)
    sensor: str = "s2-l2a"

    @property
    def band_names(self) -> tuple[str, ...]:
        """Bands it is trained on, in order."""
        return sensors.get(self.sensor).band_names

    def configured(self, overrides: Mapping[str, Any]) -> Any:
        """Its sizes with a recipe's overrides.

        Raises:
            InputError: an unknown size, or another band count than the sensor's.
        """
        knows_sensor = "sensor" in {f.name for f in fields(self.config)}
        own = {**self.fixed, **({"sensor": self.sensor} if knows_sensor else {})}
        config = from_table(self.config, {"bands": len(self.band_names), **overrides, **own}, "network")
        emphasis = getattr(config, "emphasis", ())
        if emphasis and (len(emphasis) != len(self.band_names) or min(emphasis) <= 0):
            raise InputError(
                f"network: emphasis: expected {len(self.band_names)} numbers above 0, one per band, got {emphasis}"
            )
        if config.bands != len(self.band_names):
            raise InputError(
                f"network: bands: expected {len(self.band_names)} of {self.sensor}, got {config.bands}"
            )
        classes = getattr(config, "fit_classes", ())
        if classes and (len(classes) != 2 or not set(classes) <= set(range(config.bands))):
            raise InputError(
                f"network: fit_classes: expected two of the bands 0..{config.bands - 1}, got {classes}"
            )
        return config


def _save_small(folder: Path, model: nn.Module, full_id: str, sensor: str, card: str) -> None:
    # imported here: it needs the range coder, which a training machine may lack
    from eozip.codecs.small_files import save_small

    save_small(folder, model, full_id, sensor, card)


def _load_small(folder: Path) -> Any:
    from eozip.codecs.small_files import load_small

    return load_small(folder)


def _calibrate_small(folder: Path, crops: Sequence[np.ndarray]) -> None:
    from eozip.train.calibrate import calibrate

    calibrate(folder, crops)


def _given_small(folder: Path) -> Mapping[str, Tensor]:
    from eozip.codecs.small_files import trained_tensors

    return trained_tensors(folder)


def _small_logarithms(model: nn.Module) -> Collection[str]:
    return {f"entropy.{name}" for name in model.entropy.logarithms}


def _small(entropy: str) -> Kind:
    begin = partial(start.begin, set_priors=set_linear_entropy)
    fixed = {"entropy": entropy}
    files = (_save_small, _load_small, _calibrate_small, _given_small)
    return Kind(SmallConfig, SmallImageModel, begin, _small_logarithms, *files, fixed=fixed)


def _calibrate_series(folder: Path, series: Sequence[np.ndarray]) -> None:
    from eozip.train.calibrate import calibrate

    calibrate(folder, [one for batch in series for one in batch])


def _series() -> Kind:
    files = (_save_small, _load_small, _calibrate_series, _given_small)
    fixed = {"entropy": "time"}
    return Kind(SmallConfig, SeriesModel, begin_series, _small_logarithms, *files, series_loss, fixed)


KINDS: dict[str, Kind] = {
    "tec-elic-small": _small("context"),
    "tec-fp-small": _small("linear"),
    "tec-tt-small": _series(),
}


def kind_of(name: str) -> Kind:
    """A kind by name.

    Raises:
        InputError: not a trainable network.
    """
    from eozip.train.kinds_published import PUBLISHED  # they build on Kind
    from eozip.train.kinds_temporal import TEMPORAL

    known = KINDS | PUBLISHED | TEMPORAL
    if name not in known:
        raise InputError(f"kind: expected one of {', '.join(known)}, got {name!r}")
    return known[name]


def kind_for(recipe: Recipe) -> Kind:
    """The kind of a recipe, for the recipe's sensor.

    Raises:
        InputError: not a trainable network, or a sensor that is not known or not readable.
    """
    kind = kind_of(recipe.kind)
    return replace(kind, sensor=sensors.named(recipe.sensor).id) if recipe.sensor else kind
