"""What a stack of rasters is, apart from its pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

import numpy as np

from eozip.errors import InputError
from eozip.sensors.sensor import canonical_name

_LAST_DN = 65535
Tags = dict[str, dict[str, str]]  # namespace > key > value; "" is GDAL's default namespace


@dataclass(frozen=True)
class Profile:
    """Everything but pixels, dates and tags that a GeoTIFF of the scene holds; equal for all dates.

    Attributes:
        height: rows H.
        width: columns W.
        dtype: numpy name, such as "uint16".
        crs: WKT, or None.
        transform: six affine coefficients a b c d e f, or None where the file has none.
        gcps: ground control points (row, column, x, y, z).
        gcp_crs: WKT of the control points, or None.
        nodata: value of missing pixels, or None.
        band_names: [C] descriptions; None where a band has none.
        scales: [C] GDAL scale.
        offsets: [C] GDAL offset: physical value = DN * scale + offset.
        units: [C] unit names, or None.
        colorinterp: [C] GDAL names, such as "gray".
    """

    height: int
    width: int
    dtype: str
    crs: str | None
    transform: tuple[float, ...] | None
    gcps: tuple[tuple[float, ...], ...]
    gcp_crs: str | None
    nodata: float | int | None
    band_names: tuple[str | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    units: tuple[str | None, ...]
    colorinterp: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {one.name: _listed(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Profile:
        """The inverse of `to_dict`.

        Raises:
            InputError: a field is missing.
        """
        missing = [one.name for one in fields(cls) if one.name not in table]
        if missing:
            raise InputError(
                f"raster profile lacks {', '.join(missing)}; got {', '.join(table) or 'nothing'}"
            )
        return cls(**{one.name: _tupled(table[one.name]) for one in fields(cls)})


@dataclass(frozen=True)
class Lattice:
    """How values of a float raster are told by DN: value = DN * step + base; NaN is the scene's fill.

    Attributes:
        step: difference of two neighbouring values.
        base: value of DN 0.
        dtype: numpy name of the source's values, "float32" or "float64"; what is given back is float32.
        nodata: value of missing pixels in the source, NaN or a number; None: no pixel is missing by a number.
    """

    step: float
    base: float
    dtype: str
    nodata: float | None = math.nan

    def dn(self, values: np.ndarray) -> tuple[np.ndarray, float]:
        """uint16 DN of values, 0 for missing ones; and the largest distance of a value from what its DN tells.

        Raises:
            InputError: a value beyond the lattice, or an infinite one.
        """
        known = values.astype(np.float64)
        missing = np.isnan(known)
        if self.nodata is not None and not math.isnan(self.nodata):
            missing |= known == self.nodata
        known[missing] = self.base + self.step
        steps = np.rint((known - self.base) / self.step)
        if not (steps.min(initial=1) >= 1 and steps.max(initial=1) <= _LAST_DN):
            raise InputError(self._beyond(known))
        error = float(np.max(np.abs(steps * self.step + self.base - known), initial=0.0))
        steps[missing] = 0
        return steps.astype(np.uint16), error

    def _beyond(self, values: np.ndarray) -> str:
        low, high = self.base + self.step, self.base + _LAST_DN * self.step
        return (
            f"values from {values.min():g} to {values.max():g} do not fit a lattice of step {self.step:g}, which holds "
            f"{low:g} to {high:g}. Say in which unit they are with --lattice STEP[,BASE] (lattice=): 1 for digital numbers, "
            "0.0001 for reflectance of 0 to 1, 0.01 for percent"
        )

    def values(self, dn: np.ndarray, fill: float | None) -> np.ndarray:
        """float32 values of DN; NaN (or `nodata`) where they are `fill`."""
        values = (dn * self.step + self.base).astype(np.float32)
        if fill is not None:
            values[dn == fill] = math.nan if self.nodata is None else self.nodata
        return values


@dataclass(frozen=True)
class Source:
    """One band of one date.

    Attributes:
        path: file, as GDAL takes it.
        index: 1-based band index in it.
        mask: what says which pixels are missing beside the nodata value: "" nothing, "dataset" a mask of all bands of
            the file (inside it, in a .msk file beside it, or its alpha band), "band" a mask of this band.
        alpha: 1-based index of the file's alpha band if that is the mask; None: as GDAL knows it.
        under: further files (and bands) of one mosaic, whose pixels show where those before have nodata.
    """

    path: str
    index: int
    mask: str = ""
    alpha: int | None = None
    under: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Scene:
    """A description of a stack of rasters on one grid; holds no pixels and no open files.

    Attributes:
        sources: [T, C] where each band of each date is stored.
        dates: [T] acquisition times (UTC, no tzinfo), None where neither file name nor tags tell.
        profile: what all dates share.
        tags: [T] metadata per date: namespace > key > value.
        band_tags: [C] metadata per band, of the first date.
        offset: DN added to the offset-free DN (1000 for products of baseline 04.00 and later, else 0); of several, the
            one that most bands of most dates have.
        block_shape: rows, columns of the first file's internal blocks.
        codes: [C] canonical names of the bands where a caller said what they are; None: as their descriptions say.
        fill: DN that masked pixels have when they are read; None: nobody chose one yet (`eozip.raster.with_fill`).
        notes: sentences that a person should read: dates that are unknown, files that were left out, and the like.
        offsets: [T, C] DN added, where bands or dates differ in it; None: `offset`, of all.
        shifts: [T, C] DN added on reading, so that all have one offset; None: none.
        specials: DN that are no measurements and are never shifted, beside nodata.
        planes: what sources name where they are arrays in memory instead of files: path > one that reads as rasterio does.
        lattice: what the DN mean where the source holds floats: they are read as DN of it; None: they are the source's.
    """

    sources: tuple[tuple[Source, ...], ...]
    dates: tuple[datetime | None, ...]
    profile: Profile
    tags: tuple[Tags, ...]
    band_tags: tuple[dict[str, str], ...]
    offset: float
    block_shape: tuple[int, int]
    codes: tuple[str | None, ...] | None = None
    fill: float | int | None = None
    notes: tuple[str, ...] = ()
    offsets: tuple[tuple[float, ...], ...] | None = None
    shifts: tuple[tuple[int, ...], ...] | None = None
    specials: tuple[int, ...] = ()
    lattice: Lattice | None = None
    planes: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """T, C, H, W."""
        return len(self.sources), len(self.profile.band_names), self.profile.height, self.profile.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the pixels."""
        return np.dtype(self.profile.dtype)

    @property
    def band_names(self) -> tuple[str | None, ...]:
        """[C] descriptions."""
        return self.profile.band_names

    @property
    def band_offsets(self) -> tuple[tuple[float, ...], ...]:
        """[T, C] DN added to the offset-free DN."""
        if self.offsets is not None:
            return self.offsets
        return ((self.offset,) * len(self.band_names),) * len(self.sources)

    @property
    def band_codes(self) -> tuple[str | None, ...]:
        """[C] canonical names of the bands, such as "B8A"; None where nothing tells."""
        if self.codes is not None:
            return self.codes
        return tuple(canonical_name(name) if name else None for name in self.band_names)

    @property
    def meanings(self) -> tuple[str | None, ...]:
        """[C] what each band is: its code, else what the file calls it."""
        return tuple(code or name for code, name in zip(self.band_codes, self.band_names))

    @property
    def is_masked(self) -> bool:
        """Whether any file says by a mask which of its pixels are missing."""
        return any(source.mask for date in self.sources for source in date)

    @property
    def masks(self) -> tuple[bool, ...]:
        """[T] whether a date has one mask for all its bands, which a GeoTIFF can hold."""
        return tuple(
            all(source.mask == "dataset" for source in date) and len({source.path for source in date}) == 1
            for date in self.sources
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """[T] the file of each date (of its first band, where bands have files of their own)."""
        return tuple(bands[0].path for bands in self.sources)

    def select(self, order: Sequence[int]) -> Scene:
        """The scene with bands `order` (zero-based positions), in that order."""

        def pick(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[i] for i in order)

        profile = replace(
            self.profile,
            band_names=pick(self.profile.band_names),
            scales=pick(self.profile.scales),
            offsets=pick(self.profile.offsets),
            units=pick(self.profile.units),
            colorinterp=pick(self.profile.colorinterp),
        )
        sources = tuple(pick(bands) for bands in self.sources)
        codes = None if self.codes is None else pick(self.codes)
        tables = {
            name: None if table is None else tuple(pick(of_date) for of_date in table)
            for name, table in (("offsets", self.offsets), ("shifts", self.shifts))
        }
        tags = pick(self.band_tags)
        return replace(self, sources=sources, profile=profile, band_tags=tags, codes=codes, **tables)  # type: ignore[arg-type]


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, (list, tuple)) else value
