"""Chunks that serve purposes: each stream at the lowest quality that does, found on decoded pixels.

Where no quality does, the largest error is bounded more and more tightly, and at last every pixel is exact, which serves
every purpose. What was held is recorded in the store: `append` holds it too, and `verify --against` measures it again.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eozip.chunk.encoding import EncodedChunk
from eozip.codecs.registry import LOSSLESS, WITHOUT_NETWORK
from eozip.errors import FormatError, InputError
from eozip.purpose import (
    Classifier,
    Pixels,
    Purpose,
    all_served,
    measured,
    parse_purpose,
    sensitivity,
    valid_pixels,
)
from eozip.store.description import Description
from eozip.store.documents import NOT_OURS
from eozip.store.priorities import worthwhile

FACT = "purposes"
"""Under which a store's record has what it holds."""
_BOUNDS = (256, 128, 64, 32, 16, 8, 4, 2, 1)
_GUESS, _STRIDE, _BEST = 60, 16, 100

_Encode = Callable[[Mapping[str, Any]], EncodedChunk]
"""Codes one stream with some settings of its codec replaced; pixels are known."""


@dataclass(frozen=True)
class _Trial:
    """One stream, and what it is worth.

    Attributes:
        coded: the stream.
        values: of each purpose, by its text.
        is_served: whether all of them are good enough.
    """

    coded: EncodedChunk
    values: Mapping[str, float]
    is_served: bool


