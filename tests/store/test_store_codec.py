"""The Zarr codec by zarr's own rules; shards and grid."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

import eozip
from eozip.codecs import registry
from eozip.errors import ChecksumError, EozipError, FormatError, InputError
from eozip.store import EozipChunkCodec, keep_chunks
from eozip.store.grid import _fitted_side as fitted_side
from eozip.store.grid import plan
from eozip.store.shards import _unpack_shard, pack_shard
from storefiles import (
    Coarse,
    coarse_codec,
    codes_exactly,
    make_store,
    scene_pixels,
    write_dates,
)


@pytest.fixture(autouse=True)
def _coarse():
    with coarse_codec():
        yield


# --- the codec by zarr's rules ---


def test_configuration_survives_json():
    codec = EozipChunkCodec("coarse-s2l2a-v1", 55.5, None, "s2-l2a", 0, 1000)
    document = json.loads(json.dumps(codec.to_dict()))
    assert document["name"] == "eozip.chunk"
    assert set(document["configuration"]) == {
        *("codec", "quality", "target_psnr", "max_error", "sensor", "nodata", "offset", "bitstream")
    }
    assert EozipChunkCodec.from_dict(document) == codec


@pytest.mark.parametrize(
    "change", [{"codec": None}, {"bitstream": 2}, {"quality": 3.0, "target_psnr": 40.0}, {"colour": "red"}]
)
def test_configurations_that_are_refused(change):
    document = EozipChunkCodec("lossless").to_dict()
    with pytest.raises(EozipError):
        EozipChunkCodec.from_dict({**document, "configuration": document["configuration"] | change})


@pytest.mark.parametrize(("shape", "dtype"), [((12, 8, 8), "uint16"), ((1, 12, 8, 8), "float32")])
def test_arrays_that_are_refused(shape, dtype):
    with pytest.raises(InputError, match="expected"):
        zarr.create_array({}, shape=shape, dtype=dtype, chunks=shape, serializer=EozipChunkCodec("lossless"))


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("name", [*registry.names(), Coarse.id])
def test_arrays_written_by_zarr_alone(name, dtype):
    """Plain zarr pads edge chunks with the fill value and hands over views: all codecs take both."""
    dn = np.stack([scene_pixels(seed, dtype=dtype) for seed in range(3)])
    bands = 12 if codes_exactly(name) else registry.get(name).bands or 12
    dn = np.concatenate([dn, dn[:, :1]], axis=1)[:, :bands]
    codec = EozipChunkCodec(name, None if codes_exactly(name) else 90.0, nodata=0)
    array = zarr.create_array(
        {},
        shape=dn.shape,
        dtype=dtype,
        chunks=(2, bands, 32, 32),
        serializer=codec,
        compressors=None,
        fill_value=0,
    )
    array[:] = dn[..., ::-1][..., ::-1]
    back = array[:]
    assert back.dtype == dn.dtype
    np.testing.assert_array_equal(back == 0, dn == 0)
    if codes_exactly(name):
        np.testing.assert_array_equal(back, dn)
    else:
        assert eozip.psnr(dn, back, dn != 0) > 30


def test_partial_writes_into_lossy_chunks_are_refused():
    array = zarr.create_array(
        {}, shape=(2, 12, 32, 32), dtype="uint16", chunks=(2, 12, 16, 16), compressors=None,
        serializer=EozipChunkCodec(Coarse.id, 50.0),
    )  # fmt: skip
    array[:] = 1234
    before = array[:]
    with pytest.raises(InputError, match="partial"):
        array[:, :, 3:9, :16] = 7
    np.testing.assert_array_equal(array[:], before)
    array[:, :, 16:, :16] = 99  # a whole chunk
    assert abs(int(array[0, 0, 20, 3]) - 99) < 80


def test_partial_writes_into_lossless_chunks_keep_the_rest():
    array = zarr.create_array(
        {}, shape=(1, 12, 16, 16), dtype="uint16", chunks=(1, 12, 16, 16), compressors=None,
        serializer=EozipChunkCodec("lossless"),
    )  # fmt: skip
    dn = np.random.default_rng(0).integers(1, 9999, array.shape, "uint16")
    array[:] = dn
    array[:, :, 3:9] = 7
    dn[:, :, 3:9] = 7
    np.testing.assert_array_equal(array[:], dn)


def test_partial_write_through_a_store_of_ours_is_refused(tmp_path):
    make_store(write_dates(tmp_path), tmp_path / "s.zarr", Coarse.id, quality=50)
    array = zarr.open_group(tmp_path / "s.zarr")["reflectance"]
    with pytest.raises(InputError, match="partial"):
        array[0, :, 20:23, 20:23] = 1


# --- shards and grid ---


@pytest.fixture
def decodings(monkeypatch):
    """Streams that were decoded, in order."""
    found, decoded = [], EozipChunkCodec.decoded
    monkeypatch.setattr(
        EozipChunkCodec, "decoded", lambda self, data: found.append(data) or decoded(self, data)
    )
    return found


@pytest.mark.parametrize("name", ["lossless", Coarse.id])
@pytest.mark.parametrize(("most", "times"), [(0, 6), (1 << 20, 2), (8_000, 3)])
def test_chunks_that_are_kept_are_decoded_once_and_no_more_bytes_than_asked(name, most, times, decodings):
    dn = scene_pixels(1, shape=(12, 16, 32))[None]  # two chunks of 6 kB
    codec = EozipChunkCodec(name, None if codes_exactly(name) else 90.0)
    array = zarr.create_array({}, shape=dn.shape, dtype=dn.dtype, chunks=(1, 12, 16, 16), serializer=codec)
    array[:] = dn
    whole = array[:]
    keep_chunks(most)
    try:
        decodings.clear()
        for columns in (slice(0, 4), slice(5, 9), slice(20, 24), slice(24, 28), slice(1, 3), slice(2, 6)):
            assert np.array_equal(array[..., columns], whole[..., columns])
    finally:
        keep_chunks(0)
    assert len(decodings) == times


def test_a_chunk_that_is_kept_is_nobody_elses_to_write(decodings):
    dn = scene_pixels(1, shape=(12, 16, 16))[None].copy()
    array = zarr.create_array(
        {}, shape=dn.shape, dtype=dn.dtype, chunks=dn.shape, serializer=EozipChunkCodec("lossless")
    )
    array[:] = dn
    keep_chunks(1 << 20)
    try:
        array[:][:] = 7  # what a reader does with its pixels
        assert np.array_equal(array[:], dn)
        array[..., 3] = 9  # decoded, changed, and another stream from then on
        dn[..., 3] = 9
        assert np.array_equal(array[:], dn)
    finally:
        keep_chunks(0)


@pytest.mark.parametrize("most", [-1, 0.5, True, "1"])
def test_what_is_no_number_of_bytes_keeps_nothing(most):
    with pytest.raises(InputError, match="keep_chunks"):
        keep_chunks(most)


def test_shards_are_those_of_zarr():
    """Streams packed here are found by zarr's own sharding codec."""
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(
        store, name="a", shape=(1, 12, 20, 20), dtype="uint16", chunks=(1, 12, 10, 10),
        shards=(1, 12, 20, 20), serializer=EozipChunkCodec("lossless"), compressors=None, fill_value=0,
    )  # fmt: skip
    dn = np.random.default_rng(0).integers(1, 9999, (1, 12, 10, 10), "uint16")
    shard = pack_shard({(0, 0, 1, 0): eozip.encode(dn, "lossless")}, (1, 1, 2, 2))
    store._store_dict["a/c/0/0/0/0"] = zarr.core.buffer.cpu.Buffer.from_bytes(shard)
    np.testing.assert_array_equal(array[:, :, 10:, :10], dn)
    assert not array[:, :, :10].any()


