"""The files of a scene: found from what a user names, and dated by their names, tags and folders.

A name that GDAL alone can read (a URL, `/vsizip/...`) is passed on as it is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from eozip.errors import InputError

_YEAR = r"(?<!\d)(?P<year>(?:19|20)\d\d)"
_CLOCK = r"(?P<hour>[01]\d|2[0-3])[:-]?(?P<minute>[0-5]\d)"
_COMPACT = r"(?:[01]\d|2[0-3])(?:[0-5]\d){2}"
_TIME = rf"(?:(?:T?{_CLOCK}(?:[:-]?(?P<second>[0-5]\d))?)|(?:[_ -](?P<compact>{_COMPACT})))?"
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WORD = rf"(?P<word>{'|'.join(_MONTHS)})[a-z]*"
_SPELLINGS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # 20250415, 2025-04-15, 20250415T101559, 20250415101559
        rf"{_YEAR}(?P<sep>[-_.]?)(?P<month>[01]\d)(?P=sep)(?P<day>[0-3]\d){_TIME}(?!\d)",
        rf"{_YEAR}[-.]?(?P<ordinal>[0-3]\d\d){_TIME}(?!\d)",  # 2025105, as MODIS and HLS count days
        rf"(?<!\d)(?P<day>\d\d?)[-_ ]?{_WORD}[-_ ]?(?P<year>(?:19|20)\d\d)(?!\d)",  # 15Apr2025, as SNAP names bands
        r"(?<![0-9a-z])(?P<year>(?:19|20)\d\d)[-_](?P<month>0[1-9]|1[0-2])(?![-_.]?\d)",  # 2025-04
    )
)
# names of products whose first date is the acquisition and whose second is the processing
_PRODUCT = re.compile(r"S2[A-D]_MSI|L[A-Z]\d\d_L|\d{8}T\d{6}_\d{8}T\d{6}_T\d\d[A-Z]{3}", re.IGNORECASE)
_ACQUIRED = (
    "ACQUISITION_DATETIME",
    "ACQUISITIONDATETIME",
    "SENSING_TIME",
    "SENSING_START_TIME",
    "DATATAKE_SENSING_START",
    "DATATAKE_1_DATATAKE_SENSING_START",
    "PRODUCT_START_TIME",
    "START_DATETIME",
    "SYSTEM:TIME_START",
    "DATETIME",
    "ACQUISITION_DATE",
    "ACQUISITIONDATE",
    "SENSING_DATE",
    "DATE_ACQUIRED",
)
_WRITTEN = ("TIFFTAG_DATETIME",)  # by the standard the time of the file, which may be that of its processing
_ANCESTORS = 3


@dataclass(frozen=True)
class Dating:
    """When a file was acquired, and how sure that is.

    Attributes:
        date: UTC without tzinfo; None where nothing tells.
        folder: the folder whose name told; None where the file itself did.
        named: every date in the file's name, in order; several days are ambiguous unless `is_settled`.
        is_settled: whether a tag or the kind of product says which of the dates in the name it is.
    """

    date: datetime | None
    folder: str | None = None
    named: tuple[datetime, ...] = ()
    is_settled: bool = True


def _date_of(path: str, tags: Mapping[str, str]) -> datetime | None:
    """Acquisition time (UTC, no tzinfo), or None where nothing tells; see `dating_of`."""
    return dating_of(path, tags).date


def dating_of(path: str, tags: Mapping[str, str]) -> Dating:
    """When one file was acquired.

    The first date in the file's name comes first (a Sentinel-2 product's sensing time); then tags that
    mean the acquisition; then the nearest of the folders above the file whose name holds a date; last
    the tag for the time of the file. A tag of the same day adds the time of day.

    Args:
        path: of the file; folders in it count.
        tags: GDAL's default metadata.
    """
    folders, _, name = path.replace("\\", "/").rpartition("/")
    acquired, written = _from_tags(tags, _ACQUIRED), _from_tags(tags, _WRITTEN)
    named = tuple(_dates_in(name))
    if named:
        tagged = [tag for tag in (acquired, written) if tag and tag.date() in {day.date() for day in named}]
        is_settled = bool(tagged) or len({day.date() for day in named}) == 1 or bool(_PRODUCT.search(name))
        return Dating(tagged[0] if tagged else named[0], None, named, is_settled)
    if acquired is not None:
        return Dating(acquired)
    day, folder = _from_folders(folders)
    if day is None or (written is not None and written.date() == day.date()):
        return Dating(written)
    return Dating(day, folder)


def settled(datings: Sequence[Dating]) -> list[Dating]:
    """The dates of several files, each seen beside the others.

    Where names hold several dates, and the first is the same in all, the date is the one that changes from file to
    file. A folder's date that would be that of several files is none of theirs: the folder holds a series.

    Args:
        datings: one for each date of a scene.
    """
    chosen = _by_what_changes(datings)
    shared = [one.folder for one in chosen if one.folder]
    return [Dating(None) if one.folder and shared.count(one.folder) > 1 else one for one in chosen]


def _by_what_changes(datings: Sequence[Dating]) -> list[Dating]:
    count = min(len(one.named) for one in datings)
    if len(datings) < 2 or count < 2 or all(one.is_settled for one in datings):
        return list(datings)
    columns = [{one.named[k].date() for one in datings} for k in range(count)]
    if len(columns[0]) > 1:
        return list(datings)
    changing = next((k for k, days in enumerate(columns) if len(days) > 1), 0)
    return [replace(one, date=one.named[changing]) for one in datings]


def notes_on(datings: Sequence[Dating], paths: Sequence[str]) -> list[str]:
    """What a person should know about the dates of a scene: unknown ones, ambiguous ones, those from folders."""
    unknown = [path for one, path in zip(datings, paths) if one.date is None]
    unsure = [(one, path) for one, path in zip(datings, paths) if one.date is not None and not one.is_settled]
    told = [(one, path) for one, path in zip(datings, paths) if one.date is not None and one.folder]
    notes = [_unknown_note(unknown, len(datings))] if unknown else []
    notes += [f"{path}: several dates in the name; taken: {one.date:%Y-%m-%d}" for one, path in unsure[:1]]
    if len(unsure) > 1:
        notes[-1] += f" (and {len(unsure) - 1} files more likewise)"
    if told:
        one, path = told[0]
        more = f" (and {len(told) - 1} files more likewise)" if len(told) > 1 else ""
        notes.append(f"{path}: its date, {one.date:%Y-%m-%d}, is that of the folder {one.folder}{more}")
    return notes


def _unknown_note(unknown: Sequence[str], count: int) -> str:
    if count == 1:
        return f"{unknown[0]}: neither its name, its folder nor its tags tell a date; the store has none"
    which = (
        "no file"
        if len(unknown) == count
        else f"{len(unknown)} of {count} files, first {unknown[0]}, without"
    )
    said = "tells a date" if len(unknown) == count else "a date in name, folder or tags"
    return (
        f"dates unknown: {which} {said}; all stay in the order given and the store counts them by an index. "
        "Put YYYYMMDD into the names to have them in time order"
    )


def _from_folders(folders: str) -> tuple[datetime | None, str | None]:
    parts = _absolute(folders).split("/")
    for end in range(len(parts), max(0, len(parts) - _ANCESTORS), -1):
        found = next(_dates_in(parts[end - 1]), None) or _split_date(parts[max(0, end - 3) : end])
        if found is not None:
            return found, "/".join(parts[:end])
    return None, None


def _absolute(folders: str) -> str:
    is_elsewhere = "://" in folders or folders.startswith("/vsi")
    return folders if is_elsewhere else os.path.abspath(folders or ".").replace("\\", "/")


def _split_date(parts: Sequence[str]) -> datetime | None:
    """2022/1/26, as the archives of Sentinel-2 name their folders."""
    if len(parts) < 3 or not re.fullmatch(r"(19|20)\d\d/\d\d?/\d\d?", "/".join(parts)):
        return None
    return _valid(*(int(part) for part in parts))


def _dates_in(text: str) -> Iterator[datetime]:
    """Dates in a name, in the order of their places; each digit is read once."""
    taken: list[tuple[int, datetime]] = []
    for spelling in _SPELLINGS:
        for match in spelling.finditer(text):
            found = _read(match)
            if found is not None:
                taken.append((match.start(), found))
                text = text[: match.start()] + "#" * len(match.group()) + text[match.end() :]
    return iter([found for _, found in sorted(taken, key=lambda one: one[0])])


def _read(match: re.Match[str]) -> datetime | None:
    part = match.groupdict()
    year = int(part["year"])
    if part.get("ordinal"):
        day = _ordinal(year, int(part["ordinal"]))
    else:
        month = _MONTHS.index(part["word"].lower()) + 1 if part.get("word") else int(part["month"])
        day = _valid(year, month, int(part.get("day") or 1))
    compact = part.get("compact")
    clock = (
        (compact[:2], compact[2:4], compact[4:])
        if compact
        else [part.get(n) for n in ("hour", "minute", "second")]
    )
    hour, minute, second = (int(number or 0) for number in clock)
    return None if day is None else day.replace(hour=hour, minute=minute, second=second)


def _valid(year: int, month: int, day: int) -> datetime | None:
    try:
        return datetime(year, month, day)
    except ValueError:
        return None


def _ordinal(year: int, day: int) -> datetime | None:
    found = datetime(year, 1, 1) + timedelta(days=day - 1)
    return found if found.year == year else None


def _from_tags(tags: Mapping[str, str], names: Sequence[str]) -> datetime | None:
    upper = {key.upper(): value for key, value in tags.items()}
    for key in names:
        found = parsed_time(upper.get(key, ""))
        if found is not None:
            return found
    return None


def parsed_time(text: str) -> datetime | None:
    """A tag's value: ISO 8601, TIFF's 2021:04:15, milliseconds since 1970; of several, parted by `;`, the first."""
    first = re.split(r"[;,]", text)[0].strip()
    if re.fullmatch(r"\d{12,13}", first):
        return datetime.fromtimestamp(int(first) / 1000, UTC).replace(tzinfo=None, microsecond=0)
    iso = re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", first)
    try:
        found = datetime.fromisoformat(iso)
    except ValueError:
        return next(_dates_in(iso), None)
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)


PathLike = str | os.PathLike[str]

# /vsizip//data/s.zip/x.tif, https://..., s3://..., zip:///data/s.zip!x.tif, SENTINEL2_L2A:...:10m:EPSG_32631
_ELSEWHERE = re.compile(r"/vsi[a-z0-9_]+[/?]|[a-z][a-z0-9+.-]*://|[A-Z][A-Z0-9_]+:")
_TIFFS = (".tif", ".tiff")
_JPEG2000 = (".jp2",)
_LARGEST_FOLDER = 100_000  # files looked at, so that a wrong folder does not walk a whole disk


def is_elsewhere(name: str) -> bool:
    """Whether a name is one that GDAL or rasterio resolves: a virtual file system, a URL, a subdataset."""
    return bool(_ELSEWHERE.match(name)) and not exists(name)


def gdal_name(path: PathLike) -> str:
    """A path as GDAL takes it: UTF-8, whatever the locale of this process.

    Raises:
        InputError: the name's bytes are no UTF-8.
    """
    try:
        return _bytes_of(path).decode("utf-8")
    except UnicodeError as error:
        raise InputError(
            f"{printable(path)}: expected a file name in UTF-8, got other bytes; rename the file or its folder"
        ) from error


def printable(path: PathLike) -> str:
    """A path for people and for JSON: bytes that are no UTF-8 become question marks."""
    return _bytes_of(path).decode("utf-8", "replace")


def exists(path: PathLike) -> bool:
    """Whether there is such a file or folder, whatever the locale of this process."""
    return os.path.exists(_bytes_of(path))


def _bytes_of(path: PathLike) -> bytes:
    text = os.fspath(path)
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:  # in the C locale, of a name that came from `gdal_name`
        return text.encode("utf-8", "surrogateescape")


def files_of(paths: PathLike | Sequence[PathLike]) -> list[str]:
    """The rasters that a user means: files as given; of a folder its GeoTIFFs, else those of the folders in it.

    Raises:
        InputError: nothing to read, or a folder without rasters.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise InputError(f"expected the path of a GeoTIFF, or several, got {paths!r}")
    files = [file for path in given for file in _expanded(_checked(path))]
    if not files:
        raise InputError("no input: expected a GeoTIFF, several GeoTIFFs or a folder of GeoTIFFs")
    return files


