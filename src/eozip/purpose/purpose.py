"""What decoded pixels must be good for: `ndvi<0.02`, `psnr>=42`, `angle<2`, `max-error<=20`, `agreement>=99%`, `size<100MB`.

A purpose measures original against decoded pixels of one chunk by one number, and holds it against a limit. The measures are
such that a purpose which holds in two parts of a chunk holds in both together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eozip.errors import InputError
from eozip.purpose.classes import Classifier
from eozip.purpose.formula import Formula, check_syntax, parse_formula

_TEXT = re.compile(
    r"\s*(?P<what>.+?)\s*(?P<sign><=|>=|<|>)\s*(?P<limit>[^<>=\s]+(?:\s*[%a-zA-Z]+)?)\s*", re.DOTALL
)
_LIMIT = re.compile(
    r"(?P<number>[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>%|dB|DN|deg|[kMGT]?B|[KMGT]iB)?"
)
_STATISTIC = re.compile(
    r"(?P<name>mean|rms|max|p(?P<share>[0-9]+(?:\.[0-9]+)?))\s*\((?P<inner>.*)\)", re.DOTALL
)
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_UNITS = {
    "psnr": ("dB",),
    "angle": ("deg",),
    "max-error": ("DN",),
    "size": tuple(_BYTES),
    "agreement": ("%",),
}
_RISING = ("psnr", "ratio", "agreement")  # better where larger
_WHOLE = ("size", "ratio")  # of a store, not of a chunk
_NAMES = ("psnr", "angle", "max-error", "agreement", "size", "ratio")
_DEFAULT_STATISTIC = "p95"
_ROUNDING_OF_LIMITS = 1e-9
_PROBES, _ROUNDING = 512, 1e-12  # reflectances that formulas are tried on; what rounding alone makes differ
_KNOWN = "psnr>=42, angle<2, max-error<=20, agreement>=99%, size<100MB, ratio>=50, ndvi<0.02, p99(ndvi)<0.02"


@dataclass(frozen=True)
class Pixels:
    """What is known of the pixels of a chunk.

    Attributes:
        bands: [C] names in the order of the pixels.
        offset: radiometric offset in DN.
        scale: reflectance of a DN.
        nodata: DN without data, or None.
        factors: [C] pixels along one measured cell, of bands that are repeated; empty: every pixel was measured. PSNR counts
            cells.
    """

    bands: tuple[str, ...]
    offset: float
    scale: float
    nodata: int | None
    factors: tuple[int, ...] = ()


@dataclass(frozen=True)
class Purpose:
    """One purpose; `parse_purpose` makes it.

    Attributes:
        text: as it was given, without blanks.
        what: "psnr", "angle", "max-error", "agreement", "size", "ratio", or a formula of bands.
        statistic: "mean", "rms", "max" or "p95", of what varies from pixel to pixel; "" for others.
        strict: whether the limit itself is too much.
        limit: in the units of `measure`: dB, degrees, DN, a share, bytes, times, or the formula's.
    """

    text: str
    what: str
    statistic: str
    strict: bool
    limit: float

    @property
    def is_rising(self) -> bool:
        """Whether larger values are better."""
        return self.what in _RISING

    @property
    def is_whole(self) -> bool:
        """Whether it is of a store and not of each chunk."""
        return self.what in _WHOLE

    @property
    def meaning(self) -> str:
        """What is held, for people."""
        if self.is_whole:
            return {"size": "bytes of the store", "ratio": "raw bytes by bytes of the store"}[self.what]
        names = {
            "psnr": "PSNR of each chunk, dB",
            "max-error": "largest error of any pixel, DN",
            "agreement": "share of pixels of each chunk that keep their class",
        }
        if self.what in names:
            return names[self.what]
        of = "spectral angle, degrees" if self.what == "angle" else f"error of {self.what}"
        within = f"{self.statistic.removeprefix('p')} % of pixels within"
        how = {"mean": "mean", "rms": "root mean square", "max": "largest"}.get(self.statistic, within)
        return f"{of}: {how}, in each chunk"

    def is_served(self, value: float) -> bool:
        """Whether a measured value is good enough."""
        if math.isnan(value):
            return False
        ahead = value - self.limit if self.is_rising else self.limit - value
        # 40 DN are 0.00399.. of reflectance: what rounding alone makes of the limit itself counts as the limit
        near = 0.0 if self.is_whole else _ROUNDING_OF_LIMITS * abs(self.limit)
        return ahead > near or (ahead >= -near and not self.strict)

    def check(self, pixels: Pixels, classes: Classifier | None) -> None:
        """Refuse a purpose that these pixels cannot have.

        Raises:
            InputError: bands that are not there, a formula that says nothing of them, or no classes.
        """
        if self.what == "agreement" and classes is None:
            raise InputError(f"{self.text}: expected a class raster (--classes), got none")
        if self.what not in _NAMES:
            _check_telling(parse_formula(self.what, pixels.bands), self.text)
        if self.what == "angle" and len(pixels.bands) < 2:
            raise InputError(f"{self.text}: expected two bands or more, got {len(pixels.bands)}")

    def measure(
        self,
        original: np.ndarray,
        decoded: np.ndarray,
        pixels: Pixels,
        dropped: np.ndarray | None = None,
        classes: Classifier | None = None,
    ) -> float:
        """One number of a chunk; pixels without data in any band, and dropped ones, do not count.

        Args:
            original: DN [T, C, h, w].
            decoded: likewise.
            pixels: what they are.
            dropped: bool [T, h, w], or None.
            classes: for "agreement".

        Returns:
            the value; the best there is where no pixel counts.
        """
        if self.what == "max-error":
            return _largest(original, decoded, pixels, dropped)
        if self.what == "psnr":
            return _psnr(original, decoded, pixels, dropped)
        valid = valid_pixels(original, pixels, dropped)
        if not valid.any():
            return 1.0 if self.is_rising else 0.0
        before, after = (reflectances(dn, valid, pixels) for dn in (original, decoded))
        if self.what == "agreement":
            if classes is None:
                raise InputError(f"{self.text}: expected classes, got none")
            return float(np.mean(classes.of(before) == classes.of(after)))
        return self._statistic(
            _angles(before, after) if self.what == "angle" else self._errors(before, after, pixels)
        )

    def _errors(self, before: np.ndarray, after: np.ndarray, pixels: Pixels) -> np.ndarray:
        """How far a formula is off, where it has a value before; endless where it has none any more."""
        formula = parse_formula(self.what, pixels.bands)
        places = {name: pixels.bands.index(name) for name in formula.bands}
        old, new = (formula({name: values[i] for name, i in places.items()}) for values in (before, after))
        known = np.isfinite(old)
        return np.where(np.isfinite(new), np.abs(new - old), np.inf)[known]

    def _statistic(self, errors: np.ndarray) -> float:
        if not errors.size:
            return 0.0
        if self.statistic == "max":
            return float(errors.max())
        if self.statistic == "mean":
            return float(errors.mean())
        if self.statistic == "rms":
            return float(np.sqrt(np.square(errors).mean()))
        share = float(self.statistic.removeprefix("p")) / 100
        rank = max(0, math.ceil(share * errors.size) - 1)  # so many are at most that large
        return float(np.partition(errors, rank)[rank])


def valid_pixels(original: np.ndarray, pixels: Pixels, dropped: np.ndarray | None = None) -> np.ndarray:
    """bool [T, h, w], pixels with data in every band.

    Args:
        original: DN [T, C, h, w].
        pixels: what they are.
        dropped: bool [T, h, w], pixels that do not count; None: none.
    """
    t, _, h, w = original.shape
    valid = np.ones((t, h, w), bool) if pixels.nodata is None else (original != pixels.nodata).all(axis=1)
    return valid if dropped is None else valid & ~dropped


def _counted(original: np.ndarray, pixels: Pixels, dropped: np.ndarray | None) -> np.ndarray:
    """bool [T, C, h, w]: samples with data."""
    counted = np.ones(original.shape, bool) if pixels.nodata is None else original != pixels.nodata
    for band, factor in enumerate(pixels.factors):
        if factor > 1:
            cells = np.zeros(original.shape[2:], bool)
            cells[::factor, ::factor] = True
            counted[:, band] &= cells
    return counted if dropped is None else counted & ~dropped[:, None]


def reflectances(dn: np.ndarray, valid: np.ndarray, pixels: Pixels) -> np.ndarray:
    """Turn the DN of valid pixels into reflectances.

    Args:
        dn: [T, C, H, W].
        valid: bool [T, H, W], of n pixels.
        pixels: their offset and scale.

    Returns:
        float64 [C, n].
    """
    return (np.moveaxis(dn, 1, 0)[:, valid].astype(np.float64) - pixels.offset) * pixels.scale


def _largest(original: np.ndarray, decoded: np.ndarray, pixels: Pixels, dropped: np.ndarray | None) -> float:
    error = np.abs(original.astype(np.int32) - decoded)
    return float(np.max(error, where=_counted(original, pixels, dropped), initial=0))


def _psnr(original: np.ndarray, decoded: np.ndarray, pixels: Pixels, dropped: np.ndarray | None) -> float:
    """dB at reflectance 1, as the rest of eozip counts it: reflectance below 0 and above 1 counts as 0 and 1."""
    counted = _counted(original, pixels, dropped)
    before, after = (
        np.clip((dn[counted] - np.float64(pixels.offset)) * pixels.scale, 0, 1) for dn in (original, decoded)
    )
    square = float(np.square(before - after).mean()) if before.size else 0.0
    return math.inf if square == 0 else -10 * math.log10(square)


def _angles(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Degrees between the spectra of each pixel; 0 where both are nothing, 90 where one is."""
    long = np.sqrt(np.square(before).sum(axis=0) * np.square(after).sum(axis=0))
    same = (before == after).all(axis=0)
    cosine = np.divide((before * after).sum(axis=0), long, out=np.zeros_like(long), where=long > 0)
    return np.where(same, 0.0, np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def parse_purpose(text: str) -> Purpose:
    """Read a purpose such as `ndvi<0.02`.

    Args:
        text: a name or a formula, a sign, and a limit. What varies from pixel to pixel is held for 95 % of the pixels,
            unless the statistic is said: `mean(ndvi)`, `rms(ndvi)`, `max(ndvi)`, `p99(ndvi)`.

    Raises:
        InputError: it is none; the message shows some.
    """
    found = _TEXT.fullmatch(text) if isinstance(text, str) and len(text) <= 500 else None
    if found is None:
        raise InputError(f"for: expected a purpose such as {_KNOWN}, got {text!r:.80}")
    what, statistic = _split(found["what"])
    limit = _limit(found["limit"], what, text)
    rising = what in _RISING
    if rising != (found["sign"][0] == ">"):
        better = f"{what}{'>=' if rising else '<='}, as {'larger' if rising else 'smaller'} is better"
        raise InputError(f"for: {text!r:.80}: expected {better}, got {found['sign']}")
    if what not in _NAMES:
        check_syntax(what)
    strict = len(found["sign"]) == 1
    if _is_beyond(what, strict, limit):
        why = "no store; give more room" if what == "size" else "nothing, exact pixels neither; ask for less"
        said = f"{found['sign']} {found['limit'].strip()}"
        raise InputError(
            f"for: {text!r:.80}: expected a limit that can be kept, got {said}, which keeps {why}"
        )
    return Purpose("".join(text.split()), what, statistic, strict, limit)


def _is_beyond(what: str, strict: bool, limit: float) -> bool:
    """Whether not even exact pixels, or a store of one byte, serve."""
    if what == "size":
        return limit <= 1 if strict else limit < 1
    if what in _RISING:
        return what == "agreement" and strict and limit >= 1
    return strict and limit <= 0


def _split(text: str) -> tuple[str, str]:
    """What is measured, and the statistic of it."""
    plain = text.strip()
    lower = plain.lower().replace("_", "-")
    if lower in _NAMES:
        return lower, _DEFAULT_STATISTIC if lower == "angle" else ""
    found = _STATISTIC.fullmatch(plain)
    if found and _is_one(found["inner"]):
        inner, name = found["inner"].strip(), found["name"]
        if found["share"] is not None and not 0 < float(found["share"]) < 100:
            raise InputError(f"for: expected p1 to p99.9, got {name}")
        if inner.lower() == "angle":
            return "angle", name
        if inner.lower().replace("_", "-") in _NAMES:
            raise InputError(f"for: {text!r:.80}: {inner} is one number of a chunk and has no {name}")
        return inner, name
    return plain, _DEFAULT_STATISTIC


def _is_one(inner: str) -> bool:
    """Whether what stands in a pair of parentheses is one argument, and the parentheses belong together."""
    depth = 0
    for sign in inner:
        depth += (sign == "(") - (sign == ")")
        if depth < 0 or (sign == "," and depth == 0):
            return False
    return depth == 0


def _limit(text: str, what: str, whole: str) -> float:
    found = _LIMIT.fullmatch(text.strip())
    unit = found["unit"] if found else None
    known = _UNITS.get(what, ())
    value = float(found["number"]) if found else math.nan
    if found is None or not math.isfinite(value) or (unit and unit not in known):
        units = f" with {' or '.join(known)}" if known else ""
        raise InputError(f"for: {whole!r:.80}: expected a number{units} as limit, got {text!r:.40}")
    if what == "size":
        return value * _BYTES[unit or "B"]
    if what == "agreement":
        value = value / 100 if unit == "%" or value > 1 else value
        if value > 1:
            raise InputError(f"for: {whole!r:.80}: expected at most 100 %, got {text}")
    return value


def parse_size(text: str) -> int:
    """Read bytes such as `200kB`, `1.5MB`, `1GiB` or `60000`.

    Raises:
        InputError: it is no size from 1 byte on.
    """
    found = _LIMIT.fullmatch(text.strip()) if len(text) <= 100 else None
    unit = (found["unit"] or "B") if found else ""
    value = float(found["number"]) * _BYTES.get(unit, math.nan) if found else math.nan
    if not (math.isfinite(value) and value >= 1):
        raise InputError(
            f"size: expected bytes, a number from 1 with {', '.join(_BYTES)} or none, such as 200kB, got {text!r:.40}"
        )
    return math.floor(value)


def _check_telling(formula: Formula, text: str) -> None:
    """Refuses a formula that every quality serves: one without a value, or with the same for all reflectances.

    Raises:
        InputError: see above.
    """
    random = np.random.default_rng(0)
    values = formula({name: random.uniform(0.001, 1.2, _PROBES) for name in formula.bands})
    known = values[np.isfinite(values)]
    if not known.size or np.ptp(known) <= _ROUNDING * np.abs(known).max():
        found = "the same value" if known.size else "no value"
        raise InputError(
            f"for: {text!r:.80}: expected a formula that varies with reflectances, got one that has {found} for all of them"
        )


def parse_purposes(texts: Sequence[str]) -> tuple[Purpose, ...]:
    """Several purposes, all of which are to be served.

    Raises:
        InputError: none at all, or one of them is none.
    """
    found = tuple(parse_purpose(text) for text in texts)
    if not found:
        raise InputError(f"for: expected a purpose such as {_KNOWN}, got none")
    return found


def measured(
    purposes: Sequence[Purpose],
    original: np.ndarray,
    decoded: np.ndarray,
    pixels: Pixels,
    dropped: np.ndarray | None = None,
    classes: Classifier | None = None,
) -> dict[str, float]:
    """Measure how well a decoded chunk serves purposes; those of a whole store are left out.

    Args:
        purposes: what to measure.
        original: [T, C, H, W] DN.
        decoded: likewise.
        pixels: what is known of them.
        dropped: bool [T, H, W], pixels that count nowhere; None: none.
        classes: for the purpose "agreement".

    Returns:
        Text of each purpose > its value.
    """
    return {
        one.text: one.measure(original, decoded, pixels, dropped, classes)
        for one in purposes
        if not one.is_whole
    }


def all_served(purposes: Sequence[Purpose], values: Mapping[str, float]) -> bool:
    """Say whether every measured purpose is served.

    Args:
        purposes: what is asked for.
        values: as `measured` gives them.
    """
    return all(one.is_served(values[one.text]) for one in purposes if one.text in values)