def test_shard_damage_is_named():
    grid, chunks = (3, 1, 1, 1), {(0, 0, 0, 0): b"abc", (2, 0, 0, 0): b"defg"}
    shard = pack_shard(chunks, grid)
    assert _unpack_shard(shard, grid) == chunks
    with pytest.raises(ChecksumError, match="index"):
        _unpack_shard(shard[:-9] + bytes([shard[-9] ^ 1]) + shard[-8:], grid)
    with pytest.raises(FormatError, match="cut short"):
        _unpack_shard(shard[-20:], grid)
    with pytest.raises(FormatError, match="chunk"):
        _unpack_shard(shard[5:], grid)


@pytest.mark.parametrize(
    ("length", "side"), [(264, 264), (10980, 256), (4096, 256), (500, 256), (1, 1), (383, 383)]
)
def test_fitted_sides(length, side):
    assert fitted_side(length) == side


def test_every_pixel_lies_in_one_chunk():
    grid = plan((5, 12, 530, 777), chunk=64, gop=2, per_shard=3)
    seen = np.zeros((5, 530, 777), int)
    count = 0
    for shard in grid.shards():
        for window in (w for strip in grid.strips(shard) for w in strip):
            seen[slice(*window.times), slice(*window.rows), slice(*window.columns)] += 1
            count += 1
    assert (seen == 1).all()
    assert count == grid.chunk_count


@pytest.mark.parametrize("field", ["codec", "quality", "target_psnr", "sensor", "nodata", "offset"])
def test_configurations_of_wrong_types_are_refused(field):
    document = EozipChunkCodec("lossless").to_dict()
    with pytest.raises(FormatError, match=field):
        EozipChunkCodec.from_dict({**document, "configuration": document["configuration"] | {field: [1]}})
