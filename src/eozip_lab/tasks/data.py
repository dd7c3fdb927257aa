"""Chips of real data for the tasks; which places the weights never saw is said by the training recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import numpy as np

from eozip_lab.evaluate.inputs import load_places
from eozip_lab.tasks.task import Chip, TaskSkipped
from eozip_lab.train.pyramid.data import free_images
from eozip_lab.train.pyramid.recipe import load

L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
_TEN = tuple(name for name in L2A if name not in ("B01", "B09"))
_HLS = ("B01", "B02", "B03", "B04", "B8A", "B11", "B12")
_FORDEAD = ("B02", "B03", "B04", "B8A", "B11", "B12")
_WATERS, _PAIRS, _DATES = 48, 10, 12
_SIDE, _FIELD = 128, 48  # pixels of a chip; of one of a long series
_CLOUDY = 2000  # DN of B02
_CLOUDED = [f"pairs14 {k}" for k in (6, 7, 8, 12, 14, 16, 22, 24)] + ["1868summer_102 0", "1868summer_102 2"]


class Sources:
    """Finds files of a name in some folders and one level below them.

    Args:
        folders: such as the shared data, and where its stacks were unpacked.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [below for folder in folders for below in (folder, *sorted(folder.glob("*/")))]

    def path(self, name: str) -> Path:
        """The first such file.

        Raises:
            TaskSkipped: there is none.
        """
        for folder in self._folders:
            if (folder / name).exists():
                return folder / name
        raise TaskSkipped(f"no {name} in {', '.join(map(str, self._folders)) or 'no folder'}")

    def arrays(self, name: str) -> np.lib.npyio.NpzFile:
        """The arrays of an .npz, each read when it is asked for."""
        return np.load(self.path(name), allow_pickle=False)


def clouds(sources: Sources, few: bool) -> list[Chip]:
    """L1C, cloudy and clear in turn; B10 where it was measured (one scene).

    Chips [1, 12 or 13, 128, 128].
    """
    with sources.arrays("sen12mscr2.npz") as arrays:
        named = [(key, arrays[key]) for key in ("pairs14", "1868summer_102")]
    chips = [
        Chip(
            f"{key} {k}",
            f"{key} {k // 2}",
            _middle(dn[None]),
            L2A,
            held=held("sen12mscr2:" + key, k, len(stack)),
        )
        for key, stack in named
        for k, dn in enumerate(stack)
    ]
    if few:
        return chips[12:14]
    taken = [c for c in chips if c.name in _CLOUDED or (c.held and c.name.startswith("pairs14"))]
    return [*taken, _brazil(sources)]


