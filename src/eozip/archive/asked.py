"""What an archive is asked for, checked before any work starts; a run with other settings is refused."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from eozip import arguments
from eozip.chunk.encoding import check_budgeted, check_droppable, check_levelled
from eozip.chunk.options import DEFAULT_QUALITY
from eozip.codecs import registry
from eozip.codecs.registry import ANY_SENSOR
from eozip.errors import InputError
from eozip.own import VARIABLE
from eozip.raster.delivered.open import check_taking
from eozip.raster.files import is_elsewhere
from eozip.raster.masks import parse_mask
from eozip.raster.regions import check_region
from eozip.sensors import named
from eozip.sensors import names as sensor_names
from eozip.store.codec import BITSTREAM, EozipChunkCodec
from eozip.store.options import NOWHERE, Places, StoreOptions

BY = ("tile", "grid", "item")


@dataclass(frozen=True)
class Asked:
    """What an archive is asked for; see `eozip.archive.archive`.

    Attributes:
        places: quality by place; the path of a region is absolute.
        region: fingerprint of the region's file.

    Raises:
        InputError: what no input could be archived with.
    """

    by: str = "tile"
    codec: str | None = None
    quality: float | None = None
    target_psnr: float | None = None
    max_error: int | None = None
    bands: tuple[str | int, ...] | None = None
    sensor: str | None = None
    offset: int | None = None
    nodata: int | None = None
    chunk: int | None = None
    gop: int = 6
    budgets: tuple[int, ...] | None = None
    assets: tuple[str, ...] | None = None
    mosaic: str | None = None
    harmonise: bool = False
    lattice: tuple[float, ...] | None = None
    mask: str | None = None
    purposes: tuple[str, ...] | None = None
    places: Places = NOWHERE
    region: str | None = None
    overviews: bool = True

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise InputError(f"by: expected one of {', '.join(BY)}, got {self.by!r}")
        if self.chunk is not None:
            arguments.whole("chunk", self.chunk, 8)
        if not isinstance(self.overviews, bool):
            raise InputError(f"overviews: expected True or False, got {self.overviews!r:.80}")
        arguments.text("codec", self.codec)
        check_taking(self.mosaic, self.harmonise, self.lattice, self.assets, False)
        _ = self.options.goal
        self._check_purposes()
        self._check_codec()
        self._check_mask()
        self._check_places()

    @property
    def taking(self) -> dict[str, Any]:
        """How inputs are opened, as `eozip.raster.open_product` has it."""
        names = ("mosaic", "harmonise", "lattice", "assets")
        return {name: getattr(self, name) for name in names}

    @property
    def drops(self) -> bool:
        """Whether nothing is spent on what the mask hides; else it has a quality of its own."""
        return self.mask is not None and self.places.masked_quality is None

    @property
    def options(self) -> StoreOptions:
        """What each of the stores is asked for, as `eozip.encode_store` has it."""
        shared = {one.name for one in fields(self)} & {one.name for one in fields(StoreOptions)}
        return StoreOptions(
            **{name: getattr(self, name) for name in shared - {"purposes"}}, purposes=self.purposes or ()
        )

    def settings(self) -> dict[str, Any]:
        """As the record has them: what was not asked for is left out, so that older records say the same."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        given |= {"overviews": None if self.overviews else False, "harmonise": self.harmonise or None}
        given |= {"places": None, **self.places.facts().get("places", {})}
        told = {name: value for name, value in given.items() if value is not None}
        told |= {name: float(told[name]) for name in ("quality", "target_psnr") if name in told}  # 60 is 60.0
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}
        return {**listed, "bitstream": BITSTREAM}

    def _check_codec(self) -> None:
        """Refuses codecs that nobody knows, and numbers that no codec takes."""
        if self.sensor and self.sensor.endswith(".toml"):
            raise InputError(
                f"sensor: expected the id of a sensor, which workers can look up, got the file {self.sensor}; put it into a "
                f"folder that {VARIABLE} names, here and on the workers, and give its id"
            )
        sensor = named(self.sensor).id if self.sensor else ANY_SENSOR
        full_id = registry.LOSSLESS if self.codec is None else self._full_id(sensor)
        if self.budgets is not None and self.codec is not None:
            check_budgeted(full_id)
        EozipChunkCodec(
            full_id, self.quality, self.target_psnr, sensor, _whole("nodata", self.nodata),
            _whole("offset", self.offset) or 0, max_error=self.max_error, budgets=self.budgets,
        )  # fmt: skip

    def _full_id(self, sensor: str) -> str:
        codec = str(self.codec)
        likely = (sensor, *sensor_names()) if registry.is_listed(codec) and self.sensor is None else (sensor,)
        return registry.resolve(codec, next((one for one in likely if registry.knows(codec, one)), sensor))

    def _check_mask(self) -> None:
        """Refuses masks that lie in one raster: an archive has many places."""
        if self.mask is None:
            return
        if parse_mask(str(arguments.text("mask", self.mask))).band is None:
            raise InputError(
                f"mask: expected one that lies in or beside each input, such as scl:3,8,9,10 or prob:0.4, got {self.mask}: "
                "a raster of one place is none of the others; encode that place alone"
            )
        if self.codec is not None and self.drops:
            check_droppable(self._full_id(named(self.sensor).id if self.sensor else ANY_SENSOR))

    def _check_places(self) -> None:
        """Refuses quality by place that the settings beside it do not go with, and regions that nobody can read."""
        if not self.places:
            return
        if self.codec is not None:
            check_levelled(self._full_id(named(self.sensor).id if self.sensor else ANY_SENSOR))
        is_default = not self.options.said and not self.purposes
        self.places.check(DEFAULT_QUALITY if is_default else self.quality, self.mask is not None)
        if self.places.roi is not None:
            check_region(self.places.roi)

    def _check_purposes(self) -> None:
        """Refuses purposes that shards cannot serve one by one."""
        for purpose in self.options.parsed:
            if purpose.is_whole or purpose.what == "agreement":
                raise InputError(
                    f"for: expected purposes of every chunk, such as ndvi<0.02 or psnr>=42, got {purpose.text}: it is of a "
                    "whole store, or needs the classes of one place; encode that store alone"
                )


