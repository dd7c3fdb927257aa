"""Inpainting of files and stores, masks as people have them, and the two commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from eozip.cli import cli
from eozip.errors import InputError
from eozip.inpaint.fill import inpaint
from eozip.raster.masks import enlarged, parse_mask, read_mask
from inpaintfiles import L2A, masks, season, write_allclear
from rasterfiles import write_tif
from storefiles import listed, make_store

DATES = ("20220101", "20220111", "20220131")
SIZE = (48, 40)


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def write_season(folder, extra=None, names=L2A):
    """One GeoTIFF per date, `extra` [T, H, W] as one more band; returns the pixels."""
    folder.mkdir(exist_ok=True)
    dn = season(3)
    for t, date in enumerate(DATES):
        planes = dn[t] if extra is None else np.concatenate([dn[t], extra[t][None].astype(np.uint16)])
        write_tif(folder / f"tile_{date}.tif", planes, names, tags={"SEEN": date})
    return dn


def write_masks(folder, planes):
    folder.mkdir()
    for date, plane in zip(DATES, planes):
        write_tif(folder / f"mask_{date}.tif", plane[None], ("mask",), nodata=None)
    return folder


def test_files_in_files_out(tmp_path):
    dn, mask = write_season(tmp_path / "in"), masks(3)
    where = write_masks(tmp_path / "masks", mask.astype(np.uint8))
    said = json.loads(run("inpaint", tmp_path / "in", tmp_path / "out", "--mask", where, "--json").stdout)
    assert said["predictor"] == "regression"
    assert "lowest error" in said["reason"]
    assert said["predicted"] == mask.sum()
    expected = inpaint(dn, mask, days=[0, 10, 30], nodata=0)
    for t, date in enumerate(DATES):
        with (
            rasterio.open(tmp_path / "out" / f"tile_{date}.tif") as file,
            rasterio.open(tmp_path / "in" / f"tile_{date}.tif") as source,
        ):
            planes = file.read()
            assert np.array_equal(planes[:12], expected.dn[t])
            assert np.array_equal(planes[12], expected.provenance[t])
            assert ((planes[13] > 0) == mask[t]).all()
            assert file.descriptions == (*L2A, "PROVENANCE", "SIGMA")
            assert (file.crs, file.transform, file.nodata) == (source.crs, source.transform, source.nodata)
            assert file.tags()["INPAINTED_BY"] == "regression"
            assert file.tags()["SEEN"] == date


def test_store_in_files_out(tmp_path):
    dn, mask = write_season(tmp_path / "in"), masks(3)
    make_store(tmp_path / "in", tmp_path / "s.zarr")
    where = write_masks(tmp_path / "masks", mask.astype(np.uint8))
    run("inpaint", tmp_path / "s.zarr", tmp_path / "out", "--mask", where, "--predictor", "mean-clear")
    with rasterio.open(tmp_path / "out" / f"tile_{DATES[1]}.tif") as file:
        planes = file.read()
    assert np.array_equal(planes[:12, ~mask[1]], dn[1][:, ~mask[1]])
    assert ((planes[12] > 0) == mask[1]).all()
    assert "store holds no band" in run(
        "inpaint", tmp_path / "s.zarr", tmp_path / "o2", "--mask", "scl:3", code=1
    ).output  # fmt: skip


def test_classes_of_a_band_of_the_input(tmp_path):
    scl = np.full((3, *SIZE), 4)
    scl[0, :10], scl[1, 10:20], scl[2, 20:24] = 9, 3, 11
    dn = write_season(tmp_path / "in", scl, (*L2A, "SCL"))
    out = tmp_path / "out"
    shown = run("inpaint", tmp_path / "in", out, "--mask", "scl:3,8,9,10", "--predictor", "mean-clear").stdout
    assert "as asked for" in shown
    with rasterio.open(out / f"tile_{DATES[0]}.tif") as file:
        assert file.count == 14
        assert ((file.read(13) > 0) == (scl[0] == 9)).all()
    with rasterio.open(out / f"tile_{DATES[2]}.tif") as file:
        assert np.array_equal(file.read(range(1, 13)), dn[2])  # snow was not asked for


def test_probabilities_coarser_masks_and_dilation(tmp_path):
    chance = np.zeros((3, 24, 20), np.float32)
    chance[0, 4:6, 4:6], chance[0, 10, 10] = 0.8, 0.3
    where = write_masks(tmp_path / "p", chance)
    mask = read_mask(parse_mask(f"s2cloudless:0.4@{where}"), (3, *SIZE))
    assert mask[0].sum() == 16
    assert mask[0, 8:12, 8:12].all()
    assert not mask[1:].any()
    write_season(tmp_path / "in")
    options = ("--mask", f"prob:0.4@{where}", "--dilate", 2, "--predictor", "mean-clear", "--json")
    said = json.loads(run("inpaint", tmp_path / "in", tmp_path / "out", *options).stdout)
    assert said["predicted"] == 64


def test_one_raster_with_a_band_per_date(tmp_path):
    mask = masks(3)
    write_tif(tmp_path / "m.tif", mask.astype(np.uint8), (None,) * 3, nodata=None)
    assert np.array_equal(read_mask(parse_mask(str(tmp_path / "m.tif")), (3, *SIZE)), mask)


def test_masks_of_allclear(tmp_path):
    write_allclear(tmp_path, rois=1)
    found = read_mask(parse_mask(f"allclear@{tmp_path / 'roi100' / '2022_1' / 'cld_shdw'}"), (4, 260, 260))
    first, target = found[2], found[1]  # their names have no leading zeros: 13, 18, 3, 8
    assert first[:, :40].all()
    assert target[:20].all()
    assert not target[40:120].any()
    assert target[130, 130]


@pytest.mark.parametrize(
    ("text", "message"),
    [("scl:", "cloud shadow"), ("scl:12", "classes are"), ("prob:much@x", "number"), ("allclear", "PATH")],
)
def test_masks_not_understood(text, message):
    with pytest.raises(InputError, match=message):
        parse_mask(text)


def test_wrong_masks_are_named(tmp_path):
    where = write_masks(tmp_path / "m", np.zeros((3, 47, 40), np.uint8))
    with pytest.raises(InputError, match="wrong mask size"):
        read_mask(parse_mask(str(where)), (3, *SIZE))
    with pytest.raises(InputError, match="each of 4 dates, got 3"):
        read_mask(parse_mask(str(where)), (4, *SIZE))
    percent = write_masks(tmp_path / "p", np.full((3, *SIZE), 60, np.uint8))
    with pytest.raises(InputError, match="own units"):
        read_mask(parse_mask(f"prob:0.4@{percent}"), (3, *SIZE))
    with pytest.raises(InputError, match="wrong mask size"):
        enlarged(np.zeros((1, 24, 40), bool), SIZE, "mask")


def test_measured_data_are_never_overwritten(tmp_path):
    write_season(tmp_path / "in")
    where = write_masks(tmp_path / "masks", masks(3).astype(np.uint8))
    before = (tmp_path / "in" / f"tile_{DATES[0]}.tif").read_bytes()
    for out in (tmp_path / "in", tmp_path):
        assert "never overwritten" in run(
            "inpaint", tmp_path / "in", out, "--mask", where, "--overwrite", code=1
        ).output  # fmt: skip
    assert "folder" in run("inpaint", tmp_path / "in", tmp_path / "x.tif", "--mask", where, code=1).output
    (tmp_path / "there").mkdir()
    assert "exists already" in run(
        "inpaint", tmp_path / "in", tmp_path / "there", "--mask", where, code=1
    ).output  # fmt: skip
    assert (tmp_path / "in" / f"tile_{DATES[0]}.tif").read_bytes() == before


def test_nothing_is_left_after_an_error(tmp_path):
    write_season(tmp_path / "in")
    where = write_masks(tmp_path / "masks", np.ones((3, *SIZE), np.uint8))
    assert "all 3 dates" in run("inpaint", tmp_path / "in", tmp_path / "out", "--mask", where, code=1).output
    one = tmp_path / "in" / f"tile_{DATES[0]}.tif"
    single = where / f"mask_{DATES[0]}.tif"
    assert "single date" in run("inpaint", one, tmp_path / "out", "--mask", single, code=1).output
    assert listed(tmp_path) == ["in", "masks"]
