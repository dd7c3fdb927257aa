"""tec-elic-small-any-v1 under whatever comes: any shapes and pixels, any bytes, any way of computing."""

from __future__ import annotations

import tracemalloc
from contextlib import nullcontext, suppress

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import eozip
from eozip import bitstream, hub
from eozip.codecs import registry
from eozip.codecs.base import Encoded
from eozip.codecs.pyramid import files, grids, haar
from eozip.codecs.pyramid.codec import PyramidCodec
from eozip.errors import EozipError
from golden_decode import golden_blob, stored_pixels
from pyramidscenes import BILINEAR, CODEC, CUBIC, NEAREST, cube, goldens, texture, with_holes

NAMES = tuple(goldens())
SIDE = st.integers(1, 40)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 20), SIDE, SIDE).filter(lambda s: np.prod(s) <= 9000)


@pytest.fixture(scope="module")
def codec() -> PyramidCodec:
    return registry.get(CODEC)


def step(quality: float) -> float:
    """Of quantisation, DN."""
    return 48 * 75 ** ((100 - quality) / 100)


# --- pixels ---


def drawn(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Pixels of a kind, float64 [T, C, H, W]."""
    rng = np.random.default_rng(seed)
    i, j = np.indices(shape[2:])
    if kind == "board":
        return np.broadcast_to((i + j) % 2 * 65535.0, shape)
    if kind == "constant":
        return np.broadcast_to(rng.integers(0, 65536, (*shape[:2], 1, 1)).astype(float), shape)
    if kind == "noise":
        return rng.integers(0, 65536, shape).astype(float)
    if kind == "dot":
        return np.where((i == shape[2] // 2) & (j == shape[3] // 2), 65535.0, np.zeros(shape))
    if kind == "halves":
        return np.broadcast_to(np.where(j < shape[3] // 2, 0.0, 20000.0), shape)
    return texture(shape, seed)


@settings(max_examples=30, deadline=None)
@given(
    SHAPES,
    st.sampled_from(["texture", "board", "constant", "noise", "dot", "halves"]),
    st.integers(0, 100),
    st.integers(0, 99),
)
@example((1, 1, 1, 1), "noise", 100, 0)
@example((2, 20, 5, 33), "noise", 100, 1)
def test_any_pixels_come_back_within_a_step(codec, shape, kind, quality, seed):
    """Decoding compares the decoder's picture with the encoder's: it raises where a single value differs."""
    x = drawn(kind, shape, seed).astype(np.float32)
    decoded = codec.decode(codec.encode(x, quality), shape, quality)
    assert decoded.shape == shape
    assert np.sqrt(np.square(decoded - x).mean()) < step(quality)


@settings(max_examples=15, deadline=None)
@given(SHAPES, st.sampled_from(["uint16", "int16"]), st.sampled_from(["texture", "noise"]), st.data())
def test_chunks_with_nodata_anywhere(shape, dtype, kind, data):
    seed = data.draw(st.integers(0, 99))
    dn = drawn(kind, shape, seed).astype(dtype)
    hidden = np.random.default_rng(seed).random(shape) < data.draw(st.sampled_from([0, 0.1, 0.9, 1]))
    dn[hidden] = 7
    dn_hat = eozip.decode(eozip.encode(dn, CODEC, quality=data.draw(st.integers(0, 100)), nodata=7))
    assert dn_hat.dtype == dn.dtype
    assert np.array_equal(dn_hat == 7, dn == 7)


def test_halves_of_many_bands_at_the_finest_step(codec):
    """Coarse levels of strong pictures go beyond 2**23 units: nothing is cut off."""
    x = drawn("halves", (1, 2, 128, 128), 0).astype(np.float32)
    decoded = codec.decode(codec.encode(x, 200), x.shape, 200)
    assert np.abs(decoded - x).max() < 2


@pytest.mark.parametrize("bands", [1, 2, 7, 20])
def test_any_number_of_bands_by_default(bands):
    dn = np.rint(texture((1, bands, 30, 31), bands)).astype(np.uint16)
    blob = eozip.encode(dn)
    assert eozip.inspect(blob).header.codec == CODEC
    assert eozip.psnr(dn, eozip.decode(blob)) > 40


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("bound", [1, 40])
def test_a_largest_error_is_kept(dtype, bound):
    dn = with_holes(np.rint(texture((1, 3, 30, 31), 5) - (1500 if dtype == "int16" else 0)).astype(dtype), 0)
    dn_hat = eozip.decode(eozip.encode(dn, CODEC, max_error=bound, nodata=0))
    assert np.abs(dn_hat.astype(int) - dn).max() <= bound
    assert np.array_equal(dn_hat == 0, dn == 0)


@pytest.mark.parametrize("options", [{"target_psnr": 45.0}, {"quality": 100}])
def test_decibels_are_kept(options):
    dn = np.rint(texture((1, 4, 40, 41), 6)).astype(np.uint16)
    promised = options.get("target_psnr", 46.0)
    assert eozip.psnr(dn, eozip.decode(eozip.encode(dn, CODEC, **options))) >= promised


def test_better_quality_costs_more_and_errs_less(codec):
    x = texture((1, 4, 48, 49), 7).astype(np.float32)
    sizes, errors = [], []
    for quality in (0, 20, 40, 60, 80, 100):
        coded = codec.encode(x, quality)
        sizes.append(sum(map(len, coded.sections)))
        errors.append(np.square(codec.decode(coded, x.shape, quality) - x).mean())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


# --- interpolated bands ---


GRIDS = [
    grids.Grid(kernel, factor, rows, columns)
    for kernel in (BILINEAR, NEAREST, CUBIC)
    for factor, rows, columns in [(2, 0, 1), (3, 2, 0), (6, 5, 3)]
]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.kernel}-{g.factor}-{g.rows}-{g.columns}")
def test_interpolated_bands_are_found_and_come_back(codec, grid):
    shape = (1, 3, 40, 50)
    x = cube(shape, {1: grid}, seed=1).astype(np.float32)
    assert grids.found(x)[1] is not None
    assert grids.found(x)[::2] == [None, None]
    decoded = codec.decode(codec.encode(x, 80), shape, 80)
    assert np.sqrt(np.square(decoded - x).mean((2, 3))).max() < step(80) / 2


@pytest.mark.parametrize("factor", [2, 6])
def test_bands_are_found_beside_holes_over_a_third_of_the_scene(factor: int) -> None:
    grid = grids.Grid(0, factor, 1, 1)
    x = cube((2, 1, 150, 156), {0: grid}).astype(np.float32)
    holes = np.zeros(x.shape, bool)
    for corner in range(0, 96, 24):  # steps, as clouds have edges
        holes[0, :, corner : corner + 40, corner // 2 : corner // 2 + 60] = True
    filled = np.where(holes, x.mean(), x)
    ((got, cells),) = grids.solved(filled, holes)  # type: ignore[misc]
    assert got == grid
    numerator, denominator = grid.interpolated(np.rint(cells), 150, 156)
    assert np.abs(numerator / denominator - x[:, 0])[~holes[:, 0]].max() < 2


@settings(max_examples=20, deadline=None)
@given(st.integers(24, 60), st.integers(24, 60), st.sampled_from(GRIDS))
def test_cells_of_a_grid_are_found_again(height, width, grid):
    rows, columns = grid.cells(height, 0)[1], grid.cells(width, 1)[1]
    cells = np.random.default_rng(height * width).integers(0, 4000, (rows, columns))
    pixels, denominator = grid.interpolated(cells, height, width)
    again, _ = grid.interpolated(np.rint(grid.solved(pixels / denominator)).astype(np.int64), height, width)
    assert np.abs(again - pixels).max() <= denominator * 1.01


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_integer_transform_is_the_inverse_of_the_float_one(height, width, seed):
    x = np.random.default_rng(seed).integers(-(2**20), 2**20, (2, height, width))
    low, details = (np.rint(v).astype(np.int32) for v in haar.analyse(x.astype(float)))
    details[:, ~haar.coded((height, width))] = 0
    assert np.abs(haar.synthesise(low, details, (height, width)) - x).max() <= 2


# --- ways of computing ---


@pytest.mark.parametrize("name", NAMES)
def test_golden_pixels(name):
    stored = stored_pixels(name)
    decoded = eozip.decode(golden_blob(name))
    assert np.array_equal(decoded, stored["decoded"])
    assert np.array_equal(stored["dn"], goldens()[name].dn)


def test_threads_change_no_byte(codec, monkeypatch):
    monkeypatch.setattr("eozip.threads.ThreadpoolController.limit", lambda *_, **__: nullcontext())
    x = texture((20, 3, 34, 36), 8).astype(np.float32)
    found = []
    for count in (1, 2):
        with threadpool_limits(limits=count):
            found.append(codec.encode(x, 70))
    assert found[0] == found[1]


def test_the_sums_of_shipped_weights_stay_exact():
    """Below 2**24 units whatever comes in, so that float32 holds every partial sum."""
    _, w = files.read_folder(hub.shipped_path(CODEC))
    largest = {
        "window": 63 * 64,
        "neighbours": 63 * 64,
        "around": 63 * 64,
        "trunk": 127,
        "known": 127,
        "constant": 127,
    }
    sums = {}
    for name, value in w.items():
        stage, _, part = name.rpartition(".")
        if value.ndim < 2 or not stage.removeprefix(files.LATER).isdigit():
            continue
        rows = np.abs(value.astype(np.int64)).reshape(len(value), -1).sum(1).max()
        sums.setdefault(stage, {})[part] = int(rows) * largest.get(part, 255)
    for parts in sums.values():
        assert parts["trunk"] + parts["known"] + 16 * parts["constant"] < 2**23
        assert max(parts.values()) < 2**24


# --- hostile bytes ---


@pytest.fixture(scope="module")
def blob() -> bytes:
    return golden_blob(f"{CODEC}-odd")


def tried(codec: PyramidCodec, sections: tuple[bytes, ...], shape: tuple[int, ...]) -> None:
    """One of our errors, or finite pixels under checks that no stranger can compute without decoding."""
    with suppress(EozipError):
        decoded = codec.decode(Encoded(sections, (0,) * shape[0]), shape, 50)
        assert np.isfinite(decoded).all()


@pytest.fixture
def unchecked(codec, monkeypatch) -> PyramidCodec:
    """As a stranger who computes the checks of damaged bytes."""
    monkeypatch.setattr("eozip.codecs.pyramid.codec.compare", lambda *_: None)
    return codec


def damaged(rng: np.random.Generator, sections: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """A few bytes changed, cut or added, or a section of another place."""
    out = [bytearray(s) for s in sections]
    for _ in range(int(rng.integers(1, 4))):
        own = out[rng.integers(len(out))]
        match rng.integers(4):
            case 0 if own:
                own[rng.integers(len(own))] = rng.integers(256)
            case 1:
                del own[rng.integers(len(own) + 1) :]
            case 2:
                own += rng.bytes(int(rng.integers(1, 40)))
            case _:
                own[:] = rng.bytes(int(rng.integers(0, 60)))
    return tuple(map(bytes, out))


@pytest.mark.parametrize("name", NAMES)
def test_damaged_sections(unchecked, name):
    chunk, rng = bitstream.unpack(golden_blob(name)), np.random.default_rng(0)
    for _ in range(12):
        tried(unchecked, damaged(rng, chunk.sections), chunk.header.shape)


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.binary(max_size=60)] * 3), SHAPES)
def test_random_sections(sections, shape):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eozip.codecs.pyramid.codec.compare", lambda *_: None)
        tried(registry.get(CODEC), sections, shape)


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_other_numbers_of_sections_are_refused(codec, count):
    with pytest.raises(EozipError, match="sections"):
        codec.decode(Encoded((b"",) * count, (0,)), (1, 1, 8, 8), 50)


def test_damaged_bytes_take_no_more_memory_than_pixels(unchecked, blob):
    """Whatever they say, in bytes per sample of a shape that its reader allows."""
    chunk, rng, shape = bitstream.unpack(blob), np.random.default_rng(1), (2, 5, 64, 96)
    tried(unchecked, chunk.sections, shape)
    tracemalloc.start()
    try:
        for _ in range(12):
            tried(unchecked, damaged(rng, chunk.sections), shape)
        assert tracemalloc.get_traced_memory()[1] < 150 * np.prod(shape) + (4 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_long_run_of_damaged_bytes(unchecked):
    rng = np.random.default_rng(2)
    chunks = [bitstream.unpack(golden_blob(name)) for name in NAMES]
    for _ in range(1500):
        chunk = chunks[rng.integers(len(chunks))]
        shape = chunk.header.shape if rng.random() < 0.7 else tuple(rng.integers(1, (4, 9, 40, 40)).tolist())
        tried(unchecked, damaged(rng, chunk.sections), shape)


@pytest.mark.parametrize("name", ["tec-elic-small-any-v1", "tec-tt-small-any-v1", "tec-fp-small-any-v1"])
def test_encoders_know_what_decoders_make(name):
    chosen = registry.get(name)
    x = texture((3, 4, 40, 52), 5).astype(np.float32)
    holes = np.zeros(x.shape, bool)
    holes[1, :, :20, :30] = True
    coded = chosen.encode(x, 50.0, holes)
    assert np.array_equal(coded.decoded()[0], chosen.decode(coded, x.shape, 50.0))
    groups = [(1, x), (2, x[:, :2, ::2, ::2]), (6, x[:, :1, ::6, ::6])]
    coded = chosen.encode_groups(groups, 50.0)
    made = chosen.decode_groups(coded, (3, 7, 40, 52), [(1, 4), (2, 2), (6, 1)])
    assert all(np.array_equal(a, b) for a, b in zip(coded.decoded(), made, strict=True))
