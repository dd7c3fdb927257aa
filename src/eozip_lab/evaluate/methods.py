"""What takes part in an evaluation: our codecs and the baselines, those that cannot run here with the reason."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from eozip import __version__
from eozip.chunk import api, encoding
from eozip.codecs import registry
from eozip.errors import InputError
from eozip_lab.evaluate import baselines
from eozip_lab.evaluate.baselines import terracodec
from eozip_lab.evaluate.baselines.eozip_bounded import PROMISES

CODEC, _BASELINE = "codec", "baseline"
_LIBRARIES = ("imagecodecs", "av", "terracodec")  # whose versions decide a baseline's bytes


@dataclass(frozen=True)
class Method:
    """A codec or baseline; see `methods` in docs/evaluation.md.

    Attributes:
        id: unique name.
        kind: "codec" or "baseline".
        settings: what the encoder is told.
        setting_name: what a setting is.
        sweep: settings, coarse to fine.
        available: whether it can run here.
        reason: why not.
    """

    id: str
    kind: str
    settings: str
    setting_name: str
    sweep: tuple[float, ...]
    available: bool = True
    reason: str | None = None


def default_codecs(sensor: str = "s2-l2a") -> list[str]:
    """`learned` codecs of a sensor, then `PROMISES`; where it has no codec, what needs none."""
    found = learned(sensor)
    return [*found, *PROMISES] if found else [registry.LOSSLESS]


def learned(sensor: str = "s2-l2a") -> list[str]:
    """Short names of every codec of a sensor in the registry, the default ones first."""
    marks = [f"-{name}-v" for name in (sensor.replace("-", ""), registry.ANY_SENSOR)]
    found = [name.rpartition(mark)[0] for name in registry.names() for mark in marks if mark in name]
    first = [name for name in (encoding.DEFAULT_TEMPORAL_CODEC, encoding.DEFAULT_CODEC) if name in found]
    return list(dict.fromkeys([*first, *found]))


def methods(
    codecs: Sequence[str],
    names: Sequence[str],
    sensor: str,
    qualities: Sequence[float] | None = None,
    every: int = 1,
) -> list[Method]:
    """What was asked for, codecs first.

    Args:
        codecs: full ids or short names.
        names: of baselines.
        sensor: sensor id.
        qualities: of the codecs; None is 0, 5, .. 100.
        every: of a baseline's settings every N-th is taken, and the last.

    Raises:
        InputError: a baseline that nobody knows, nothing asked for, or something asked for twice.
        UnknownCodecError: a codec that nobody knows.
    """
    unknown = [name for name in names if name not in baselines.ENTRIES]
    if unknown:
        known = ", ".join(baselines.ENTRIES)
        raise InputError(f"unknown baseline {', '.join(unknown)}: expected some of {known}")
    doubled = sorted({name for name in codecs if list(codecs).count(name) > 1})
    doubled += sorted({name for name in names if list(names).count(name) > 1})
    if doubled:
        raise InputError(f"{', '.join(doubled)}: asked for twice; name each once")
    found = [_codec(name, sensor, qualities) for name in codecs] + [_baseline(name, every) for name in names]
    if not found:
        raise InputError("expected at least one codec or baseline, got none")
    return found


def fingerprint(method: Method, sensor: str) -> str:
    """What, beside setting and pixels, decides the bytes of a method: a change of it measures anew."""
    measured_by = f"eozip {__version__}"  # metrics are part of a point
    if method.id == registry.LOSSLESS:  # no network: new weights leave its points as they are
        return f"{method.settings} {measured_by} {_exact_probe()}"
    if method.id in PROMISES:
        used = (_weights(name, sensor) for name in (encoding.DEFAULT_CODEC, encoding.DEFAULT_TEMPORAL_CODEC))
        # no network where that is smaller
        return " ".join([method.settings, measured_by, *used, _exact_probe()])
    if method.kind == CODEC:
        return f"{_weights(method.id, sensor)} {measured_by}"
    return f"{method.settings} {measured_by} {library_versions()}"


def _weights(codec: str, sensor: str) -> str:
    """Full id and digest of the weights, if it has any; of codecs that take any bands also a probe."""
    full = registry.resolve(codec, sensor)
    if full == registry.LOSSLESS:
        return full
    told = f"{full} {registry.get(full).weights_hash.hex()}"
    return f"{told} {probe(full)}" if f"-{registry.ANY_SENSOR}-v" in full else told


@cache
def probe(codec: str) -> str:
    """Hex digits of what a codec makes of a made-up series: other code that makes other bytes is another contender.

    It has as many dates and pixels as all that codecs send takes (steps of dates, corrections).
    """
    return hashlib.sha256(api.encode(_waves(6, 72), codec=codec, quality=60)).hexdigest()[:12]


@cache
def _exact_probe() -> str:
    """The same of what codes without a network, every pixel exact and within 8 DN."""
    blobs = [api.encode(_waves(), codec=registry.LOSSLESS, max_error=bound) for bound in (0, 8)]
    return hashlib.sha256(b"".join(blobs)).hexdigest()[:12]


def _waves(dates: int = 2, side: int = 40) -> np.ndarray:
    """uint16 [T, 3, H, W], the same everywhere."""
    t, c, y, x = np.ogrid[:dates, :3, :side, :side]
    waves = 2000 + (300 + 40 * c) * np.sin(y / 5 + t) * np.cos(x / (4 + c)) + (y * x * 7919 + t * 31 + c) % 97
    return waves.astype(np.uint16)


def library_versions() -> str:
    """Of the libraries that decide a baseline's bytes."""
    return " ".join(map(_version, _LIBRARIES))


def _codec(name: str, sensor: str, qualities: Sequence[float] | None) -> Method:
    made, asked = baselines.own(name, sensor), tuple(sorted(set(qualities or baselines.QUALITIES)))
    sweep = baselines.sweep_of(name) if name in PROMISES else asked
    return Method(name, CODEC, made.settings, baselines.setting_of(name), sweep)


def _baseline(name: str, every: int) -> Method:
    entry, reason = baselines.ENTRIES[name], baselines.unavailable(name)
    settings = "" if reason else baselines.contender(name).settings
    return Method(
        name, _BASELINE, settings, entry.setting, _thinned(entry.sweep, every), reason is None, reason
    )


def _thinned(sweep: tuple[float, ...], every: int) -> tuple[float, ...]:
    """Each `every`-th setting from the coarsest on; the finest too, for curves to span the same range."""
    return tuple(dict.fromkeys([*sweep[::every], sweep[-1]]))


@cache
def _version(package: str) -> str:
    if package == "terracodec":
        return f"{package} {terracodec.version(terracodec.python())}"
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} absent"
