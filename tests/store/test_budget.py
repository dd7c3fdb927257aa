"""Reading a part of every stream: sections, byte ranges, cut chunks; which codec is the default; missing dates."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from click.testing import CliRunner
from zarr.abc.store import RangeByteRequest
from zarr.storage import LocalStore, WrapperStore

import eozip
from eozip import bitstream, hub
from eozip.chunk import api, encoding
from eozip.cli import cli
from eozip.codecs import registry
from eozip.codecs.terracodec import flextec, tec_tt
from eozip.errors import ChecksumError, DesyncError, FormatError, InputError
from eozip.raster import open_scene
from eozip.store import (
    EozipChunkCodec,
    append_store,
    budget_store,
    decode_store,
    describe,
    make_request,
    section_sizes,
    verify_store,
)
from eozip.store.pixels import open_pixels, read_pixels
from eozip.store.shards import HEAD, pack_shard, split
from productstores import a_product, store_product
from pyramidscenes import season
from rasterfiles import everything, write_tif
from storefiles import DATES, ENDINGS, NAMES, make_store, opened, write_dates
from test_tec_tt import HEADS, fitting_weights, scene
from toy_codec import TOY, ToyCodec, registered

ALL_TOKENS = 99  # of FlexTEC; 100 would promise a PSNR, which random weights do not reach


@pytest.fixture(autouse=True)
def _toy():
    with registered():
        yield


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    """`s.zarr` and `s.zarr.zip` of three dates, in groups of two and one, one of them appended."""
    folder = tmp_path_factory.mktemp("stores")
    paths = sorted(write_dates(folder, dates=sorted(DATES)))
    with registered():
        for ending in ENDINGS:
            make_store(paths[:2], folder / f"s{ending}", TOY, quality=90, chunk=None, gop=4)
            append_store(folder / f"s{ending}", open_scene(paths[2]))
    return folder


def all_streams(path: Path) -> list[bytes]:
    with open_pixels(describe(path)) as pixels:
        return [
            piece.data
            for index in pixels.description.grid.shards()
            for shard in [pixels.shard(index)]
            for position in shard.positions()
            for piece in shard.pieces(position)
        ]


def decoded_from(path: Path, budget: int | None) -> np.ndarray:
    """[T, C, H, W] of a store of one chunk, by the plain function."""
    return np.concatenate([eozip.decode(data, budget=budget) for data in all_streams(path)])


# --- by our own reader ---


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_budget_reads_and_decodes_the_first_sections(stores, tmp_path, ending):
    store = stores / f"s{ending}"
    done = {}
    for budget in (1, 2, None):
        done[budget] = decode_store(store, tmp_path / str(budget), budget=budget)
        back = np.stack([everything(tmp_path / str(budget) / name)["pixels"] for name in done[budget].files])
        np.testing.assert_array_equal(back, decoded_from(store, budget))
    index = 16 + 4
    sizes = section_sizes(describe(store))
    assert done[1].bytes_read == sizes.budgets[0] + index
    assert done[1].bytes_read < done[2].bytes_read == done[None].bytes_read
    assert done[2].bytes_read == sizes.budgets[1] + index == sum(map(len, all_streams(store))) + index


def test_sizes_of_sections_are_those_of_the_streams(stores):
    streams = all_streams(stores / "s.zarr")
    sizes = section_sizes(describe(stores / "s.zarr"))
    lengths = np.array([eozip.inspect(data).sections[-2:] for data in streams])
    assert sizes.streams == len(streams) == 2
    assert sizes.sections == lengths.sum(0).tolist()
    assert sizes.exact + sum(sizes.sections) == sum(map(len, streams))
    assert sizes.behind == 0
    assert sizes.budgets == [sum(map(len, streams)) - sizes.sections[1], sum(map(len, streams))]


@pytest.mark.parametrize("budget", [0, -3])
def test_a_budget_of_nothing_is_refused(stores, tmp_path, budget):
    for ask in (
        lambda: decode_store(stores / "s.zarr", tmp_path / "b", budget=budget),
        lambda: budget_store(stores / "s.zarr", budget),
        lambda: read_pixels(describe(stores / "s.zarr"), slice(0, 1), slice(0, 4), slice(0, 4), budget),
    ):
        with pytest.raises(InputError, match="budget"):
            ask()
    assert not (tmp_path / "b").exists()


def test_a_long_header_is_read_to_its_end():
    """400 dates have more check values than the first reading brings."""
    blob = eozip.encode(np.full((400, 12, 9, 9), 1000, np.uint16), TOY, quality=20)
    assert len(blob) > 1600 > HEAD
    calls = []

    def read(start: int, stop: int) -> bytes:
        calls.append((start, stop))
        return blob[start:stop]

    (stream,) = eozip.store.shards._locate(read, 0, len(blob))
    assert len(stream.head) == stream.exact
    assert calls[0] == (0, HEAD)
    assert len(calls) == 2
    assert [piece.data for piece in split(blob + blob)] == [blob, blob]


# --- by xarray ---


class Counting(WrapperStore):
    """Counts the bytes that leave the store below, of shards alone."""

    def __init__(self, store) -> None:
        super().__init__(store)
        self.bytes = 0
        self.lock = threading.Lock()

    async def get(self, key, prototype, byte_range=None):
        data = await self._store.get(key, prototype, byte_range)
        if data is not None and "/c/" in key and key.startswith("reflectance"):
            with self.lock:
                self.bytes += len(data)
        return data


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("budget", [1, 2])
def test_xarray_reads_within_a_budget(stores, ending, budget):
    ds = xr.open_zarr(budget_store(stores / f"s{ending}", budget))
    np.testing.assert_array_equal(ds.reflectance.values, decoded_from(stores / f"s{ending}", budget))
    np.testing.assert_array_equal(ds.time.values, opened(stores / f"s{ending}").time.values)
    assert ds.x.size == 41


def test_fewer_bytes_are_fetched(tmp_path):
    """Many chunks in a shard: for all of them, and for a window of one."""
    paths = write_dates(tmp_path, dates=DATES[:2])
    make_store(paths, tmp_path / "s.zarr", TOY, quality=95, chunk=24, gop=2)
    streams, sizes = all_streams(tmp_path / "s.zarr"), section_sizes(describe(tmp_path / "s.zarr"))
    index = 16 * len(streams) + 4
    assert len(streams) == 6
    assert sizes.budgets[0] < 0.7 * sizes.budgets[1]
    for part in (slice(None), slice(0, 20)):
        read = {}
        for budget in (None, 1, 2):
            counting = Counting(LocalStore(tmp_path / "s.zarr", read_only=True))
            ds = xr.open_zarr(counting if budget is None else budget_store(counting, budget), chunks=None)
            pixels = ds.reflectance[:, :, part, part].values
            read[budget] = counting.bytes
            expected = read_pixels(
                describe(tmp_path / "s.zarr"), slice(0, 2), slice(0, 50), slice(0, 41), budget
            )
            np.testing.assert_array_equal(pixels, expected[:, :, part, part])
        needed = sizes.budgets[0] if part == slice(None) else first_stream_needs(streams[0])
        requests = 2 * (
            len(streams) if part == slice(None) else 1
        )  # zarr asks for the index and for each chunk
        assert needed <= read[1] <= needed + requests * index + HEAD * len(streams)
        assert read[1] < 0.8 * read[None]
        assert read[2] > read[1]


def first_stream_needs(blob: bytes) -> int:
    return len(blob) - eozip.inspect(blob).sections[-1]


def test_any_range_of_a_budget_store_is_that_of_one_shard(stores):
    """Where zarr joins or splits its requests, it still sees one consistent file."""
    store = budget_store(stores / "s.zarr", 1)
    prototype = zarr.core.buffer.default_buffer_prototype()
    key = "reflectance/c/0/0/0/0"

    async def read(byte_range=None) -> bytes:
        return (await store.get(key, prototype, byte_range)).to_bytes()

    whole = zarr.core.sync.sync(read())
    original = (stores / "s.zarr" / key).read_bytes()
    assert len(whole) == len(original)
    assert whole != original
    assert whole[-20:] == original[-20:]
    for start, stop in ((0, 40), (30, 700), (len(whole) - 90, len(whole)), (600, len(whole) + 50)):
        assert zarr.core.sync.sync(read(RangeByteRequest(start, stop))) == whole[start:stop]


def test_a_budget_store_cannot_be_written(stores):
    ds = xr.open_zarr(budget_store(stores / "s.zarr", 1))
    with pytest.raises((InputError, ValueError), match=r"budget|read.only"):
        ds.to_zarr(budget_store(stores / "s.zarr", 1), mode="a")
    with pytest.raises(InputError, match="budget"):
        zarr.core.sync.sync(budget_store(stores / "s.zarr", 1).set("x", None))
    assert "budget" not in json.dumps(EozipChunkCodec(TOY, 50.0).to_dict())
    told = EozipChunkCodec(TOY, 50.0, budget=2)
    assert EozipChunkCodec.from_dict(json.loads(json.dumps(told.to_dict()))) == told


# --- cut chunks ---


def test_a_stored_chunk_that_was_cut(stores, tmp_path):
    """Behind a section: readable with a budget, and with no smaller word than an error without one."""
    description = describe(stores / "s.zarr")
    paths = sorted(stores.glob("*.tif"))
    make_store(paths[:2], tmp_path / "s.zarr", TOY, quality=90, chunk=None, gop=4)
    (blob,) = all_streams(tmp_path / "s.zarr")
    prefix = blob[: first_stream_needs(blob)]
    shard = tmp_path / "s.zarr/reflectance/c/0/0/0/0"
    shard.write_bytes(pack_shard({(0, 0, 0, 0): prefix}, description.grid.per_shard))
    with pytest.raises(FormatError, match="truncated"):
        decode_store(tmp_path / "s.zarr", tmp_path / "b")
    with pytest.raises(FormatError, match="truncated"):
        _ = opened(tmp_path / "s.zarr").reflectance.values
    codec = EozipChunkCodec(TOY, 90.0, budget=1)
    np.testing.assert_array_equal(api.decode(prefix, budget=codec.budget), eozip.decode(blob, budget=1))


def test_fewer_sections_than_asked_for_are_an_error(stores):
    blob = all_streams(stores / "s.zarr")[0]
    prefix = blob[: first_stream_needs(blob)]
    assert eozip.decode(prefix, budget=1).shape[0] == 2
    with pytest.raises(FormatError, match="expected the first 2 of 2 sections, got 1"):
        eozip.decode(prefix, budget=2)


def test_fewer_sections_than_a_picture_needs_are_refused_with_what_to_do():
    blob = eozip.encode(season((2, 4, 64, 64), {}, 1), quality=40)
    with pytest.raises(FormatError, match="only flextec codecs have budgets"):
        eozip.decode(blob, budget=2)


def test_more_sections_than_there_are_cannot_be_asked_for(stores, tmp_path):
    said = "budget: expected 1 to 2 sections, as many as there are, got 3; leave it out"
    blob = all_streams(stores / "s.zarr")[0]
    for ask in (
        lambda: eozip.decode(blob, budget=3),
        lambda: api.decode_array(blob, budget=3),
        lambda: decode_store(stores / "s.zarr", tmp_path / "b", budget=3),
        lambda: eozip.decode_store(str(stores / "s.zarr.zip"), tmp_path / "b", budget=3),
    ):
        with pytest.raises(InputError, match=said):
            ask()
    assert said in run("decode", stores / "s.zarr", tmp_path / "b", "--budget", 3, code=1).output
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("codec", ["lossless", TOY])
def test_any_budget_suits_streams_of_one_section_and_of_none(tmp_path, codec):
    dn = np.full((1, 12, 20, 20), 0 if codec == TOY else 1000, np.uint16)
    write_tif(tmp_path / "a.tif", dn[0], NAMES)
    make_store(tmp_path / "a.tif", tmp_path / "s.zarr", codec, quality=None if codec == "lossless" else 50)
    blob = eozip.encode(dn, codec, nodata=0)
    np.testing.assert_array_equal(eozip.decode(blob, budget=7), dn)
    decode_store(tmp_path / "s.zarr", tmp_path / "b.tif", budget=7)
    assert everything(tmp_path / "b.tif")["pixels"] == dn[0].tolist()


def test_a_store_of_several_grids_within_a_budget(tmp_path):
    store_product(a_product(tmp_path / "in", DATES[:1]), tmp_path / "s.zarr", "flextec-small", quality=60)
    errors = []
    whole = opened(tmp_path / "s.zarr").reflectance.values.astype(int)
    for budget in (1, 6, 13):
        decode_store(tmp_path / "s.zarr", tmp_path / f"{budget}.tif", budget=budget)
        made = xr.open_zarr(budget_store(tmp_path / "s.zarr", budget)).reflectance.values
        errors.append(np.abs(made - whole).mean())
        same = everything(tmp_path / f"{budget}.tif")["pixels"]
        order = describe(tmp_path / "s.zarr").band_order
        np.testing.assert_array_equal(same, made[0][list(order)])
    assert errors[0] > 1.2 * errors[1] > errors[2] == 0


def test_values_that_were_floats_have_no_budget(tmp_path):
    write_tif(tmp_path / "a.tif", np.full((12, 20, 20), 0.25, np.float32), NAMES, nodata=None)
    eozip.encode_store(tmp_path / "a.tif", tmp_path / "s.zarr", note=lambda text: None)
    with pytest.raises(
        InputError, match="budget: expected none for a store of values that were floats, got 2"
    ):
        decode_store(tmp_path / "s.zarr", tmp_path / "b.tif", budget=2)


def test_damage_within_the_budget_is_noticed_and_beyond_it_not_read(stores, tmp_path):
    blob = all_streams(stores / "s.zarr")[0]
    cut = first_stream_needs(blob)
    for at, is_noticed in ((cut - 3, True), (cut + 3, False)):
        damaged = bytearray(blob)
        damaged[at] ^= 1
        (piece,) = split(bytes(damaged), budget=1)
        if is_noticed:
            with pytest.raises(ChecksumError):
                eozip.decode(piece.data, budget=1)
        else:
            np.testing.assert_array_equal(eozip.decode(piece.data, budget=1), eozip.decode(blob, budget=1))


# --- the command line ---


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_the_commands(stores, tmp_path):
    store = stores / "s.zarr.zip"
    coarse = json.loads(run("decode", store, tmp_path / "a", "--budget", 1, "--json").stdout)
    fine = json.loads(run("decode", store, tmp_path / "b", "--json").stdout)
    assert (coarse["budget"], fine["budget"]) == (1, None)
    assert coarse["bytes_read"] < fine["bytes_read"]
    assert "read" in run("decode", store, tmp_path / "c", "--budget", 2).stdout
    run("decode", store, tmp_path / "d", "--budget", 0, code=2)
    info = json.loads(run("info", store, "--json").stdout)
    assert info["sections"]["budgets"][0] + 20 == coarse["bytes_read"]
    assert info["groups"] == [2, 1]
    assert "--budget" in run("info", store).stdout


# --- which codec ---


def test_the_default_codec_depends_on_dates_and_on_what_there_is():
    with registered(ToyCodec(id="tec-elic-small-toysensor-v1")):
        assert encoding.default_codec(5, "toysensor") == "tec-tt-small-any-v1"
        with registered(ToyCodec(id="tec-tt-small-toysensor-v1")):
            assert encoding.default_codec(1, "toysensor") == "tec-elic-small-toysensor-v1"
            assert encoding.default_codec(2, "toysensor") == "tec-tt-small-toysensor-v1"


@pytest.mark.parametrize(
    ("dates", "sensor", "bands"),
    [(1, "s2-l2a", 12), (1, "s2-l1c", 13), (2, "s2-l2a", 3), (5, "landsat", None)],
)
def test_the_default_takes_any_sensor_and_bands(dates, sensor, bands):
    name = "tec-elic-small-any-v1" if dates == 1 else "tec-tt-small-any-v1"
    assert encoding.default_codec(dates, sensor, bands) == name


def test_the_default_reaches_api_store_and_command_line(tmp_path):
    image, series = "tec-elic-small-s2l2a-v99", "tec-tt-small-s2l2a-v99"
    paths = write_dates(tmp_path)
    with registered(ToyCodec(id=image)), registered(ToyCodec(id=series)):
        dn = np.full((2, 12, 20, 20), 1000, np.uint16)
        assert eozip.inspect(eozip.encode(dn)).header.codec == series
        assert eozip.inspect(eozip.encode(dn[:1])).header.codec == image
        assert eozip.inspect(eozip.encode(dn[0])).header.codec == image
        assert make_request(open_scene(paths)).codec.codec == series
        assert make_request(open_scene(paths), gop=1).codec.codec == image
        assert make_request(open_scene(paths[0])).codec.codec == series  # dates may be appended
        for gop, expected in ((3, series), (1, image)):
            run("encode", *paths, tmp_path / f"{gop}.zarr", "--gop", gop)
            info = json.loads(run("info", tmp_path / f"{gop}.zarr", "--json").stdout)
            assert (info["codec"], info["groups"]) == (expected, [gop] * (3 // gop))
        run("encode", *paths, tmp_path / "t.zarr", "--codec", "tec-tt-small", "--gop", 1)
        assert describe(tmp_path / "t.zarr").codec.codec == series


# --- published temporal codecs ---


@cache
def tiny(kind: str):
    weights = hub.recognise(fitting_weights(f"{kind}-small"), kind)
    return (tec_tt if kind == "tt" else flextec).from_weights(weights, HEADS)


@pytest.fixture(scope="module", params=["tt", "flextec"])
def temporal(request):
    """A published temporal codec with tiny weights, registered, and a stream of three dates."""
    codec = tiny(request.param)
    registry.REGISTRY.add(codec.id, lambda: codec)
    dn = np.clip(scene(3, 40, 70), 1, 9000).astype(np.uint16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield codec.id, dn, *api.encode_report(dn, codec.id, ALL_TOKENS)
    torch.set_num_threads(threads)
    registry.REGISTRY.remove(codec.id)


def test_bits_by_date_add_up(temporal):
    _, dn, blob, report = temporal
    assert len(report.date_bits) == len(dn)
    assert sum(report.date_bits) == pytest.approx(8 * len(blob))
    assert min(report.date_bits) > 0


def without(blob: bytes, date: int) -> bytes:
    """The chunk as if one of its dates had never been: header and sections are whole, the symbols are not."""
    chunk = bitstream.unpack(blob)
    keep = [t for t in range(chunk.header.shape[0]) if t != date]
    header = replace(
        chunk.header,
        shape=(len(keep), *chunk.header.shape[1:]),
        checks=tuple(chunk.header.checks[t] for t in keep),
        budgets=tuple(chunk.header.budgets[t] for t in keep if chunk.header.budgets),
    )
    return bitstream.pack(bitstream.Chunk(header, b"", chunk.exceptions and b"", chunk.sections))


@pytest.mark.parametrize("date", [0, 1])
def test_a_missing_date_is_named_in_its_place(temporal, date):
    with pytest.raises(DesyncError, match=f"date {date}"):
        eozip.decode(without(temporal[2], date))


def test_a_missing_date_of_a_store_is_named_with_its_chunk(temporal, tmp_path):
    name, dn, _, _ = temporal
    paths = write_dates(tmp_path, dates=sorted(DATES)[:2])
    make_store(paths, tmp_path / "s.zarr", chunk=None, gop=3)
    key = tmp_path / "s.zarr/reflectance/c/0/0/0/0"
    blob = eozip.encode(dn[..., :1, :41].repeat(50, 2), name, ALL_TOKENS)
    key.write_bytes(pack_shard({(0, 0, 0, 0): without(blob, 1)}, (1, 1, 1, 1)))
    (failure,) = verify_store(tmp_path / "s.zarr").failures
    assert "dates 0:2, rows 0:50, columns 0:41" in failure
    assert "date 1: " in failure
    alone = eozip.encode(dn[:1, :, :1, :41].repeat(50, 2), "lossless")
    key.write_bytes(pack_shard({(0, 0, 0, 0): alone}, (1, 1, 1, 1)))
    assert "[1] are missing" in verify_store(tmp_path / "s.zarr").failures[0]


def test_later_dates_behind_another_past_are_named():
    """Sections of two scenes that differ in their first date, mixed: the context is wrong from then on."""
    codec = tiny("flextec")
    x = scene(3, 40, 70)
    other = x.copy()
    other[0] = x[0, :, ::-1]
    one, two = codec.encode(x, 100), codec.encode(other, 100)
    for k in (1, 5):
        mixed = replace(one, sections=one.sections[:k] + two.sections[k:])
        with pytest.raises(FormatError, match="date 0"):
            codec.decode(mixed, x.shape, 100)


def test_flextec_through_a_store_within_a_budget(tmp_path):
    codec = tiny("flextec")
    registry.REGISTRY.add(codec.id, lambda: codec)
    try:
        path = write_dates(tmp_path, dates=DATES[:1])[0]
        make_store(path, tmp_path / "s.zarr", codec.id, quality=ALL_TOKENS, chunk=None)
        (blob,) = all_streams(tmp_path / "s.zarr")
        sizes = section_sizes(describe(tmp_path / "s.zarr"))
        assert len(sizes.sections) == 16
        for budget in (1, 6):
            expected = eozip.decode(blob, budget=budget)
            done = decode_store(tmp_path / "s.zarr", tmp_path / f"{budget}.tif", budget=budget)
            assert everything(tmp_path / f"{budget}.tif")["pixels"] == expected[0].tolist()
            assert done.bytes_read == max(HEAD, sizes.budgets[budget - 1]) + 20
        ds = xr.open_zarr(budget_store(tmp_path / "s.zarr", 6))
        # beside other chunks a network has another number of threads, which may round to the other side
        np.testing.assert_allclose(ds.reflectance.values.astype(int), expected.astype(int), atol=1)
    finally:
        registry.REGISTRY.remove(codec.id)