def _brazil(sources: Sources) -> Chip:
    """The scene with B10; coarser bands lifted to 10 m by repetition, as eozip finds and undoes."""
    with sources.arrays("native_brazil_l1c.npz") as file:
        fine, names = file["r10"], tuple(map(str, file["bands10"]))
        for metres in (20, 60):
            names += tuple(map(str, file[f"bands{metres}"]))
            lifted = file[f"r{metres}"].repeat(metres // 10, 2).repeat(metres // 10, 3)
            fine = np.concatenate([fine, lifted[:, :, : fine.shape[2], : fine.shape[3]]], 1)
    return Chip("native_brazil", "native_brazil", _middle(fine), names, held=True)


def water(sources: Sources, few: bool) -> list[Chip]:
    """HLS chips with labels, those whose places the weights never saw first; [1, 7, 128, 128]."""
    with sources.arrays("hls_water.npz") as arrays, sources.arrays("hls_water_labels.npz") as labels:
        chips, masks, places = arrays["chips"], labels["water"], labels["place"]
    count = len(chips)
    trained = set(places[[k for k in range(count) if not held("hls_water:chips", k, count)]].tolist())
    order = sorted(range(count), key=lambda k: (places[k] in trained, k % 3, k))[: 12 if few else _WATERS]
    return [
        Chip(
            f"chip {k}",
            f"place {places[k]}",
            chips[k][None],
            _HLS,
            {"water": masks[k].astype(bool)},
            held=places[k] not in trained,
        )
        for k in order
    ]


def seasons(sources: Sources, few: bool) -> list[Chip]:
    """Long series, twelve dates a chip; facts: `days`, and `clear` [T, H, W] as a mask product would say."""
    index = json.loads(sources.path("index.json").read_text())
    chips = []
    for file, bands in (("worldcereal", _TEN), ("fordead", _FORDEAD)):
        with sources.arrays(f"{file}.npz") as arrays:
            for site in (name for name in arrays.files if arrays[name].shape[1] == len(bands)):
                if site.endswith("_20m"):
                    continue
                (dates,) = (i["dates"] for i in index if (i["source"], i["site"]) == (file, site))
                some = slice(None, None, 2) if len(dates) > 100 else slice(-72, None)
                dn = _middle(arrays[site][some], _FIELD)
                chips += _in_twelves(f"{file} {site}", dn, _days_of(dates)[some], bands)
    return chips[:6] if few else chips


def _in_twelves(site: str, dn: np.ndarray, days: np.ndarray, bands: tuple[str, ...]) -> list[Chip]:
    clear = (dn[:, bands.index("B02")] < _CLOUDY) & (dn > 0).all(1)
    dn = np.clip(dn, 0, 32767)  # as far as every contender's samples go
    return [
        Chip(
            f"{site} {k}",
            site,
            dn[k : k + _DATES],
            bands,
            {"days": days[k : k + _DATES], "clear": clear[k : k + _DATES]},
        )
        for k in range(0, len(dn), _DATES)
    ]


def _days_of(dates: Sequence[str]) -> np.ndarray:
    """Days since 1970 of ISO dates, with or without hyphens."""
    plain = [text.replace("-", "") for text in dates]
    iso = [f"{text[:4]}-{text[4:6]}-{text[6:]}" for text in plain]
    return np.array(iso, "datetime64[D]").astype(int)


def land(sources: Sources, few: bool) -> list[Chip]:
    """L2A of many kinds of land, one date each: two validation places, five continents, Ireland and Austria, Amazon."""
    chips = [
        Chip(place.name, place.name, _middle(place.dn[:1]), L2A, held=True)
        for place in load_places(sources.path("series12.npz").parent)
    ]
    with sources.arrays("landsat8_amazon.npz") as file:
        bands = tuple(map(str, file["bands"]))
        chips += [
            Chip(f"landsat8 {k}", f"landsat8 {k}", dn[None], bands, held=True)
            for k, dn in enumerate(file["reflectance"])
        ]
    if few:
        return chips[-2:]
    for file, start, limit in (("terramind", "L2A", 5), ("ben_marcelach1", "S2", 2), ("ben_kaitub", "S2", 4)):
        with sources.arrays(f"{file}.npz") as arrays:
            names = [name for name in arrays.files if name.startswith(start)][:limit]
            chips += [Chip(name, name, _middle(arrays[name]), L2A) for name in names]
    return chips


def pairs(sources: Sources, few: bool) -> list[Chip]:
    """Forests in September 2019 and 2020, [2, 12, h, w]; the largest places."""
    with sources.arrays("crick.npz") as arrays:
        named = {name: arrays[name] for name in arrays.files}
    named = {name: dn for name, dn in named.items() if len(dn) == 2}
    largest = sorted(named, key=lambda name: -named[name].size)[: 3 if few else _PAIRS]
    return [Chip(f"crick {name}", f"crick {name}", _middle(named[name]), L2A) for name in largest]


def _middle(dn: np.ndarray, side: int = _SIDE) -> np.ndarray:
    """The middle `side` x `side` pixels, beginning at multiples of twelve as grids of coarser bands do."""
    starts = [max(0, (size - side) // 2 // 12 * 12) for size in dn.shape[2:]]
    return np.ascontiguousarray(dn[..., starts[0] : starts[0] + side, starts[1] : starts[1] + side])


def held(array: str, k: int, count: int) -> bool:
    """Whether the k-th of an array's images was held back from the training of eozip's weights."""
    return k not in _free(array, count)


@cache
def _free(array: str, count: int) -> frozenset[int]:
    rules = [rule for rule in load("tec-elic-small-any").held if fnmatchcase(array, rule.array)]
    return frozenset(free_images([(array, count)], rules)[array])
