"""Products of ESA's format: .SAFE of Level-1C and Level-2A, a folder or a zip file, by their metadata XML."""

from __future__ import annotations

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from rasterio.crs import CRS
from rasterio.errors import CRSError

from eozip.errors import InputError
from eozip.raster.delivered.delivery import BesideFile, Delivery, Told, agreed, by_baseline, by_grid, version
from eozip.raster.delivered.names import KNOWN, NATIVE, SAFE_MAIN
from eozip.raster.files import Dating, parsed_time
from eozip.raster.header import Band, Header, header_of
from eozip.raster.product import Acquisition
from eozip.sensors.sensor import canonical_name

_LARGEST_XML = 64 * 2**20
_MOST_FILES = 20_000
# physicalBand by bandId where an XML has no spectral information; 13 of them, also in Level-2A, where B10 does not exist
_ORDER = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
_METRES = {"B1": 60, "B2": 10, "B3": 10, "B4": 10, "B8": 10, "B9": 60, "B10": 60}
_CLASSIFICATION = ("clouds", "cirrus", "snow")  # bands of Level-1C's MSK_CLASSI, from baseline 04.00 on
_PROBABILITIES = {"cld": r"MSK_CLDPRB_20m|.*_CLD_20m", "snw": r"MSK_SNWPRB_20m|.*_SNW_20m"}

_DAMAGED = (
    OSError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    EOFError,
)  # zip files, also encrypted or of unknown methods


