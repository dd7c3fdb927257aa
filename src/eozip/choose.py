"""What a purpose costs: some chunks of a scene at several qualities and by several codecs, before anything is encoded.

Closed loop, as `eozip encode --for` does it: each sampled chunk at its own lowest quality that serves the purposes. From
those chunks the bytes of the whole are told, with an interval by a bootstrap over the chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eozip.chunk.encoding import EncodedChunk, takes_levels
from eozip.chunk.options import EncodeOptions
from eozip.codecs.registry import LOSSLESS
from eozip.errors import InputError, OutputError
from eozip.outputs import naming, publish, resolved, temporary
from eozip.picture import new_figure
from eozip.purpose import Classifier, Purpose, parse_purposes
from eozip.raster import open_product
from eozip.raster.files import PathLike
from eozip.store.convert import request_for
from eozip.store.fitting import SampleSizes, largest_fitting, room
from eozip.store.grid import GOP, Grid, alignment, plan, samples
from eozip.store.holding import Holding
from eozip.store.joined import Joined, joined, open_joined
from eozip.store.sampling import Estimate, Sample, learned_classes, pixels_in, sampled
from eozip.store.writer import bytes_beside, pixels_of

_QUALITIES = (5, 20, 35, 50, 65, 80, 95)
"""At which every sampled chunk is coded for the curve."""
_ALONE = "tec-elic-small"  # codes each date alone; of one date the default makes the same bytes

_Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Point:
    """All sampled chunks at one quality.

    Attributes:
        quality: of every chunk.
        bytes: of the whole store.
        values: of each purpose, by its text, the chunks' values.
        served: chunks that serve every purpose.
    """

    quality: int
    bytes: Estimate
    values: Mapping[str, list[float]]
    served: int


@dataclass(frozen=True)
class Offer:
    """What one codec makes of the purposes.

    Attributes:
        codec: full id.
        points: the curve, rising quality.
        qualities: of the sampled chunks in the closed loop, each its own.
        without_network: sampled chunks that no quality serves: their errors are bounded, or they are coded exactly.
        bytes: of the whole store in the closed loop.
        ratio: raw bytes by these.
        is_reached: whether a store serves all purposes, those of its size too.
    """

    codec: str
    points: list[Point]
    qualities: list[float]
    without_network: int
    bytes: Estimate
    ratio: float
    is_reached: bool


@dataclass(frozen=True)
class Choice:
    """What `choose` found.

    Attributes:
        purposes: as they were asked for.
        shape: (T, C, H, W) of the scene.
        sampled: chunks that were coded; there are `chunks`.
        chunks: see `sampled`.
        raw_bytes: of the uncompressed samples.
        offers: of each codec, those that reach the purposes first, the smallest first.
    """

    purposes: tuple[Purpose, ...]
    shape: tuple[int, int, int, int]
    sampled: int
    chunks: int
    raw_bytes: int
    offers: list[Offer]

    @property
    def best(self) -> Offer:
        """The offer to take."""
        return self.offers[0]


def choose(
    inputs: PathLike | Sequence[PathLike],
    purposes: str | Sequence[str],
    codecs: Sequence[str] = (),
    *,
    count: int = 8,
    classes: str | Path | None = None,
    bands: Sequence[str | int] | None = None,
    sensor: str | None = None,
    offset: int | None = None,
    nodata: int | None = None,
    chunk: int | None = None,
    gop: int = GOP,
    progress: _Progress = lambda done, total: None,
) -> Choice:
    """Code a sample of chunks to say which codec and quality serve some purposes, and what that costs.

    Args:
        inputs: as for `eozip.encode_store`, and so are `bands`, `sensor`, `offset`, `nodata`, `chunk`, `gop`, `classes`.
        purposes: such as "ndvi<0.02"; see docs/purposes.md.
        codecs: to compare; none: the one that `eozip encode` takes, and of several dates `tec-elic-small`.
        count: chunks that are coded at most.
        classes: see `inputs`.
        bands: see `inputs`.
        sensor: see `inputs`.
        offset: see `inputs`.
        nodata: see `inputs`.
        chunk: see `inputs`.
        gop: see `inputs`.
        progress: called with chunks done and in all.

    Raises:
        InputError: purposes that cannot be, or that nothing reaches; the message says what is reached, at which price.
    """
    wanted = parse_purposes([purposes] if isinstance(purposes, str) else list(purposes))
    if count < 1:
        raise InputError(f"count: expected at least 1 chunk, got {count}")
    found = joined(open_product(inputs, bands, offset), nodata)
    options = EncodeOptions(sensor=sensor, nodata=nodata, offset=offset)
    requests = {}
    for name in codecs or ((None, _ALONE) if found.scene.shape[0] > 1 else (None,)):
        request = request_for(found.scene, replace(options, codec=name), gop=gop, likely=found.product.sensor)
        requests[request.codec.codec] = request
    offers = []
    for done, request in enumerate(requests.values()):
        codec = replace(request.codec, quality=None, grids=found.grids(request.order))
        trial = _prepared(found, request.order, codec, wanted, classes, count, chunk, gop)
        step = _steps(progress, done, len(requests), len(trial.sizes.samples))
        offers.append(_offer(trial, wanted, step))
    offers.sort(key=lambda offer: (not offer.is_reached, offer.bytes.value))
    grid, sizes = trial.grid, trial.sizes
    choice = Choice(wanted, grid.shape, len(sizes.samples), grid.chunk_count, trial.raw, offers)
    if not choice.best.is_reached:
        raise InputError(_unreached(choice))
    return choice


@dataclass(frozen=True)
class _Prepared:
    sizes: SampleSizes
    hold: Holding
    grid: Grid
    raw: int


def _prepared(
    found: Joined,
    order: Sequence[int],
    codec: Any,
    purposes: tuple[Purpose, ...],
    classes: str | Path | None,
    count: int,
    chunk: int | None,
    gop: int,
) -> _Prepared:
    """The sampled chunks of a scene, their bands in the order of a codec's sensor."""
    pixels = pixels_of(found.scene.select(order), codec)
    grid = plan(found.scene.shape, chunk, gop, alignment=alignment(codec.grids))
    learned: Classifier | None = None
    with open_joined(found, order) as reader:
        if classes is not None:
            learned = learned_classes(classes, found.scene.profile, reader, grid, pixels)
        hold = Holding(purposes, pixels, learned)
        hold.check()
        taken = list(sampled(reader, grid, count, codec.nodata))
    if not taken:
        raise InputError("expected a scene with data, got one of nodata alone; there is nothing to choose")
    raw = samples(grid.shape, codec.grids) * found.scene.dtype.itemsize
    sizes = SampleSizes(taken, codec, pixels_in(grid), bytes_beside(found, order, codec, grid))
    return _Prepared(sizes, hold, grid, raw)


