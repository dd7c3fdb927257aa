"""Checks a store: every checksum, every chunk decoded, and, where asked, its pixels against the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np

from eozip.arguments import PlaceLike
from eozip.chunk import api
from eozip.errors import EozipError, FormatError, InputError
from eozip.raster import Scene
from eozip.raster.product import Product
from eozip.store.coding import Tally
from eozip.store.description import Description, band_positions, check_same_grids, describe
from eozip.store.files import store_files
from eozip.store.grid import Shape, Window
from eozip.store.holding import Holding, held_by
from eozip.store.joined import JoinedReader, as_product, joined, open_joined
from eozip.store.options import Progress
from eozip.store.overviews import Overviews, levels_of, read_level
from eozip.store.pixels import StorePixels, dropped_of, open_pixels
from eozip.store.repair import lengths_along_time
from eozip.store.shards import Shard

PSNR_TOLERANCE = 0.05
"""dB by which decoded pixels may differ from what the encoder saw: synthesis is float, symbols are exact."""


@dataclass
class Report:
    """What `verify_store` found.

    Attributes:
        chunks: chunks the scene has; `stored` of them are stored.
        decoded: chunks that were decoded.
        failures: one line for each damaged chunk or fact that does not hold; empty means verified.
        psnr: dB against the source where one was given, dropped pixels aside; None where equal or not compared.
        date_psnr: [T] the same for each date; empty where not compared.
        date_dropped: [T] pixels that are forecast, of H x W; empty where not compared.
        unequal: pixels that differ from the source, dropped ones aside; None where not compared.
        purposes: what the store was made for, with the worst value that was found; None: the best there is.
    """

    chunks: int
    stored: int = 0
    decoded: int = 0
    failures: list[str] = field(default_factory=list)
    psnr: float | None = None
    date_psnr: list[float | None] = field(default_factory=list)
    date_dropped: list[int] = field(default_factory=list)
    unequal: int | None = None
    purposes: dict[str, float | None] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures


def verify_store(
    store: PlaceLike,
    *,
    full: bool = True,
    against: Scene | Product | None = None,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Check every chunk of a store.

    Args:
        store: a `.zarr` directory or `.zarr.zip` file.
        full: decode every chunk too, which finds symbols that differ on this machine.
        against: the source with its bands as in the store's GeoTIFF; implies `full`.
        progress: called with chunks done and chunks in all.

    Returns:
        the report.

    Raises:
        FormatError: the metadata cannot be read, so that no chunk can be checked.
        InputError: the source has another shape or dtype.
    """
    description = describe(store)
    report = Report(description.grid.chunk_count)
    tally = _tally(description)
    with open_pixels(description) as pixels, _source(description, against) as source:
        checker = _Checker(pixels, report, full, source, tally, held_by(description))
        for done, (shard, window, opened) in enumerate(checker.chunks(), start=1):
            checker.check(shard, window, opened)
            progress(done, report.chunks)
        _check_levels(description, pixels.files.get, report)
    _check_count(description, report)
    _check_lengths(description, report)
    if source is not None:
        _check_tally(description, report, tally)
        report.purposes = {} if checker.hold is None else checker.hold.found()
    _check_size(description, report)
    return report


def _check_levels(description: Description, read: Callable[[str], bytes | None], report: Report) -> None:
    """Reads every chunk of the stored levels."""
    levels = levels_of(description.facts, description.grid)
    for level in levels:
        like = Overviews((level,), description.codec, np.dtype(description.dtype))
        for shard in description.grid.shards():
            rows, columns = (
                slice(k * side, min((k + 1) * side, length))
                for k, side, length in zip(shard[2:], level.chunk[2:], level.shape[2:])
            )
            try:
                read_level(read, level, like, [shard[0] * level.chunk[0]], rows, columns, level.factor)
            except FormatError as error:
                report.failures.append(str(error))


def _tally(description: Description) -> Tally:
    """Counts pixels in the order of the source's bands."""
    offsets = np.array(description.offsets)[:, list(description.band_order)]
    peak = float(description.facts["peak"])
    return Tally(
        *description.grid.shape[:2], offsets, description.codec.nodata, description.source_factors, peak
    )


def _source(
    description: Description, source: Scene | Product | None
) -> AbstractContextManager[JoinedReader | None]:
    if source is None:
        return nullcontext()
    product, nodata = as_product(source), description.codec.nodata
    if nodata is not None:
        product = replace(product, scenes=tuple(replace(scene, fill=nodata) for scene in product.scenes))
    found = joined(product)
    scene = found.scene
    if scene.shape[0] != description.grid.shape[0]:
        raise InputError(
            f"expected a source of as many dates as {description.path} has, {description.grid.shape[0]}, got "
            f"{scene.shape[0]}; give all files that were encoded: --against may be repeated, and takes a folder of them"
        )
    if scene.shape != description.grid.shape or scene.dtype != np.dtype(description.dtype):
        raise InputError(
            f"expected a source of {description.grid.shape} {description.dtype}, got {scene.shape} "
            f"{scene.dtype}; compare with the input that was encoded (choose its bands with --bands)"
        )
    positions = list(range(scene.shape[1]))
    if isinstance(source, Product):  # of a scene, the caller chose the bands
        positions = band_positions(scene, description)
    check_same_grids(description, tuple(found.band_factors[i] for i in positions))
    return open_joined(found, positions)


