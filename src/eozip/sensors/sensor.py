"""What eozip knows about a sensor, read from the TOML files of this package (standard library only)."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from eozip.errors import InputError
from eozip.own import VARIABLE, own_files

# "B4", "B04", "Band 4", "B8A", "T32TQM_20250415_B08A_10m", "B2, central wavelength 490 nm" (as GDAL has it).
_BAND_CODE = re.compile(r"(?<![a-z0-9])b(?:and)?[ _-]?0*([1-9]\d?)(a?)(?![a-z0-9])")
# "490", "490 nm", "0.49 um", "wavelength_492.4", "Band 4 (664.6 nm)", "central wavelength 490 nanometers"
_WAVELENGTH = re.compile(
    r"(?:(?:band|central|centre|center|wavelength|wl|lambda|b?\d{1,2})[\s_:=(-]+)*(\d+(?:\.\d+)?)[\s_]*"
    r"(nm|nanomet(?:er|re)s?|[uµμ]m|micromet(?:er|re)s?|microns?)?[\s)]*",
    re.IGNORECASE,
)
_NEAR = 0.022  # of a wavelength: nominal 842 for 832.8 nm is, its neighbour at 864.7 nm is farther


@dataclass(frozen=True)
class Band:
    """One band of a sensor.

    Attributes:
        name: canonical name, such as "B8A".
        wavelength_nm: central wavelength in nanometres.
        native_resolution_m: ground sampling of the instrument in metres, before any upsampling.
        aliases: common names that mean this band.
    """

    name: str
    wavelength_nm: float
    native_resolution_m: int
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sensor:
    """Bands and pixel statistics of one sensor product.

    Attributes:
        id: such as "s2-l2a".
        title: for people.
        bands: [C], in the order the networks expect.
        mean: [C] mean of valid DN without the radiometric offset.
        std: [C] standard deviation of the same.
        offset: DN added to the offset-free DN in ordinary products (0 unless the data say otherwise).
        nodata: DN that marks a missing pixel.
        scale: reflectance of one DN.
        recognised: whether files are taken for this product by the names of their bands alone.
    """

    id: str
    title: str
    bands: tuple[Band, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    offset: float = 0.0
    nodata: int = 0
    scale: float = 1e-4
    recognised: bool = True

    @property
    def band_names(self) -> tuple[str, ...]:
        """[C] canonical band names."""
        return tuple(band.name for band in self.bands)

    def spelled(self, given: Sequence[object]) -> tuple[str, ...]:
        """Canonical names of some of its bands, in the order given.

        Args:
            given: names or aliases, in any case and with or without separators.

        Raises:
            InputError: a name that it does not have, or one band twice; the message lists those it has.
        """
        known = {_plain(text): band.name for band in self.bands for text in (band.name, *band.aliases)}
        unknown = [text for text in given if not isinstance(text, str) or _plain(text) not in known]
        if unknown:
            raise InputError(
                f"bands: {self.id} has no {', '.join(f'{text!r:.40}' for text in unknown)}; it has "
                f"{' '.join(self.band_names)}; name another sensor, or give no names"
            )
        found = tuple(known[_plain(str(text))] for text in given)
        doubled = sorted({name for name in found if found.count(name) > 1})
        if doubled:
            raise InputError(
                f"bands: {', '.join(doubled)} more than once; expected each band of {self.id} once"
            )
        return found


@cache
def names() -> tuple[str, ...]:
    """Ids of every sensor that comes with eozip, sorted."""
    folder = resources.files(__package__)
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def get(sensor_id: str) -> Sensor:
    """Find a sensor by its id: one of eozip's, one that was added, or one in a folder of own codecs.

    Raises:
        InputError: no such sensor; the message lists those known.
    """
    if sensor_id in names():
        return _shipped(sensor_id)
    if sensor_id not in _ADDED:
        for file in own_files():
            if file.suffix == ".toml" and read(file).id == sensor_id:
                add(read(file))
                break
    if sensor_id not in _ADDED:
        known = ", ".join((*names(), *sorted(_ADDED)))
        raise InputError(
            f"unknown sensor {sensor_id!r}: expected one of {known}, or one whose TOML lies in a folder that "
            f"{VARIABLE} names"
        )
    return _ADDED[sensor_id]


def add(sensor: Sensor) -> None:
    """Make a sensor known in this process.

    Raises:
        InputError: another one has its id.
    """
    known = _shipped(sensor.id) if sensor.id in names() else _ADDED.setdefault(sensor.id, sensor)
    if known != sensor:
        raise InputError(
            f"sensor {sensor.id!r}: there is another of this id with other bands or statistics; call it otherwise"
        )


def read(path: Path) -> Sensor:
    """Read a sensor of one's own from a TOML file in the layout of those in `eozip/sensors`.

    Raises:
        InputError: not readable, not TOML, or values that are missing or out of range.
    """
    try:
        return _checked(_from_table(tomllib.loads(path.read_text(encoding="utf-8"))), path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: expected a sensor: id, title, offset, nodata, and [[band]] tables of name, wavelength_nm, "
            f"native_resolution_m, mean, std; got {error!r}"
        ) from error


def named(text: str) -> Sensor:
    """Find a sensor by its id, or by the path of its TOML file, which is made known.

    Raises:
        InputError: see `get` and `read`.
    """
    if not text.endswith(".toml"):
        return get(text)
    sensor = read(Path(text))
    add(sensor)
    return sensor


_ADDED: dict[str, Sensor] = {}  # of this process, beside those of the package
_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def _checked(sensor: Sensor, path: Path) -> Sensor:
    faults = []
    if not _ID.fullmatch(sensor.id):
        faults.append(f"id: expected small letters, digits and single hyphens, got {sensor.id!r}")
    if not sensor.bands or len(set(sensor.band_names)) != len(sensor.bands):
        faults.append(f"band: expected at least one band and no name twice, got {list(sensor.band_names)}")
    if not all(math.isfinite(v) for v in (*sensor.mean, *sensor.std, sensor.offset)):
        faults.append("mean, std, offset: expected finite numbers")
    if not (math.isfinite(sensor.scale) and sensor.scale > 0):
        faults.append(f"scale: expected reflectance of one DN above 0, got {sensor.scale}")
    if not all(v > 0 for v in sensor.std):
        faults.append(f"std: expected numbers above 0, got {list(sensor.std)}")
    if faults:
        raise InputError(f"{path}: {'; '.join(faults)}")
    return sensor


@cache
def _shipped(sensor_id: str) -> Sensor:
    text = resources.files(__package__).joinpath(f"{sensor_id}.toml").read_text(encoding="utf-8")
    return _from_table(tomllib.loads(text))


def by_count(count: int) -> Sensor:
    """Find the one sensor with `count` bands.

    Raises:
        InputError: no sensor has that many bands.
    """
    for sensor in _all():
        if len(sensor.bands) == count:
            return sensor
    raise InputError(f"got {count} bands; {_supported()}")


def match_bands(
    descriptions: Sequence[str | None], sensor: Sensor | None = None
) -> tuple[Sensor, tuple[int, ...]]:
    """Recognise a sensor from the names of the bands at hand.

    Args:
        descriptions: [C] names as a GeoTIFF gives them: "B01", "B1", "Band 1", "B08A", "nir", "swir16",
            "coastal aerosol" and the like, in any order and case.
        sensor: whose bands these are. Names that are its own decide the order; a single unknown name is that of the
            band left over; any other names are taken to be its bands in its order.

    Returns:
        The sensor, and [C] zero-based positions in `descriptions` of its bands in its own order.

    Raises:
        InputError: a name is missing, unknown or doubled, or the set is no sensor's; says what is supported.
            With `sensor`: no such sensor, or another number of bands.
    """
    if sensor is not None:
        return _matched(descriptions, sensor)
    for known in _all():
        order = _order_by_wavelength(descriptions, known)
        if order is not None:
            return known, order
    found = [_canonical(text, position) for position, text in enumerate(descriptions, start=1)]
    doubled = sorted({name for name in found if found.count(name) > 1})
    if doubled:
        raise InputError(f"band {', '.join(doubled)} occurs more than once; {_supported()}")
    for known in _all():
        if set(known.band_names) == set(found):
            return known, tuple(found.index(name) for name in known.band_names)
    raise InputError(f"got {len(found)} bands, {' '.join(found)}; {_supported()}")


def own_order(descriptions: Sequence[str | None], sensor: Sensor) -> tuple[int, ...] | None:
    """Find a sensor's bands among a file's by the sensor's own names and aliases.

    Args:
        descriptions: names of the file's bands.
        sensor: whose bands these may be.

    Returns:
        For each band of the sensor its position in the file; None where the names do not tell each band once.
    """
    spellings = [{_plain(text) for text in (band.name, *band.aliases)} for band in sensor.bands]
    given = [_plain(text or "") for text in descriptions]
    found = [[i for i, text in enumerate(given) if text in names] for names in spellings]
    if len(given) != len(found) or any(len(positions) != 1 for positions in found):
        return None
    return tuple(positions[0] for positions in found)


def _order_by_wavelength(descriptions: Sequence[str | None], sensor: Sensor) -> tuple[int, ...] | None:
    """Positions of a sensor's bands where every name is a wavelength near one of theirs; None where they are not."""
    given = [_wavelength(text or "") for text in descriptions]
    if len(given) != len(sensor.bands) or None in given:
        return None
    own = [band.wavelength_nm for band in sensor.bands]
    nearest = [min(range(len(own)), key=lambda i: abs(own[i] - (nm or 0))) for nm in given]
    is_near = all(abs(own[i] - (nm or 0)) <= _NEAR * own[i] for i, nm in zip(nearest, given, strict=True))
    if not is_near or len(set(nearest)) != len(own):
        return None
    return tuple(nearest.index(i) for i in range(len(own)))


