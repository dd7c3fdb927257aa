"""A product as it was delivered: bands on their own grids, what lies beside them, and where each fact comes from.

    inputs > open_product > Product: scenes (one for each grid), layers beside, acquisitions; no pixels, no open files

Every scene and every layer is read as any other: `open_reader(scene)`, then `read(t, y, x)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from eozip.raster.scene import Scene, Source

CLASSES, FLAGS, PROBABILITY, QUANTITY = "classes", "flags", "probability", "quantity"


@dataclass(frozen=True)
class Layer:
    """A raster beside the bands, kept exactly: a class raster, a probability, a measured quantity.

    Attributes:
        name: lower case, as it is called in a store: "scl", "cld", "snw", "aot", "wvp", "qa_pixel", "fmask".
        kind: "classes" (a value each), "flags" (bits), "probability" (percent), or "quantity".
        scene: where it is read, with one band; on its own grid, of the dates that have it.
        dates: positions in the product's dates of those of `scene`; the product's other dates have none.
        attributes: by CF, ready for JSON: long_name, flag_values (or flag_masks), flag_meanings, units, scale_factor.
    """

    name: str
    kind: str
    scene: Scene
    dates: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[Source, ...]:
        """One for each of `dates`."""
        return tuple(bands[0] for bands in self.scene.sources)


@dataclass(frozen=True)
class Acquisition:
    """What is known of one date beside its pixels.

    Attributes:
        sensing: when it was acquired (UTC, no tzinfo), as in the scenes' `dates`; None where nothing tells.
        product: id of the product or item; of several merged into one date, joined by " + ".
        level: such as "L2A", "L1C", "L30"; None where nothing tells.
        baseline: processing baseline, such as "05.11"; None where nothing tells.
        offset_source: what told the radiometric offset, in words: "BOA_ADD_OFFSET of MTD_MSIL2A.xml".
        specials: DN that mean no measurement, by name: {"NODATA": 0, "SATURATED": 65535}.
    """

    sensing: datetime | None
    product: str | None = None
    level: str | None = None
    baseline: str | None = None
    offset_source: str = ""
    specials: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "sensing": None if self.sensing is None else self.sensing.isoformat(),
            "product": self.product,
            "level": self.level,
            "baseline": self.baseline,
            "offset_source": self.offset_source,
            "specials": dict(self.specials),
        }


@dataclass(frozen=True)
class Product:
    """What someone holds, described; holds no pixels and no open files.

    Attributes:
        scenes: one for each grid, finest first; all have the same dates in the same order, each the bands of its grid.
        acquisitions: [T] what is known of each date.
        beside: layers that lie beside the bands.
        kind: what was read: "geotiff", "safe", "bands", "stac", "xarray"; several joined by " + ".
        sensor: id of the sensor whose bands these are where the product tells; None: as the bands' names say.
        files_bytes: bytes of the files that hold the bands, as they were delivered; None where unknown.
        scale: reflectance of one DN where the product tells, such as 1e-4.
        left_out: dates that were asked for and are damaged or incomplete, each in a sentence (`skip_bad`).
        notes: sentences that a person should read.
    """

    scenes: tuple[Scene, ...]
    acquisitions: tuple[Acquisition, ...]
    beside: tuple[Layer, ...] = ()
    kind: str = "geotiff"
    sensor: str | None = None
    files_bytes: int | None = None
    scale: float | None = None
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def dates(self) -> tuple[datetime | None, ...]:
        """[T] as in every scene."""
        return self.scenes[0].dates

    @property
    def offsets(self) -> tuple[tuple[tuple[float, ...], ...], ...]:
        """DN added to the offset-free DN: by scene, date and band of the scene."""
        return tuple(scene.band_offsets for scene in self.scenes)