@dataclass
class Holding:
    """Purposes of every chunk of a store; safe to use from many threads.

    Attributes:
        purposes: all of them; those of the store as a whole are recorded here, and held by whoever encodes.
        pixels: what the pixels of a chunk are, in the order of the array.
        classes: for "agreement".
        worst: the worst value of each purpose so far, by its text.
    """

    purposes: tuple[Purpose, ...]
    pixels: Pixels
    classes: Classifier | None = None
    worst: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def by_chunk(self) -> tuple[Purpose, ...]:
        """The purposes that every chunk serves."""
        return tuple(purpose for purpose in self.purposes if not purpose.is_whole)

    def check(self) -> None:
        """Refuse purposes that these pixels cannot have.

        Raises:
            InputError: see above.
        """
        for purpose in self.by_chunk:
            purpose.check(self.pixels, self.classes)
        if self.max_error is not None and self.max_error < 0:
            raise InputError(
                "max-error: expected a limit that an error of 0 serves, got less; ask for max-error<=0"
            )

    @property
    def max_error(self) -> int | None:
        """The largest error that purposes allow, DN."""
        bounds = [
            math.ceil(p.limit) - 1 if p.strict else int(p.limit)
            for p in self.purposes
            if p.what == "max-error"
        ]
        return min(bounds, default=None)

    def encoded(
        self,
        encode: _Encode,
        dn: np.ndarray,
        *,
        dropped: np.ndarray | None = None,
        offset: float | None = None,
        can_level: bool = False,
    ) -> _Trial:
        """The smallest stream that serves the purposes, as far as a search over whole qualities finds it.

        Args:
            encode: codes the stream.
            dn: [T, C, h, w] of it.
            dropped: bool [T, h, w], pixels that do not count beside those that the encoder left out; None: none.
            offset: radiometric offset of these dates; None: that of `pixels`.
            can_level: whether `encode` takes a setting "level_map" (`eozip.encode`), by which pixels that matter less
                to the purposes are coded more coarsely.
        """
        trial = self._trial(encode, dn, dropped, offset)
        found = self._searched(trial)
        levels = self._levels(dn, dropped, offset) if can_level else None
        if levels is not None and found.coded.report.codec not in WITHOUT_NETWORK:
            found = self._smaller(found, trial, levels)
        with self._lock:
            for purpose in self.by_chunk:
                self._note(purpose, found.values[purpose.text])
        return found

    def _levels(self, dn: np.ndarray, dropped: np.ndarray | None, offset: float | None) -> np.ndarray | None:
        pixels = self.pixels if offset is None else replace(self.pixels, offset=offset)
        matters = sensitivity(self.by_chunk, dn, pixels, dropped)
        return None if matters is None else worthwhile(matters, valid_pixels(dn, pixels, dropped))

    def _smaller(
        self, found: _Trial, trial: Callable[[Mapping[str, Any]], _Trial], levels: np.ndarray
    ) -> _Trial:
        """What was found, or the lowest quality that serves with a level map where that takes fewer bytes."""

        def by_map(quality: int) -> _Trial:
            return trial({**_asked(quality=quality, max_error=self.max_error), "level_map": levels})

        other = _lowest_quality(by_map)
        return other if other is not None and len(other.coded.blob) < len(found.coded.blob) else found

    def _trial(
        self, encode: _Encode, dn: np.ndarray, dropped: np.ndarray | None, offset: float | None
    ) -> Callable[[Mapping[str, Any]], _Trial]:
        def trial(settings: Mapping[str, Any]) -> _Trial:
            coded = encode(settings)
            if coded.pixels is None:
                raise InputError(
                    "expected an encoder that knows the pixels of its streams, got one that does not"
                )
            hidden = coded.dropped if coded.dropped is not None else dropped
            values = self.values(dn, coded.pixels, hidden, offset)
            return _Trial(coded, values, all_served(self.by_chunk, values))

        return trial

    def values(
        self, dn: np.ndarray, decoded: np.ndarray, dropped: np.ndarray | None, offset: float | None
    ) -> dict[str, float]:
        """What decoded pixels [T, C, h, w] are worth, by the texts of the purposes."""
        pixels = self.pixels if offset is None else replace(self.pixels, offset=offset)
        return measured(self.by_chunk, dn, decoded, pixels, dropped, self.classes)

    def _searched(self, trial: Callable[[Mapping[str, Any]], _Trial]) -> _Trial:
        bound = self.max_error
        if all(purpose.what == "max-error" for purpose in self.by_chunk):
            found = trial(_asked(max_error=bound))
            return found if found.is_served else trial(_EXACT)
        best = _lowest_quality(lambda quality: trial(_asked(quality=quality, max_error=bound)))
        if best is not None:
            return best
        tighter = [one for one in _BOUNDS if bound is None or one < bound]
        return _first_served([_asked(max_error=one) for one in tighter], trial) or trial(_EXACT)

    def _note(self, purpose: Purpose, value: float) -> None:
        worse = min if purpose.is_rising else max
        before = self.worst.get(purpose.text)
        self.worst[purpose.text] = value if before is None else worse(before, value)

    def add(self, values: Mapping[str, float | None]) -> None:
        """Count the worst values of chunks that somebody else coded, as `found` gives them, towards `worst`."""
        for purpose in self.by_chunk:
            if purpose.text in values:
                value = values[purpose.text]
                self._note(purpose, _best(purpose) if value is None else value)

    def faults(self, dn: np.ndarray, decoded: np.ndarray, dropped: np.ndarray, offset: float) -> list[str]:
        """What a chunk does not serve, as sentences; its values count towards `worst`."""
        values = self.values(dn, decoded, dropped, offset)
        for purpose in self.by_chunk:
            self._note(purpose, values[purpose.text])
        return [
            f"{p.text}: expected the {p.meaning} to serve it, got {values[p.text]:.6g}"
            for p in self.by_chunk
            if not p.is_served(values[p.text])
        ]

    def found(self) -> dict[str, float | None]:
        """The worst value of each purpose, for JSON; None: the best there is."""
        return {p.text: _worse(p, ..., self.worst.get(p.text)) for p in self.by_chunk}

    def facts(self, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a store records: the purposes with their worst values, and all that measuring them again needs.

        Args:
            before: what it recorded, where dates are appended.
        """
        known = {one["for"]: one["worst"] for one in before[FACT]["held"]} if before else {}
        held = [
            {
                "for": p.text,
                "means": p.meaning,
                "worst": _worse(p, known.get(p.text, ...), self.worst.get(p.text)),
            }
            for p in self.purposes
            if before is None or not p.is_whole  # a store that grows takes the room it takes
        ]
        classes = None if self.classes is None else self.classes.to_dict()
        scale, factors = self.pixels.scale, list(self.pixels.factors)
        return {
            FACT: {
                "held": held,
                "bands": list(self.pixels.bands),
                "scale": scale,
                "factors": factors,
                "classes": classes,
            }
        }


def recorded(facts: Mapping[str, Any]) -> dict[str, float | None]:
    """Tell what a store's record says it holds, for people.

    Args:
        facts: of the record.

    Returns:
        Text of each purpose > the worst value of its chunks, None for exact; empty without a sound record.
    """
    known = facts.get(FACT)
    held = known.get("held") if isinstance(known, Mapping) else None
    rows = [one for one in held if isinstance(one, Mapping)] if isinstance(held, list) else []
    values = {str(one.get("for")): one.get("worst") for one in rows}
    return {text: value for text, value in values.items() if value is None or isinstance(value, int | float)}


_EXACT: Mapping[str, Any] = {
    "codec": LOSSLESS,
    "quality": None,
    "target_psnr": None,
    "max_error": None,
    "budgets": None,
}


def _asked(quality: int | None = None, max_error: int | None = None) -> dict[str, Any]:
    return {"quality": quality, "max_error": max_error, "target_psnr": None, "budgets": None}


def _best(purpose: Purpose) -> float:
    """The best value that there is."""
    return math.inf if purpose.is_rising else 0.0


def _worse(purpose: Purpose, before: Any, value: float | None) -> float | None:
    """The worse of two values; None stands for the best there is."""
    if before is ... or before is None:
        return None if value is None or math.isinf(value) else float(value)
    if value is None or math.isinf(value):
        return float(before)
    return float((min if purpose.is_rising else max)(before, value))


def _lowest_quality(trial: Callable[[int], _Trial]) -> _Trial | None:
    """The trial of the lowest whole quality that serves, between one that does and its neighbour that does not.

    Args:
        trial: of a quality from 0 to 100.

    Returns:
        None where even 100 does not serve.
    """
    high, best = _GUESS, trial(_GUESS)
    if best.is_served:
        low, high, best = _fallen(trial, high, best)
    else:
        low = high
        while not best.is_served:
            if high == _BEST:
                return None
            low, high = high, min(_BEST, high + _STRIDE)
            best = trial(high)
    while high - low > 1:
        middle = (low + high) // 2
        found = trial(middle)
        if found.is_served:
            high, best = middle, found
        else:
            low = middle
    return best


def _fallen(trial: Callable[[int], _Trial], high: int, best: _Trial) -> tuple[int, int, _Trial]:
    """Goes down from a quality that serves to one that does not, or to the lowest."""
    low = high
    while low > 0:
        low = max(0, high - _STRIDE)
        found = trial(low)
        if not found.is_served:
            return low, high, best
        high, best = low, found
    return -1 if high == 0 else low, high, best


def _first_served(
    settings: Sequence[Mapping[str, Any]], trial: Callable[[Mapping[str, Any]], _Trial]
) -> _Trial | None:
    """Of settings that get better, the first that serves; None where the last does not."""
    low, high, best = -1, len(settings), None
    while high - low > 1:
        middle = (low + high) // 2
        found = trial(settings[middle])
        low, high, best = (low, middle, found) if found.is_served else (middle, high, best)
    return best


def held_by(found: Description) -> Holding | None:
    """What a store holds, as it recorded it; None where it holds nothing.

    Raises:
        FormatError: a record that is none.
    """
    known = found.facts.get(FACT)
    if known is None:
        return None
    try:
        purposes = tuple(parse_purpose(str(one["for"])) for one in known["held"])
        bands = tuple(str(name) for name in known["bands"])
        factors = tuple(int(factor) for factor in known["factors"])
        classes = None if known["classes"] is None else Classifier.from_dict(known["classes"])
        pixels = Pixels(bands, found.codec.offset, float(known["scale"]), found.codec.nodata, factors)
        holding = Holding(purposes, pixels, classes)
        holding.check()
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{found.path}, {FACT}: expected what the store holds, got {error}; {NOT_OURS}"
        ) from error
    if len(bands) != found.grid.shape[1]:
        raise FormatError(
            f"{found.path}, {FACT}: expected {found.grid.shape[1]} bands, got {len(bands)}; {NOT_OURS}"
        )
    return holding
