"""Stored crops as the pictures of the report's viewer: 8-bit planes of bands and maps of error, lossless WebP.

A picture holds up to three bands, stretched alike for every method and date of a place; the page puts bands
together to colours. Errors are means over all bands of |decoded - original| in DN, one grey plane.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eozip.errors import InputError
from eozip_lab.evaluate.html_report.data import Report
from eozip_lab.evaluate.html_report.markup import data_uri, drawing, lossless_webp

_MOST_BYTES = 1_000_000  # of pictures in one page, unless the page leaves more: people mail it
_LEAST = 16  # pixels a side of what is left of a crop
_MOST_BASELINES = 5  # of a level, the best at those bytes; all are in crops/
# Name > bands shown as red, green, blue.
_COMBINATIONS = {
    "true colour": ("B04", "B03", "B02"),
    "false colour": ("B08", "B04", "B03"),
    "SWIR": ("B12", "B8A", "B04"),
}
_STRETCHED_TOGETHER = ("B02", "B03", "B04")  # else true colour is none
_PERCENTILES = (1, 99)


@dataclass(frozen=True)
class Planes:
    """Which bands the pictures of a place hold, and how they are stretched.

    Attributes:
        bands: [B] positions in the place's bands; picture p holds bands 3p to 3p+2.
        low, high: float32 [B] DN shown black and white.
        combinations: name > for red, green, blue the picture and its channel.
    """

    bands: tuple[int, ...]
    low: np.ndarray
    high: np.ndarray
    combinations: dict[str, list[tuple[int, int]]]


def viewer_data(report: Report, most_bytes: int = _MOST_BYTES) -> dict[str, Any]:
    """What the page's script shows, in JSON types: places with dates, levels and pictures, and the error colours.

    Each place may take its share of `most_bytes`: the dates that fit are shown, evenly spread, at least the first, of which
    the middle if need be. Places are taken in the order measured until their pictures exceed `most_bytes`; "left_out" names
    the others.

    Raises:
        InputError: a crop is missing, unreadable, or of another shape than its original.
    """
    taken: list[dict[str, Any]] = []
    kept = (report.folder / "crops").is_dir()  # a report is often passed on without them
    stored = [name for name in report.places if kept and _stored(report, name)]
    left = most_bytes
    for number, name in enumerate(stored):
        place = _fitting(report, name, left // (len(stored) - number))
        left -= place["bytes"]
        if taken and left < 0:
            break
        taken.append(place)
    return {"places": taken, "left_out": stored[len(taken) :], "colours": _error_colours() if taken else []}


def _fitting(report: Report, name: str, most_bytes: int) -> dict[str, Any]:
    """A place with so many of its dates as fit, at least one, and of that as much of the middle as fits."""
    whole = _thinned(_place(report, name), most_bytes)
    side = min(whole["window"][2:])
    while whole["bytes"] > most_bytes and (side := side // 2) >= _LEAST:
        whole = _thinned(_place(report, name, side), most_bytes)
    return whole


def _thinned(whole: dict[str, Any], most_bytes: int) -> dict[str, Any]:
    dates = len(whole["dates"])
    kept = max(1, min(dates, dates * most_bytes // max(whole["bytes"], 1)))
    if kept == dates:
        return whole
    positions = [round(k * dates / kept) for k in range(kept)]
    for entry in [whole["original"], *(entry for level in whole["levels"] for entry in level["entries"])]:
        for key in {"frames", "errors"} & set(entry):
            entry[key] = [entry[key][k] for k in positions]
    thinned = {**whole, "dates": [whole["dates"][k] for k in positions]}
    thinned["bytes"] = _picture_bytes(thinned)
    return thinned


def _planes_of(dn: np.ndarray, bands: Sequence[str]) -> Planes:
    """Chooses bands and stretches.

    Args:
        dn: [T, C, h, w] DN of the original.
        bands: [C] names; where they allow none of `_COMBINATIONS`, the first three are shown.
    """
    made = {
        f"{name} ({', '.join(rgb)})": rgb for name, rgb in _COMBINATIONS.items() if set(rgb) <= set(bands)
    }
    if not made:
        rgb = tuple(bands[min(c, len(bands) - 1)] for c in range(3))
        made = {f"bands {', '.join(dict.fromkeys(rgb))}": rgb}
    used = list(dict.fromkeys(band for rgb in made.values() for band in rgb))
    positions = tuple(bands.index(band) for band in used)
    ends = np.array([_stretch(dn, bands, band) for band in used], np.float32)
    found = {name: [divmod(used.index(band), 3) for band in rgb] for name, rgb in made.items()}
    return Planes(positions, ends[:, 0], ends[:, 1], found)


def pictures(frame: np.ndarray, planes: Planes) -> list[np.ndarray]:
    """One date, DN [C, h, w] > uint8 [h, w, 3] each; channels that hold no band are 0."""
    chosen = frame[list(planes.bands)].astype(np.float32)
    low, high = planes.low[:, None, None], planes.high[:, None, None]
    shown = np.rint(255 * np.clip((chosen - low) / (high - low), 0, 1)).astype(np.uint8)
    count = -(-len(shown) // 3)
    padded = np.zeros((3 * count, *shown.shape[1:]), np.uint8)
    padded[: len(shown)] = shown
    return [np.moveaxis(padded[3 * p : 3 * p + 3], 0, 2) for p in range(count)]


def _error_map(dn: np.ndarray, dn_hat: np.ndarray) -> np.ndarray:
    """[T, C, h, w] twice > float32 [T, h, w]: mean over bands of the absolute difference in DN."""
    return np.abs(dn_hat.astype(np.float32) - dn.astype(np.float32)).mean(axis=1)


def _error_colours() -> list[list[int]]:
    """[256, 3] colours of small to large errors."""
    return drawing().colormaps["inferno"](np.arange(256), bytes=True)[:, :3].tolist()


def _read_crop(report: Report, entry: Mapping[str, Any]) -> tuple[np.ndarray, list[int]]:
    """Pixels [T, C, h, w] and window of one stored crop.

    Raises:
        InputError: missing, outside the folder, or no such file as `eozip evaluate` writes.
    """
    path = (report.folder / entry["file"]).resolve()
    if not path.is_relative_to(report.folder.resolve()):
        raise InputError(f"{entry['file']}: expected a file below {report.folder}, got one outside")
    try:
        with np.load(path, allow_pickle=False) as held:
            return held["dn"], held["window"].tolist()
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected a crop (dn, window), got {error}; evaluate again") from error


def _place(report: Report, name: str, side: int | None = None) -> dict[str, Any]:
    """All dates of a place, or of the middle of its crops."""
    facts = next(place for place in report.data["places"] if place["name"] == name)
    entry = _files(report, name, None)[0]
    dn, window = _middle(*_read_crop(report, entry), side)
    planes = _planes_of(dn, facts["bands"])
    levels = [_level(report, name, level, dn, planes, side) for level in report.data["crops"]["levels"]]
    made = {
        "name": name,
        "dates": [date or f"date {t + 1}" for t, date in enumerate(facts["dates"])],
        "window": window,
        "combinations": [{"name": key, "from": found} for key, found in planes.combinations.items()],
        "original": _entry(entry, dn, planes),
        "levels": [level for level in levels if level["entries"]],
    }
    return {**made, "bytes": _picture_bytes(made)}


def _middle(dn: np.ndarray, window: list[int], side: int | None) -> tuple[np.ndarray, list[int]]:
    """A crop and its window in the frame, or the middle of both."""
    if side is None:
        return dn, window
    y, x = ((length - side) // 2 if length > side else 0 for length in dn.shape[2:])
    cut = dn[:, :, y : y + side, x : x + side]
    return cut, [window[0] + y, window[1] + x, *cut.shape[2:]]


def _level(
    report: Report,
    place: str,
    level: Mapping[str, Any],
    dn: np.ndarray,
    planes: Planes,
    side: int | None,
) -> dict[str, Any]:
    files = _shown(report, _files(report, place, level["level"]))
    decoded = [_decoded(report, entry, dn, side) for entry in files]
    errors = [_error_map(dn, dn_hat) for dn_hat in decoded]
    top = _top(errors)
    entries = [
        {**_entry(entry, dn_hat, planes), "errors": _grey(error, top)}
        for entry, dn_hat, error in zip(files, decoded, errors)
    ]
    return {"psnr": level["psnr"], "reference": level["reference"], "error_dn": top, "entries": entries}


def _shown(report: Report, files: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """All codecs and the best baselines, in the order of the methods."""
    rivals = [f for f in files if f["kind"] == "baseline"]
    best = sorted(rivals, key=lambda f: np.inf if f["psnr"] is None else f["psnr"], reverse=True)[
        :_MOST_BASELINES
    ]
    shown = [f for f in files if f["kind"] != "baseline" or f in best]
    return sorted(shown, key=lambda f: report.methods.index(f["method"]))


def _decoded(report: Report, entry: Mapping[str, Any], dn: np.ndarray, side: int | None) -> np.ndarray:
    dn_hat, _ = _middle(*_read_crop(report, entry), side)
    if dn_hat.shape != dn.shape:
        raise InputError(f"{entry['file']}: expected {dn.shape} as the original, got {dn_hat.shape}")
    return dn_hat


def _entry(entry: Mapping[str, Any], dn: np.ndarray, planes: Planes) -> dict[str, Any]:
    facts = {key: entry[key] for key in ("method", "kind", "bytes", "bpppb", "psnr", "setting")}
    return {**facts, "frames": [[_webp(picture) for picture in pictures(frame, planes)] for frame in dn]}


def _top(errors: Sequence[np.ndarray]) -> float:
    """DN shown brightest: 99th percentile of the middle method, so that one bad method does not darken the others."""
    return max(1.0, float(np.median([np.percentile(error, 99) for error in errors]))) if errors else 1.0


def _grey(error: np.ndarray, top: float) -> list[str]:
    """[T, h, w] DN > a picture a date; `top` is white."""
    return [_webp(np.rint(255 * np.clip(frame / top, 0, 1)).astype(np.uint8)) for frame in error]


def _files(report: Report, place: str, level: int | None) -> list[Mapping[str, Any]]:
    """Crops of a place at a level; None: its original."""
    return [f for f in report.data["crops"]["files"] if f["place"] == place and f["level"] == level]


def _stored(report: Report, place: str) -> bool:
    """Whether there is an original and something to compare it with."""
    levels = {f["level"] for f in report.data["crops"]["files"] if f["place"] == place}
    return None in levels and len(levels) > 1


def _picture_bytes(place: Mapping[str, Any]) -> int:
    entries = [place["original"], *(entry for level in place["levels"] for entry in level["entries"])]
    frames = sum(len(uri) for entry in entries for frame in entry["frames"] for uri in frame)
    return frames + sum(len(uri) for entry in entries for uri in entry.get("errors", []))


def _stretch(dn: np.ndarray, bands: Sequence[str], band: str) -> tuple[float, float]:
    """DN shown black and white, at least one apart."""
    together = _STRETCHED_TOGETHER if band in _STRETCHED_TOGETHER else (band,)
    chosen = [bands.index(name) for name in together if name in bands]
    low, high = np.percentile(dn[:, chosen], _PERCENTILES)
    return float(low), float(max(high, low + 1))


def _webp(picture: np.ndarray) -> str:
    pixels = np.stack([picture] * 3, 2) if picture.ndim == 2 else picture
    return data_uri(lossless_webp(pixels, 5), "webp")
