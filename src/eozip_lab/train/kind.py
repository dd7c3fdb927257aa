"""What a trainable network is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eozip import sensors
from eozip.errors import InputError
from eozip_lab.train.toml_schema import from_table

_Begin = Callable[[nn.Module, Mapping[str, Tensor]], None]


@dataclass(frozen=True)
class Kind:
    """One trainable network.

    Attributes:
        config: a frozen dataclass of sizes with `bands` and `levels`.
        build: config -> module with `forward(x, t, hard)` -> (x_hat, bits), `standardise`, `restore` and
            `config`.
        begin: sets a fresh module to its start, from tensors of an earlier run where they fit.
        save: (folder, module on the CPU, full id, sensor, card) writes a weights folder.
        load: folder -> a `Codec`, for real bytes.
        given: folder of exported weights -> its tensors as training holds them, to start from.
        loss: (model, batch of DN, levels [B]) -> loss, bpppb [B], MSE [B].
        fixed: sizes that make it this kind.
        sensor: id of the sensor.
    """

    config: type
    build: Callable[[Any], nn.Module]
    begin: _Begin
    save: Callable[[Path, nn.Module, str, str, str], None]
    load: Callable[[Path], Any]
    given: Callable[[Path], Mapping[str, Tensor]]
    loss: Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
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
        if config.bands != len(self.band_names):
            raise InputError(
                f"network: bands: expected {len(self.band_names)} of {self.sensor}, got {config.bands}"
            )
        return config