def _wavelength(text: str) -> float | None:
    """Nanometres that a name tells, and nothing beside them; a bare number below 100 is one of micrometres."""
    found = _WAVELENGTH.fullmatch(text.strip())
    if found is None:
        return None
    value, unit = float(found[1]), (found[2] or "").lower()
    is_micro = not unit.startswith("n") if unit else value < 100
    return value * 1000 if is_micro else value


def _matched(descriptions: Sequence[str | None], sensor: Sensor) -> tuple[Sensor, tuple[int, ...]]:
    names = sensor.band_names
    if len(descriptions) != len(names):
        raise InputError(
            f"expected {len(names)} bands for {sensor.id} ({' '.join(names)}), got {len(descriptions)}; choose bands "
            "with --bands (bands= in Python)"
        )
    order = own_order(descriptions, sensor) or _order_by_wavelength(descriptions, sensor)
    if order is not None:
        return sensor, order
    found = [canonical_name(text) if text else None for text in descriptions]
    missing = set(names) - set(found)
    if found.count(None) == len(missing) == 1:
        found[found.index(None)] = missing.pop()
    by_name = sorted(map(str, found)) == sorted(names)
    return sensor, tuple(found.index(name) for name in names) if by_name else tuple(range(len(names)))


def overridden(descriptions: Sequence[str | None], sensor: Sensor, order: Sequence[int]) -> list[str]:
    """Say which bands are taken for others than their names say.

    Args:
        descriptions: names of the file's bands, None where it has none.
        sensor: that was asked for.
        order: for each band of the sensor its position in the file.

    Returns:
        Sentences for a person; none where names and sensor agree.
    """
    if own_order(descriptions, sensor) is not None:
        return []
    pairs = [(descriptions[position], name) for position, name in zip(order, sensor.band_names)]
    said = [
        f"{text!r} is taken for {name}"
        for text, name in pairs
        if text and canonical_name(text) not in (None, name)
    ]
    return [f"sensor {sensor.id} overrides what the file calls its bands: {', '.join(said)}"] if said else []