@contextmanager
def _opened(path: str | Path) -> Iterator[zipfile.ZipFile]:
    """A zip file.

    Raises:
        InputError: damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (*_DAMAGED, struct.error, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: cannot be read as a zip file ({error}); fetch the product again"
        ) from error


def is_safe_zip(path: str) -> bool:
    """Whether a zip file holds a product of this format.

    Raises:
        InputError: the file is damaged.
    """
    if not zipfile.is_zipfile(path):
        return False
    with _opened(path) as archive:
        return any(SAFE_MAIN.fullmatch(PurePosixPath(name).name) for name in archive.namelist())


def safe_delivery(path: str, wanted: Sequence[str] | None = None, offset: float | None = None) -> Delivery:
    """Describe one product; read no pixels.

    Args:
        path: a folder, its main XML, or a zip file of one.
        wanted: canonical names of bands; the files of others may be missing; None: all.
        offset: radiometric offset of all bands, whatever the XML says.

    Raises:
        InputError: no metadata, a file missing or unreadable, or an XML that does not tell the offset.
    """
    files = _Files.of(path)
    meta = _Meta(files, files.xml(files.main))
    headers, missing = [], []
    for band in meta.bands:
        if wanted is None or band.code in wanted:
            found = files.image(band)
            headers.append(_band_header(files, found, band, meta, offset)) if found else missing.append(band)
    if missing:
        raise InputError(_missing(files, meta, missing))
    date, tile, grid_crs = meta.granule()
    headers = [_with_crs(header, grid_crs) for header in headers]
    joined = by_grid(headers, files.name)
    dated = Dating(date)
    specials = {name: value for name, value in meta.specials.items() if value is not None}
    source = "given" if offset is not None else meta.offset_source
    return Delivery(
        name=files.name,
        headers=tuple(replace(header, dating=dated) for header in joined),
        dating=dated,
        facts=Acquisition(date, meta.product, meta.level, meta.baseline, source, specials),
        beside=tuple(_beside(files, meta, joined[0])),
        kind="safe",
        sensor="s2-l2a" if meta.level == "L2A" else "s2-l1c",
        tile=tile,
        bytes=files.bytes_of([band.source.path for header in joined for band in header.bands]),
        scale=1 / meta.quantification,
    )


# --- files ---


@dataclass(frozen=True)
class _Files:
    """The files of a product, in a folder or a zip file.

    Attributes:
        name: of the product.
        given: what the user named.
        root: what GDAL puts before a name.
        names: relative, with "/"; sizes in bytes by name.
        main: name of the main XML.
        archive: path of the zip file; None of a folder.
        inner: folder of the product in the zip file, with "/".
    """

    name: str
    given: str
    root: str
    sizes: dict[str, int]
    main: str
    archive: str | None = None
    inner: str = ""

    @classmethod
    def of(cls, path: str) -> _Files:
        place = Path(path)
        if place.suffix.lower() == ".zip" and place.is_file():
            return cls._zipped(path)
        folder = place if place.is_dir() else place.parent
        sizes = dict(_walked(folder))
        main = next((name for name in sorted(sizes) if "/" not in name and SAFE_MAIN.fullmatch(name)), None)
        if main is None:
            raise InputError(
                f"{path}: expected a .SAFE product with its MTD_MSIL2A.xml or MTD_MSIL1C.xml, found none"
            )
        return cls(folder.resolve().name, path, f"{folder}/", sizes, main)

    @classmethod
    def _zipped(cls, path: str) -> _Files:
        with _opened(path) as archive:
            sizes = {
                info.filename: info.file_size
                for info in archive.infolist()[:_MOST_FILES]
                if not info.is_dir()
            }
        mains = [name for name in sizes if SAFE_MAIN.fullmatch(PurePosixPath(name).name)]
        if len(mains) != 1:
            raise InputError(
                f"{path}: expected one .SAFE product in this zip file, got {len(mains)}; unpack it"
            )
        inner = mains[0].rpartition("/")[0]
        start = f"{inner}/" if inner else ""
        own = {name[len(start) :]: size for name, size in sizes.items() if name.startswith(start)}
        name = PurePosixPath(inner).name or Path(path).stem
        return cls(
            name, path, f"/vsizip/{os.path.abspath(path)}/{start}", own, mains[0][len(start) :], path, start
        )

    def xml(self, name: str) -> ElementTree.Element:
        """One XML, without namespaces.

        Raises:
            InputError: too large, or not XML.
        """
        try:
            if self.sizes[name] > _LARGEST_XML:
                raise InputError(
                    f"{self.given}: {name} has {self.sizes[name]} bytes; expected at most {_LARGEST_XML}"
                )
            root = ElementTree.fromstring(self._bytes(name))
        except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.given}: {name} is no XML ({error}); fetch the product again") from error
        for node in root.iter():
            node.tag = node.tag.rpartition("}")[2]
        return root

    def _bytes(self, name: str) -> bytes:
        if self.archive is None:
            return Path(self.root, name).read_bytes()
        with _opened(self.archive) as archive:
            return archive.read(self.inner + name)

    def image(self, band: _SafeBand) -> str | None:
        """Name of a band's file: as the XML lists it, else as such files are called; None where there is none."""
        ending = re.compile(rf".*_{band.file_code}(_{band.metres}m)?\.jp2", re.IGNORECASE)
        listed = [f"{name}.jp2" for name in band.listed if ending.fullmatch(f"{name}.jp2")]
        for name in listed:
            found = next((known for known in self.sizes if known == name or known.endswith(f"/{name}")), None)
            if found is not None:
                return found
        if listed:
            return None
        within = [name for name in sorted(self.sizes) if "IMG_DATA" in name and ending.fullmatch(name)]
        return within[0] if within else None

    def ending(self, pattern: str) -> str | None:
        """The first file whose name without folders matches, without its .jp2."""
        wanted = re.compile(rf"(?:{pattern})\.jp2", re.IGNORECASE)
        return next((name for name in sorted(self.sizes) if wanted.fullmatch(PurePosixPath(name).name)), None)

    def bytes_of(self, paths: Sequence[str]) -> int:
        """Bytes of files as GDAL names them."""
        return sum(self.sizes[path[len(self.root) :]] for path in paths)


def _walked(folder: Path) -> Iterator[tuple[str, int]]:
    count = 0
    for place, _, names in os.walk(folder):
        for name in names:
            count += 1
            if count > _MOST_FILES:
                raise InputError(f"{folder}: more than {_MOST_FILES} files; expected one .SAFE product")
            full = Path(place, name)
            yield full.relative_to(folder).as_posix(), full.stat().st_size


# --- metadata ---


@dataclass(frozen=True)
class _SafeBand:
    """A band as the XML has it.

    Attributes:
        number: bandId, 0 to 12.
        code: canonical name.
        file_code: as in names of files.
        metres: native resolution.
        listed: every image that the XML lists.
    """

    number: int
    code: str
    file_code: str
    metres: int
    listed: tuple[str, ...]


