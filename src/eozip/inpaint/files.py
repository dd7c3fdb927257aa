"""The tool on files: GeoTIFFs or an eozip store in; out a folder of GeoTIFFs with two more bands, or a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from eozip.codecs.base import Codec
from eozip.errors import InputError, OutputError
from eozip.inpaint.fill import LARGEST, UNFILLED, Filled, Progress, inpaint
from eozip.inpaint.normalized_convolution import grown
from eozip.inpaint.predict import Predictor
from eozip.inpaint.record import (
    PROVENANCE_MEANING,
    SIGMA_MEANING,
    Stack,
    date_tags,
    predicted_pixels,
    rounded_sigma,
)
from eozip.inpaint.stores import plan_store, write_store
from eozip.raster import Profile, Scene, create_geotiffs, open_scene, read_window, with_fill
from eozip.raster.masks import MaskSpec, of_band, parse_mask, read_mask, split_mask
from eozip.store import describe
from eozip.store.pixels import read_dropped, read_pixels

PROVENANCE, SIGMA = "PROVENANCE", "SIGMA"


@dataclass(frozen=True)
class Report:
    """What one `inpaint_files` did.

    Attributes:
        output: the folder or store.
        files: [T] names in the folder; of the dates, in a store.
        shape: (T, C, H, W).
        methods: [T] predictor used, "" where nothing was hidden.
        cover: [T] share of hidden pixels.
        predicted: pixels filled, all dates; `unfilled` hidden ones left as they came.
        without_reference: filled pixels that no other date shows: from their surroundings alone.
        sigma: [T] median standard deviation of filled pixels in DN, None where none.
        calibrated: sigma was calibrated for every predictor used.
        seconds: wall time.
    """

    output: str
    files: list[str]
    shape: tuple[int, int, int, int]
    methods: list[str]
    cover: list[float]
    predicted: int
    unfilled: int
    without_reference: int
    sigma: list[float | None]
    calibrated: bool
    seconds: float


def inpaint_files(
    inputs: Sequence[str | Path],
    mask: str | MaskSpec,
    out: str | Path,
    *,
    predictor: str | Predictor | Codec | None = None,
    nodata: int | None = None,
    offset: int | None = None,
    dilate: int = 0,
    min_clear: float = 0.1,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Fill what a mask hides in a series of files.

    Args:
        inputs: GeoTIFFs (dates), a folder of them, or one eozip store.
        mask: see `eozip.raster.masks`.
        out: a folder to be made; one GeoTIFF per date with the input's bands, `PROVENANCE` and `SIGMA` (root mean
            square over the bands, DN, rounded up; 0 where measured). Or a store, `.zarr` or `.zarr.zip`, to be made: all
            pixels lossless, and arrays `provenance` and `sigma`.
        predictor, min_clear: see `inpaint`.
        nodata: DN of missing pixels; None takes the file's.
        offset: radiometric offset in DN; None takes the file's.
        dilate: pixels by which the mask grows: masks tend to miss the edges of clouds.
        overwrite: whether an existing folder of GeoTIFFs, or a store, may be replaced; never the input.
        progress: called with windows and chunks of a store done, and in all.

    Raises:
        InputError: see `inpaint` and `read_mask`.
        OutputError: the output exists, is the input, or cannot be written.
    """
    started = time.perf_counter()
    target = Path(out)
    _check_target(target, [Path(p) for p in inputs], overwrite)
    spec = parse_mask(mask) if isinstance(mask, str) else mask
    stack, hidden, forecast = _read(inputs, spec, offset, nodata)
    hidden = grown(hidden, dilate) | forecast
    missing = _missing(stack.profile, nodata)
    output = _output(stack, target, spec, missing, overwrite)  # refuses before anything is predicted
    stages = _Stages(progress, output.chunks)
    filled = inpaint(
        stack.dn,
        hidden,
        days=days_of(stack.dates),
        predictor=predictor,
        nodata=missing,
        offset=stack.offset,
        min_clear=min_clear,
        progress=stages.filled,
    )
    output.write(filled, stages.written)
    return _report(stack, filled, target, time.perf_counter() - started)


