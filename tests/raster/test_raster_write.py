"""GeoTIFFs out: what is restored, and what is left after an accident."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from eozip import raster
from eozip.errors import InputError, OutputError
from eozip.raster.write import _check_complete
from rasterfiles import NAMES, copy, everything, pixels, source, write_tif

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

ROTATED = Affine(9.8, 1.2, 399960, 1.2, -9.8, 5300040)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("shape", [(3, 37, 53), (3, 1, 1), (2, 300, 17), (1, 256, 512)])
def test_pixels_and_grid_come_back(tmp_path: Path, dtype: str, shape: tuple[int, int, int]) -> None:
    data = write_tif(tmp_path / "in.tif", pixels(1, dtype, shape), NAMES[: shape[0]])
    copy(tmp_path / "in.tif", tmp_path / "out.tif")
    assert everything(tmp_path / "out.tif") == everything(tmp_path / "in.tif")
    assert everything(tmp_path / "out.tif")["pixels"] == data.tolist()


@pytest.mark.parametrize(
    "profile",
    [
        {"crs": None},
        {"crs": None, "transform": Affine.identity()},
        {"transform": ROTATED},
        {"nodata": None},
        {"nodata": 65535},
        {"crs": "EPSG:4326", "transform": Affine(1e-4, 0, 12.25, 0, -1e-4, 47.5)},
        {"interleave": "pixel", "compress": "lzw"},
        {"tags": {"AREA_OR_POINT": "Point"}},
    ],
    ids=str,
)
def test_every_kind_of_georeference_comes_back(tmp_path: Path, profile: dict) -> None:
    write_tif(tmp_path / "in.tif", pixels(), **profile)
    copy(tmp_path / "in.tif", tmp_path / "out.tif")
    assert everything(tmp_path / "out.tif") == everything(tmp_path / "in.tif")


def test_ground_control_points_without_a_transform_come_back(tmp_path: Path) -> None:
    points = [
        GroundControlPoint(r, c, 12 + c / 1e4, 47 - r / 1e4, 5.0) for r, c in ((0, 0), (0, 53), (37, 0))
    ]
    crs = rasterio.crs.CRS.from_epsg(4326)
    write_tif(tmp_path / "in.tif", pixels(), crs=None, transform=Affine.identity(), gcps=(points, crs))
    scene = raster.open_scene(tmp_path / "in.tif")
    assert scene.profile.transform is None
    assert len(scene.profile.gcps) == 3
    copy(tmp_path / "in.tif", tmp_path / "out.tif")
    assert everything(tmp_path / "out.tif") == everything(tmp_path / "in.tif")


def test_tags_scales_units_and_colours_come_back(tmp_path: Path) -> None:
    tags = {"TIFFTAG_DATETIME": "2025:04:15 10:15:59", "cloud_cover": "12 % é"}
    write_tif(tmp_path / "in.tif", pixels(), tags=tags)
    with rasterio.open(tmp_path / "in.tif", "r+") as dst:
        dst.scales, dst.offsets, dst.units = (1e-4,) * 3, (-0.1,) * 3, ("1", "1", "1")
        dst.colorinterp = (ColorInterp.blue, ColorInterp.green, ColorInterp.red)
        dst.update_tags(ns="mine", key="value")
        dst.update_tags(2, wavelength="560")
    copy(tmp_path / "in.tif", tmp_path / "out.tif")
    assert everything(tmp_path / "out.tif") == everything(tmp_path / "in.tif")


def test_written_file_is_tiled_compressed_and_leaves_no_part(tmp_path: Path) -> None:
    write_tif(tmp_path / "in.tif", np.zeros((3, 600, 500), "uint16"))
    copy(tmp_path / "in.tif", tmp_path / "out.tif", step=256)
    with rasterio.open(tmp_path / "out.tif") as src:
        assert src.block_shapes == [(256, 256)] * 3
        assert src.compression.name == "deflate"
    assert sorted(os.listdir(tmp_path)) == ["in.tif", "out.tif"]
    assert (tmp_path / "out.tif").stat().st_size < 20_000


def test_windows_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    profile = raster.open_scene(source(tmp_path)).profile
    with raster.create_geotiff(tmp_path / "out.tif", profile) as writer:
        for bad in (pixels(dtype="int16"), pixels()[0], pixels()[:2]):
            with pytest.raises(InputError, match=r"expected \[3, h, w\] uint16"):
                writer.write(bad, 0, 0)
        with pytest.raises(InputError, match="reaches outside"):
            writer.write(pixels(), 1, 0)


def _interrupted(path: Path, profile: raster.Profile, error: BaseException, **options) -> None:
    with raster.create_geotiff(path, profile, **options) as writer:
        writer.write(pixels()[:, :16, :16], 0, 0)
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("x"), SystemExit(3)], ids=repr)
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    profile = raster.open_scene(source(tmp_path)).profile
    with pytest.raises(type(error)):
        _interrupted(tmp_path / "out.tif", profile, error)
    assert os.listdir(tmp_path) == ["in.tif"]


def test_an_interrupted_overwrite_keeps_the_old_file(tmp_path: Path) -> None:
    profile = raster.open_scene(source(tmp_path)).profile
    before = (tmp_path / "in.tif").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path / "in.tif", profile, KeyboardInterrupt(), overwrite=True)
    assert (tmp_path / "in.tif").read_bytes() == before


def test_an_existing_output_is_refused_unless_asked(tmp_path: Path) -> None:
    write_tif(tmp_path / "in.tif", pixels())
    write_tif(tmp_path / "out.tif", pixels(9))
    (tmp_path / "out.tif.aux.xml").write_text("<PAMDataset/>")
    with pytest.raises(OutputError, match="exists already"):
        copy(tmp_path / "in.tif", tmp_path / "out.tif")
    copy(tmp_path / "in.tif", tmp_path / "out.tif", overwrite=True)
    assert everything(tmp_path / "out.tif") == everything(tmp_path / "in.tif")
    assert sorted(os.listdir(tmp_path)) == ["in.tif", "out.tif"]


def test_an_output_made_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    profile = raster.open_scene(source(tmp_path)).profile
    with (
        pytest.raises(OutputError, match="exists already"),
        raster.create_geotiff(tmp_path / "o.tif", profile),
    ):
        (tmp_path / "o.tif").write_text("another program's")
    assert (tmp_path / "o.tif").read_text() == "another program's"


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    profile = raster.open_scene(source(tmp_path)).profile
    with (
        pytest.raises(OutputError, match="does not exist"),
        raster.create_geotiff(tmp_path / "no" / "o.tif", profile),
    ):
        pass


FULL_DISK = """
import sys
from pathlib import Path
from rasterfiles import copy, limit_files
limit_files(int(sys.argv[3]))
copy(Path(sys.argv[1]), Path(sys.argv[2]), step=256)
"""


@pytest.mark.parametrize("size", [0, 100, 50_000, 700_000])
def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path, size: int) -> None:
    write_tif(tmp_path / "in.tif", pixels(shape=(3, 512, 300)))
    command = [
        sys.executable,
        "-c",
        FULL_DISK,
        str(tmp_path / "in.tif"),
        str(tmp_path / "out.tif"),
        str(size),
    ]
    here = Path(__file__).parents[1]
    path = os.pathsep.join([str(here), str(here.parent / "src")])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "eozip.errors.OutputError" in done.stderr.splitlines()[-1]
    assert os.listdir(tmp_path) == ["in.tif"]


def test_a_file_that_lost_its_end_is_noticed(tmp_path: Path) -> None:
    write_tif(tmp_path / "in.tif", pixels(shape=(3, 256, 256)))
    _check_complete(tmp_path / "in.tif", tmp_path / "out.tif")
    os.truncate(tmp_path / "in.tif", (tmp_path / "in.tif").stat().st_size - 1)
    with pytest.raises(OutputError, match="in full"):
        _check_complete(tmp_path / "in.tif", tmp_path / "out.tif")


def write_dates(
    folder: Path, profile: raster.Profile, names=("a.tif", "b.tif"), error=None, **options
) -> None:
    tags = [{"": {"day": name}} for name in names]
    with raster.create_geotiffs(folder, names, profile, tags, **options) as writers:
        for seed, writer in enumerate(writers):
            writer.write(pixels(seed), 0, 0)
        if error is not None:
            raise error


def test_dates_become_files_of_a_folder(tmp_path: Path) -> None:
    profile = raster.open_scene(source(tmp_path)).profile
    write_dates(tmp_path / "out", profile)
    scene = raster.open_scene(tmp_path / "out")
    whole = raster.read_window(scene, slice(None), slice(None), slice(None))
    np.testing.assert_array_equal(whole, np.stack([pixels(0), pixels(1)]))
    assert [tags[""]["day"] for tags in scene.tags] == ["a.tif", "b.tif"]
    assert sorted(os.listdir(tmp_path)) == ["in.tif", "out"]


def test_a_folder_is_replaced_only_if_asked_and_only_if_it_holds_rasters(tmp_path: Path) -> None:
    profile = raster.open_scene(source(tmp_path)).profile
    write_dates(tmp_path / "out", profile)
    with pytest.raises(OutputError, match="exists already"):
        write_dates(tmp_path / "out", profile)
    write_dates(tmp_path / "out", profile, ("c.tif",), overwrite=True)
    assert os.listdir(tmp_path / "out") == ["c.tif"]
    (tmp_path / "out" / "thesis.doc").write_text("years of work")
    with pytest.raises(OutputError, match=r"thesis\.doc"):
        write_dates(tmp_path / "out", profile, overwrite=True)
    assert (tmp_path / "out" / "thesis.doc").exists()


def test_an_interrupted_folder_leaves_nothing(tmp_path: Path) -> None:
    profile = raster.open_scene(source(tmp_path)).profile
    with pytest.raises(KeyboardInterrupt):
        write_dates(tmp_path / "out", profile, error=KeyboardInterrupt())
    assert os.listdir(tmp_path) == ["in.tif"]


@pytest.mark.parametrize("names", [("a.tif", "a.tif"), ("../a.tif", "b.tif")])
def test_file_names_that_clash_or_leave_the_folder_are_refused(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    profile = raster.open_scene(source(tmp_path)).profile
    with pytest.raises(InputError):
        write_dates(tmp_path / "out", profile, names)


def test_tags_that_rasterio_cannot_write_are_left_out_and_named(tmp_path: Path) -> None:
    """Their names are those of its own arguments; a file from elsewhere may have them."""
    data = write_tif(tmp_path / "in.tif", pixels(1, "uint16", (2, 20, 20)), NAMES[:2])
    profile = raster.open_scene(tmp_path / "in.tif").profile
    tags = {"": {"ns": "1", "bidx": "2", "kept": "3"}}
    with (
        pytest.warns(UserWarning, match="bidx, ns"),
        raster.create_geotiff(tmp_path / "out.tif", profile, tags) as writer,
    ):
        writer.write(data, 0, 0)
    with rasterio.open(tmp_path / "out.tif") as made:
        assert made.tags()["kept"] == "3"
        assert not {"ns", "bidx"} & made.tags().keys()
        assert np.array_equal(made.read(), data)