class _Meta:
    """What the main XML and the granule's say."""

    def __init__(self, files: _Files, root: ElementTree.Element) -> None:
        self._files, self._root = files, root
        kind = re.search(r"Level-(1C|2A)", root.tag)
        if kind is None:
            raise InputError(f"{files.given}: {files.main}: expected Level-1C or Level-2A, got <{root.tag}>")
        self.level = f"L{kind.group(1)}"
        self.baseline = self._text("PROCESSING_BASELINE")
        uri = self._text("PRODUCT_URI") or self._text("PRODUCT_URI_2A") or self._text("PRODUCT_URI_1C")
        self.product = (uri or files.name).removesuffix(".SAFE")
        self.specials = {
            node.findtext("SPECIAL_VALUE_TEXT", "").strip(): _whole(node.findtext("SPECIAL_VALUE_INDEX"))
            for node in root.iter("Special_Values")
        }
        value = self._text("BOA_QUANTIFICATION_VALUE") or self._text("QUANTIFICATION_VALUE")
        value = value or self._text("L2A_BOA_QUANTIFICATION_VALUE") or "10000"
        self.quantification = _positive(value, files)
        self.bands = tuple(self._bands())
        self._offsets = self._listed_offsets()
        self.offset_source = ""

    def _text(self, tag: str) -> str | None:
        node = next(self._root.iter(tag), None)
        return None if node is None or node.text is None else node.text.strip()

    def _bands(self) -> Iterator[_SafeBand]:
        told = {
            int(node.get("bandId", "-1")): (node.get("physicalBand", ""), _whole(node.findtext("RESOLUTION")))
            for node in self._root.iter("Spectral_Information")
        }
        told = told or {i: (band, None) for i, band in enumerate(_ORDER)}
        tags = ("IMAGE_FILE", "IMAGE_FILE_2A", "IMAGE_ID", "IMAGE_ID_2A")
        listed = tuple((node.text or "").strip() for tag in tags for node in self._root.iter(tag))
        for number, (band, metres) in sorted(told.items()):
            code = canonical_name(band)
            if code is None:
                raise InputError(
                    f"{self._files.given}: {self._files.main}: unknown band {band!r} of bandId {number}"
                )
            if self.level == "L2A" and code == "B10":
                continue  # listed, but never delivered
            file_code = band if band.endswith("A") else f"B{int(band[1:]):02d}"
            yield _SafeBand(number, code, file_code, metres or _METRES.get(band, 20), listed)

    def _listed_offsets(self) -> dict[int, float]:
        tag = "BOA_ADD_OFFSET" if self.level == "L2A" else "RADIO_ADD_OFFSET"
        found: dict[int, float] = {}
        for node in self._root.iter(tag):
            number, value = _whole(node.get("band_id")), _whole(node.text)
            if number is None or value is None:
                raise InputError(
                    f"{self._files.given}: {self._files.main}: expected {tag} with a band_id and a whole number, got "
                    f"band_id {node.get('band_id')!r}, {node.text!r}"
                )
            found[number] = -float(value)
        return found

    def offset(self, band: _SafeBand) -> float:
        """DN added to a band.

        Raises:
            InputError: the XML does not tell, or contradicts its own baseline.
        """
        files, tag = self._files, "BOA_ADD_OFFSET" if self.level == "L2A" else "RADIO_ADD_OFFSET"
        by_version = by_baseline(self.baseline, "PROCESSING_BASELINE")
        if self._offsets and band.number not in self._offsets:
            raise InputError(
                f"{files.given}: {files.main} lists {tag} for band_id {sorted(self._offsets)}, none for {band.number} "
                f"({band.code}); say --offset 1000 or --offset 0, or fetch the metadata again"
            )
        if not self._offsets and (version(self.baseline) is None or by_version[0].dn != 0):
            raise InputError(
                f"{files.given}: radiometric offset unclear: PROCESSING_BASELINE is {self.baseline or 'not told'}, but "
                f"{files.main} lists no {tag}, which products of baseline 04.00 and later have. Say --offset 1000 or "
                "--offset 0, or fetch the metadata again"
            )
        if not self._offsets:
            self.offset_source = by_version[0].by
            return 0.0
        own = Told(self._offsets[band.number], f"{tag} of {files.main}")
        is_old = bool(by_version) and by_version[0].dn == 0
        self.offset_source = own.by
        return agreed([own, *by_version] if is_old else [own], files.name, own).dn

    def granule(self) -> tuple[datetime | None, str | None, str | None]:
        """Sensing time, tile, and CRS of the one granule.

        Raises:
            InputError: several granules.
        """
        names = [name for name in self._files.sizes if re.fullmatch(r"GRANULE/[^/]+/[^/]+\.xml", name)]
        if len(names) > 1:
            raise InputError(
                f"{self._files.given}: holds {len(names)} tiles; expected one. Give the bands of one GRANULE "
                "folder by themselves, or fetch the product of the single tile"
            )
        start = self._text("PRODUCT_START_TIME") or self._text("DATATAKE_SENSING_START")
        tile = re.search(r"_(T\d\d[A-Z]{3})(?:_|$)", f"{self.product}_")
        if not names:
            return parsed_time(start or ""), tile.group(1) if tile else None, None
        root = self._files.xml(names[0])
        sensed = next((node.text for node in root.iter("SENSING_TIME")), None) or start
        found = tile or re.search(
            r"_(T\d\d[A-Z]{3})(?:_|$)", next((n.text or "" for n in root.iter("TILE_ID")), "")
        )
        crs = next((node.text for node in root.iter("HORIZONTAL_CS_CODE")), None)
        return parsed_time(sensed or ""), found.group(1) if found else None, crs


