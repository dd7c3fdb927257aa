"""Events of one date that the dates before and after do not show: in coding, and in filling beside clouds.

The series are real, the events are made: floods have spectra of real water, fires those of the pixel itself with less
near infrared and more short-wave infrared. Interpolated bands get theirs on their own grid, as an instrument would see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

import eozip.inpaint as filling
from eozip.codecs.pyramid import grids
from eozip.inpaint import Filled
from eozip_lab.evaluate.inputs import load_places
from eozip_lab.inpainting.synthetic_clouds import cloud_mask
from eozip_lab.tasks.data import L2A, Sources
from eozip_lab.tasks.indices import index
from eozip_lab.tasks.pictures import lost, mask, rgb
from eozip_lab.tasks.task import Case, Chip, Tally, share, shares

_SIZES = (1, 2, 4, 8)
_SLOT, _SIDE = 16, 128  # pixels
_OFTEN = (0.3, 0.3, 0.25, 0.15)  # share of the slots by size
_BURNT = {"B06": 0.6, "B07": 0.5, "B08": 0.45, "B8A": 0.45, "B09": 0.45, "B11": 1.1, "B12": 1.7}
_FLOOD, _FIRE = 0.3, 0.25  # rise of NDWI, fall of NBR against the mean of the dates beside
_CLOUDY, _COVER = 2000, 0.4


def eventful(sources: Sources, few: bool) -> list[Chip]:
    """Windows of the validation series with events at one date, [4 or 6, 12, 128, 128].

    Facts: `size` uint8 [H, W], the side of the event a pixel belongs to; `date`.
    """
    with sources.arrays("series12.npz") as file:
        long = file["reflectance"]
    waters = _water_spectra(long)
    places = load_places(sources.path("series12.npz").parent)
    series = [(place.name, place.dn) for place in places] + [("series12", long[4:10])]
    chips = [
        _with_events(f"{name} {y} {x}", np.ascontiguousarray(dn[..., y : y + _SIDE, x : x + _SIDE]), waters)
        for name, dn in series
        for y, x in ((0, 0), (_SIDE, _SIDE))
    ]
    return chips[:2] if few else chips


def clouded(sources: Sources, few: bool) -> list[Chip]:
    """The same; facts have `hidden` bool [T, H, W] too, made clouds at the date of the events."""
    return [_with_clouds(chip) for chip in eventful(sources, few)]


class Events:
    """Judge of events: those that the original series shows."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        self._chips = chips
        self._original = [shown(chip.dn, chip) for chip in chips]

    def __call__(self, decoded: Sequence[np.ndarray]) -> list[Tally]:
        return [
            Tally(chip.place, shares(self._cases(chip, original, shown(dn, chip))), chip.held)
            for chip, original, dn in zip(self._chips, self._original, decoded)
        ]

    def panels(self, k: int, decoded: np.ndarray, measure: str) -> dict[str, np.ndarray]:
        """The date of the events, what is found, and what is lost."""
        chip, original = self._chips[k], self._original[k]
        found = shown(decoded, chip)
        maps = {"events in original": mask(original), "in decoded": mask(found)}
        case = self._cases(chip, original, found)[measure]
        return {**rgb(chip, decoded, date=_date(chip)), **maps, "lost": lost(case)}

    @staticmethod
    def _cases(chip: Chip, original: np.ndarray, found: np.ndarray) -> dict[str, Case]:
        size = chip.facts["size"]
        names = ("1 pixel", *(f"{s} x {s}" for s in _SIZES[1:]))
        cases = {f"event found, {name}": (found, original & (size == s)) for name, s in zip(names, _SIZES)}
        return {**cases, "nothing made up": (~found, ~original & (size == 0))}