@dataclass
class _Checker:
    pixels: StorePixels
    report: Report
    full: bool
    source: JoinedReader | None
    tally: Tally
    hold: Holding | None

    def chunks(self) -> Iterator[tuple[Shape, Window, Shard | None]]:
        for shard in self.pixels.description.grid.shards():
            opened = self._opened(shard)
            for windows in self.pixels.description.grid.strips(shard):
                for window in windows:
                    yield shard, window, opened

    def _opened(self, shard: Shape) -> Shard | None:
        try:
            return self.pixels.at_hand(shard)
        except FormatError as error:
            self.report.failures.append(str(error))
            return None

    def check(self, shard: Shape, window: Window, opened: Shard | None) -> None:
        self.report.stored += opened is not None and opened.holds(window.position)
        try:
            self._check(shard, window, opened)
        except EozipError as error:
            self.report.failures.append(str(error))

    def _check(self, shard: Shape, window: Window, opened: Shard | None) -> None:
        fetched = self.pixels.fetch(shard, window, opened)
        with self.pixels.naming(shard, window):
            for piece in fetched:
                api.check(piece.data)
        if self.full or self.source is not None:
            dn = self.pixels.decode(shard, window, fetched)
            self.report.decoded += 1
            if self.source is not None:
                with self.pixels.naming(shard, window):
                    self._compare(self.source, window, dn, dropped_of(fetched, window))

    def _compare(self, source: JoinedReader, window: Window, dn: np.ndarray, dropped: np.ndarray) -> None:
        original = source.read(slice(*window.times), slice(*window.rows), slice(*window.columns))
        decoded = dn[:, list(self.pixels.description.band_order)]
        self.tally.add(original, decoded, window.times[0], dropped)
        nodata, most = self.pixels.description.codec.nodata, self.pixels.description.codec.max_error
        if nodata is not None and np.any((original == nodata) != (decoded == nodata)):
            raise FormatError(f"nodata pixels (DN {nodata}) are not those of the source")
        if most is not None:
            error = np.abs(original.astype(np.int32) - decoded) * ~dropped[:, None]
            if error.max() > most:
                raise FormatError(
                    f"expected no pixel to be off by more than {most} DN, got {np.count_nonzero(error > most)} of which "
                    f"the worst is off by {error.max()}"
                )
        if self.hold is not None:
            self._check_purposes(self.hold, window, original, dn, dropped)

    def _check_purposes(
        self, hold: Holding, window: Window, original: np.ndarray, dn: np.ndarray, dropped: np.ndarray
    ) -> None:
        """Measures again what the store was made for: `original` in the order of the source, `dn` in the array's."""
        found = self.pixels.description
        dates = range(*window.times)
        if found.facts.get("unmeasured") and set(dates) & set(found.facts["unmeasured"]):
            return  # another program wrote them, for no purpose
        stored = original[:, np.argsort(found.band_order)]
        offsets = [Counter(found.offsets[t]).most_common(1)[0][0] for t in dates]
        faults = []
        for offset in sorted(set(offsets)):
            these = [i for i, other in enumerate(offsets) if other == offset]
            faults += hold.faults(stored[these], dn[these], dropped[these], offset)
        if faults:
            raise FormatError("; ".join(faults))


def _check_size(description: Description, report: Report) -> None:
    """Whether the store as a whole is as small as it was to be."""
    hold = held_by(description)
    raw = description.samples * np.dtype(description.dtype).itemsize
    for purpose in () if hold is None else hold.purposes:
        if purpose.is_whole:
            value = float(description.bytes) if purpose.what == "size" else raw / description.bytes
            report.purposes[purpose.text] = value
            if not purpose.is_served(value):
                report.failures.append(
                    f"{purpose.text}: expected {purpose.meaning} to hold this, got {value:,.6g}"
                )


def _check_count(description: Description, report: Report) -> None:
    """A lost shard reads as fill values without any error: only the count tells."""
    expected = description.facts["chunks"] - description.facts["empty_chunks"]
    if report.stored != expected:
        report.failures.append(
            f"expected {expected} stored chunks, found {report.stored}; shards were lost or added"
        )


def _check_lengths(description: Description, report: Report) -> None:
    """What another program did to the store along time, whether it ended well or not."""
    dates = description.grid.shape[0]
    with store_files(description.path) as files:
        others = {name: n for name, n in lengths_along_time(files).items() if n != dates}
    if others:
        found = ", ".join(f"{n} in {name}" for name, n in others.items())
        report.failures.append(
            f"expected {dates} dates, as eozip recorded, found {found}: another program added them, or was refused while it "
            "tried; `eozip verify --repair` brings the store back, and `eozip append` adds dates"
        )


def _check_tally(description: Description, report: Report, tally: Tally) -> None:
    report.psnr, report.date_psnr, report.unequal = tally.psnr(), tally.date_psnr(), tally.unequal
    report.date_dropped = tally.dropped.tolist()
    _check_dropped(description, report)
    unmeasured = description.facts.get("unmeasured", ())
    if not unmeasured:
        _check_psnr("the pixels", description.facts["psnr"], report.psnr, report)
    for t, (expected, got) in enumerate(zip(description.facts["date_psnr"], report.date_psnr)):
        if t not in unmeasured:
            _check_psnr(f"date {t}", expected, got, report)


def _check_dropped(description: Description, report: Report) -> None:
    expected = description.facts.get("date_dropped", [0] * description.grid.shape[0])
    if report.date_dropped != expected:
        report.failures.append(
            f"expected {expected} forecast pixels by date, found {report.date_dropped}; the attributes were changed"
        )


def _check_psnr(what: str, expected: float | None, got: float | None, report: Report) -> None:
    if expected is None and got is not None:
        report.failures.append(
            f"{what}: expected to equal the source, got a PSNR of {got:.2f} dB; {report.unequal} pixels differ"
        )
    elif expected is not None and got is not None and got < expected - PSNR_TOLERANCE:
        report.failures.append(f"{what}: expected a PSNR of {expected:.2f} dB, got {got:.2f} dB")
