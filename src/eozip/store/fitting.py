"""Stores as good as a number of bytes allows: `size<100MB`, `ratio>=50`, or of so many bytes (`--target-size`).

Found on a sample, then held on the whole store."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from eozip.arguments import Place
from eozip.chunk.encoding import EncodedChunk
from eozip.chunk.options import DEFAULT_QUALITY
from eozip.chunk.sizes import largest_of_size
from eozip.codecs.registry import LOSSLESS
from eozip.errors import InputError
from eozip.outputs import publish, remove, resolved, temporary
from eozip.purpose import Purpose
from eozip.store.codec import EozipChunkCodec
from eozip.store.container import check_target
from eozip.store.grid import Grid
from eozip.store.joined import Joined, open_joined
from eozip.store.sampling import Estimate, Sample, pixels_in, sampled, whole_bytes
from eozip.store.writer import Summary, bytes_beside

_BEST = 100
"""The highest quality."""
_TRIES = 6
_SAMPLED = 6  # chunks from which the first quality to try is told
_SIZE_TRIES = 12  # whole stores that are written for a size, at most
_SAMPLE_SLACK = 0.02  # nearer than that a sample is no guide
_STEP_BACK = 0.985  # of the room, where a store came out too large


@dataclass
class SampleSizes:
    """Bytes of some chunks by quality, each coded once.

    Attributes:
        samples: the chunks.
        codec: with all but the quality settled.
        total: pixels of all chunks.
        beside: bytes of the store that are of no chunk: see `eozip.store.writer.bytes_beside`.
    """

    samples: Sequence[Sample]
    codec: EozipChunkCodec
    total: int
    beside: int = 0
    _made: dict[tuple[int, int], EncodedChunk] = field(default_factory=dict)

    def coded(self, i: int, quality: int) -> EncodedChunk:
        """One chunk at a quality, its pixels known."""
        if (i, quality) not in self._made:
            asked = replace(self.codec, quality=quality, target_psnr=None, budgets=None)
            made = asked.encoded(self.samples[i].dn)
            made = made if made.pixels is not None else replace(made, pixels=asked.decoded(made.blob))
            self._made[i, quality] = made
        return self._made[i, quality]

    @property
    def pixels(self) -> list[int]:
        """Pixels of each chunk, all dates."""
        return [len(one.dn) * one.dn.shape[2] * one.dn.shape[3] for one in self.samples]

    def estimate(self, quality: int) -> Estimate:
        """Bytes of the store at a quality."""
        return self.told([self.coded(i, quality) for i in range(len(self.samples))])

    def told(self, made: Sequence[EncodedChunk]) -> Estimate:
        """Bytes of the store whose chunks are like these, one of each sample."""
        found = whole_bytes([len(one.blob) for one in made], self.pixels, self.total)
        return Estimate(*(value + self.beside for value in (found.value, found.low, found.high)))


def room(purposes: Sequence[Purpose], raw: int) -> int:
    """Bytes that a store may have.

    Args:
        purposes: of the whole store.
        raw: bytes of the uncompressed samples.
    """
    limits = []
    for purpose in purposes:
        bytes_ = purpose.limit if purpose.what == "size" else raw / max(purpose.limit, 1e-9)
        limits.append(math.ceil(bytes_) - 1 if purpose.strict else math.floor(bytes_))
    return min(limits)


def encode_fitting(
    encode: Callable[[Path, int | None], Summary],
    out: Path,
    purposes: Sequence[Purpose],
    raw: int,
    sizes: SampleSizes | None,
    *,
    overwrite: bool = False,
) -> Summary:
    """Encode at the highest quality at which the whole store is small enough.

    Args:
        encode: writes a store at a quality; None where purposes of each chunk settle it.
        out: where the store appears when it is small enough.
        purposes: of the whole store.
        raw: bytes of the uncompressed samples.
        sizes: of a sample; None where purposes of each chunk settle the quality.
        overwrite: whether a store there may be replaced.

    Returns:
        the summary, its seconds those of all tries.

    Raises:
        InputError: no quality makes it so small; the message says how small it gets, and at which price.
    """
    started = time.perf_counter()
    target = resolved(out)
    check_target(target, overwrite)
    most = room(purposes, raw)
    quality = None if sizes is None else largest_fitting(sizes, most)
    for _ in range(_TRIES):
        with temporary(target, folder=True) as part:
            inside = part / target.name
            made = encode(inside, quality)
            if made.bytes <= most:
                publish(inside, target, overwrite=target.exists())
                return _told_as(made, out, started)
        if not quality or sizes is None:
            break
        quality = _lower(sizes, quality, made.bytes, most)
    raise InputError(_too_large(purposes, made, most, quality))


def _told_as(made: Summary, out: Path, started: float) -> Summary:
    """The summary of the store that was kept, under its name; its seconds are those of all tries."""
    seconds = time.perf_counter() - started
    return replace(made, output=str(out), seconds=seconds, mpx_per_s=made.mpx_per_s * made.seconds / seconds)


def largest_fitting(sizes: SampleSizes, most: int) -> int:
    """The highest whole quality whose estimate, on the safe side, is small enough."""
    low, high = 0, _BEST + 1
    while high - low > 1:
        middle = (low + high) // 2
        if sizes.estimate(middle).high <= most:
            low = middle
        else:
            high = middle
    return low


def _lower(sizes: SampleSizes, quality: int, got: int, most: int) -> int:
    """A lower quality that should fit, seen how much larger than its estimate a store came out."""
    scale = got / max(1.0, sizes.estimate(quality).value)
    low, high = 0, quality
    while high - low > 1:
        middle = (low + high) // 2
        if sizes.estimate(middle).value * scale <= most * _STEP_BACK:
            low = middle
        else:
            high = middle
    return low


def _too_large(purposes: Sequence[Purpose], made: Summary, most: int, quality: int | None) -> str:
    asked = " and ".join(purpose.text for purpose in purposes)
    psnr = "every pixel exact" if made.psnr is None else f"a PSNR of {made.psnr:.1f} dB"
    how = "with what else was asked for" if quality is None else f"at quality {quality}"
    return (
        f"{asked}: expected a store of at most {most:,} bytes, got {made.bytes:,} {how}, with {psnr} "
        f"(ratio {made.ratio:.1f}); ask for less, or for more room"
    )


@dataclass(frozen=True)
class _Told:
    """Bytes that a store is told to have."""

    size: int


@dataclass(frozen=True)
class _Written:
    """A store that might be the one, still under another name."""

    path: Path
    summary: Summary

    @property
    def size(self) -> int:
        """Bytes of everything in it."""
        return self.summary.bytes


def check_here(target: Place, asked: str) -> Path:
    """A place where several tries can be made.

    Args:
        target: where the store shall be.
        asked: what takes the tries.

    Raises:
        InputError: a URL.
    """
    if not isinstance(target, Path):
        raise InputError(
            f"{target}: expected a store on this machine for {asked}, got a URL: it may take several tries; encode it here "
            "and copy it"
        )
    return target


def check_sizable(codec: EozipChunkCodec) -> None:
    """Refuse a codec without qualities.

    Raises:
        InputError: this is one.
    """
    if codec.codec == LOSSLESS:
        raise InputError(f"target_size: codec {LOSSLESS} has the size that it needs; choose another codec")


def likely_quality(
    target: int, found: Joined, order: Sequence[int], codec: EozipChunkCodec, grid: Grid
) -> float:
    """The quality at which a store probably has so many bytes, told from some of its chunks; of few chunks not looked for.

    Args:
        target: bytes.
        found: the source, its bands in any order.
        order: positions in it of the bands in the array.
        codec: with all but the quality settled.
        grid: of the store.
    """
    if grid.chunk_count <= 2 * _SAMPLED:
        return DEFAULT_QUALITY
    with open_joined(found, order) as reader:
        chunks = [one.dn for one in sampled(reader, grid, _SAMPLED, codec.nodata)]
    if not chunks:
        return DEFAULT_QUALITY
    pixels = [len(dn) * dn.shape[2] * dn.shape[3] for dn in chunks]
    beside, total = bytes_beside(found, order, codec, grid), pixels_in(grid)

    def told(quality: float) -> _Told:
        asked = replace(codec, quality=quality)
        return _Told(
            beside + round(whole_bytes([len(asked.encoded(dn).blob) for dn in chunks], pixels, total).value)
        )

    return largest_of_size(target, told, DEFAULT_QUALITY, steps=_TRIES, slack=_SAMPLE_SLACK).quality


def encode_sized(
    encode: Callable[[Path, float], Summary],
    out: Path,
    target_size: int,
    start: float,
    *,
    overwrite: bool = False,
) -> Summary:
    """Encode at the quality at which the whole store has so many bytes, or hardly fewer.

    Args:
        encode: writes a store at a quality.
        out: where the store appears when it has that size.
        target_size: bytes of everything in the store.
        start: the quality tried first.
        overwrite: whether a store there may be replaced.

    Returns:
        the summary, its seconds those of all tries.

    Raises:
        InputError: no quality makes it so small; the message says how small it gets, and at which price.
    """
    started = time.perf_counter()
    target = resolved(out)
    check_target(target, overwrite)
    with temporary(target, folder=True) as part:
        kept: list[_Written] = []

        def written(quality: float) -> _Written:
            inside = part / f"{quality:g}" / target.name
            inside.parent.mkdir()
            made = _Written(inside, encode(inside, quality))
            is_fitting = made.size <= target_size
            for old in kept if is_fitting else ():  # the search goes on from the new one
                remove(old.path)
            kept[:] = [made] if is_fitting else kept
            if not is_fitting:
                remove(inside)
            return made

        best = largest_of_size(target_size, written, start, steps=_SIZE_TRIES).made
        if best.size > target_size:
            raise InputError(_not_so_small(target_size, best.summary))
        publish(best.path, target, overwrite=target.exists())
        return _told_as(best.summary, out, started)


def _not_so_small(target_size: int, made: Summary) -> str:
    psnr = "every pixel exact" if made.psnr is None else f"a PSNR of {made.psnr:.1f} dB"
    return (
        f"target_size: expected at least {made.bytes:,} bytes for this store, which is quality 0 with {psnr}, got "
        f"{target_size:,}; give it more room"
    )
