"""How far decoded pixels are from the originals, in the terms of those who use them.

Squared errors and PSNR count clip(dn - offset, 0, 10000), peak 10,000 DN, as everywhere in eozip; the rest
says what it counts. Everything is numpy on whole arrays; `measure` gathers it for a stack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eozip.chunk.pixels import PEAK, psnr
from eozip.errors import InputError
from eozip_lab.evaluate.structure import SCALE_WEIGHTS, both, ssim, ssim_fits

CLASSES = ("water", "dense vegetation", "vegetation", "bright", "other")


@dataclass(frozen=True)
class Quality:
    """What `measure` found; every number is over all dates.

    Attributes:
        psnr: dB, peak 10,000 DN, all bands together; infinite if equal.
        band_psnr: [C] dB.
        mse: DN squared, clipped to 0..10000.
        ssim: mean over bands and dates, 11x11 Gaussian windows; None if frames are smaller than 11 x 11.
        ms_ssim: the same on five scales; None below 176 x 176.
        spectral_angle: degrees, mean over pixels.
        max_error: DN, unclipped.
        ndvi_error: mean absolute difference of NDVI; None if nowhere defined.
        ndwi_error: the same of NDWI (green, near infrared).
        class_change: share of pixels, 0..1, that `_classify` puts elsewhere.
        class_shift: largest change of one class's share of all pixels, 0..1.
    """

    psnr: float
    band_psnr: tuple[float, ...]
    mse: float
    ssim: float | None
    ms_ssim: float | None
    spectral_angle: float
    max_error: int
    ndvi_error: float | None
    ndwi_error: float | None
    class_change: float
    class_shift: float


def measure(
    dn: np.ndarray,
    dn_hat: np.ndarray,
    bands: Sequence[str],
    offset: int = 0,
    valid: np.ndarray | None = None,
) -> Quality:
    """All metrics of one stack.

    Args:
        dn: [T, C, H, W] integer DN, the original.
        dn_hat: like ``dn``, the reconstruction.
        bands: [C] canonical band names; B02, B03, B04, B08 and B11 are used.
        offset: radiometric offset contained in both, DN.
        valid: bool [T, H, W], pixels that count; None: all. In SSIM, whose windows reach beyond them, the others
            count as equal.

    Raises:
        InputError: shapes differ, or a band that is used is missing.
    """
    _check(dn, dn_hat, bands)
    similarities = _similarities(*(reflected(a, offset) for a in (dn, _where(valid, dn_hat, dn))))
    if valid is not None:
        dn, dn_hat = (_pixels(a, valid) for a in (dn, dn_hat))
    x, x_hat = (reflected(a, offset) for a in (dn, dn_hat))
    classes, classes_hat = (_classify(a, bands) for a in (x, x_hat))
    return Quality(
        psnr=psnr(dn, dn_hat, offset=offset),
        band_psnr=band_psnr(x, x_hat),
        mse=mse(x, x_hat),
        ssim=similarities[0],
        ms_ssim=similarities[1],
        spectral_angle=float(np.mean(spectral_angle(x, x_hat))),
        max_error=max_error(dn, dn_hat),
        ndvi_error=_index_error(x, x_hat, bands, "B08", "B04"),
        ndwi_error=_index_error(x, x_hat, bands, "B03", "B08"),
        class_change=float(np.mean(classes != classes_hat)),
        class_shift=float(np.abs(_class_shares(classes_hat) - _class_shares(classes)).max()),
    )


def _where(valid: np.ndarray | None, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    return inside if valid is None else np.where(valid[:, None], inside, outside)


def _pixels(stack: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The pixels [T, C, H, W] that count, in a row: [1, C, N, 1]."""
    return np.moveaxis(stack, 1, 0)[:, valid][None, ..., None]


def reflected(dn: np.ndarray, offset: int = 0) -> np.ndarray:
    """DN of any dtype > float32 clip(dn - offset, 0, 10000): what squared errors count."""
    return np.clip(dn.astype(np.float32) - np.float32(offset), 0, np.float32(PEAK))


def mse(x: np.ndarray, x_hat: np.ndarray) -> float:
    """Mean squared error, DN squared, of arrays as `reflected` gives them."""
    return float(np.square(x - x_hat, dtype=np.float64).mean())


def to_db(mean_square: float) -> float:
    """PSNR in dB at peak 10,000 DN of a mean squared error in DN squared; infinite for 0."""
    return 10 * math.log10(PEAK**2 / mean_square) if mean_square > 0 else math.inf


def band_psnr(x: np.ndarray, x_hat: np.ndarray) -> tuple[float, ...]:
    """PSNR in dB of each band (axis 1), all dates together."""
    return tuple(to_db(mse(x[:, c], x_hat[:, c])) for c in range(x.shape[1]))


def group_psnr(values: Sequence[float], groups: Sequence[int]) -> dict[int, float]:
    """PSNR of bands taken together: dB of the mean of their mean squared errors.

    Args:
        values: [C] dB.
        groups: [C] label of each band, such as its native resolution in metres.

    Returns:
        label > dB, labels rising.
    """
    squares = np.array([PEAK**2 / 10 ** (db / 10) for db in values])
    labels = np.asarray(groups)
    return {int(label): to_db(float(squares[labels == label].mean())) for label in np.unique(labels)}