def _whole(text: str | None) -> int | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _positive(text: str, files: _Files) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise InputError(
            f"{files.given}: {files.main}: expected a quantification value above 0, got {text!r}"
        )
    return value


def _missing(files: _Files, meta: _Meta, missing: Sequence[_SafeBand]) -> str:
    names = ", ".join(f"{band.code} ({band.metres} m)" for band in missing)
    have = ",".join(band.code for band in meta.bands if band not in missing)
    return (
        f"{files.given}: the file of band {names} is missing; fetch the product again, or encode the bands that are there: "
        f"--bands {have}"
    )


# --- headers ---


def _band_header(files: _Files, name: str, band: _SafeBand, meta: _Meta, offset: float | None) -> Header:
    header = _header(files, name, f"band {band.code}")
    if len(header.bands) != 1:
        raise InputError(f"{files.given}: {name}: expected one band, got {len(header.bands)}")
    dn = offset if offset is not None else meta.offset(band)
    nodata = meta.specials.get("NODATA")
    return replace(header, bands=(_as(header.bands[0], band.file_code, band.code, nodata, dn),))


def _as(band: Band, name: str, code: str | None, nodata: float | None, dn: float | None) -> Band:
    kept = band.nodata if band.nodata is not None else nodata
    return replace(band, name=name, code=code, nodata=kept, radiometric=dn)


def _header(files: _Files, name: str, what: str) -> Header:
    try:
        return header_of(files.root + name)
    except InputError as error:
        raise InputError(f"{files.name}: {what}: {error}") from error


def _with_crs(header: Header, code: str | None) -> Header:
    """The granule's CRS where the image has none."""
    if header.grid["crs"] is not None or code is None:
        return header
    try:
        return replace(header, grid={**header.grid, "crs": CRS.from_user_input(code).to_wkt()})
    except CRSError as error:
        raise InputError(f"{header.path}: has no CRS, and its metadata names {code!r} ({error})") from error


def _beside(files: _Files, meta: _Meta, finest: Header) -> Iterator[BesideFile]:
    if meta.level == "L1C":
        yield from _classification(files)
        return
    for layer in ("scl", "aot", "wvp"):
        pattern = f".*_{layer}"
        found = next(
            (n for m in (f"_{NATIVE}m", "_10m", "_60m", "") if (n := files.ending(pattern + m)) is not None),
            None,
        )
        if found is not None:
            yield _layer(files, found, layer)
    for layer, pattern in _PROBABILITIES.items():
        found = files.ending(pattern)
        if found is not None:
            yield _layer(files, found, layer)


def _classification(files: _Files) -> Iterator[BesideFile]:
    found = files.ending("MSK_CLASSI_B00|.*_CLASSI(_B00)?(_60m)?")
    if found is None:
        return
    header = _header(files, found, "cloud mask")
    if len(header.bands) != len(_CLASSIFICATION):
        raise InputError(
            f"{files.given}: {found}: expected {len(_CLASSIFICATION)} bands, {', '.join(_CLASSIFICATION)}, got "
            f"{len(header.bands)}; fetch the product again"
        )
    for band, layer in zip(header.bands, _CLASSIFICATION, strict=True):
        kind, attributes = KNOWN[layer]
        named = replace(band, name=layer, code=None)
        yield BesideFile(layer, kind, replace(header, bands=(named,)), attributes)


def _layer(files: _Files, name: str, layer: str) -> BesideFile:
    header = _header(files, name, layer)
    band = replace(header.bands[0], name=layer, code=None)
    kind, attributes = KNOWN[layer]
    return BesideFile(layer, kind, replace(header, bands=(band,)), attributes)