def _steps(progress: _Progress, done: int, codecs: int, chunks: int) -> Callable[[int], None]:
    return lambda i: progress(done * chunks + i, codecs * chunks)


def _offer(trial: _Prepared, purposes: tuple[Purpose, ...], step: Callable[[int], None]) -> Offer:
    sizes, hold = trial.sizes, trial.hold
    whole = [purpose for purpose in purposes if purpose.is_whole]
    held = []
    for i, sample in enumerate(sizes.samples):
        if hold.by_chunk:
            can_level = takes_levels(sizes.codec.codec)
            held.append(hold.encoded(_encoder(sizes, i), sample.dn, can_level=can_level).coded)
        for quality in _QUALITIES if sizes.codec.codec != LOSSLESS else _QUALITIES[-1:]:
            sizes.coded(i, quality)
        step(i + 1)
    points = [_point(sizes, hold, quality) for quality in _QUALITIES if sizes.codec.codec != LOSSLESS]
    most = room(whole, trial.raw) if whole else None
    if held:
        estimate = sizes.told(held)
        is_reached = most is None or estimate.value <= most
    else:
        quality = largest_fitting(sizes, most or 0)
        held = [sizes.coded(i, quality) for i in range(len(sizes.samples))]
        estimate = sizes.estimate(quality)
        is_reached = estimate.value <= (most or 0)
    outside = sum(one.report.codec != sizes.codec.codec for one in held)
    return Offer(
        codec=sizes.codec.codec,
        points=points,
        qualities=[one.report.quality for one in held],
        without_network=outside,
        bytes=estimate,
        ratio=trial.raw / max(1.0, estimate.value),
        is_reached=is_reached,
    )


def _encoder(sizes: SampleSizes, i: int) -> Callable[[Mapping[str, Any]], EncodedChunk]:
    """Codes one sampled chunk; what the curve needs too is coded once."""

    def encode(settings: Mapping[str, Any]) -> EncodedChunk:
        quality = settings.get("quality")
        given = dict(settings)
        level_map = given.pop("level_map", None)
        if quality is not None and given.get("max_error") is None and level_map is None:
            return sizes.coded(i, quality)
        asked = replace(sizes.codec, **given)
        made = asked.encoded(sizes.samples[i].dn, level_map=level_map)
        return made if made.pixels is not None else replace(made, pixels=asked.decoded(made.blob))

    return encode


