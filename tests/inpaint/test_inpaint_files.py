"""Inpainting of files and stores, masks as people have them, and the two commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.transform import Affine

from eozip.cli import cli
from eozip.errors import InputError
from eozip.inpaint.files import inpaint_files
from eozip.inpaint.fill import inpaint
from eozip.raster.masks import enlarged, parse_mask, read_mask
from eozip.store.coding import Tally
from inpaintfiles import L2A, masks, season, write_allclear
from rasterfiles import UTM, write_tif
from storefiles import ENDINGS, coarse_codec, listed, make_store, opened

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
    """On the season's grid, or of whole multiples of its pixels."""
    folder.mkdir()
    pixel = 10 * SIZE[0] / planes.shape[1]
    place = Affine(pixel, 0, UTM.c, 0, -pixel, UTM.f)
    for date, plane in zip(DATES, planes):
        write_tif(folder / f"mask_{date}.tif", plane[None], ("mask",), nodata=None, transform=place)
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
            assert file.tags()["INPAINTED_BY"] == expected.methods[t] != ""
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


@pytest.fixture(params=["files", "store"])
def given(request, tmp_path):
    """Input and its pixels; what a lossy store holds is what was measured."""
    dn = write_season(tmp_path / "in")
    if request.param == "files":
        yield tmp_path / "in", dn
        return
    with coarse_codec() as coarse:
        make_store(tmp_path / "in", tmp_path / "s.zarr.zip", coarse, quality=40)
        lossy = opened(tmp_path / "s.zarr.zip").reflectance.values
        assert (lossy != dn).any()
        yield tmp_path / "s.zarr.zip", lossy


@pytest.mark.parametrize("ending", ENDINGS)
def test_store_out(tmp_path, given, ending):
    (source, dn), mask, out = given, masks(3), tmp_path / f"filled{ending}"
    where = write_masks(tmp_path / "masks", mask.astype(np.uint8))
    run("inpaint", source, out, "--mask", where, "--predictor", "weighted-filled")
    expected = inpaint(dn, mask, days=[0, 10, 30], nodata=0, predictor="weighted-filled")
    with opened(out) as found:
        assert np.array_equal(found.reflectance, expected.dn)
        assert np.array_equal(found.provenance, expected.provenance)
        assert found.reflectance.dtype == dn.dtype
        assert (found.sigma.dtype, found.sigma.attrs["units"]) == (np.uint16, "DN")
        rms = np.sqrt((expected.sigma.astype(float) ** 2).mean(axis=1))
        assert np.allclose(found.sigma, rms, atol=1.001)
        assert ((found.sigma > 0) == mask).all()
        seen = found.reflectance.where(found.provenance == 0)
        assert np.array_equal(seen.notnull().any("band"), ~mask)
        assert str(found.time.values[2])[:10] == "2022-01-31"
        assert list(found.band.values) == list(L2A)
    said = json.loads(run("info", out, "--json").stdout)["inpainted"]
    assert said["methods"] == ["weighted-filled"] * 3
    assert said["predicted"] == mask.sum()
    run("verify", out)
    assert set(listed(tmp_path)) == {"in", "masks", out.name, source.name}


def test_a_filled_store_decodes_to_marked_files_and_takes_no_blind_append(tmp_path):
    dn, mask = write_season(tmp_path / "in"), masks(3)
    where = write_masks(tmp_path / "masks", mask.astype(np.uint8))
    run("inpaint", tmp_path / "in", tmp_path / "f.zarr", "--mask", where, "--predictor", "mean-clear")
    run("decode", tmp_path / "f.zarr", tmp_path / "back")
    with rasterio.open(tmp_path / "back" / f"tile_{DATES[0]}.tif") as file:
        assert np.array_equal(file.read()[:, ~mask[0]], dn[0][:, ~mask[0]])
        assert file.tags()["INPAINTED_BY"] == "mean-clear"
    write_tif(tmp_path / "later_20220401.tif", dn[0], L2A)
    refused = run("append", tmp_path / "f.zarr", tmp_path / "later_20220401.tif", code=1)
    assert "provenance" in refused.output