def is_band_set(codes: Sequence[str | None]) -> bool:
    """Whether canonical names are those of a sensor's bands, all of them and each once, in any order."""
    return any(sorted(map(str, codes)) == sorted(sensor.band_names) for sensor in _all())


def _supported() -> str:
    """What bands may be, for error messages."""
    sets = "; ".join(f"{s.id} ({len(s.bands)} bands: {' '.join(s.band_names)})" for s in _all())
    return (
        f"supported are {sets}. Choose bands with --bands (bands= in Python); or say whose bands they are, in that "
        f"order, whatever the file calls them: --sensor {' or --sensor '.join(s.id for s in _all())} (sensor=)"
    )


def _canonical(text: str | None, position: int) -> str:
    name = None if text is None else canonical_name(text)
    if name is None:
        what = "has no description" if not text else f"is called {text!r}, which is no known band"
        raise InputError(f"band {position} {what}; {_supported()}")
    return name


def canonical_name(text: str) -> str | None:
    """The canonical band name that `text` means ("Band 8A" > "B8A", "swir16" > "B11"), or None."""
    alias = _aliases().get(_plain(text))
    if alias is not None:
        return alias
    codes = {
        f"B{int(number):02d}" if not a else f"B{number}A" for number, a in _BAND_CODE.findall(text.lower())
    }
    known = codes & set(_aliases().values())
    return known.pop() if len(codes) == 1 and known else None


