"""Ways to code the groups of a scene: codecs of eozip, and the classical ones at the best that is known here.

Classical: Karhunen-Loeve components of each group, all groups to equal error, in AV1, HEVC, JPEG 2000 or JPEG XL, each date
alone or bands and dates together; the same with the 10 m bands given the decoded 20 m bands, by a linear map of each date
that is charged; and what codes bands alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

import eozip
from eozip.codecs import registry
from eozip.errors import InputError
from eozip_lab.evaluate import baselines
from eozip_lab.evaluate.baselines import Contender
from eozip_lab.evaluate.baselines.images import JpegXl
from eozip_lab.evaluate.baselines.klt import Components, klt_av1, klt_hevc, klt_jpegxl
from eozip_lab.evaluate.baselines.openjpeg import Jpeg2000, KltJpeg2000
from eozip_lab.evaluate.baselines.videos import SLOWEST, X265, SvtAv1
from eozip_lab.evaluate.kinds.sets import Groups, Scene
from eozip_lab.evaluate.methods import library_versions, probe

OWN = ("tec-tt-small", "tec-elic-small", "tec-fp-small")
QUALITIES = (0.0, 12.0, 24.0, 34.0, 44.0, 54.0, 64.0, 76.0, 88.0)
_EDITION = "1"  # of what this module does around the coders
_GIVEN = ", 10 m given 20 m"
_MIDDLE = 12_000  # added to what is left after a prediction, so that it is unsigned
_RIDGE = 2.0  # DN squared
_CRFS = (79.0, 70.0, 61.0, 52.0, 43.0, 34.0, 25.0, 16.0, 8.0, 5.0, 2.0)  # see `_eased`
_QPS = (67.0, 60.0, 53.0, 46.0, 39.0, 32.0, 25.0, 18.0, 12.0, 6.0)
_COARSEST = {"av1": (62.0, 18.0), "hevc": (51.0, 12.0)}  # largest setting, and what doubles the error's root
_TARGETS = (28.0, 32.0, 36.0, 40.0, 44.0, 48.0, 52.0)
_DISTANCES = (6.0, 2.5, 1.0, 0.4, 0.15)
_ERRORS = (768.0, 384.0, 192.0, 96.0, 48.0, 24.0)
_ACCURACIES = (8192.0, 4096.0, 2048.0, 1024.0, 512.0, 256.0)
_BOUNDED = {"lerc": _ERRORS, "sz3": _ERRORS, "zfp": _ACCURACIES}  # they promise a largest error


@dataclass(frozen=True)
class Way:
    """A codec with the settings that are tried.

    Attributes:
        name: as in tables.
        own: whether it is a codec of eozip.
        fingerprint: what beside pixels and setting decides its bytes.
        settings: from few bits to many.
        code: a scene, its sensor and a setting > how many bytes, and decoded groups.
        suits: whether it has something to say on a scene.
        span: dB that its points shall enclose.
    """

    name: str
    own: bool
    fingerprint: str
    settings: Sequence[float]
    code: Callable[[Scene, str, float], tuple[int, Groups]]
    suits: Callable[[Scene], bool] = lambda scene: True
    span: tuple[float, float] = (36.0, 48.0)


def own(name: str, qualities: Sequence[float] = QUALITIES) -> Way:
    """A codec of eozip; dates tell of each other where the codec lets them.

    Raises:
        UnknownCodecError: nobody knows it.
    """
    full = registry.resolve(name, "s2-l2a")
    marks = f"{full} {registry.get(full).weights_hash.hex()} {probe(full)}"

    def code(scene: Scene, sensor: str, quality: float) -> tuple[int, Groups]:
        facts = {"codec": full, "quality": quality, "sensor": sensor, "nodata": scene.nodata}
        if len(scene.groups) > 1:
            blob = eozip.encode_groups(dict(scene.groups), bands=dict(scene.bands), **facts)  # type: ignore[arg-type]
            return len(blob), eozip.decode_groups(blob)
        ((metres, dn),) = scene.groups.items()
        blob = eozip.encode(dn, bands=scene.bands[metres], **facts)  # type: ignore[arg-type]
        return len(blob), {metres: eozip.decode(blob)}  # type: ignore[dict-item]

    is_temporal = "-tt-" in full
    return Way(name, True, marks, qualities, code, lambda s: s.dates > 1 or not is_temporal)


def default_of(dates: int) -> str:
    """The codec that `eozip.encode` takes for so many dates."""
    return OWN[0] if dates > 1 else OWN[1]


def classical(names: Sequence[str] | None = None) -> list[Way]:
    """Those that can run here, or some of them by name.

    Args:
        names: such as "klt+av1", which is that of groups apart and of 10 m given 20 m; None takes all.

    Raises:
        InputError: a name that none has, or of one that cannot run here.
    """
    needed = {"av1": "klt+av1", "hevc": "klt+hevc", "jpegxl": "jpegxl", "jpeg2000": "jpeg2000"}
    reasons = {name: baselines.unavailable(name) for name in [*needed.values(), *_BOUNDED]}
    found = [
        way
        for way in _every()
        if reasons[next((needed[key] for key in needed if key in way.name), way.name)] is None
    ]
    if names is None:
        return found
    there = {way.name.removesuffix(_GIVEN) for way in found}
    if strange := sorted(set(names) - there):
        raise InputError(f"expected some of {', '.join(sorted(there))}, got {', '.join(strange)}")
    return [way for way in found if way.name.removesuffix(_GIVEN) in names]


def _every() -> list[Way]:
    av1, hevc = SvtAv1(preset=2), X265("veryslow", "qp")
    found = []
    for planes, mark in (("date", ""), ("time", "-t")):
        for label, coder, sweep in (
            ("av1", replace(klt_av1(planes), recorder=av1), _CRFS),
            ("hevc", replace(klt_hevc(planes), recorder=hevc), _QPS),
            ("jpeg2000", KltJpeg2000(over_time=planes == "time", lean=True), _TARGETS),
        ):
            suits = _several if planes == "time" else _any if label == "jpeg2000" else _single
            found += _both(f"klt{mark}+{label}", coder, sweep, suits)
        found += _slowest(planes, mark)
    return found + _simple()


def _slowest(planes: str, mark: str) -> list[Way]:
    """AV1 by its slowest preset, of what is best with the quicker one: 10 m given 20 m where there are both."""
    coder = klt_av1(planes, preset=0)
    suits = _several if planes == "time" else _single
    apart, given = _both(f"klt{mark}+av1{SLOWEST}", coder, _CRFS, suits)
    lone = replace(apart, suits=lambda scene: suits(scene) and not _grouped(scene))
    return [lone, given]


def _simple() -> list[Way]:
    """Without a map from group to group."""
    jpegxl = replace(klt_jpegxl().recorder, effort=9)  # type: ignore[type-var]
    coders: list[tuple[str, Contender, Sequence[float]]] = [
        ("klt+jpegxl", replace(klt_jpegxl(), recorder=jpegxl), _DISTANCES),
        ("jpeg2000", Jpeg2000(centred=True), _TARGETS),
        ("jpegxl", JpegXl(effort=9), _DISTANCES),
        *(
            (name, baselines.contender(name), sweep)
            for name, sweep in _BOUNDED.items()
            if baselines.unavailable(name) is None
        ),
    ]
    slow = ("klt+jpegxl", "jpegxl")
    return [
        _way(name, coder, sweep, _apart(coder), _single if name in slow else _any)
        for name, coder, sweep in coders
    ]


def _both(
    name: str, coder: Contender, sweep: Sequence[float], suits: Callable[[Scene], bool]
) -> tuple[Way, Way]:
    """Groups apart, and 10 m given 20 m."""
    given = _way(f"{name}{_GIVEN}", coder, sweep, _conditional(coder), lambda s: suits(s) and _grouped(s))
    return _way(name, coder, sweep, _apart(coder), suits), given


def _way(
    name: str,
    coder: Contender,
    sweep: Sequence[float],
    code: Callable[[Groups, float], tuple[int, Groups]],
    suits: Callable[[Scene], bool],
) -> Way:
    told = f"{_EDITION} {name}: {coder.settings}; {library_versions()}"
    return Way(name, False, told, sweep, lambda scene, sensor, setting: code(scene.groups, setting), suits)


def _any(scene: Scene) -> bool:
    return scene.nodata is None


def _single(scene: Scene) -> bool:
    """For what is slow, and on several dates far behind what sees them together."""
    return scene.dates == 1


def _several(scene: Scene) -> bool:
    return scene.dates > 1


def _grouped(scene: Scene) -> bool:
    return {10, 20} <= set(scene.groups)


def _levelled(coder: Contender, groups: Groups) -> Contender:
    """With one scale for all groups: an equal setting is then an equal error."""
    if not isinstance(coder, Components) or coder.most is not None:
        return coder
    return replace(coder, most=min(coder.scale(pixels) for pixels in groups.values()))


def _eased(coder: Contender, setting: float) -> tuple[Contender, float]:
    """Settings beyond an encoder's coarsest: components on a scale of a half, or a quarter, and the setting less."""
    name = coder.recorder.name.removesuffix(SLOWEST) if isinstance(coder, Components) else ""
    if not isinstance(coder, Components) or coder.most is None or name not in _COARSEST:
        return coder, setting
    largest, doubling = _COARSEST[name]
    halvings = max(0, math.ceil((setting - largest) / doubling))
    return replace(coder, most=coder.most / 2**halvings), setting - halvings * doubling


