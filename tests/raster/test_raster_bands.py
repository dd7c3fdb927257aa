"""Bands that files call by any name, files of one band each, and what lies beside them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from eozip import raster, sensors
from eozip.cli import cli
from eozip.errors import InputError
from eozip.store import describe
from rasterfiles import UTM, everything, write_tif
from storefiles import NAMES, coarse_codec, opened, scene_pixels

POSITIONS = ",".join(map(str, range(1, 13)))
COMMON = ["coastal", "blue", "green", "red", "red_edge_1", "rededge2", "rededge3", "nir", "nir08", "nir09"]
COMMON += ["swir16", "swir22"]
CALLED = {
    "all alike": ("bands",) * 12,
    "counted": tuple(f"Band {i}" for i in range(1, 13)),
    "b and number": tuple(f"b{i}" for i in range(1, 13)),
    "layers": tuple(f"Layer_{i}" for i in range(1, 13)),
    "numbers": tuple(map(str, range(12))),
    "wavelengths": ["443", "490", "560", "665", "705", "740", "783", "842", "865", "945", "1610", "2190"],
    "agency": tuple(
        f"nbart_{name}"
        for name in [
            "aerosol",
            "blue",
            "green",
            "red",
            "re1",
            "re2",
            "re3",
            "nir1",
            "nir2",
            "wv",
            "swir2",
            "swir3",
        ]
    ),
    "one bad": (*NAMES[:11], "foo"),
    "undescribed": (None,) * 12,
}


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def encode(*arguments, code: int = 0):
    return run("encode", *arguments, "--codec", "lossless", code=code)


@pytest.mark.parametrize("called", CALLED)
@pytest.mark.parametrize(
    "how", [("--bands", POSITIONS), ("--bands", ",".join(NAMES)), ("--sensor", "s2-l2a")]
)
def test_options_say_what_bands_are_whatever_the_file_calls_them(
    tmp_path: Path, called: str, how: tuple
) -> None:
    write_tif(tmp_path / "a.tif", scene_pixels(), [name for name in CALLED[called] if name])
    encode(tmp_path / "a.tif", tmp_path / "s.zarr", *how)
    assert opened(tmp_path / "s.zarr").band.values.tolist() == list(NAMES)
    run("verify", tmp_path / "s.zarr", "--against", tmp_path / "a.tif")
    run("decode", tmp_path / "s.zarr", tmp_path / "b.tif")
    back, there = everything(tmp_path / "b.tif"), everything(tmp_path / "a.tif")
    assert back["pixels"] == there["pixels"]
    if called != "undescribed":
        assert back == there


def test_an_unknown_name_among_known_ones_is_the_band_left_over(tmp_path: Path) -> None:
    names = [*NAMES[::-1][:11], "foo"]  # any order
    write_tif(tmp_path / "a.tif", scene_pixels()[::-1], names)
    encode(tmp_path / "a.tif", tmp_path / "s.zarr", "--sensor", "s2-l2a")
    store = opened(tmp_path / "s.zarr")
    assert store.band.values.tolist() == list(NAMES)
    np.testing.assert_array_equal(store.reflectance[0], scene_pixels())


def test_a_refusal_names_both_ways_out(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", scene_pixels(), CALLED["all alike"])
    paths = tmp_path / "a.tif", tmp_path / "s.zarr"
    with coarse_codec() as codec:  # it takes the bands of one sensor
        error = run("encode", *paths, "--codec", codec, code=1).stderr
    assert "--sensor s2-l2a" in error
    assert "--bands" in error


def test_bands_of_any_name_are_decoded_by_what_they_are(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", scene_pixels(), CALLED["all alike"])
    encode(tmp_path / "a.tif", tmp_path / "s.zarr", "--sensor", "s2-l2a")
    run("decode", tmp_path / "s.zarr", tmp_path / "b.tif", "--bands", "B04,B02")
    assert everything(tmp_path / "b.tif")["pixels"] == scene_pixels()[[3, 1]].tolist()


def test_a_name_that_is_not_utf8_is_refused_for_outputs_of_gdal(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES)
    encode(tmp_path / "a.tif", tmp_path / "s.zarr")
    before = sorted(p.name for p in tmp_path.iterdir())
    for out in ("caf\udce9.tif", "caf\udce9"):
        assert "UTF-8" in run("decode", tmp_path / "s.zarr", tmp_path / out, code=1).stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_what_is_overridden_is_said(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", scene_pixels(), CALLED["counted"])
    assert (
        "'Band 10' is taken for B09"
        in encode(tmp_path / "a.tif", tmp_path / "s.zarr", "--bands", POSITIONS).stderr
    )


def test_a_typing_error_in_a_name_is_no_new_name(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES)
    wanted = ",".join([*NAMES[:11], "B21"])
    assert (
        "no band 'B21'" in encode(tmp_path / "a.tif", tmp_path / "s.zarr", "--bands", wanted, code=1).stderr
    )


def test_dates_may_spell_and_order_their_bands_differently(tmp_path: Path) -> None:
    write_tif(tmp_path / "20210701.tif", scene_pixels(0), NAMES)
    spelled = [f"B{name[1:].lstrip('0')}" for name in NAMES[::-1]]
    write_tif(tmp_path / "20210802.tif", scene_pixels(1)[::-1], spelled)
    encode(tmp_path, tmp_path / "s.zarr")
    np.testing.assert_array_equal(opened(tmp_path / "s.zarr").reflectance[1], scene_pixels(1))


def test_append_matches_bands_by_meaning(tmp_path: Path) -> None:
    write_tif(tmp_path / "20210701.tif", scene_pixels(0), NAMES)
    encode(tmp_path / "20210701.tif", tmp_path / "s.zarr")
    write_tif(tmp_path / "20210802.tif", scene_pixels(1)[::-1], COMMON[::-1])
    run("append", tmp_path / "s.zarr", tmp_path / "20210802.tif")
    np.testing.assert_array_equal(opened(tmp_path / "s.zarr").reflectance[1], scene_pixels(1))


def test_append_of_other_bands_names_both_sets(tmp_path: Path) -> None:
    write_tif(tmp_path / "20210701.tif", scene_pixels(0), NAMES)
    encode(tmp_path / "20210701.tif", tmp_path / "s.zarr")
    write_tif(tmp_path / "20210802.tif", scene_pixels(1)[:11], NAMES[:11])
    error = run("append", tmp_path / "s.zarr", tmp_path / "20210802.tif", code=1).stderr
    assert "(12 bands)" in error
    assert "(11 bands)" in error


# --- files of one band each ---


def write_bands(folder: Path, seed: int, name: str = "{}.tif", **options) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = scene_pixels(seed)
    for band, plane in zip(NAMES, pixels):
        path = folder / name.format(band)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tif(path, plane[None], (), **options)
    return pixels


def read(scene) -> np.ndarray:
    _, order = sensors.match_bands(scene.band_codes)
    whole = raster.read_window(scene, slice(None), slice(None), slice(None))
    return whole[:, list(order)]


@pytest.mark.parametrize("name", ["{}.tif", "{}_10m.tif", "R10m/{}_10m.tif", "T52SFA_{}.tif"])
def test_files_of_two_dates_in_dated_folders_are_two_dates(tmp_path: Path, name: str) -> None:
    later = write_bands(tmp_path / "S2B_52SFA_20220126_0_L2A", 1, name)
    earlier = write_bands(tmp_path / "S2B_52SFA_20210105_0_L2A", 0, name)
    files = sorted(tmp_path.glob("**/*.tif"), reverse=True)
    for given in (
        tmp_path,
        files,
        [tmp_path / "S2B_52SFA_20220126_0_L2A", tmp_path / "S2B_52SFA_20210105_0_L2A"],
    ):
        scene = raster.open_scene(given)
        assert scene.dates == (datetime(2021, 1, 5), datetime(2022, 1, 26))
        np.testing.assert_array_equal(read(scene), np.stack([earlier, later]))


def test_files_named_by_their_resolution_are_one_date(tmp_path: Path) -> None:
    pixels = scene_pixels()
    for band, plane in zip(sensors.get("s2-l2a").bands, pixels):
        write_tif(tmp_path / f"T52_20210105_{band.name}_{band.native_resolution_m}m.tif", plane[None], ())
    np.testing.assert_array_equal(read(raster.open_scene(tmp_path)), pixels[None])


def test_folders_of_bands_hold_dates(tmp_path: Path) -> None:
    for seed, day in enumerate(("20210105", "20210110")):
        write_bands(tmp_path, seed, "{}/" + day + ".tif")
    scene = raster.open_scene(tmp_path)
    assert scene.dates == (datetime(2021, 1, 5), datetime(2021, 1, 10))
    np.testing.assert_array_equal(read(scene)[1], scene_pixels(1))


def test_files_named_by_common_names_are_one_date(tmp_path: Path) -> None:
    for name, plane in zip(COMMON, scene_pixels()):
        write_tif(tmp_path / f"20210105_{name}.tif", plane[None], ())
    np.testing.assert_array_equal(read(raster.open_scene(tmp_path)), scene_pixels()[None])


def test_what_products_keep_beside_their_bands_is_left_out_and_said(tmp_path: Path) -> None:
    pixels = write_bands(tmp_path / "S2_20210105", 0)
    for name in ("AOT_10m", "SCL", "WVP", "MSK_CLDPRB_20m", "visual"):
        data = np.ones((3 if name == "visual" else 1, 20, 20), "uint8")
        write_tif(tmp_path / "S2_20210105" / f"{name}.tif", data, ())
    result = encode(tmp_path / "S2_20210105", tmp_path / "s.zarr")
    assert "AOT_10m.tif" in result.stderr
    assert "SCL.tif" in result.stderr
    np.testing.assert_array_equal(opened(tmp_path / "s.zarr").reflectance[0], pixels)


def test_another_file_beside_the_bands_is_named(tmp_path: Path) -> None:
    write_bands(tmp_path, 0)
    write_tif(tmp_path / "dem.tif", np.ones((1, 50, 41), "uint16"), ())
    with pytest.raises(InputError, match=r"dem\.tif: is no band"):
        raster.open_scene(tmp_path)


def test_a_band_that_occurs_twice_in_one_date_names_both_files(tmp_path: Path) -> None:
    write_bands(tmp_path, 0)
    write_tif(tmp_path / "B02_20m.tif", np.ones((1, 50, 41), "uint16"), ())
    with pytest.raises(InputError, match=r"B02.*more than once.*B02"):
        raster.open_scene(tmp_path)


def test_bands_of_native_grids_are_told_from_dates(tmp_path: Path) -> None:
    write_bands(tmp_path, 0)
    write_tif(tmp_path / "B05.tif", np.ones((1, 25, 20), "uint16"), ())
    with pytest.raises(InputError, match=r"Bands of one date"):
        raster.open_scene(tmp_path)


def test_a_folder_without_rasters_below_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(InputError, match="no GeoTIFF in this folder or those in it"):
        raster.open_scene(tmp_path)


def test_bands_of_a_choice_keep_their_names_in_the_store(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES)
    encode(tmp_path / "a.tif", tmp_path / "s.zarr", "--bands", ",".join(NAMES[::-1]))
    assert describe(tmp_path / "s.zarr").profile.band_names == NAMES[::-1]
    run("verify", tmp_path / "s.zarr", "--against", tmp_path / "a.tif")


# --- numbers in tags, names of files ---


@pytest.mark.parametrize(
    ("scale", "offset"),
    [(1e-4, -0.1), (float(np.float32(1e-4)), float(np.float32(-0.1))), (1e-4, -0.09999999403953552)],
)
def test_offsets_of_32_bits_are_whole_dn(tmp_path: Path, scale: float, offset: float) -> None:
    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES)
    with rasterio.open(tmp_path / "a.tif", "r+") as target:
        target.scales, target.offsets = (scale,) * 12, (offset,) * 12
    encode(tmp_path / "a.tif", tmp_path / "s.zarr")
    assert describe(tmp_path / "s.zarr").codec.offset == 1000


def test_an_offset_of_no_whole_dn_is_rounded_for_coding(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES)
    with rasterio.open(tmp_path / "a.tif", "r+") as target:  # as Landsat Collection 2 has them
        target.scales, target.offsets = (2.75e-5,) * 12, (-0.2,) * 12
    encode(tmp_path / "a.tif", tmp_path / "s.zarr")
    assert describe(tmp_path / "s.zarr").codec.offset == 7273
    run("decode", tmp_path / "s.zarr", tmp_path / "b.tif")
    assert everything(tmp_path / "b.tif") == everything(tmp_path / "a.tif")


@pytest.mark.parametrize("scale", [0.0, np.nan, np.inf])
def test_a_scale_that_is_none_is_an_input_error(tmp_path: Path, scale: float) -> None:
    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES)
    with rasterio.open(tmp_path / "a.tif", "r+") as target:
        target.scales = (scale,) * 12
    with pytest.raises(InputError, match="--offset"):
        raster.open_scene(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("dtype", "nodata", "way"),
    [
        ("float32", np.nan, "--lattice STEP"),
        ("float32", -np.inf, "-a_nodata nan"),
        ("float64", np.inf, "-a_nodata nan"),
    ],
)
def test_floats_that_are_no_reflectance_are_refused_with_the_way_out(
    tmp_path: Path, dtype: str, nodata: float, way: str
) -> None:
    write_tif(tmp_path / "a.tif", scene_pixels().astype(dtype), NAMES, nodata=nodata)
    assert way in encode(tmp_path / "a.tif", tmp_path / "s.zarr", code=1).stderr
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("dtype", ["complex_int16", "complex64"])
def test_complex_rasters_are_refused_by_their_dtype(tmp_path: Path, dtype: str) -> None:
    options = {"count": 12, "height": 16, "width": 16, "dtype": dtype, "transform": UTM}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **options) as target:
        for i, name in enumerate(NAMES, start=1):
            target.set_band_description(i, name)
    assert f"got {dtype}" in encode(tmp_path / "a.tif", tmp_path / "s.zarr", code=1).stderr


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES)
    odd = tmp_path / "caf\udce9_20210105.tif"
    (tmp_path / "a.tif").rename(odd)
    with pytest.raises(InputError, match="UTF-8"):
        raster.open_scene(odd)
    with pytest.raises(InputError, match="UTF-8"):
        raster.open_scene(tmp_path)


@pytest.mark.parametrize("prefix", ["/vsizip/", "zip://"])
def test_names_of_virtual_files_pass_as_they_are(tmp_path: Path, prefix: str) -> None:
    import zipfile

    write_tif(tmp_path / "S2_20210105.tif", scene_pixels(), NAMES)
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(tmp_path / "S2_20210105.tif", "S2_20210105.tif")
    mark = "!" if prefix == "zip://" else ""
    name = f"{prefix}{tmp_path}/s.zip{mark}/S2_20210105.tif"
    encode(name, tmp_path / "s.zarr")
    run("verify", tmp_path / "s.zarr", "--against", name)
    assert describe(tmp_path / "s.zarr").dates == ("2021-01-05T00:00:00",)


@pytest.mark.parametrize("name", ["https://127.0.0.1:9/x.tif", "s3://nowhere/x.tif"])
def test_urls_reach_gdal(tmp_path: Path, name: str, monkeypatch) -> None:
    asked = []

    def refuse(path, *arguments, **options):
        asked.append(path)
        raise rasterio.errors.RasterioIOError("no such thing")

    monkeypatch.setattr(rasterio, "open", refuse)
    assert "cannot be read as a raster" in encode(name, tmp_path / "s.zarr", code=1).stderr
    assert asked == [name]


@pytest.mark.parametrize("command", [("info",), ("verify",), ("decode", "b.tif")])
def test_a_store_behind_another_scheme_is_named_as_such(command: tuple) -> None:
    error = run(command[0], "zip::s.zarr.zip", *command[1:], code=1).stderr  # xarray's spelling
    assert "give what stands behind ::" in error