def file_band(stem: str) -> tuple[str | None, str]:
    """The band that a file's name tells, and the name in lower case without it.

    The name is that of a band ("blue", "nir08"), or holds one band code ("T32TQM_20250415_B04_10m") or, between
    separators, one common name ("20250415_blue"). What is left is equal for the files of one date.
    """
    text = stem.lower()
    if _plain(text) in _aliases():
        return _aliases()[_plain(text)], ""
    coded = canonical_name(text)
    if coded is not None:
        return coded, _BAND_CODE.sub("", text)
    for words in (3, 2, 1):  # "red_edge_1" before "red"
        spans = re.finditer(
            rf"(?<![a-z0-9])(?=([a-z0-9]+(?:[^a-z0-9]+[a-z0-9]+){{{words - 1}}})(?![a-z0-9]))", text
        )
        found = [(span.start(1), span.group(1)) for span in spans if _plain(span.group(1)) in _aliases()]
        if len(found) == 1:
            start, name = found[0]
            return _aliases()[_plain(name)], text[:start] + text[start + len(name) :]
    return None, text


@cache
def _aliases() -> dict[str, str]:
    spellings = ((band, text) for s in _all() for band in s.bands for text in (band.name, *band.aliases))
    return {_plain(text): band.name for band, text in spellings}


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


@cache
def _all() -> tuple[Sensor, ...]:
    """Shipped sensors that files are recognised as."""
    return tuple(sensor for name in names() if (sensor := get(name)).recognised)


def _from_table(table: dict[str, Any]) -> Sensor:
    rows = table["band"]
    return Sensor(
        id=table["id"],
        title=table["title"],
        bands=tuple(_band(row) for row in rows),
        mean=tuple(float(row["mean"]) for row in rows),
        std=tuple(float(row["std"]) for row in rows),
        offset=float(table.get("offset", 0)),
        nodata=int(table.get("nodata", 0)),
        scale=float(table.get("scale", 1e-4)),
        recognised=bool(table.get("recognised", True)),
    )


def _band(row: dict[str, Any]) -> Band:
    return Band(
        row["name"],
        float(row["wavelength_nm"]),
        int(row["native_resolution_m"]),
        tuple(row.get("aliases", ())),
    )
