"""numpy in, bytes out, numpy back: what every codec shares.

`encode` checks the pixels, takes nodata and out-of-range values out (they are coded exactly), has the codec
code the rest, and packs one chunk; `decode` goes back. No torch is imported here; codecs load on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eozip import bitstream
from eozip.bitstream import Header
from eozip.chunk.candidates import Report
from eozip.chunk.decoding import (
    bytes_for,
    check_samples,
    checked_blob,
    decode_chunk,
    resolutions_of,
    selected,
)
from eozip.chunk.encoding import default_codec, encode_chunk, encode_group_chunk
from eozip.chunk.options import EncodeOptions
from eozip.codecs import level_map as levels_of_cells
from eozip.codecs import skip_mask
from eozip.codecs.base import Codec
from eozip.codecs.scales import REDUCTIONS
from eozip.errors import InputError

__all__ = [
    "Info",
    "Report",
    "check",
    "decode",
    "decode_array",
    "decode_groups",
    "default_codec",
    "dropped",
    "encode",
    "encode_groups",
    "encode_report",
    "inspect",
    "level_map_of",
]


@dataclass(frozen=True)
class Info:
    """What a chunk says about itself.

    Attributes:
        header: shape, dtype, codec, quality and the rest.
        bytes: size of the chunk.
        bpppb: bits per pixel per band, all bytes counted, of the unpadded input; with groups, per native sample.
        sections: bytes of each section, in order.
        residual: bytes of the residual layer (the last section); 0 if there is none.
        bands: names of the bands, with groups the finest group's first; empty if the chunk has none.
        groups: resolution > number of bands; empty if all bands lie on one grid.
        reduced: reduction > how many bytes from the start of the chunk `decode` needs for it.
        group_bytes: resolution > how many bytes from the start `decode` needs for that group alone.
    """

    header: Header
    bytes: int
    bpppb: float
    sections: tuple[int, ...]
    residual: int = 0
    bands: tuple[str, ...] = ()
    groups: Mapping[int, int] = field(default_factory=dict)
    reduced: Mapping[int, int] = field(default_factory=dict)
    group_bytes: Mapping[int, int] = field(default_factory=dict)


def encode(
    dn: np.ndarray,
    codec: str | Path | Codec | None = None,
    quality: float | None = None,
    *,
    target_psnr: float | None = None,
    max_error: int | None = None,
    nodata: int | None = None,
    sensor: str | None = None,
    offset: int | None = None,
    drop: np.ndarray | None = None,
    budgets: int | Sequence[int] | None = None,
    bands: Sequence[str] | None = None,
    target_size: int | None = None,
    level_map: np.ndarray | None = None,
) -> bytes:
    """Code one chunk.

    Args:
        dn: uint16 or int16 [T, C, H, W] or [C, H, W], digital numbers.
        codec: full id or short name, or ``lossless``; a path of weights, a published "owner/name@lambda-40", or a codec
            that `eozip.load` gave; None: see `default_codec`.
        quality: 0..100, rounded to hundredths; 60 if neither it nor ``target_psnr`` is given. 100 reaches
            46 dB whatever the pixels: where the network does not, a residual layer is added, or the chunk
            coded without a network.
        target_psnr: dB (see `psnr`; the peak is the DN of reflectance 1, of ``landsat-c2-l2`` 36,364); the quality is
            searched for; where the codec falls short, 100 is used, and what is missing is added as for quality 100.
        max_error: largest absolute error of any pixel, in DN, on every machine; in addition to ``quality`` or
            ``target_psnr``, or alone: then whatever is smallest. 0 is lossless.
        nodata: value of pixels without data; they come back exactly, and no other pixel gets that value.
        sensor: sensor id; a short codec name means the codec for this sensor. None: the codec's own, s2-l2a for short
            names.
        offset: radiometric offset contained in ``dn``: 1000 for Sentinel-2 baseline 04.00 and later. None: what products of
            the sensor ordinarily contain, 0 for Sentinel-2 and 7273 for ``landsat-c2-l2``.
        drop: bool [T, H, W] ([H, W] with [C, H, W] pixels), such as a mask of clouds: nothing is spent on latent
            cells (8 x 8 pixels) of which every pixel is set; they come back as what the network expects there from
            earlier dates and their surroundings. Cells with a clear pixel are coded as always. No promise and no PSNR
            counts what was dropped; `dropped` says which pixels that are. Where a chunk is smaller without a network
            (large errors forbidden), all of it is coded and nothing dropped.
        budgets: of codecs whose streams are sections of rising detail (flextec, where a section is a token): how many to
            send, for every date alike or for each of them, instead of ``quality``. 0 is for dates after the first,
            which are then forecast.
        bands: names of the bands, C of them, which the chunk then carries: of ``sensor``, by its names or its aliases. Any
            set of its bands will do, in any order, with a codec that takes any bands. None: the chunk says no names.
        target_size: bytes of the chunk, instead of ``quality``: the best quality that takes no more, mostly within 1 % of
            it. All dates, bands and scales of a chunk have one quantisation step, which is what rate and distortion ask for.
        level_map: quality by place, of codecs that can (tec-elic-small, tec-tt-small, tec-fp-small of any bands;
            flextec-small in whole octaves): whole numbers 0..15, by how many half octaves (factors of 2 ** 0.5) a place is
            quantised more coarsely than the quality says; of 15 no detail is sent. A level for each cell of 16 x 16 pixels
            [T, ceil(H / 16), ceil(W / 16)], or for each pixel [T, H, W], of which a cell takes the lowest; without T for all
            dates alike. A largest error and a target hold everywhere, whatever the map; quality 100 promises
            nothing beside one.

    Returns:
        One chunk.

    Raises:
        InputError: pixels or arguments that cannot be coded.
        UnknownCodecError: no such codec.
        WeightsError: its weights are missing or damaged.
    """
    options = EncodeOptions(
        codec=codec,
        quality=quality,
        target_psnr=target_psnr,
        max_error=max_error,
        budgets=budgets,
        target_size=target_size,
        sensor=sensor,
        offset=offset,
        nodata=nodata,
    )
    return encode_chunk(dn, options, drop=drop, bands=bands, level_map=level_map).blob


def encode_report(
    dn: np.ndarray,
    codec: str | Path | Codec | None = None,
    quality: float | None = None,
    *,
    target_psnr: float | None = None,
    max_error: int | None = None,
    nodata: int | None = None,
    sensor: str | None = None,
    offset: int | None = None,
    drop: np.ndarray | None = None,
    budgets: int | Sequence[int] | None = None,
    bands: Sequence[str] | None = None,
    target_size: int | None = None,
    level_map: np.ndarray | None = None,
) -> tuple[bytes, Report]:
    """Code one chunk as `encode` does, and say what that took; all arguments are those of `encode`.

    Returns:
        One chunk; and the quality used, whether a target was reached, and the like (`Report`).

    Raises:
        InputError: as for `encode`, and so are the other errors.
    """
    options = EncodeOptions(
        codec=codec,
        quality=quality,
        target_psnr=target_psnr,
        max_error=max_error,
        budgets=budgets,
        target_size=target_size,
        sensor=sensor,
        offset=offset,
        nodata=nodata,
    )
    made = encode_chunk(dn, options, drop=drop, bands=bands, level_map=level_map)
    return made.blob, made.report


def encode_groups(
    groups: Mapping[int, np.ndarray],
    codec: str | Path | Codec | None = None,
    quality: float | None = None,
    *,
    target_psnr: float | None = None,
    max_error: int | None = None,
    nodata: int | None = None,
    sensor: str | None = None,
    offset: int | None = None,
    bands: Mapping[int, Sequence[str]] | Sequence[str] | None = None,
    level_map: np.ndarray | None = None,
) -> bytes:
    """Code one chunk of bands on their own grids, as instruments measure them; every promise counts native samples.

    Args:
        groups: resolution (metres, or any whole unit) > uint16 or int16 [T, C, h, w] or [C, h, w]. Resolutions are
            multiples of the finest, and grids begin at the same corner: with H, W of the finest,
            h = ceil(H / factor) and w = ceil(W / factor). Such as ``{10: r10, 20: r20, 60: r60}``.
        codec: as for `encode`; one that takes groups, or ``lossless``; None: the default one.
        quality: as for `encode`.
        target_psnr: likewise, over the samples of all groups together.
        max_error: likewise, of every sample.
        nodata: likewise.
        sensor: whose bands these are; None: nothing is said, unless ``bands`` are given: then s2-l2a.
        offset: likewise.
        bands: names of the bands, as for `encode`: those of each resolution, or all of them, the finest group's first.
        level_map: as for `encode`, of the finest grid.

    Returns:
        One chunk.

    Raises:
        InputError: groups whose grids do not fit each other, or arguments that cannot be used.
        UnknownCodecError: no such codec.
        WeightsError: its weights are missing or damaged.
    """
    options = EncodeOptions(
        codec=codec,
        quality=quality,
        target_psnr=target_psnr,
        max_error=max_error,
        sensor=sensor,
        offset=offset,
        nodata=nodata,
    )
    return encode_group_chunk(groups, options, bands=bands, level_map=level_map).blob


def decode(
    blob: bytes,
    *,
    budget: int | None = None,
    reduce: int = 1,
    bands: Sequence[str | int] | None = None,
    groups: Sequence[int] | None = None,
    dates: Sequence[int] | None = None,
) -> np.ndarray | dict[int, np.ndarray]:
    """Decode one chunk, or as much of it as is wanted.

    Args:
        blob: the bytes of `encode`. For less than the whole picture its first bytes are enough; `inspect` says how many.
        budget: use only the first so many of the codec's sections (progressive codecs; the blob may then be
            cut behind them), at most as many as it has; streams of one section are not changed. None: all of them.
        reduce: 2, 4, 8, 16 or 32: averages of blocks of so many pixels each way, H and W rounded up. From codecs whose
            sections are scales (`inspect(blob).header.scales`) in a fraction of the time, and then as the codec has them: a
            residual layer and values out of range do not show. From others by decoding all of it. With groups, in pixels
            of the finest one: a group of a factor is reduced by the largest power of 2 that is at most reduce / factor.
        bands: names or positions of the bands wanted, in the order wanted; with groups positions run over all of them, the
            finest first, and groups without any are left out. None: all bands.
        groups: of chunks of `encode_groups`, resolutions of the groups wanted. None: all.
        dates: positions of the dates wanted, in the order wanted. None: all. No more are decoded than these need.

    Returns:
        Array of the dtype that was encoded, and of its shape if all was wanted; of chunks of `encode_groups` a dictionary
        of resolution > array. A reduced pixel is nodata where all of its pixels are.

    Raises:
        InputError: something that this chunk does not have.
        FormatError: not a chunk, damaged or cut (`ChecksumError`, `LimitError`, `DesyncError` say more).
        UnknownCodecError: coded by a codec that this eozip does not have.
        WeightsError: coded with other weights.
    """
    header, made = decode_chunk(blob, budget=budget, reduce=reduce, bands=bands, groups=groups, dates=dates)
    return made if header.groups else next(iter(made.values()))


def decode_array(blob: bytes, *, budget: int | None = None, dates: Sequence[int] | None = None) -> np.ndarray:
    """Decode a chunk whose bands lie on one grid, as `decode` does.

    Raises:
        InputError: a chunk of groups, which `decode_groups` gives.
    """
    header, made = decode_chunk(blob, budget=budget, dates=dates)
    if header.groups:
        raise InputError(f"expected a chunk of one array, got groups {list(made)}; use eozip.decode_groups")
    return next(iter(made.values()))


def decode_groups(
    blob: bytes,
    *,
    reduce: int = 1,
    bands: Sequence[str | int] | None = None,
    groups: Sequence[int] | None = None,
    dates: Sequence[int] | None = None,
) -> dict[int, np.ndarray]:
    """Decode one chunk of `encode_groups`, or as much of it as is wanted.

    Args:
        blob: the bytes of `encode_groups`.
        reduce: as for `decode`, in pixels of the finest group.
        bands: as for `decode`.
        groups: as for `decode`.
        dates: as for `decode`.

    Returns:
        Resolution (that of the group's own grid) > pixels.

    Raises:
        InputError: a chunk of one array, which `decode` gives; or something that this chunk does not have.
    """
    header, made = decode_chunk(blob, reduce=reduce, bands=bands, groups=groups, dates=dates)
    if not header.groups:
        raise InputError("expected a chunk of groups of bands, got one of one array; use eozip.decode")
    return made


def inspect(blob: bytes) -> Info:
    """Read the header of a chunk; needs no codec and no weights, and no more than its first few hundred bytes.

    Raises:
        FormatError: not a chunk, or a damaged header.
    """
    layout = bitstream.read_layout(checked_blob(blob))
    header, sections = layout.header, tuple(length for length, _ in layout.table)
    layer = sections[-1] if header.residual else 0
    return Info(
        header,
        layout.ends[-1],
        8.0 * layout.ends[-1] / header.samples,
        sections,
        layer,
        header.names,
        {group.resolution: group.bands for group in header.groups},
        {times: bytes_for(selected(header, reduce=times), layout) for times in REDUCTIONS},
        {r: bytes_for(selected(header, groups=[r]), layout) for r in resolutions_of(header)},
    )


def check(blob: bytes) -> Info:
    """Check every checksum of a chunk; needs no codec and no weights.

    Raises:
        FormatError: not a chunk, damaged or truncated.
    """
    bitstream.unpack(checked_blob(blob))
    return inspect(blob)


def dropped(blob: bytes) -> np.ndarray:
    """Which pixels of a chunk nothing was spent on: they are forecast (see `encode`); needs no network.

    Args:
        blob: the bytes of `encode`.

    Returns:
        bool [T, H, W], or [H, W] where [C, H, W] was encoded; False where all bands are nodata.

    Raises:
        FormatError: not a chunk, damaged or cut.
    """
    chunk = bitstream.unpack(checked_blob(blob))
    check_samples(chunk.header)
    if chunk.header.groups:
        raise InputError("dropped: nothing of groups of bands is ever dropped")
    pixels = skip_mask.dropped_pixels(chunk)
    return pixels[0] if chunk.header.squeezed else pixels


def level_map_of(blob: bytes) -> np.ndarray:
    """By how many half octaves the cells of a chunk are coded more coarsely than its quality says; needs no network.

    Args:
        blob: the bytes of `encode`.

    Returns:
        uint8 [T, ceil(H / 16), ceil(W / 16)], as `encode` takes it; 0 everywhere if the chunk has no map.

    Raises:
        FormatError: not a chunk, damaged or cut.
    """
    chunk = bitstream.unpack(checked_blob(blob))
    check_samples(chunk.header)
    return levels_of_cells.levels_of(chunk)