def asked_for(options: dict[str, Any]) -> Asked:
    """Settings as a caller gives them: lists, numbers and text.

    Raises:
        InputError: they are something else.
    """
    given = dict(options)
    for name in ("bands", "assets"):
        given[name] = _tuple(arguments.choice(name, given.get(name)))
    budgets, lattice, purposes = (given.get(name) for name in ("budgets", "lattice", "purposes"))
    given["budgets"] = _numbers("budgets", budgets, int)
    given["lattice"] = _numbers("lattice", lattice, float)
    given["purposes"] = _tuple([purposes] if isinstance(purposes, str) else list(purposes or ()))
    places = {one.name: given.pop(one.name) for one in fields(Places) if one.name in given}
    if places.get("roi") is not None:
        roi = str(arguments.text("roi", os.fspath(places["roi"])))
        places["roi"] = roi if is_elsewhere(roi) else os.path.abspath(roi)
        given["region"] = region_print(places["roi"])
    return Asked(**given, places=Places(**places))


def region_print(path: str | Path) -> str:
    """Fingerprint of what a region's file says; of its name alone where that is of another machine.

    Raises:
        InputError: it cannot be read.
    """
    if is_elsewhere(str(path)):
        return hashlib.sha256(str(path).encode()).hexdigest()[:32]
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        raise InputError(
            f"roi: {path}: expected a raster or a vector file, got {error.strerror or error}; check the name"
        ) from error


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return tuple(values) if values else None


def _numbers(name: str, value: Any, kind: type) -> tuple[Any, ...] | None:
    """One number or several; whole where `kind` is int."""
    if value is None:
        return None
    numbers = arguments.listed(name, value) if not isinstance(value, int | float) else [value]
    return tuple(arguments.whole(name, one) if kind is int else arguments.real(name, one) for one in numbers)


def _whole(name: str, value: float | None) -> int | None:
    return None if value is None else arguments.whole(name, value)