def test_stores_that_cannot_be_written_are_named_and_nothing_is_left(tmp_path):
    write_season(tmp_path / "in")
    make_store(tmp_path / "in", tmp_path / "s.zarr")
    where = write_masks(tmp_path / "masks", masks(3).astype(np.uint8))
    before = (tmp_path / "s.zarr" / "zarr.json").read_bytes()
    for out in (tmp_path / "s.zarr", tmp_path / "s.zarr" / "in.zarr"):
        refused = run("inpaint", tmp_path / "s.zarr", out, "--mask", where, "--overwrite", code=1)
        assert "never overwritten" in refused.output
    there = run("inpaint", tmp_path / "in", tmp_path / "s.zarr", "--mask", where, code=1)
    assert "exists already" in there.output
    nowhere = run("inpaint", tmp_path / "in", tmp_path / "no" / "s.zarr", "--mask", where, code=1)
    assert "does not exist" in nowhere.output
    write_season(tmp_path / "odd", names=tuple(f"odd {k}" for k in range(12)))
    odd = run("inpaint", tmp_path / "odd", tmp_path / "o.zarr", "--mask", where, code=1)
    assert "name a folder" in odd.output
    assert (tmp_path / "s.zarr" / "zarr.json").read_bytes() == before
    assert listed(tmp_path) == ["in", "masks", "odd", "s.zarr"]


def test_an_existing_store_is_replaced_only_when_asked(tmp_path):
    write_season(tmp_path / "in")
    make_store(tmp_path / "in", tmp_path / "old.zarr")
    where = write_masks(tmp_path / "masks", masks(3).astype(np.uint8))
    options = ("--mask", where, "--predictor", "mean-clear", "--overwrite")
    run("inpaint", tmp_path / "in", tmp_path / "old.zarr", *options)
    with opened(tmp_path / "old.zarr") as found:
        assert (found.provenance.values.astype(bool) == masks(3)).all()
    assert listed(tmp_path) == ["in", "masks", "old.zarr"]


def test_progress_counts_windows_and_chunks(tmp_path):
    write_season(tmp_path / "in")
    where = str(write_masks(tmp_path / "masks", masks(3).astype(np.uint8)))
    seen = []
    inpaint_files(
        [tmp_path / "in"],
        where,
        tmp_path / "o.zarr",
        predictor="mean-clear",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]  # a window per date, a chunk


def test_a_store_that_does_not_come_back_leaves_nothing(tmp_path, monkeypatch):
    write_season(tmp_path / "in")
    where = write_masks(tmp_path / "masks", masks(3).astype(np.uint8))
    monkeypatch.setattr(Tally, "unequal", 3, raising=False)
    monkeypatch.setattr(Tally, "add", lambda self, *rest: setattr(self, "unequal", 3))
    options = ("--mask", where, "--predictor", "mean-clear")
    assert (
        "did not come back" in run("inpaint", tmp_path / "in", tmp_path / "o.zarr", *options, code=1).output
    )
    assert listed(tmp_path) == ["in", "masks"]


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


def test_classes_of_rasters_beside_the_input(tmp_path):
    scl = np.full((3, 24, 20), 4, np.uint8)  # at 20 m, as it is delivered
    scl[0, :2], scl[1, 3:5], scl[2, 6], scl[2, 8] = 8, 10, 3, 11
    where = write_masks(tmp_path / "scl", scl)
    mask = read_mask(parse_mask(f"scl:3,8,9,10@{where}"), (3, *SIZE))
    assert np.array_equal(mask, np.isin(scl, (3, 8, 9, 10)).repeat(2, 1).repeat(2, 2))
    dn = write_season(tmp_path / "in")
    options = ("--mask", f"scl:8@{where}", "--predictor", "nearest-clear", "--json")
    said = json.loads(run("inpaint", tmp_path / "in", tmp_path / "out.zarr", *options).stdout)
    assert said["predicted"] == 4 * SIZE[1]
    assert said["methods"] == ["nearest-clear", "", ""]
    assert np.array_equal(opened(tmp_path / "out.zarr").reflectance[1:], dn[1:])


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


def test_nan_in_a_mask_hides_nothing_unsaid(tmp_path):
    values = masks(3).astype(np.float32)
    values[:, 3] = np.nan
    of_numbers = np.nan_to_num(values) != 0
    for nodata in (None, np.nan, -1):
        write_tif(tmp_path / "m.tif", values, (None,) * 3, nodata=nodata)
        if nodata is np.nan:
            assert np.array_equal(read_mask(parse_mask(str(tmp_path / "m.tif")), (3, *SIZE)), of_numbers)
            continue
        with pytest.raises(InputError, match="got NaN; write 0"):
            read_mask(parse_mask(str(tmp_path / "m.tif")), (3, *SIZE))
    write_tif(tmp_path / "p.tif", 60 * values, (None,) * 3, nodata=None)
    with pytest.raises(InputError, match="own units"):
        read_mask(parse_mask(f"prob:0.4@{tmp_path / 'p.tif'}"), (3, *SIZE))


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