def _apart(coder: Contender) -> Callable[[Groups, float], tuple[int, Groups]]:
    def code(groups: Groups, setting: float) -> tuple[int, Groups]:
        level, setting = _eased(_levelled(coder, groups), setting)
        blobs = {m: level.encode(pixels, setting) for m, pixels in groups.items()}
        return sum(map(len, blobs.values())), {m: level.decode(blob) for m, blob in blobs.items()}

    return code


def _conditional(coder: Contender) -> Callable[[Groups, float], tuple[int, Groups]]:
    """20 m first; 10 m as what a linear map of it, interpolated and sharpened, leaves; the map is charged as float16."""

    def code(groups: Groups, setting: float) -> tuple[int, Groups]:
        level, setting = _eased(_levelled(coder, groups), setting)
        size, made = _apart(level)({m: pixels for m, pixels in groups.items() if m != 10}, setting)
        dates = [_predicted(fine, coarse) for fine, coarse in zip(groups[10], made[20])]
        predicted = np.stack([found for found, _ in dates])
        left = np.clip(np.rint(groups[10] - predicted) + _MIDDLE, 0, 32767).astype(np.uint16)
        blob = level.encode(left, setting)
        back = np.rint(level.decode(blob).astype(float) - _MIDDLE + predicted)
        charged = sum(length for _, length in dates)
        return size + charged + len(blob), {**made, 10: np.clip(back, 0, 65535)}

    return code