class Filling:
    """Judge of filled series: what was measured must be as it was measured."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        self._chips = chips

    def __call__(self, decoded: Sequence[Filled]) -> list[Tally]:
        return [
            Tally(chip.place, _kept(chip, filled), chip.held) for chip, filled in zip(self._chips, decoded)
        ]


def filled(chip: Chip, predictor: str) -> Filled:
    """The series with its hidden pixels predicted."""
    return filling.inpaint(chip.dn, chip.facts["hidden"], predictor=predictor)


def _kept(chip: Chip, filled: Filled) -> dict[str, tuple[float, float]]:
    t, hidden = _date(chip), chip.facts["hidden"]
    event = shown(chip.dn, chip) & (chip.facts["size"] > 0)
    same = (filled.dn == chip.dn).all(1)
    return {
        "measured event as measured": share(same[t], event & ~hidden[t]),
        "measured pixels as measured": share(same, ~hidden),
        "hidden event found": share(shown(filled.dn, chip), event & hidden[t]),
        "hidden pixels marked": share(filled.provenance > 0, hidden),
    }


def shown(dn: np.ndarray, chip: Chip) -> np.ndarray:
    """Where a series shows a flood or a fire at the date of the events, bool [H, W]."""
    t = _date(chip)
    wet, fresh = (_departure(index(dn, chip.bands, name), t) for name in ("NDWI", "NBR"))
    return (wet > _FLOOD) | (fresh < -_FIRE)


def _departure(x: np.ndarray, t: int) -> np.ndarray:
    return np.nan_to_num(x[t] - (x[t - 1] + x[t + 1]) / 2)


def _date(chip: Chip) -> int:
    return int(chip.facts["date"])


def _water_spectra(dn: np.ndarray) -> np.ndarray:
    """Spectra [n, C] of the clearest date's water, pixel by pixel."""
    t = int(np.argmin(dn[:, L2A.index("B02")].mean((1, 2))))
    wet = index(dn[t : t + 1], L2A, "NDWI")[0] > 0.4
    return dn[t][:, wet].T


def _with_events(name: str, dn: np.ndarray, waters: np.ndarray) -> Chip:
    random = np.random.default_rng(len(name))
    t = _calm_date(dn)
    free = (dn[t - 1 : t + 2, L2A.index("B02")] < _CLOUDY).all(0)
    free &= (index(dn[t - 1 : t + 2], L2A, "NDWI") < 0).all(0)
    size, event = np.zeros(dn.shape[2:], np.uint8), dn[t].astype(float)
    for y, x, side in _slots(random, dn.shape[2:]):
        at = np.s_[y : y + side, x : x + side]
        if free[at].all():
            size[at] = side
            event[:, *at] = _spectra(dn[t][:, *at], waters, random)
    changed = dn.copy()
    changed[t] = _seen(dn[t], event, size > 0)
    return Chip(name, name, changed, L2A, {"size": size, "date": np.array(t)}, held=True)


def _calm_date(dn: np.ndarray) -> int:
    """The date inside the series whose neighbours and itself have the least cloud."""
    bright = (dn[:, L2A.index("B02")] >= _CLOUDY).mean((1, 2))
    return 1 + int(np.argmin(bright[:-2] + bright[1:-1] + bright[2:]))


def _slots(random: np.random.Generator, shape: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    for y in range(0, shape[0], _SLOT):
        for x in range(0, shape[1], _SLOT):
            side = int(random.choice(_SIZES, p=_OFTEN))
            down, right = random.integers(2, _SLOT - side - 1, 2)
            yield y + int(down), x + int(right), side


def _spectra(dn: np.ndarray, waters: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Of a flood or a fire over pixels [C, h, w]."""
    if random.random() < 0.5:
        return waters[random.integers(0, len(waters), dn.shape[1:])].transpose(2, 0, 1)
    return dn * np.array([_BURNT.get(name, 0.7) for name in L2A])[:, None, None]


def _seen(before: np.ndarray, event: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The date [C, H, W] with the event in it; bands of a coarser grid see it in their own cells."""
    result = np.where(where, event, before)
    for c, own in enumerate(grids.solved(before[None].astype(np.float64))):
        if own is not None:
            grid, cells = own
            share = np.clip(grid.solved(where.astype(float)), 0, 1)
            new = grid.solved(np.where(where, event[c], before[c]).astype(float))
            mixed = np.rint(cells[0] + share * (new - cells[0])).astype(np.int64)
            numerators, denominator = grid.interpolated(mixed, *where.shape)
            result[c] = numerators / denominator
    return np.clip(np.rint(result), 1, 32767).astype(before.dtype)


def _with_clouds(chip: Chip) -> Chip:
    hidden = np.zeros((len(chip.dn), *chip.dn.shape[2:]), bool)
    hidden[_date(chip)] = cloud_mask(chip.dn.shape[2:], _COVER, np.random.default_rng(len(chip.name)))
    return Chip(chip.name, chip.place, chip.dn, chip.bands, {**chip.facts, "hidden": hidden}, chip.held)