def days_of(dates: Sequence[str | None]) -> list[float] | None:
    """ISO dates > days since the first; None where one is unknown or they do not rise: then steps are equal."""
    if None in dates:
        return None
    times = [datetime.fromisoformat(str(date)) for date in dates]
    days = [(moment - times[0]).total_seconds() / 86400 for moment in times]
    return days if days == sorted(days) else None


def _check_target(target: Path, inputs: list[Path], overwrite: bool) -> None:
    if not _is_store(target) and target.suffix.lower() in (".tif", ".tiff", ".zip"):
        raise OutputError(
            f"{target}: expected the name of a folder, one GeoTIFF per date, or of a store, *.zarr or *.zarr.zip"
        )
    own = target.resolve()
    for path in inputs:
        source = path.resolve()
        within = _is_store(path) and source in own.parents
        if own == source or own in source.parents or within:
            raise OutputError(
                f"{target} is, holds or lies in the input {path}; measured data are never overwritten: choose another "
                "name"
            )
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; choose another name or pass --overwrite")


def _read(
    inputs: Sequence[str | Path], spec: MaskSpec, offset: int | None, nodata: int | None
) -> tuple[Stack, np.ndarray, np.ndarray]:
    """The series, what the mask hides, and what a store shows without having been sent it (`--drop masked`)."""
    if len(inputs) == 1 and _is_store(Path(inputs[0])):
        stack, forecast = _from_store(Path(inputs[0]), offset)
        plane = None
    else:
        stack, plane = _from_files(inputs, spec, offset, nodata)
        forecast = np.zeros((len(stack.dn), *stack.dn.shape[2:]), bool)
    if plane is not None:
        return stack, of_band(spec, plane), forecast
    if spec.path is None:
        raise InputError(
            f"mask: a store holds no band {spec.band}; name a raster: --mask {spec.kind}:...@PATH"
        )
    times, _, height, width = stack.dn.shape
    return stack, read_mask(spec, (times, height, width), stack.profile), forecast


def _is_store(path: Path) -> bool:
    return path.name.lower().endswith((".zarr", ".zarr.zip"))


def _from_files(
    inputs: Sequence[str | Path], spec: MaskSpec, offset: int | None, nodata: int | None
) -> tuple[Stack, np.ndarray | None]:
    """Pixels of every band but the mask's; and the mask's band, if it is one of them."""
    scene = open_scene(list(inputs), offset=offset)
    if np.prod(scene.shape) > LARGEST:
        raise InputError(
            f"series: expected at most {LARGEST} samples, got {scene.shape}; cut the scene in parts"
        )
    if scene.dtype.name not in ("uint16", "int16"):
        raise InputError(
            f"{scene.paths[0]}: expected uint16 or int16 DN, got {scene.dtype}; scale and round to DN"
        )
    chosen, band = split_mask(scene, spec)
    chosen = _with_nodata(with_fill(chosen, nodata))
    plane = None if band is None else read_window(band, slice(None), slice(None), slice(None))[:, 0]
    dn = read_window(chosen, slice(None), slice(None), slice(None))
    dates = tuple(None if date is None else date.isoformat() for date in scene.dates)
    names = _names([Path(path).stem for path in scene.paths])
    return Stack(dn, chosen.profile, dates, names, chosen.tags, chosen.band_tags, _whole(scene.offset)), plane


def _with_nodata(scene: Scene) -> Scene:
    """What the files' masks hide is nodata from here on, in the results too."""
    return scene if scene.fill is None else replace(scene, profile=replace(scene.profile, nodata=scene.fill))


def _from_store(path: Path, offset: int | None) -> tuple[Stack, np.ndarray]:
    found = describe(path)
    if np.prod(found.grid.shape) > LARGEST:
        raise InputError(
            f"{path}: expected at most {LARGEST} samples, got {found.grid.shape}; cut it in parts"
        )
    times, _, height, width = found.grid.shape
    dn = read_pixels(found, slice(0, times), slice(0, height), slice(0, width))[:, list(found.band_order)]
    names = _names([Path(name).stem for name in found.files])
    own = found.codec.offset if offset is None else offset
    stack = Stack(dn, found.profile, found.dates, names, found.tags, found.band_tags, own, found.codec.sensor)
    return stack, read_dropped(found)


