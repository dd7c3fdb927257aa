"""What takes part in an evaluation: our codecs and the baselines, those that cannot run here with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from eozip import __version__
from eozip.codecs import registry
from eozip.errors import InputError
from eozip.evaluate import baselines

CODEC, BASELINE = "codec", "baseline"
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
    """Short names of every codec of a sensor in the registry."""
    mark = f"-{sensor.replace('-', '')}-v"
    found = [name.rpartition(mark)[0] for name in registry.names() if mark in name]
    return list(dict.fromkeys(found))


def methods(
    codecs: Sequence[str], names: Sequence[str], sensor: str, qualities: Sequence[float] | None = None
) -> list[Method]:
    """What was asked for, codecs first.

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
    found = [_codec(name, sensor, qualities) for name in codecs] + [_baseline(name) for name in names]
    if not found:
        raise InputError("expected at least one codec or baseline, got none")
    return found


def fingerprint(method: Method, sensor: str) -> str:
    """What, beside setting and pixels, decides the bytes of a method: a change of it measures anew."""
    measured_by = f"eozip {__version__}"  # metrics are part of a point
    if method.kind == CODEC:
        return f"{registry.resolve(method.id, sensor)} {measured_by}"
    return " ".join([method.settings, measured_by, *map(_version, _LIBRARIES)])


def _codec(name: str, sensor: str, qualities: Sequence[float] | None) -> Method:
    if name == registry.LOSSLESS:
        raise InputError(f"{name}: has no qualities to compare; choose another codec")
    made = baselines.Learned(name, sensor)
    sweep = tuple(sorted(set(qualities))) if qualities else baselines.QUALITIES
    return Method(name, CODEC, made.settings, baselines.setting_of(name), sweep)


def _baseline(name: str) -> Method:
    entry, reason = baselines.ENTRIES[name], baselines.unavailable(name)
    settings = "" if reason else baselines.contender(name).settings
    return Method(name, BASELINE, settings, entry.setting, entry.sweep, reason is None, reason)


@cache
def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} absent"
