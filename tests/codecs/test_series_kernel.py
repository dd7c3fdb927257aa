"""Passes over whole pictures by `series.inc`: the numbers of numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from eozip.codecs.pyramid import haar, native, references, registration, spectral

pytestmark = pytest.mark.skipif(native.library() is None, reason="no compiled kernel on this machine")

REACHES = (3, 1000, 1 << 20, (1 << 20) + 1, 1 << 28)


def pictures(rng: np.random.Generator, reach: int, *shape: int) -> np.ndarray:
    """Noise, or nothing but the extremes."""
    found = rng.integers(-reach, reach + 1, shape).astype(np.int32)
    return found if rng.integers(4) else np.where(found > 0, reach, -reach).astype(np.int32)


def by_numpy(call: Callable[..., object], *given: object) -> object:
    with pytest.MonkeyPatch.context() as patch:
        for module in (haar, references, registration, spectral):
            patch.setattr(module, "library", lambda: None)
        return call(*given)


@pytest.mark.parametrize("seed", range(60))
def test_remainders_and_what_pictures_let_expect(seed):
    rng = np.random.default_rng(seed)
    x = pictures(rng, int(rng.choice(REACHES)), *rng.integers(1, [4, 24, 24]).tolist())
    for call in (haar.remainders, haar.interpolated):
        np.testing.assert_array_equal(call(x), by_numpy(call, x))
        np.testing.assert_array_equal(call(x[:, ::2, ::-1]), by_numpy(call, x[:, ::2, ::-1]))


@pytest.mark.parametrize("seed", range(60))
def test_pictures_that_are_moved(seed):
    rng = np.random.default_rng(seed)
    x = pictures(rng, int(rng.choice(REACHES)), *rng.integers(1, [4, 24, 24]).tolist())
    for distance in rng.integers(-64, 65, (6, 2)).tolist():
        expected = by_numpy(registration.moved, x, *distance)
        np.testing.assert_array_equal(registration.moved(x, *distance), expected)


@pytest.mark.parametrize("seed", range(60))
def test_what_references_tell(seed):
    rng = np.random.default_rng(seed)
    reach, planes = int(rng.choice(REACHES)), int(rng.integers(1, 5))
    height, width = rng.integers(1, 100 if seed < 5 else 24, 2).tolist()
    picture = pictures(rng, reach, planes, height, width)
    bands = rng.integers(1, 5, rng.integers(1, 4)).tolist()
    here = [pictures(rng, 2 * reach, m, 3, height, width) for m in bands]
    below = [pictures(rng, 2 * reach, m + 1, 3, haar.half(height), haar.half(width)) for m in bands]
    if seed % 2:  # something to find
        below[0][0] = haar.remainders(picture)[0] * 3 // 4
    numbers = np.flatnonzero(rng.integers(0, 2, planes))
    given = picture, below, here, numbers
    own, other = references.told(*given), by_numpy(references.told, *given)
    np.testing.assert_array_equal(own.activity, other.activity)
    np.testing.assert_array_equal(own.turns, other.turns)
    assert np.isfinite(own.turns).all()
    for name in ("predicted", "remainders", "missed", "share"):
        np.testing.assert_array_equal(getattr(own, name)[numbers], getattr(other, name)[numbers])


@pytest.mark.parametrize("seed", range(20))
def test_what_references_tell_that_are_all_alike(seed):
    """Pivots of the fit are then what the ridge leaves."""
    rng = np.random.default_rng(seed)
    reach, size = int(rng.choice([1, *REACHES])), rng.integers(1, 40, 2)
    bands, half = int(rng.integers(2, 40)), [haar.half(int(n)) for n in size]
    one, other = pictures(rng, reach, 1, 3, *half), pictures(rng, reach, 1, 3, *size)
    below, here = ([np.repeat(v * (seed % 4 > 0), bands, 0)] * 2 for v in (one, other))
    given = pictures(rng, reach, 2, *size), below, here
    own, expected = references.told(*given), by_numpy(references.told, *given)
    assert np.isfinite(own.turns).all()
    for name in ("predicted", "remainders", "missed", "activity", "turns", "share"):
        np.testing.assert_array_equal(getattr(own, name), getattr(expected, name))


@pytest.mark.parametrize("seed", range(60))
def test_pictures_one_level_up(seed):
    rng = np.random.default_rng(seed)
    reach, (count, height, width) = int(rng.choice(REACHES)), rng.integers(1, [4, 24, 24]).tolist()
    size = haar.half(height), haar.half(width)
    given = pictures(rng, reach, count, *size), pictures(rng, reach, count, 3, *size), (height, width)
    for more in ((), (1 << 28,)):
        expected = by_numpy(haar.synthesise, *given, *more)
        np.testing.assert_array_equal(haar.synthesise(*given, *more), expected)


@pytest.mark.parametrize("seed", range(60))
def test_planes_to_bands_and_back(seed):
    rng = np.random.default_rng(seed)
    count, height, width = rng.integers(1, [13, 40, 40]).tolist()
    vectors = pictures(rng, 2048, count, count) * rng.integers(0, 2, count).astype(np.int32)
    basis = spectral.Basis(vectors, np.ones(count, np.int32))
    values = pictures(rng, int(rng.choice(REACHES)), count, 3, height, width)
    for call in (basis.bands, basis.seen):
        np.testing.assert_array_equal(call(values), by_numpy(call, values))
