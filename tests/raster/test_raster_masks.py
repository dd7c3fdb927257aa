"""Masks of GeoTIFFs: what they hide is missing, and comes back hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.enums import ColorInterp, MaskFlags

from eozip import raster
from eozip.cli import cli
from eozip.errors import InputError
from eozip.store import describe
from rasterfiles import UTM, everything, write_tif
from storefiles import NAMES, coarse_codec, opened, scene_pixels

CLOUD = np.s_[10:22, 5:30]
JUNK = 17_000


@pytest.fixture(autouse=True)
def _coarse():
    with coarse_codec():
        yield


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def hidden(shape: tuple[int, int] = (50, 41)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[CLOUD] = True
    return mask


def plain(seed: int = 0) -> np.ndarray:
    """Pixels of which none is 0 and junk lies where the mask is."""
    dn = np.maximum(scene_pixels(seed), 1)
    dn[:, hidden()] = JUNK
    return dn


def write_masked(path: Path, kind: str, dn: np.ndarray | None = None, **options) -> None:
    """A GeoTIFF whose mask hides `hidden()`: inside it, beside it, or as alpha band."""
    dn = plain() if dn is None else dn
    options = {"nodata": None, "transform": UTM, "crs": "EPSG:32633"} | options
    sizes = {"height": dn.shape[1], "width": dn.shape[2], "dtype": dn.dtype}
    mask = np.where(hidden(), 0, 255).astype("uint8")
    count = len(dn) + (kind == "alpha")
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "internal"),
        rasterio.open(path, "w", driver="GTiff", count=count, **sizes, **options) as target,
    ):
        for i, name in enumerate(NAMES, start=1):
            target.set_band_description(i, name)
        target.write(dn, list(range(1, len(dn) + 1)))
        if kind == "alpha":
            target.colorinterp = [ColorInterp.gray, *[ColorInterp.undefined] * 11, ColorInterp.alpha]
            target.write(mask.astype(dn.dtype), count)
        else:
            target.write_mask(mask)


def shown(path: Path) -> np.ndarray:
    """What a GeoTIFF's masks show: bool [C, H, W]."""
    with rasterio.open(path) as source:
        return source.read_masks(list(range(1, 13))) > 0


@pytest.mark.parametrize("codec", ["lossless", "coarse"])
@pytest.mark.parametrize("kind", ["internal", "beside", "alpha"])
def test_a_mask_is_nodata_for_coding_and_a_mask_again(tmp_path: Path, kind: str, codec: str) -> None:
    write_masked(tmp_path / "a.tif", kind)
    assert (tmp_path / "a.tif.msk").exists() == (kind == "beside")
    run("encode", tmp_path / "a.tif", tmp_path / "s.zarr", "--codec", codec)
    found = describe(tmp_path / "s.zarr")
    pixels = opened(tmp_path / "s.zarr").reflectance.values[0]
    assert found.codec.nodata is not None
    np.testing.assert_array_equal(pixels == found.codec.nodata, np.broadcast_to(hidden(), pixels.shape))
    run("verify", tmp_path / "s.zarr", "--against", tmp_path / "a.tif")
    run("decode", tmp_path / "s.zarr", tmp_path / "b.tif")
    np.testing.assert_array_equal(~shown(tmp_path / "b.tif"), np.broadcast_to(hidden(), pixels.shape))
    with rasterio.open(tmp_path / "b.tif") as back:
        assert back.nodata is None
        assert back.mask_flag_enums[0] == [MaskFlags.per_dataset]
        assert back.count == 12


