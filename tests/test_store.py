"""Stores: the Zarr codec by zarr's own rules, writing, reading by xarray, damage, interrupts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import eozip
from eozip.codecs import registry
from eozip.errors import ChecksumError, EozipError, FormatError, InputError, OutputError
from eozip.raster import open_scene
from eozip.store import EozipChunkCodec, decode_store, describe, encode_store, make_request, verify_store
from eozip.store.grid import fitted_side, plan
from eozip.store.shards import pack_shard, unpack_shard
from rasterfiles import everything, write_tif
from storefiles import DATES, NAMES, Coarse, coarse_codec, make_store, scene_pixels, write_dates

ENDINGS = (".zarr", ".zarr.zip")


@pytest.fixture(autouse=True)
def _coarse():
    with coarse_codec():
        yield


def opened(path: Path) -> xr.Dataset:
    return xr.open_zarr(f"zip::{path}" if path.suffix == ".zip" else path)


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- the codec by zarr's rules ---


def test_configuration_survives_json():
    codec = EozipChunkCodec("coarse-s2l2a-v1", 55.5, None, "s2-l2a", 0, 1000)
    document = json.loads(json.dumps(codec.to_dict()))
    assert document["name"] == "eozip.chunk"
    assert set(document["configuration"]) == {
        *("codec", "quality", "target_psnr", "sensor", "nodata", "offset", "bitstream")
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


def codes_exactly(name: str) -> bool:
    return name == "lossless"


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("name", [*registry.names(), Coarse.id])
def test_arrays_written_by_zarr_alone(name, dtype):
    """Plain zarr pads edge chunks with the fill value and hands over views: all codecs take both."""
    dn = np.stack([scene_pixels(seed, dtype=dtype) for seed in range(3)])
    bands = 12 if codes_exactly(name) else registry.get(name).bands
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
    shard = pack_shard({(0,): b"abc", (2,): b"defg"}, (3,))
    assert unpack_shard(shard, (3,)) == {(0,): b"abc", (2,): b"defg"}
    with pytest.raises(ChecksumError, match="index"):
        unpack_shard(shard[:-9] + bytes([shard[-9] ^ 1]) + shard[-8:], (3,))
    with pytest.raises(FormatError, match="cut short"):
        unpack_shard(shard[-20:], (3,))
    with pytest.raises(FormatError, match="chunk"):
        unpack_shard(shard[5:], (3,))


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


# --- there and back ---


@pytest.mark.parametrize("ending", ENDINGS)
def test_geotiffs_come_back_whole(tmp_path, ending):
    paths = write_dates(tmp_path)
    summary = make_store(paths, tmp_path / f"s{ending}")
    assert summary.shape == (3, 12, 50, 41)
    assert summary.psnr is None
    assert summary.ratio == pytest.approx(3 * 12 * 50 * 41 * 2 / summary.bytes)
    assert summary.bpppb == pytest.approx(8 * summary.bytes / (3 * 12 * 50 * 41))
    decode_store(tmp_path / f"s{ending}", tmp_path / "back")
    assert listed(tmp_path / "back") == [path.name for path in sorted(paths)]
    for path in paths:
        assert everything(tmp_path / "back" / path.name) == everything(path)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("nodata", [None, 0, 77])
def test_lossy_stores_keep_what_must_be_exact(tmp_path, dtype, nodata):
    dn = write_tif(tmp_path / "a.tif", scene_pixels(dtype=dtype), NAMES, nodata=nodata)
    summary = make_store(tmp_path / "a.tif", tmp_path / "s.zarr", Coarse.id, quality=70, gop=4)
    decode_store(tmp_path / "s.zarr", tmp_path / "b.tif")
    before, after = everything(tmp_path / "a.tif"), everything(tmp_path / "b.tif")
    back = np.array(after.pop("pixels"))
    assert {**before, "pixels": None} == {**after, "pixels": None}
    if nodata is not None:
        np.testing.assert_array_equal(back == nodata, dn == nodata)
    assert back[0, -1, -1] == 30_000
    valid = np.ones(dn.shape, bool) if nodata is None else dn != nodata
    assert summary.psnr == pytest.approx(eozip.psnr(dn, back.astype(dtype), valid), abs=1e-6)
    assert summary.psnr > 38


def test_bands_in_another_order_come_back_in_theirs(tmp_path):
    path = write_dates(tmp_path, names=NAMES[::-1], dates=DATES[:1])[0]
    make_store(path, tmp_path / "s.zarr")
    assert list(opened(tmp_path / "s.zarr").band.values) == list(NAMES)
    decode_store(tmp_path / "s.zarr", tmp_path / "b.tif")
    assert everything(tmp_path / "b.tif") == everything(path)


def test_a_choice_of_bands_and_dates(tmp_path):
    paths = write_dates(tmp_path)
    make_store(paths, tmp_path / "s.zarr")
    decode_store(tmp_path / "s.zarr", tmp_path / "b.tif", bands=["nir", 2], dates=["2021-07-15"])
    full, part = everything(paths[0]), everything(tmp_path / "b.tif")
    assert part["pixels"] == [full["pixels"][7], full["pixels"][1]]
    assert part["header"][4] == ("B08", "B02")
    with pytest.raises(InputError, match="B99"):
        decode_store(tmp_path / "s.zarr", tmp_path / "c.tif", bands=["B99"])
    with pytest.raises(InputError, match="2019"):
        decode_store(tmp_path / "s.zarr", tmp_path / "c.tif", dates=["2019"])
    with pytest.raises(InputError, match="folder"):
        decode_store(tmp_path / "s.zarr", tmp_path / "c.tif")


@pytest.mark.parametrize("name", registry.names())
def test_every_codec_through_a_store(tmp_path, name):
    dn = write_tif(tmp_path / "a.tif", scene_pixels(), NAMES)
    quality = None if codes_exactly(name) else 60.0
    summary = make_store(tmp_path / "a.tif", tmp_path / "s.zarr", name, quality=quality, chunk=None)
    decode_store(tmp_path / "s.zarr", tmp_path / "b.tif")
    back = np.array(everything(tmp_path / "b.tif")["pixels"])
    np.testing.assert_array_equal(back == 0, dn == 0)
    assert (back == dn).all() if codes_exactly(name) else summary.psnr > 25
    assert verify_store(tmp_path / "s.zarr", against=open_scene(tmp_path / "a.tif")).failures == []


def test_a_scene_without_any_pixel(tmp_path):
    write_tif(tmp_path / "a.tif", np.zeros((12, 20, 20), "uint16"), NAMES)
    summary = make_store(tmp_path / "a.tif", tmp_path / "s.zarr")
    assert summary.empty == summary.chunks == 4
    assert not opened(tmp_path / "s.zarr").reflectance.values.any()
    assert verify_store(tmp_path / "s.zarr", against=open_scene(tmp_path / "a.tif")).ok


def test_one_pixel(tmp_path):
    write_tif(tmp_path / "a.tif", np.full((12, 1, 1), 321, "uint16"), NAMES)
    make_store(tmp_path / "a.tif", tmp_path / "s.zarr.zip", chunk=None)
    decode_store(tmp_path / "s.zarr.zip", tmp_path / "b.tif")
    assert everything(tmp_path / "b.tif") == everything(tmp_path / "a.tif")


def test_target_psnr_counts_the_chunks_that_fall_short(tmp_path):
    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES)
    summary = make_store(tmp_path / "a.tif", tmp_path / "s.zarr", Coarse.id, target_psnr=45.0)
    assert summary.missed == 0
    assert abs(summary.psnr - 45) < 0.5
    assert summary.quality[0] < summary.quality[1]
    hopeless = make_store(tmp_path / "a.tif", tmp_path / "t.zarr", Coarse.id, target_psnr=70.0)
    assert hopeless.missed > 0


def test_both_ways_of_asking_for_quality_are_refused(tmp_path):
    scene = open_scene(write_dates(tmp_path))
    with pytest.raises(InputError, match="both"):
        make_request(scene, Coarse.id, quality=50, target_psnr=40)


# --- by xarray ---


@pytest.mark.parametrize("ending", ENDINGS)
def test_plain_xarray_opens_it_quietly(tmp_path, ending):
    """Another process that imports nothing of ours: warnings are errors, torch and rasterio stay away."""
    make_store(write_dates(tmp_path), tmp_path / f"s{ending}")
    prefix = "zip::" if ending == ".zarr.zip" else ""
    code = (
        "import sys, warnings, hashlib; warnings.simplefilter('error')\n"
        "import xarray as xr\n"
        f"ds = xr.open_zarr({prefix + str(tmp_path / f's{ending}')!r})\n"
        "assert not {'torch', 'rasterio'} & set(sys.modules), 'heavy imports'\n"
        "print(hashlib.sha256(ds.reflectance.values.tobytes()).hexdigest(), ds.reflectance.dtype)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert run.returncode == 0, run.stderr
    expected = np.stack([scene_pixels(seed) for seed in np.argsort(DATES)])
    assert run.stdout.split() == [hashlib.sha256(expected.tobytes()).hexdigest(), "uint16"]


def test_coordinates_and_facts(tmp_path):
    summary = make_store(write_dates(tmp_path), tmp_path / "s.zarr", Coarse.id, quality=50)
    ds = opened(tmp_path / "s.zarr")
    assert ds.reflectance.dims == ("time", "band", "y", "x")
    assert ds.reflectance.dtype == "uint16"
    assert list(ds.time.dt.strftime("%Y%m%d").values) == sorted(DATES)
    assert ds.reflectance.sel(band="B8A").shape == (3, 50, 41)
    assert ds.x.values[:2].tolist() == [399965.0, 399975.0]
    assert ds.y.values[:2].tolist() == [5300035.0, 5300025.0]
    assert ds.x.dtype == ds.y.dtype == "float64"
    assert ds.reflectance.attrs["nodata"] == 0
    assert ds.spatial_ref.attrs["GeoTransform"] == "399960.0 10.0 0.0 5300040.0 0.0 -10.0"
    assert "UTM zone 33N" in ds.spatial_ref.attrs["crs_wkt"]
    assert "spatial_ref" in ds.coords
    facts = ds.attrs["eozip"]
    assert facts["psnr"] == summary.psnr
    assert facts["weights_hash"] == Coarse.weights_hash.hex()
    assert (facts["codec"], facts["quality"]) == (Coarse.id, 50.0)
    assert facts["eozip_version"] == eozip.__version__


def test_unknown_dates_give_an_index(tmp_path):
    for name in ("b", "a"):
        write_tif(tmp_path / f"{name}.tif", scene_pixels(ord(name)), NAMES)
    make_store([tmp_path / "b.tif", tmp_path / "a.tif"], tmp_path / "s.zarr")
    assert opened(tmp_path / "s.zarr").time.values.tolist() == [0, 1]
    decode_store(tmp_path / "s.zarr", tmp_path / "back")
    assert everything(tmp_path / "back" / "a.tif") == everything(tmp_path / "a.tif")


def test_no_nodata_means_no_attribute(tmp_path):
    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES, nodata=None)
    make_store(tmp_path / "a.tif", tmp_path / "s.zarr")
    assert "nodata" not in opened(tmp_path / "s.zarr").reflectance.attrs


def test_dask_reads_windows(tmp_path):
    path = write_dates(tmp_path, dates=DATES[:1])[0]
    make_store(path, tmp_path / "s.zarr.zip")
    window = opened(tmp_path / "s.zarr.zip").reflectance[0, 3, 10:30, 5:40]
    np.testing.assert_array_equal(window.compute().values, scene_pixels()[3, 10:30, 5:40])


# --- nothing half-written ---


class Stop(Exception):
    pass


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
def test_an_interrupt_leaves_nothing(tmp_path, ending, error):
    paths = write_dates(tmp_path)

    def interrupt(done: int, total: int) -> None:
        if done == total // 2:
            raise error

    with pytest.raises(error):
        make_store(paths, tmp_path / f"s{ending}", progress=interrupt)
    assert listed(tmp_path) == sorted(path.name for path in paths)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_leaves_nothing(tmp_path, ending):
    paths = write_dates(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from pathlib import Path\nfrom rasterfiles import limit_files\nfrom storefiles import make_store\n"
        "from eozip.errors import OutputError\n"
        "limit_files(20_000)\n"
        f"try: make_store({[str(p) for p in paths]!r}, Path({str(tmp_path / f's{ending}')!r}))\n"
        "except OutputError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert "cannot write" in run.stdout, run.stderr
    assert listed(tmp_path) == sorted(path.name for path in paths)


@pytest.mark.parametrize("ending", ENDINGS)
def test_existing_outputs_are_kept_until_replaced(tmp_path, ending):
    first, second = write_dates(tmp_path, dates=DATES[:2])
    out = tmp_path / f"s{ending}"
    make_store(first, out)
    with pytest.raises(OutputError, match="exists"):
        make_store(second, out)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_store(second, out, overwrite=True, progress=interrupt)
    assert describe(out).files == (first.name,)
    make_store(second, out, overwrite=True)
    assert describe(out).files == (second.name,)
    assert len(listed(tmp_path)) == 3


@pytest.mark.parametrize("name", ["s.tif", "s", "s.zip"])
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(OutputError, match="zarr"):
        make_store(write_dates(tmp_path), tmp_path / name)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        make_store(write_dates(tmp_path), tmp_path / "no" / "s.zarr")


def test_the_same_input_gives_the_same_bytes(tmp_path):
    paths = write_dates(tmp_path)
    for name in "ab":
        make_store(paths, tmp_path / f"{name}.zarr.zip", Coarse.id, quality=50)
    assert (tmp_path / "a.zarr.zip").read_bytes() == (tmp_path / "b.zarr.zip").read_bytes()


# --- verify ---


def damage(path: Path, at: int = 40) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def shard_of(store: Path) -> Path:
    return store / "reflectance" / "c" / "0" / "0" / "0" / "0"


def test_verify_names_damaged_chunks(tmp_path):
    make_store(write_dates(tmp_path), tmp_path / "s.zarr", Coarse.id, quality=50)
    assert verify_store(tmp_path / "s.zarr").ok
    damage(shard_of(tmp_path / "s.zarr"))
    for full in (True, False):
        failures = verify_store(tmp_path / "s.zarr", full=full).failures
        assert len(failures) == 1
        assert "dates 0:2, rows 0:16, columns 0:16" in failures[0]
    with pytest.raises(FormatError, match="rows 0:16, columns 0:16"):
        decode_store(tmp_path / "s.zarr", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_verify_finds_a_damaged_index_and_a_lost_shard(tmp_path):
    make_store(write_dates(tmp_path), tmp_path / "s.zarr")
    shard = shard_of(tmp_path / "s.zarr")
    shutil.copytree(tmp_path / "s.zarr", tmp_path / "lost.zarr")
    damage(shard, at=-30)
    assert "index" in verify_store(tmp_path / "s.zarr").failures[0]
    shard_of(tmp_path / "lost.zarr").unlink()
    assert "expected 24 stored chunks, found 12" in verify_store(tmp_path / "lost.zarr").failures[0]


def test_verify_finds_swapped_chunks(tmp_path):
    write_tif(tmp_path / "a.tif", scene_pixels(shape=(12, 32, 32)), NAMES, nodata=None)
    make_store(tmp_path / "a.tif", tmp_path / "s.zarr", Coarse.id, quality=50)
    shard = shard_of(tmp_path / "s.zarr")
    streams = unpack_shard(shard.read_bytes(), (1, 1, 2, 2))
    first, second = (0, 0, 0, 1), (0, 0, 1, 0)
    streams[first], streams[second] = streams[second], streams[first]
    shard.write_bytes(pack_shard(streams, (1, 1, 2, 2)))
    report = verify_store(tmp_path / "s.zarr", against=open_scene(tmp_path / "a.tif"))
    assert any("PSNR" in line for line in report.failures)


def test_verify_wants_the_same_kind_of_source(tmp_path):
    paths = write_dates(tmp_path)
    make_store(paths, tmp_path / "s.zarr")
    with pytest.raises(InputError, match="expected a source"):
        verify_store(tmp_path / "s.zarr", against=open_scene(paths[0]))


@pytest.mark.parametrize("key", ["zarr.json", "reflectance/zarr.json"])
@pytest.mark.parametrize("change", ["missing", "empty", "list", "other", "cut"])
def test_bad_metadata_is_named(tmp_path, key, change):
    make_store(write_dates(tmp_path, dates=DATES[:1]), tmp_path / "s.zarr")
    path = tmp_path / "s.zarr" / key
    text = path.read_text()
    contents = {"empty": "", "list": "[]", "other": "{}", "cut": text[: len(text) // 2]}
    path.unlink()
    if change != "missing":
        path.write_text(contents[change])
    with pytest.raises(FormatError):
        describe(tmp_path / "s.zarr")


def test_a_damaged_zip_is_named(tmp_path):
    make_store(write_dates(tmp_path, dates=DATES[:1]), tmp_path / "s.zarr.zip")
    data = (tmp_path / "s.zarr.zip").read_bytes()
    (tmp_path / "cut.zarr.zip").write_bytes(data[:-60])
    with pytest.raises(FormatError, match="zip"):
        describe(tmp_path / "cut.zarr.zip")
    with pytest.raises(FormatError, match="neither"):
        describe(tmp_path / "none.zarr")
    damage(tmp_path / "s.zarr.zip", at=200)
    assert not verify_store(tmp_path / "s.zarr.zip").ok


def test_zip_entries_are_stored_once_and_uncompressed(tmp_path):
    make_store(write_dates(tmp_path), tmp_path / "s.zarr.zip")
    with zipfile.ZipFile(tmp_path / "s.zarr.zip") as archive:
        assert len(set(archive.namelist())) == len(archive.namelist())
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_wrong_bands_list_what_is_supported(tmp_path):
    write_tif(tmp_path / "a.tif", scene_pixels()[:4], NAMES[:4])
    with pytest.raises(InputError, match="s2-l2a"):
        make_store(tmp_path / "a.tif", tmp_path / "s.zarr")


def test_floats_are_refused(tmp_path):
    write_tif(tmp_path / "a.tif", scene_pixels().astype("float32"), NAMES)
    with pytest.raises(InputError, match="uint16 or int16"):
        make_store(tmp_path / "a.tif", tmp_path / "s.zarr")


def test_rotated_grids_have_no_axes_but_come_back(tmp_path):
    from rasterio.transform import Affine

    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES, transform=Affine(8, 6, 0, 6, -8, 0))
    make_store(tmp_path / "a.tif", tmp_path / "s.zarr")
    assert "x" not in opened(tmp_path / "s.zarr").coords
    decode_store(tmp_path / "s.zarr", tmp_path / "b.tif")
    assert everything(tmp_path / "b.tif") == everything(tmp_path / "a.tif")


def test_progress_counts_every_chunk(tmp_path):
    seen = []
    path = write_dates(tmp_path, dates=DATES[:1])
    scene = open_scene(path)
    wanted = make_request(scene, "lossless")
    encode_store(scene, tmp_path / "s.zarr", wanted.codec, chunk=16, progress=lambda *pair: seen.append(pair))
    assert seen == [(i, 12) for i in range(1, 13)]