def _predicted(fine: np.ndarray, coarse: np.ndarray) -> tuple[np.ndarray, int]:
    """Of bands [C, H, W] from decoded [K, h, w], and the bytes of the map."""
    lifted = _doubled(coarse.astype(float))[:, : fine.shape[1], : fine.shape[2]]
    functions = np.concatenate([lifted, lifted - _smoothed(lifted)]).reshape(2 * len(coarse), -1)
    centred = functions - functions.mean(1, keepdims=True)
    goal = fine.reshape(len(fine), -1).astype(float)
    square = centred @ centred.T / centred.shape[1] + _RIDGE * np.eye(len(centred))
    weights = np.linalg.solve(square, centred @ (goal - goal.mean(1, keepdims=True)).T / centred.shape[1])
    weights = weights.T.astype(np.float16).astype(float)
    return (weights @ centred).reshape(fine.shape), 2 * weights.size


def _doubled(x: np.ndarray) -> np.ndarray:
    """Cubic interpolation to half the spacing, cells halved."""
    taps = np.array([-0.0234375, 0.2265625, 0.8671875, -0.0703125])

    def along(v: np.ndarray) -> np.ndarray:
        padded = np.pad(v, [(0, 0), (0, 0), (2, 2)], mode="edge")
        size = v.shape[2]
        first = sum(t * padded[:, :, k : k + size] for k, t in enumerate(taps))
        second = sum(t * padded[:, :, k + 1 : k + 1 + size] for k, t in enumerate(taps[::-1]))
        return np.stack([first, second], -1).reshape(*v.shape[:2], -1)

    return along(along(x).swapaxes(1, 2)).swapaxes(1, 2)


def _smoothed(x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1)], mode="edge")
    h, w = x.shape[1:]
    return sum(padded[:, y : y + h, k : k + w] for y in range(3) for k in range(3)) / 9