def _point(sizes: SampleSizes, hold: Holding, quality: int) -> Point:
    values = [_values(sizes, hold, i, sample, quality) for i, sample in enumerate(sizes.samples)]
    served = sum(all(p.is_served(one[p.text]) for p in hold.by_chunk) for one in values)
    by_text = {p.text: [one[p.text] for one in values] for p in hold.by_chunk}
    return Point(quality, sizes.estimate(quality), by_text, served)


def _values(sizes: SampleSizes, hold: Holding, i: int, sample: Sample, quality: int) -> dict[str, float]:
    made = sizes.coded(i, quality)
    if made.pixels is None:
        raise InputError("expected pixels of a coded chunk, got none")
    return hold.values(sample.dn, made.pixels, made.dropped, None)


def _unreached(choice: Choice) -> str:
    best = choice.best
    asked = " and ".join(purpose.text for purpose in choice.purposes)
    return (
        f"{asked}: nothing reaches all of it; the smallest that serves the rest is {best.codec} with about "
        f"{best.bytes.value:,.0f} bytes ({best.bytes.low:,.0f} to {best.bytes.high:,.0f}), ratio {best.ratio:.1f}, as a "
        "folder (.zarr; a .zarr.zip takes less: try `eozip encode --for`); ask for less, or for more room"
    )


def draw(choice: Choice, out: str | Path, *, overwrite: bool = False) -> None:
    """Draw the curves: each purpose over the bytes of the store, the median of the chunks and all of them.

    Args:
        choice: of `choose`.
        out: a PNG or SVG file.
        overwrite: whether a file that exists may be replaced.

    Raises:
        InputError: matplotlib is missing, or there is no purpose to draw.
        OutputError: see `check_plot`; or it cannot be written.
    """
    target = check_plot(out, choice.purposes, overwrite=overwrite)
    texts = [purpose for purpose in choice.purposes if not purpose.is_whole]
    figure = new_figure(6.4, 3.6 * len(texts))
    for axes, purpose in zip(np.atleast_1d(figure.subplots(len(texts), 1)), texts):
        _draw_one(axes, choice, purpose)
    with naming(target), temporary(target, folder=False) as part:
        figure.savefig(part, format=target.suffix.lower().lstrip("."), dpi=120)
        publish(part, target, overwrite=overwrite)


def check_plot(out: str | Path, purposes: Sequence[Purpose], *, overwrite: bool) -> Path:
    """Refuse a picture that cannot get its name, or would be empty, before anything is tried.

    Raises:
        InputError: there is no purpose to draw.
        OutputError: another ending, no such folder, or the file exists.
    """
    if all(purpose.is_whole for purpose in purposes):
        raise InputError(
            "plot: expected a purpose of each chunk to draw, got sizes alone; add one, such as psnr>=0"
        )
    target = resolved(Path(out))
    if target.suffix.lower() not in (".png", ".svg"):
        raise OutputError(f"{out}: expected a name ending in .png or .svg; rename the output")
    if not target.parent.is_dir():
        raise OutputError(
            f"{out}: expected a name in a folder that exists, got none called {target.parent}; make it"
        )
    if target.exists() and not overwrite:
        raise OutputError(f"{out} exists already; choose another name, or pass --overwrite (overwrite=True)")
    return target


def _draw_one(axes: Any, choice: Choice, purpose: Purpose) -> None:
    for offer in choice.offers:
        if not offer.points:
            continue
        x = [point.bytes.value / 1e6 for point in offer.points]
        values = np.array([point.values[purpose.text] for point in offer.points], float)
        values[~np.isfinite(values)] = np.nan
        (line,) = axes.plot(x, np.nanmedian(values, axis=1), marker="o", label=offer.codec)
        axes.fill_between(
            x, np.nanmin(values, axis=1), np.nanmax(values, axis=1), alpha=0.2, color=line.get_color()
        )
    axes.axhline(purpose.limit, color="black", linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("store, MB (median and range of the sampled chunks)")
    axes.set_ylabel(purpose.what)
    axes.set_title(f"{purpose.text}: {purpose.meaning}")
    axes.legend()
