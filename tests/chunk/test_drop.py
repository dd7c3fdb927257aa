"""Cells without a clear pixel cost nothing, are marked, and do not touch what is clear."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from rasterio.transform import Affine

import eozip
from eozip import bitstream
from eozip.cli import cli
from eozip.codecs import registry, skip_mask
from eozip.codecs.pyramid.codec import PyramidCodec
from eozip.errors import EozipError, FormatError, InputError
from eozip.raster import open_scene
from eozip.raster.masks import open_mask, parse_mask
from eozip.sensors import get
from eozip.store import append_store, describe, encode_store, make_request, read_dropped, verify_store
from fields import series_scene
from rasterfiles import UTM, write_tif
from storefiles import change_record, opened
from toy_codec import registered

NAMES = get("s2-l2a").band_names
SHAPE = (3, 42, 33)
DATES = ("20210701", "20210715", "20210802")


@pytest.fixture(scope="module")
def codec() -> PyramidCodec:
    return registry.get("tec-tt-small-any-v1")


@pytest.fixture(scope="module")
def dn() -> np.ndarray:
    x = series_scene(*SHAPE).astype(np.uint16)
    x[1, :, 8:24, 8:24] = 12_000
    x[1, :, 12:20, 12:20] = 30_000  # a cloud beyond what the network codes
    return x


@pytest.fixture(scope="module")
def clouds() -> np.ndarray:
    """Whole cells of date 1, a ragged part of date 2."""
    mask = np.zeros(SHAPE, bool)
    mask[1, 8:32, 8:32] = True
    mask[2, 3:40, :20] = True
    return mask


def by_hand(mask: np.ndarray) -> np.ndarray:
    """Pixels of cells without a clear pixel, one cell at a time."""
    out = np.zeros_like(mask)
    for t, y, x in np.ndindex(len(mask), *(-(-n // 8) for n in mask.shape[1:])):
        cell = t, slice(8 * y, 8 * y + 8), slice(8 * x, 8 * x + 8)
        out[cell] = mask[cell].all()
    return out


def psnr(dn: np.ndarray, blob: bytes, where: np.ndarray) -> float:
    return eozip.psnr(dn, eozip.decode(blob), np.broadcast_to(where[:, None], dn.shape))


def test_cells_without_a_clear_pixel_are_dropped_and_marked(codec, dn, clouds):
    blob, report = eozip.encode_report(dn, codec.id, 60, drop=clouds)
    plain = eozip.encode(dn, codec.id, 60)
    assert np.array_equal(eozip.dropped(blob), by_hand(clouds))
    assert report.dropped == pytest.approx(by_hand(clouds)[:, ::8, ::8].mean())
    assert len(blob) < 0.9 * len(plain)
    assert not eozip.dropped(plain).any()
    assert psnr(dn, blob, ~eozip.dropped(blob)) > psnr(dn, plain, ~eozip.dropped(blob)) - 0.5


def test_what_is_dropped_has_no_influence(codec, dn, clouds):
    other = np.where(eozip.dropped(eozip.encode(dn, codec.id, 60, drop=clouds))[:, None], 777, dn).astype(
        dn.dtype
    )
    assert eozip.encode(other, codec.id, 60, drop=clouds) == eozip.encode(dn, codec.id, 60, drop=clouds)


def test_nothing_and_everything_dropped(codec, dn):
    nothing, everything = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    assert eozip.encode(dn, codec.id, 60, drop=nothing) == eozip.encode(dn, codec.id, 60)
    blob, report = eozip.encode_report(dn, codec.id, 60, drop=everything)
    assert eozip.decode(blob).shape == dn.shape
    assert eozip.dropped(blob).all()
    assert report.dropped == 1
    assert len(blob) < 400


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 17), (33, 70)])
def test_any_size_of_a_single_date(codec, size):
    x = np.full((12, *size), 2000, np.uint16) + np.arange(12, dtype=np.uint16)[:, None, None]
    mask = np.arange(size[1])[None, :].repeat(size[0], 0) < 8
    blob = eozip.encode(x, codec.id, 30, drop=mask)
    assert eozip.decode(blob).shape == x.shape
    assert eozip.dropped(blob).shape == size
    if bitstream.read_header(blob)[0].codec == codec.id:
        assert np.array_equal(eozip.dropped(blob), by_hand(mask[None])[0])


def test_nodata_comes_back_and_is_no_forecast(codec, dn, clouds):
    holes = dn.copy()
    holes[1, :, :20, :20] = 0
    blob = eozip.encode(holes, codec.id, 60, nodata=0, drop=clouds)
    assert np.array_equal(eozip.decode(blob) == 0, holes == 0)
    assert not eozip.dropped(blob)[1, :20, :20].any()
    # with nodata around it, a cell that the mask covers in part has no clear pixel either
    mask = clouds.copy()
    mask[1, :8, :8], mask[1, 16:24, 16:24] = False, holes[1, 0, 16:24, 16:24] != 0
    assert eozip.dropped(eozip.encode(holes, codec.id, 60, nodata=0, drop=mask))[1, 20:24, 20:24].all()


def test_promises_count_what_is_coded(codec, dn):
    noisy, everything = dn.copy(), np.zeros(SHAPE, bool)
    # dear to code without a network
    noisy[1:] = np.random.default_rng(0).integers(1000, 12_000, noisy[1:].shape)
    everything[1:] = True
    blob, report = eozip.encode_report(noisy, codec.id, max_error=40, drop=everything)
    error = np.abs(eozip.decode(blob).astype(int) - noisy)
    assert report.codec == codec.id
    assert report.residual
    assert error[0].max() <= 40 < error.max()
    assert eozip.dropped(blob)[1:].all()
    blob, report = eozip.encode_report(noisy, codec.id, target_psnr=42, drop=everything)
    assert report.reached
    assert report.psnr == pytest.approx(psnr(noisy, blob, ~eozip.dropped(blob)))
    assert report.psnr >= 41.8 > psnr(noisy, blob, np.ones(SHAPE, bool))


def test_an_exact_chunk_drops_nothing(codec, dn, clouds):
    blob, report = eozip.encode_report(dn, codec.id, max_error=0, drop=clouds)
    assert np.array_equal(eozip.decode(blob), dn)
    assert report.dropped == 0
    assert not eozip.dropped(blob).any()


@pytest.mark.parametrize(
    "mask",
    [np.zeros((3, 42, 32), bool), np.zeros((2, 42, 33), bool), np.zeros((42, 33), bool), np.zeros(SHAPE)],
)
def test_wrong_masks_are_refused(codec, dn, mask):
    with pytest.raises(InputError, match="expected"):
        eozip.encode(dn, codec.id, 60, drop=mask)


def test_codecs_that_cannot_drop_say_so(dn, clouds):
    with registered() as toy, pytest.raises(InputError, match=r"toy.*such as tec-tt-small"):
        eozip.encode(dn, toy.id, 60, drop=clouds)
    with pytest.raises(InputError, match=r"lossless.*cannot leave cells out"):
        eozip.encode(dn, "lossless", drop=clouds)


def test_hostile_flags(codec, dn, clouds):
    chunk = bitstream.unpack(eozip.encode(dn, codec.id, 60, drop=clouds))
    random = np.random.default_rng(0)
    hostile = [random.bytes(n) for n in range(1, 40)]
    hostile += [b"\x02\xff\xff\xff\xff" + b"\0" * 8, chunk.skip[:-1], chunk.skip + b"\0"]
    refused = 0
    for data in hostile:
        blob = bitstream.pack(
            bitstream.Chunk(chunk.header, chunk.mask, chunk.exceptions, chunk.sections, skip=data)
        )
        for read in (eozip.dropped, eozip.decode):
            try:
                read(blob)
            except EozipError:
                refused += 1
    assert refused > len(hostile)


def test_flags_for_a_codec_that_leaves_no_cell_out_are_refused(codec, dn, clouds):
    with registered() as toy:
        chunk = bitstream.unpack(eozip.encode(dn, toy.id, 60))
        header = replace(chunk.header, skip=True)
        skip = skip_mask.encode_cells(skip_mask.droppable(clouds, np.zeros(dn.shape, bool)))
        with pytest.raises(FormatError, match="codes every cell"):
            eozip.decode(
                bitstream.pack(
                    bitstream.Chunk(header, chunk.mask, chunk.exceptions, chunk.sections, skip=skip)
                )
            )


# --- stores ---


@pytest.fixture
def files(tmp_path, dn) -> list[Path]:
    for date, pixels in zip(DATES, dn):
        write_tif(tmp_path / f"s_{date}.tif", pixels, NAMES, nodata=None)
    return [tmp_path / f"s_{date}.tif" for date in DATES]


@pytest.fixture
def mask_file(tmp_path, clouds) -> Path:
    write_tif(tmp_path / "mask.tif", clouds.astype(np.uint8), (None,) * len(clouds), nodata=None)
    return tmp_path / "mask.tif"


def write_store(paths: list[Path], out: Path, mask: Path, codec: PyramidCodec, chunk: int = 24):
    scene = open_scene(paths)
    wanted = make_request(scene, codec.id, quality=60)
    with open_mask(parse_mask(str(mask)), (len(paths), *SHAPE[1:])) as drop:
        return encode_store(
            scene, out, wanted.codec, order=wanted.order, chunk=chunk, drop=drop, facts=wanted.facts
        )


@pytest.mark.parametrize("ending", [".zarr", ".zarr.zip"])
def test_a_store_says_which_pixels_are_forecast(codec, files, mask_file, clouds, tmp_path, dn, ending):
    out = tmp_path / f"s{ending}"
    summary = write_store(files, out, mask_file, codec)
    expected = by_hand(clouds)  # chunks of 24 pixels end where cells do
    found = opened(out)
    assert np.array_equal(read_dropped(describe(out)), expected)
    assert summary.date_dropped == found.dropped.values.tolist() == expected.sum((1, 2)).tolist()
    assert summary.dropped == pytest.approx(expected.mean())
    coded = np.broadcast_to(~expected[:, None], dn.shape)
    assert summary.psnr == pytest.approx(eozip.psnr(dn, found.reflectance.values, coded), abs=1e-3)
    assert verify_store(out, against=open_scene(files)).ok


def test_verify_finds_another_count_of_forecast_pixels(codec, files, mask_file, tmp_path):
    out = tmp_path / "s.zarr"
    write_store(files, out, mask_file, codec)

    def fewer(record):
        record["eozip"]["date_dropped"][1] -= 64

    change_record(out, fewer)
    assert not verify_store(out, against=open_scene(files)).ok


@pytest.mark.parametrize(
    ("ending", "masked"), [(".zarr", (True, True)), (".zarr.zip", (False, True)), (".zarr", (True, False))]
)
def test_append_with_and_without_masks(codec, files, clouds, tmp_path, ending, masked):
    out = tmp_path / f"s{ending}"
    parts = (files[:2], clouds[:2]), (files[2:], clouds[2:])
    scene = open_scene(parts[0][0])
    wanted = make_request(scene, codec.id, quality=60)
    for k, (paths, mask) in enumerate(parts):
        write_tif(tmp_path / f"m{k}.tif", mask.astype(np.uint8), (None,) * len(mask), nodata=None)
        spec, size = parse_mask(str(tmp_path / f"m{k}.tif")), mask.shape
        with open_mask(spec, size) as reader:
            drop = reader if masked[k] else None
            if k == 0:
                encode_store(scene, out, wanted.codec, chunk=24, gop=2, drop=drop, facts=wanted.facts)
            else:
                summary = append_store(out, open_scene(paths), drop=drop)
    expected = by_hand(clouds) * np.repeat(masked, (2, 1))[:, None, None]
    assert opened(out).dropped.values.tolist() == expected.sum((1, 2)).tolist()
    assert opened(out).reflectance.shape[0] == 3
    assert np.array_equal(read_dropped(describe(out)), expected)
    assert summary.date_dropped == (expected[2:].sum((1, 2)).tolist() if masked[1] else None)
    assert verify_store(out, against=open_scene(files)).ok


def test_a_store_without_a_mask_has_no_such_array(codec, files, tmp_path):
    scene = open_scene(files)
    wanted = make_request(scene, codec.id, quality=60)
    summary = encode_store(scene, tmp_path / "s.zarr", wanted.codec, facts=wanted.facts)
    assert "dropped" not in opened(tmp_path / "s.zarr")
    assert summary.dropped is summary.date_dropped is None


def test_a_store_of_a_codec_that_cannot_drop(files, mask_file, tmp_path):
    scene = open_scene(files)
    with (
        open_mask(parse_mask(str(mask_file)), SHAPE) as drop,
        pytest.raises(InputError, match="cannot leave cells"),
    ):
        encode_store(scene, tmp_path / "s.zarr", make_request(scene, "lossless").codec, drop=drop)
    assert not (tmp_path / "s.zarr").exists()


def test_windows_of_a_coarse_mask(tmp_path, clouds):
    coarse = clouds[:, :24, :20]
    for name, planes in (("bands.tif", coarse), ("a_20210701.tif", coarse[:1])):
        write_tif(tmp_path / name, planes.astype(np.uint8), (None,) * len(planes), nodata=None)
    large = coarse.repeat(2, 1).repeat(2, 2)
    for name, stop in (("bands.tif", 3), ("a_20210701.tif", 1)):
        with open_mask(parse_mask(str(tmp_path / name)), (stop, 48, 40)) as mask:
            found = mask.read(slice(0, stop), slice(5, 31), slice(3, 40))
        assert np.array_equal(found, large[:stop, 5:31, 3:40])


# --- the command line ---


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_command_line(codec, files, mask_file, clouds, tmp_path):
    out, dropped = tmp_path / "s.zarr", by_hand(clouds).sum((1, 2)).tolist()
    options = ("--codec", codec.id, "--chunk", 24, "--mask", mask_file)
    text = run("encode", *files, out, *options, "--drop", "masked")
    assert f"{100 * by_hand(clouds).mean():.1f} % of the pixels dropped" in text
    assert json.loads(run("info", out, "--json"))["date_dropped"] == dropped
    assert f"{100 * by_hand(clouds)[1].mean():6.1f} %" in run("info", out)
    assert "verified" in run(
        "verify", out, "--against", *files[:1], "--against", files[1], "--against", files[2]
    )
    assert "--drop masked" in run("encode", *files, tmp_path / "t.zarr", *options, code=2)
    assert "--mask SPEC" in run("encode", *files, tmp_path / "t.zarr", "--drop", "masked", code=2)


def test_command_line_of_a_chunk_and_of_wrong_masks(codec, files, dn, clouds, tmp_path):
    (tmp_path / "chunk").write_bytes(eozip.encode(dn, codec.id, 60, drop=clouds))
    assert (
        json.loads(run("info", tmp_path / "chunk", "--json"))["date_dropped"]
        == by_hand(clouds).sum((1, 2)).tolist()
    )
    write_tif(tmp_path / "wrong.tif", clouds[:, :30].astype(np.uint8), (None,) * 3, nodata=None)
    options = ("--codec", codec.id, "--drop", "masked", "--mask")
    assert "wrong mask size" in run(
        "encode", *files, tmp_path / "s.zarr", *options, tmp_path / "wrong.tif", code=1
    )


def test_the_mask_may_be_a_band_of_the_input(codec, dn, clouds, tmp_path):
    for date, pixels, mask in zip(DATES, dn, clouds):
        classes = np.where(mask, 9, 4).astype(np.uint16)[None]
        write_tif(tmp_path / f"s_{date}.tif", np.concatenate([pixels, classes]), (*NAMES, "SCL"), nodata=None)
    inputs = sorted(tmp_path.glob("*.tif"))
    options = ("--codec", codec.id, "--drop", "masked", "--mask", "scl:3,8,9,10")
    run("encode", *inputs[:2], tmp_path / "s.zarr", *options)
    run("append", tmp_path / "s.zarr", inputs[2], "--drop", "masked", "--mask", "scl:3,8,9,10")
    found = xr.open_zarr(tmp_path / "s.zarr")
    assert found.dropped.values.tolist() == by_hand(clouds).sum((1, 2)).tolist()
    assert found.sizes["band"] == 12


ELSEWHERE = {
    "moved": ({"transform": Affine(10, 0, UTM.c + 10, 0, -10, UTM.f)}, "the grid of the scene"),
    "turned": ({"transform": Affine(10, 0, UTM.c, 0, 10, UTM.f)}, "the grid of the scene"),
    "coarser": ({"transform": Affine(20, 0, UTM.c, 0, -20, UTM.f)}, "the grid of the scene"),
    "another zone": ({"crs": "EPSG:32631"}, "the coordinate system of the scene"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_mask_of_another_place_is_refused(files, clouds, tmp_path, name):
    place, expected = ELSEWHERE[name]
    planes = clouds.astype(np.uint8)
    write_tif(tmp_path / "mask.tif", planes, (None,) * 3, nodata=None, **place)
    write_tif(tmp_path / "last.tif", planes[2:], (None,), nodata=None, **place)
    run("encode", *files[:2], tmp_path / "s.zarr")
    with_mask = {
        ("encode", *files, tmp_path / "t.zarr"): (("--drop", "masked"), ("--masked-quality", "20")),
        ("append", tmp_path / "s.zarr", files[2]): (("--drop", "masked"), ("--masked-quality", "20")),
        ("inpaint", *files, tmp_path / "out"): ((),),
    }
    for words, ways in with_mask.items():
        mask = tmp_path / ("last.tif" if words[0] == "append" else "mask.tif")
        for way in ways:
            said = run(*words, "--mask", mask, *way, code=1)
            assert f"mask: {mask}: expected {expected}" in said
    assert describe(tmp_path / "s.zarr").grid.shape[0] == 2
    assert not (tmp_path / "t.zarr").exists()


def test_masks_without_a_place_and_coarser_ones_of_this_place_are_taken(files, clouds, tmp_path):
    coarse = clouds[:, ::3, ::3].astype(np.uint8)
    options = {"nodata": None, "crs": None, "transform": None}
    write_tif(tmp_path / "nowhere.tif", clouds.astype(np.uint8), (None,) * 3, **options)
    run("encode", *files, tmp_path / "a.zarr", "--drop", "masked", "--mask", tmp_path / "nowhere.tif")
    place = {"nodata": None, "transform": Affine(30, 0, UTM.c, 0, -30, UTM.f)}
    write_tif(tmp_path / "coarse.tif", coarse, (None,) * 3, **place)
    run("encode", *files, tmp_path / "b.zarr", "--drop", "masked", "--mask", tmp_path / "coarse.tif")