def _checked(path: object) -> str:
    if not isinstance(path, str | os.PathLike) or isinstance(path, bytes) or not os.fspath(path):
        raise InputError(f"expected the path of a GeoTIFF, got {path!r}")
    return os.fspath(path)


def _expanded(path: str) -> list[str]:
    if is_elsewhere(path) or not os.path.isdir(path):
        return [path]
    files = _in_folder(Path(path)) or sorted(_below(Path(path)))
    if not files:
        raise InputError(
            f"{printable(path)}: no GeoTIFF in this folder or those in it; expected files ending in "
            f"{', '.join((*_TIFFS, *_JPEG2000))}"
        )
    return files


def _in_folder(folder: Path) -> list[str]:
    """The GeoTIFFs of one folder by name; without any, its JPEG 2000 files."""
    if folder.suffix.upper() == ".SAFE":
        raise InputError(
            f"{printable(folder)}: .SAFE products keep bands on grids of 10, 20 and 60 m, expected bands on one grid. "
            "`eozip encode` takes the product as it is; for this, give bands of one grid, such as those in IMG_DATA/R10m"
        )
    inner = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    for suffixes in (_TIFFS, _JPEG2000):
        found = [str(p) for p in inner if p.suffix.lower() in suffixes and not p.is_dir()]
        if found:
            return found
    return []


def _below(folder: Path) -> Iterator[str]:
    """The rasters of the folders in a folder; hidden ones and stores aside."""
    seen = 0
    for place, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith(".") and not name.endswith(".zarr"))
        seen += len(files) + len(inner)
        if seen > _LARGEST_FOLDER:
            raise InputError(
                f"{printable(folder)}: more than {_LARGEST_FOLDER} files below this folder; name the folders or files "
                "that hold the scene"
            )
        yield from _in_folder(Path(place))
