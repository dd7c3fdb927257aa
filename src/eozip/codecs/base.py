"""The contract of a codec: pixels of one chunk to sections of bytes, and back.

A codec id names a byte layout and its weights. Until a first release there is one version of each codec, and new
bytes replace old ones; from then on any change of layout, tables or weights is a new id (``-v2``) and a new golden stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from eozip.errors import InputError


class UnsuitableError(InputError):
    """Dates that cannot join a chunk, as they would be coded otherwise; they can still have one of their own."""


@dataclass(frozen=True)
class Encoded:
    """What a codec made of one chunk.

    Attributes:
        sections: byte strings, in decoding order; a progressive codec may be decoded from the first few.
        checks: one u32 per frame, `eozip.bitstream.frame_check` of that frame's decoded symbols.
        budgets: one u8 per frame (token budgets of flexible-rate codecs), or empty.
        bits: estimate of what each frame cost, or empty where the encoder cannot tell; not in the stream.
        skip: bool [T, h, w], latent cells that were not coded, or None where all were; see `eozip.codecs.skip_mask`.
        levels: uint8 [T, h, w], how much more coarsely cells are coded (`eozip.codecs.level_map`), or None.
        decoded: gives what `decode` (of groups `decode_groups`) will, where the encoder knows it without decoding; not
            in the stream.
    """

    sections: tuple[bytes, ...]
    checks: tuple[int, ...]
    budgets: tuple[int, ...] = ()
    bits: tuple[float, ...] = ()
    skip: np.ndarray | None = None
    levels: np.ndarray | None = None
    decoded: Callable[[], list[np.ndarray]] | None = field(default=None, compare=False, repr=False)


class Codec(Protocol):
    """What every codec fulfils; ``tests/chunk/test_bad_input.py`` holds every registered codec against it."""

    @property
    def id(self) -> str:
        """Full id, such as ``tec-tt-small-any-v1``."""
        ...

    @property
    def weights_hash(self) -> bytes:
        """8 bytes: SHA-256 prefix of weights and tables."""
        ...

    @property
    def sensor(self) -> str:
        """Id of the sensor it was trained for, such as ``s2-l2a``; "any" where it was trained for none in particular."""
        ...

    @property
    def bands(self) -> int | None:
        """Number of bands C it takes; None: any."""
        ...

    @property
    def can_skip(self) -> bool:
        """Whether it can leave latent cells out: then it is a `SkippingCodec`."""
        ...

    @property
    def has_budgets(self) -> bool:
        """Whether its streams are sections of rising detail: then it is a `BudgetedCodec`."""
        ...

    def encode(self, x: np.ndarray, quality: float) -> Encoded:
        """Codes one chunk.

        Args:
            x: float32 [T, C, H, W], DN with the radiometric offset taken off, finite; any H, W >= 1 (the
                codec pads by itself).
            quality: 0..100, already rounded to hundredths.
        """
        ...

    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        """Decodes one chunk.

        Args:
            coded: sections (possibly only the first few, for progressive codecs) and check values.
            shape: T, C, H, W of the result.
            quality: as given to `encode`.

        Returns:
            float32 [T, C, H, W] in DN without offset.

        Raises:
            DesyncError: a frame's symbols differ from the encoded ones; the message names the frame.
            FormatError: sections that no encoder writes.
        """
        ...


class SkippingCodec(Codec, Protocol):
    """A codec that can leave latent cells out."""

    def encode_without(self, x: np.ndarray, quality: float, dropped: np.ndarray) -> Encoded:
        """As `encode`, but spends nothing on some cells, which the result names as `Encoded.skip`.

        Args:
            x: float32 [T, C, H, W]; anything finite where dropped.
            quality: 0..100, already rounded to hundredths.
            dropped: bool [T, ceil(H / 8), ceil(W / 8)].
        """
        ...


class BudgetedCodec(Codec, Protocol):
    """A codec whose streams are sections of rising detail, of which each date may have as many as a caller asks for."""

    def encode_budgets(self, x: np.ndarray, budgets: Sequence[int]) -> Encoded:
        """As `encode`, with a budget for each date instead of a quality.

        Args:
            x: float32 [T, C, H, W].
            budgets: Sections (tokens) of each date; the first at least 1.

        Raises:
            InputError: Budgets out of range, or another number of them than of dates.
        """
        ...


class ScaledBudgetedCodec(Codec, Protocol):
    """A `BudgetedCodec` that is a `ScaledCodec`, too."""

    def encode_budgets(
        self,
        x: np.ndarray,
        budgets: Sequence[int],
        holes: np.ndarray | None = None,
        levels: np.ndarray | None = None,
    ) -> Encoded:
        """As `BudgetedCodec.encode_budgets`; holes and levels as of `ScaledCodec.encode`."""
        ...


@runtime_checkable
class ScaledCodec(Protocol):
    """What codecs can do besides whose sections are scales, the coarsest first: reduced pictures, and groups of bands.

    Such a codec takes any number of bands, and codes bands on their own grids without bringing them onto one.
    """

    def encode(
        self,
        x: np.ndarray,
        quality: float,
        holes: np.ndarray | None = None,
        levels: np.ndarray | None = None,
    ) -> Encoded:
        """As `Codec.encode`.

        Args:
            x: float32 [T, C, H, W].
            quality: 0..100.
            holes: bool [T, C, H, W], pixels that nobody needs, on which little is spent; None: none.
            levels: uint8 [T, ceil(H / 16), ceil(W / 16)], how much more coarsely cells are coded
                (`eozip.codecs.level_map`); None: all alike.
        """
        ...

    def encode_without(
        self,
        x: np.ndarray,
        quality: float,
        dropped: np.ndarray,
        holes: np.ndarray | None = None,
        levels: np.ndarray | None = None,
    ) -> Encoded:
        """As `SkippingCodec.encode_without`, with holes and levels besides."""
        ...

    def decode_scaled(
        self,
        coded: Encoded,
        shape: tuple[int, int, int, int],
        reduce: int = 1,
        bands: Sequence[int] | None = None,
        dates: Sequence[int] | None = None,
    ) -> np.ndarray:
        """As `Codec.decode`, reduced and some bands only; takes as many sections as that needs.

        Args:
            coded: at least the sections needed.
            shape: T, C, H, W of the whole chunk.
            reduce: 1, 2, 4, 8, 16 or 32: averages of blocks of so many pixels each way.
            bands: positions; None: all.
            dates: positions; None: all. No more dates are decoded than these need.

        Returns:
            float32 [len(dates), len(bands), ceil(H / reduce), ceil(W / reduce)].

        Raises:
            FormatError: too few sections, or sections that no encoder writes.
        """
        ...

    def encode_groups(
        self,
        groups: Sequence[tuple[int, np.ndarray]],
        quality: float,
        holes: Sequence[np.ndarray] | None = None,
        levels: np.ndarray | None = None,
    ) -> Encoded:
        """As `Codec.encode`, of factors and float32 [T, C, ceil(H / factor), ceil(W / factor)], the finest (1) first.

        Args:
            groups: factors and pixels.
            quality: 0..100.
            holes: bool, as the pixels of each group: where nobody needs them; None: nowhere.
            levels: of the finest grid, as `encode` has them.
        """
        ...

    def decode_groups(
        self,
        coded: Encoded,
        shape: tuple[int, int, int, int],
        groups: Sequence[tuple[int, int]],
        reduce: int = 1,
        wanted: Sequence[int] | None = None,
        dates: Sequence[int] | None = None,
    ) -> list[np.ndarray]:
        """The inverse of `encode_groups`.

        Args:
            coded: at least the sections needed.
            shape: T, all bands, H, W of the finest group.
            groups: factor and number of bands of each.
            reduce: 1, 2, 4, 8, 16 or 32; a group goes to the largest power of 2 that is at most reduce / factor.
            wanted: positions of groups; None: all.
            dates: as `decode_scaled` has them.

        Returns:
            float32 [T, C, h, w] of each group wanted.

        Raises:
            FormatError: as `decode_scaled`; or the sections tell of other groups.
        """
        ...


@runtime_checkable
class GrowingCodec(Protocol):
    """A `ScaledCodec` whose chunks may get more dates, with those that are there known to them and left as they are."""

    def behind(self, coded: Encoded, shape: tuple[int, int, int, int], dates: int) -> Codec:
        """A codec for dates that join a chunk.

        What it encodes holds the old dates and then the new ones; `Encoded.decoded` gives the new ones alone.

        Args:
            coded: the chunk.
            shape: its T, C, H, W.
            dates: how many of its dates stay, the first ones.

        Raises:
            UnsuitableError: by its methods; the new dates would be coded otherwise than the chunk is.
            FormatError: by its methods; the chunk is damaged.
        """
        ...

    def shortened(self, coded: Encoded, shape: tuple[int, int, int, int], dates: int) -> Encoded:
        """The chunk of the first dates of one, which know no others.

        Raises:
            FormatError: they do, or the chunk is damaged.
        """
        ...