def max_error(dn: np.ndarray, dn_hat: np.ndarray) -> int:
    """Largest absolute difference in DN, nothing clipped."""
    return int(np.abs(dn.astype(np.int64) - dn_hat.astype(np.int64)).max())


def spectral_angle(x: np.ndarray, x_hat: np.ndarray) -> np.ndarray:
    """Angle between the spectra of each pixel (Kruse et al. 1993).

    Args:
        x, x_hat: [T, C, H, W], reflectance in any unit.

    Returns:
        float64 [T, H, W], degrees; 0 where both are zero, 90 where one is.
    """
    a, b = _unit(x), _unit(x_hat)
    # 2 atan2(|a-b|, |a+b|): arccos of the product would lose angles below 0.01 degree to rounding
    half = np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    dark = ~a.any(axis=1) & ~b.any(axis=1)
    return np.where(dark, 0.0, np.degrees(2 * half))


def _index_error(
    x: np.ndarray, x_hat: np.ndarray, bands: Sequence[str], plus: str, minus: str
) -> float | None:
    """Mean absolute difference of (plus - minus) / (plus + minus), where both images have a positive sum.

    Args:
        x, x_hat: [T, C, H, W] without offset.
        bands: [C] band names.
        plus, minus: the two bands: NDVI is B08, B04 (Rouse et al. 1974); NDWI is B03, B08 (McFeeters 1996).
    """
    index, known = _normalised_difference(x, bands, plus, minus)
    index_hat, known_hat = _normalised_difference(x_hat, bands, plus, minus)
    both = known & known_hat
    return float(np.abs(index - index_hat)[both].mean()) if both.any() else None


def _normalised_difference(
    x: np.ndarray, bands: Sequence[str], plus: str, minus: str
) -> tuple[np.ndarray, np.ndarray]:
    """(plus - minus) / (plus + minus) float64 [T, H, W], 0 where the sum is not positive; and where it is."""
    a, b = (x[:, _position(bands, name)].astype(np.float64) for name in (plus, minus))
    known = a + b > 0
    return np.divide(a - b, a + b, out=np.zeros_like(a), where=known), known


def _classify(x: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Puts each pixel into one of `CLASSES` by fixed thresholds: a stand-in for what people do with bands.

    Bright (cloud, snow, bare roofs): B02 over 3,000. Else water: NDWI over 0. Else dense vegetation: NDVI
    over 0.6; vegetation: over 0.3; other.

    Args:
        x: [T, C, H, W] DN without offset.
        bands: [C] band names.

    Returns:
        uint8 [T, H, W], positions in `CLASSES`.
    """
    ndwi, _ = _normalised_difference(x, bands, "B03", "B08")
    ndvi, _ = _normalised_difference(x, bands, "B08", "B04")
    bright = x[:, _position(bands, "B02")] > 3000
    return np.select([bright, ndwi > 0, ndvi > 0.6, ndvi > 0.3], [3, 0, 1, 2], 4).astype(np.uint8)


def _class_shares(classes: np.ndarray) -> np.ndarray:
    """Share of all pixels in each class: float64 [5], sum 1."""
    return np.bincount(classes.ravel(), minlength=len(CLASSES)) / classes.size


def outermost(shape: tuple[int, int], chunk: int, depth: int) -> np.ndarray:
    """Bool [H, W]: the outermost pixels of each chunk of a scene of whole chunks.

    Args:
        shape: H, W.
        chunk: side of a chunk, a divisor of both.
        depth: how many pixels count.

    Raises:
        InputError: chunks do not divide the scene: slivers at its end would be all border.
    """
    if any(length % chunk for length in shape):
        raise InputError(f"expected a scene of whole chunks of {chunk}, got {shape}; choose another size")
    near = [_near(np.arange(length) % chunk, chunk, depth) for length in shape]
    return near[0][:, None] | near[1]


def _similarities(x: np.ndarray, x_hat: np.ndarray) -> tuple[float | None, float | None]:
    """SSIM and MS-SSIM, None where frames are too small."""
    if ssim_fits(x.shape, len(SCALE_WEIGHTS)):
        return both(x, x_hat)
    return (ssim(x, x_hat) if ssim_fits(x.shape, 1) else None), None


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def _position(bands: Sequence[str], name: str) -> int:
    if name not in bands:
        raise InputError(
            f"bands: expected {name} among them, got {', '.join(bands)}; name them as the sensor does"
        )
    return list(bands).index(name)


def _check(dn: np.ndarray, dn_hat: np.ndarray, bands: Sequence[str]) -> None:
    if dn.ndim != 4 or dn.size == 0 or dn.shape != dn_hat.shape or dn.shape[1] != len(bands):
        raise InputError(
            f"expected two arrays [T, {len(bands)}, H, W] of one shape, not empty, "
            f"got {dn.shape} and {dn_hat.shape}"
        )


def _near(within: np.ndarray, chunk: int, depth: int) -> np.ndarray:
    return (within < depth) | (within >= chunk - depth)