def test_junk_under_a_mask_costs_nothing_and_counts_in_no_psnr(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dn = plain()
    dn[:, hidden()] = rng.integers(0, 20_000, (12, hidden().sum()), "uint16")
    write_masked(tmp_path / "a.tif", "internal", dn)
    write_masked(tmp_path / "b.tif", "internal")
    stores = []
    for name in "ab":
        run("encode", tmp_path / f"{name}.tif", tmp_path / f"{name}.zarr", "--codec", "coarse")
        stores.append(describe(tmp_path / f"{name}.zarr").facts["psnr"])
    assert stores[0] == stores[1]
    assert opened(tmp_path / "a.zarr").equals(opened(tmp_path / "b.zarr"))


def test_a_value_that_valid_pixels_have_is_never_chosen(tmp_path: Path) -> None:
    dn = plain()
    dn[0, 0, :3] = 0, 65535, 65534
    write_masked(tmp_path / "a.tif", "internal", dn)
    run("encode", tmp_path / "a.tif", tmp_path / "s.zarr", "--codec", "lossless")
    assert describe(tmp_path / "s.zarr").codec.nodata == 65533
    run("decode", tmp_path / "s.zarr", tmp_path / "b.tif")
    back = np.array(everything(tmp_path / "b.tif")["pixels"])
    np.testing.assert_array_equal(back[:, ~hidden()], dn[:, ~hidden()])


def test_a_value_asked_for_that_valid_pixels_have_is_refused(tmp_path: Path) -> None:
    dn = plain()
    dn[3, 0, 0] = 7
    write_masked(tmp_path / "a.tif", "internal", dn)
    error = run("encode", tmp_path / "a.tif", tmp_path / "s.zarr", "--nodata", 7, code=1).stderr
    assert "mask calls pixels of that DN valid" in error
    assert "70000" in run("encode", tmp_path / "a.tif", tmp_path / "s.zarr", "--nodata", 70000, code=1).stderr


def test_a_mask_beside_a_nodata_value_hides_both(tmp_path: Path) -> None:
    dn = plain()
    dn[:, :4] = 9
    write_masked(tmp_path / "a.tif", "internal", dn, nodata=9)
    run("encode", tmp_path / "a.tif", tmp_path / "s.zarr", "--codec", "lossless")
    pixels = opened(tmp_path / "s.zarr").reflectance.values[0]
    assert (pixels[:, hidden()] == 9).all()
    assert (pixels[:, :4] == 9).all()
    run("decode", tmp_path / "s.zarr", tmp_path / "b.tif")
    assert not shown(tmp_path / "b.tif")[:, hidden()].any()


def test_dates_with_and_without_a_mask_keep_their_own(tmp_path: Path) -> None:
    write_masked(tmp_path / "20210701.tif", "internal")
    write_tif(tmp_path / "20210802.tif", np.maximum(scene_pixels(1), 1), NAMES, nodata=None)
    run(
        "encode",
        tmp_path / "20210701.tif",
        tmp_path / "20210802.tif",
        tmp_path / "s.zarr",
        "--codec",
        "lossless",
    )
    run("decode", tmp_path / "s.zarr", tmp_path / "back")
    for name in ("20210701.tif", "20210802.tif"):
        np.testing.assert_array_equal(shown(tmp_path / "back" / name), shown(tmp_path / name))


def test_a_window_of_a_masked_scene_shows_what_all_of_it_shows(tmp_path: Path) -> None:
    write_masked(tmp_path / "a.tif", "internal")
    scene = raster.with_fill(raster.open_scene(tmp_path / "a.tif"))
    whole = raster.read_window(scene, slice(None), slice(None), slice(None))
    part = raster.read_window(scene, slice(None), slice(8, 24), slice(3, 20))
    np.testing.assert_array_equal(part, whole[:, :, 8:24, 3:20])
    assert (whole[0][:, hidden()] == scene.fill).all()


def test_an_append_keeps_its_mask(tmp_path: Path) -> None:
    write_masked(tmp_path / "20210701.tif", "internal")
    run("encode", tmp_path / "20210701.tif", tmp_path / "s.zarr", "--codec", "lossless")
    write_masked(tmp_path / "20210802.tif", "beside", plain(1))
    run("append", tmp_path / "s.zarr", tmp_path / "20210802.tif")
    run("decode", tmp_path / "s.zarr", tmp_path / "back")
    np.testing.assert_array_equal(shown(tmp_path / "back" / "20210802.tif"), shown(tmp_path / "20210802.tif"))


def test_an_append_whose_valid_pixels_mean_missing_is_refused(tmp_path: Path) -> None:
    write_masked(tmp_path / "20210701.tif", "internal")
    run("encode", tmp_path / "20210701.tif", tmp_path / "s.zarr", "--codec", "lossless")
    dn = plain(1)
    dn[0, 0, 0] = describe(tmp_path / "s.zarr").codec.nodata
    write_masked(tmp_path / "20210802.tif", "internal", dn)
    assert "valid" in run("append", tmp_path / "s.zarr", tmp_path / "20210802.tif", code=1).stderr


def test_an_append_with_a_mask_to_a_store_without_nodata_is_refused(tmp_path: Path) -> None:
    write_tif(tmp_path / "20210701.tif", np.maximum(scene_pixels(), 1), NAMES, nodata=None)
    run("encode", tmp_path / "20210701.tif", tmp_path / "s.zarr", "--codec", "lossless")
    write_masked(tmp_path / "20210802.tif", "internal")
    assert "without a mask" in run("append", tmp_path / "s.zarr", tmp_path / "20210802.tif", code=1).stderr


def test_bands_chosen_without_alpha_are_masked_by_it(tmp_path: Path) -> None:
    write_masked(tmp_path / "a.tif", "alpha")
    wanted = ",".join(map(str, range(1, 13)))
    run("encode", tmp_path / "a.tif", tmp_path / "s.zarr", "--codec", "lossless", "--bands", wanted)
    nodata = describe(tmp_path / "s.zarr").codec.nodata
    assert (opened(tmp_path / "s.zarr").reflectance.values[0][:, hidden()] == nodata).all()


def test_what_becomes_of_an_alpha_band_is_said(tmp_path: Path) -> None:
    write_masked(tmp_path / "a.tif", "alpha")
    assert (
        "alpha band" in run("encode", tmp_path / "a.tif", tmp_path / "s.zarr", "--codec", "lossless").stderr
    )


def test_bands_with_masks_of_their_own_get_a_nodata_value(tmp_path: Path) -> None:
    """As a VRT or files of one band each have them: a GeoTIFF holds one mask for all."""
    dn = plain()
    for band, (name, plane) in enumerate(zip(NAMES, dn)):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            write_tif(tmp_path / f"20210701_{name}.tif", plane[None], (), nodata=None)
            with rasterio.open(tmp_path / f"20210701_{name}.tif", "r+") as target:
                mask = np.full((50, 41), 255, "uint8")
                mask[band] = 0
                target.write_mask(mask)
    result = run("encode", tmp_path, tmp_path / "s.zarr", "--codec", "lossless")
    assert "masks of their own" in result.stderr
    run("decode", tmp_path / "s.zarr", tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as back:
        assert back.nodata == describe(tmp_path / "s.zarr").codec.nodata
        pixels = back.read([back.descriptions.index(name) + 1 for name in NAMES])
    for band in range(12):
        assert np.flatnonzero((pixels[band] == back.nodata).all(axis=1)).tolist() == [band]


def test_nodata_values_that_differ_by_band_become_one(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", np.maximum(scene_pixels(), 1), NAMES, nodata=None)
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i}"><Description>{name}</Description><NoDataValue>{i + 1700}'
        f'</NoDataValue><SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{i}'
        "</SourceBand></SimpleSource></VRTRasterBand>"
        for i, name in enumerate(NAMES, start=1)
    )
    (tmp_path / "a.vrt").write_text(f'<VRTDataset rasterXSize="41" rasterYSize="50">{bands}</VRTDataset>')
    run("encode", tmp_path / "a.vrt", tmp_path / "s.zarr", "--codec", "lossless")
    nodata = describe(tmp_path / "s.zarr").codec.nodata
    pixels = opened(tmp_path / "s.zarr").reflectance.values[0]
    for band, plane in enumerate(np.maximum(scene_pixels(), 1), start=1):
        np.testing.assert_array_equal(pixels[band - 1] == nodata, plane == band + 1700)


def test_int16_is_masked_too(tmp_path: Path) -> None:
    dn = np.maximum(scene_pixels(dtype="int16"), 1) - 1
    write_masked(tmp_path / "a.tif", "internal", dn.astype("int16"))
    run("encode", tmp_path / "a.tif", tmp_path / "s.zarr", "--codec", "lossless")
    assert describe(tmp_path / "s.zarr").codec.nodata == -32768
    run("decode", tmp_path / "s.zarr", tmp_path / "b.tif")
    np.testing.assert_array_equal(shown(tmp_path / "b.tif"), shown(tmp_path / "a.tif"))


def test_every_value_in_use_asks_for_one(tmp_path: Path) -> None:
    dn = np.arange(65536, dtype="uint16").reshape(1, 256, 256)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_tif(tmp_path / "a.tif", np.concatenate([dn] * 12), NAMES, nodata=None)
        with rasterio.open(tmp_path / "a.tif", "r+") as target:
            target.write_mask(np.full((256, 256), 255, "uint8"))
    with pytest.raises(InputError, match="--nodata"):
        raster.with_fill(raster.open_scene(tmp_path / "a.tif"))


def test_other_readers_of_a_masked_scene_get_no_junk(tmp_path: Path) -> None:
    write_masked(tmp_path / "a.tif", "internal")
    pixels = raster.read_window(raster.open_scene(tmp_path / "a.tif"), slice(None), slice(None), slice(None))
    assert JUNK not in pixels


def test_a_named_band_that_gdal_tagged_as_alpha_is_a_band(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES)
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.colorinterp = [ColorInterp.gray, ColorInterp.alpha, *[ColorInterp.undefined] * 10]
    run("encode", tmp_path / "a.tif", tmp_path / "s.zarr", "--codec", "lossless")
    run("decode", tmp_path / "s.zarr", tmp_path / "b.tif")
    assert everything(tmp_path / "b.tif")["pixels"] == scene_pixels().tolist()