def _names(stems: list[str]) -> tuple[str, ...]:
    """Different file names: the position is added where stems are not."""
    if len(set(stems)) < len(stems):
        stems = [f"{stem}_{t + 1:03d}" for t, stem in enumerate(stems)]
    return tuple(f"{stem}.tif" for stem in stems)


def _whole(offset: float) -> int:
    if offset != int(offset):
        raise InputError(f"offset: expected a whole number of DN, got {offset}; pass --offset")
    return int(offset)


def _missing(profile: Profile, nodata: int | None) -> int | None:
    """DN of missing pixels: as given, else as the file has it."""
    found = profile.nodata if nodata is None else nodata
    return None if found is None else int(found)


@dataclass(frozen=True)
class _Output:
    """What writes the result, and how many chunks that are counted; 0 for files."""

    write: Callable[[Filled, Progress], None]
    chunks: int


@dataclass
class _Stages:
    """One count over filling and writing."""

    progress: Progress
    chunks: int
    windows: int = 0

    def filled(self, done: int, total: int) -> None:
        self.windows = total
        self.progress(done, total + self.chunks)

    def written(self, done: int, total: int) -> None:
        self.progress(self.windows + done, self.windows + self.chunks)


def _output(stack: Stack, target: Path, spec: MaskSpec, nodata: int | None, overwrite: bool) -> _Output:
    """An output that cannot be is refused here, before anything is predicted."""
    if not _is_store(target):
        return _Output(lambda filled, progress: _write_geotiffs(stack, filled, target, overwrite), 0)
    wanted = plan_store(stack, target, nodata, overwrite)

    def write(filled: Filled, progress: Progress) -> None:
        write_store(stack, filled, target, wanted, spec, overwrite=overwrite, progress=progress)

    return _Output(write, wanted.grid.chunk_count)


def _write_geotiffs(stack: Stack, filled: Filled, target: Path, overwrite: bool) -> None:
    profile = _with_record(stack.profile)
    tags = [date_tags(own, filled, t) for t, own in enumerate(stack.tags)]
    band_tags = [*stack.band_tags, {"MEANING": PROVENANCE_MEANING}, {"MEANING": SIGMA_MEANING}]
    with create_geotiffs(target, stack.names, profile, tags, band_tags, overwrite=overwrite) as writers:
        for writer, planes in zip(writers, _planes(filled)):
            writer.write(planes, y=0, x=0)


def _with_record(profile: Profile) -> Profile:
    """The profile with two more bands. Where nodata is 0, what was measured is empty in both, as it should be."""
    return replace(
        profile,
        band_names=(*profile.band_names, PROVENANCE, SIGMA),
        scales=(*profile.scales, 1.0, 1.0),
        offsets=(*profile.offsets, 0.0, 0.0),
        units=(*profile.units, None, "DN"),
        colorinterp=(*profile.colorinterp, "undefined", "undefined"),
    )


def _planes(filled: Filled) -> Iterator[np.ndarray]:
    dtype = filled.dn.dtype
    for dn, provenance, sigma in zip(filled.dn, filled.provenance, filled.sigma):
        yield np.concatenate([dn, provenance[None].astype(dtype), rounded_sigma(sigma, dtype)[None]])


def _report(stack: Stack, filled: Filled, target: Path, seconds: float) -> Report:
    predicted = predicted_pixels(filled)
    sigma = [float(np.median(filled.sigma[t][:, at])) if at.any() else None for t, at in enumerate(predicted)]
    return Report(
        str(target),
        list(stack.names),
        stack.dn.shape,
        list(filled.methods),
        list(filled.cover),
        int(predicted.sum()),
        int((filled.provenance == UNFILLED).sum()),
        int((filled.provenance == 1).sum()),
        sigma,
        filled.calibrated,
        seconds,
    )
