"""Rate-distortion sweeps: every contender on every place at every setting, on the same pixels, real bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from eozip.errors import EozipError
from eozip_lab.evaluate.baselines import Contender, sweep_of
from eozip_lab.evaluate.inputs import Place
from eozip_lab.evaluate.metrics import Quality, group_psnr, measure
from eozip_lab.evaluate.rate import bpppb, rate_at

PSNRS = (36.0, 40.0, 44.0, 48.0)  # dB at which rates are compared

_Progress = Callable[[int, int, str], None]
"""Called with measurements done, measurements in all, and what comes next."""


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        place: name of the place.
        contender: name of the contender.
        setting: its setting: quality, target dB, distance, CRF.
        bytes: everything the decoder needs.
        bpppb: bits per pixel per band of the unpadded input.
        quality: metrics of the decoded pixels.
        group_psnr: native resolution in metres > dB.
        encode_seconds, decode_seconds: wall time of this one run, model loaded; for speed see
            benchmarks/speed.py.
    """

    place: str
    contender: str
    setting: float
    bytes: int
    bpppb: float
    quality: Quality
    group_psnr: dict[int, float]
    encode_seconds: float
    decode_seconds: float

    @property
    def psnr(self) -> float:
        """dB over all bands and dates, peak 10,000 DN."""
        return self.quality.psnr


def measured(contender: Contender, place: Place, setting: float) -> Point:
    """Encode and decode one place.

    Raises:
        EozipError: the contender gives back another shape or dtype than it got, or cannot code the place.
    """
    return described(coded(contender, place, setting), contender.name, place, setting)


@dataclass(frozen=True)
class _Coded:
    """One run of a contender: size of its bytes, decoded pixels, wall seconds, CPU seconds of all its threads."""

    bytes: int
    dn_hat: np.ndarray
    encode_seconds: float
    decode_seconds: float
    encode_cpu_seconds: float
    decode_cpu_seconds: float


def coded(contender: Contender, place: Place, setting: float) -> _Coded:
    """Encode and decode one place, and nothing else: what time and memory are measured of.

    Raises:
        EozipError: see `measured`.
    """
    started = _clocks()
    blob = contender.encode(place.dn, setting)
    encoded = _clocks()
    dn_hat = contender.decode(blob)
    decoded = _clocks()
    _check_same(contender, place.dn, dn_hat)
    (encode, encode_cpu), (decode, decode_cpu) = encoded - started, decoded - encoded
    return _Coded(len(blob), dn_hat, float(encode), float(decode), float(encode_cpu), float(decode_cpu))


def described(run: _Coded, name: str, place: Place, setting: float) -> Point:
    """All metrics of a run."""
    quality = measure(place.dn, run.dn_hat, place.bands, place.offset, place.valid)
    return Point(
        place.name,
        name,
        setting,
        run.bytes,
        bpppb(run.bytes, place.dn.shape),
        quality,
        group_psnr(quality.band_psnr, place.resolutions),
        run.encode_seconds,
        run.decode_seconds,
    )


def swept(
    contenders: Sequence[Contender],
    places: Sequence[Place],
    settings: Callable[[str], Sequence[float]] = sweep_of,
    progress: _Progress = lambda done, total, what: None,
) -> list[Point]:
    """Every contender on every place at each of its settings."""
    jobs = [(c, p, s) for c in contenders for p in places for s in settings(c.name)]
    points = []
    for done, (contender, place, setting) in enumerate(jobs):
        progress(done, len(jobs), f"{contender.name} {setting:g} on {place.name}")
        points.append(measured(contender, place, setting))
    progress(len(jobs), len(jobs), "")
    return points


def curves(points: Iterable[Point], contender: str) -> dict[str, list[tuple[float, float]]]:
    """Place > (bpppb, dB) points of one contender."""
    found: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        if point.contender == contender:
            found.setdefault(point.place, []).append((point.bpppb, point.psnr))
    return found


def _value_at(points: Sequence[Point], db: float, value: Callable[[Point], float]) -> float | None:
    """A metric of one contender on one place at a PSNR: linear in dB between the two points beside it.

    Returns:
        None outside the curve.
    """
    ordered = sorted((p for p in points if np.isfinite(p.psnr)), key=lambda p: p.psnr)
    if not ordered or not ordered[0].psnr <= db <= ordered[-1].psnr:
        return None
    return float(np.interp(db, [p.psnr for p in ordered], [value(p) for p in ordered]))


def rates(points: Sequence[Point], contender: str, db: float) -> dict[str, float | None]:
    """Place > bpppb at a PSNR; None where the curve does not reach it."""
    return {place: rate_at(curve, db) for place, curve in curves(points, contender).items()}


def _clocks() -> np.ndarray:
    """Wall and CPU seconds of this process, float64 [2]; to be subtracted."""
    return np.array([time.perf_counter(), time.process_time()])


def _check_same(contender: Contender, dn: np.ndarray, dn_hat: np.ndarray) -> None:
    if dn.shape != dn_hat.shape or dn.dtype != dn_hat.dtype:
        raise EozipError(
            f"{contender.name}: expected {dn.dtype} {dn.shape} back, got {dn_hat.dtype} {dn_hat.shape}"
        )
