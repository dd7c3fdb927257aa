"""Stores of products on native grids: pixels, promises, figures, what lies beside."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
import zarr

from eozip.errors import FormatError, InputError
from eozip.store import EozipChunkCodec, append_store, decode_store, describe, verify_store
from eozip.store.grid import cells_of
from eozip.store.pixels import read_pixels
from productstores import BANDS, DATES, SCL, SIZE, a_product, classes, pixels, store_product

ENDINGS = (".zarr", ".zarr.zip")
NAMES = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


def cells(store, date: int) -> dict[int, np.ndarray]:
    """Samples [c, h, w] of a date by resolution, out of the store's pixels."""
    found = describe(store)
    height, width = found.grid.shape[2:]
    dn = read_pixels(found, slice(date, date + 1), slice(0, height), slice(0, width))
    return {size: part[0] for size, part in cells_of(dn, found.codec.grids).items()}


@pytest.mark.parametrize("ending", ENDINGS)
def test_native_samples_come_back_exactly(tmp_path, ending):
    store = tmp_path / f"s{ending}"
    summary = store_product(a_product(tmp_path / "in"), store, "lossless")
    for date in range(2):
        for resolution, got in cells(store, date).items():
            np.testing.assert_array_equal(got, pixels(resolution, date))
    assert summary.psnr is None
    assert verify_store(store).failures == []


def test_figures_count_native_samples(tmp_path):
    product = a_product(tmp_path / "in")
    summary = store_product(product, tmp_path / "s.zarr", target_psnr=40)
    measured = 2 * sum(pixels(r, 0).size for r in BANDS)
    assert summary.samples == measured
    assert summary.raw_bytes == 2 * measured
    for_bands = summary.bytes - summary.beside_bytes
    assert summary.bpppb == pytest.approx(8 * for_bands / measured)
    assert summary.files_ratio == pytest.approx(1_000_000 / for_bands)
    assert summary.grids == ["r10m", "r20m", "r60m"]
    errors = [
        np.square(pixels(r, date).astype(float) - cells(tmp_path / "s.zarr", date)[r])[pixels(r, date) != 0]
        for date in range(2)
        for r in BANDS
    ]
    psnr = 10 * np.log10(1e8 / np.concatenate(errors).mean())
    assert summary.psnr == pytest.approx(psnr, abs=0.01)
    assert summary.psnr >= 40


def test_plain_zarr_reads_the_joint_cube(tmp_path):
    store_product(a_product(tmp_path / "in"), tmp_path / "s.zarr", "lossless")
    cube = xr.open_zarr(tmp_path / "s.zarr").reflectance
    assert tuple(cube.band.values) == NAMES
    assert cube.shape == (2, 12, *SIZE)
    np.testing.assert_array_equal(cube.sel(band="B11")[1, ::2, ::2], pixels(20, 1)[4])
    np.testing.assert_array_equal(cube.sel(band="B01")[0, ::6, ::6], pixels(60, 0)[0])
    np.testing.assert_array_equal(cube.sel(band="B01")[0, 5::6, 5::6], pixels(60, 0)[0])


def test_classes_beside_are_ordinary_arrays(tmp_path):
    store_product(a_product(tmp_path / "in"), tmp_path / "s.zarr", quality=40)
    scl = zarr.open_group(tmp_path / "s.zarr", mode="r")["r20m/scl"]
    np.testing.assert_array_equal(scl[:], [classes(0), classes(1)])
    assert scl.attrs["flag_values"] == SCL["flag_values"]
    tree = xr.open_datatree(tmp_path / "s.zarr", engine="zarr")
    assert tree["r20m/scl"].dims == ("time", "y_r20m", "x_r20m")


def test_dates_of_other_offsets_share_a_store(tmp_path):
    product = a_product(tmp_path / "in", offsets=(0, 1000))
    summary = store_product(product, tmp_path / "s.zarr", target_psnr=42)
    assert min(summary.date_psnr) > 41.9
    found = describe(tmp_path / "s.zarr")
    assert [set(of_date) for of_date in found.offsets] == [{0.0}, {1000.0}]
    opened = xr.open_zarr(tmp_path / "s.zarr")
    assert opened.radiometric_offset.dims == ("time", "band")
    assert opened.radiometric_offset.values[1].tolist() == [1000] * 12
    assert verify_store(tmp_path / "s.zarr", against=product).failures == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_appended_dates_are_as_those_of_one_run(tmp_path, ending):
    first = a_product(tmp_path / "a", DATES[:1])
    second = a_product(tmp_path / "b", DATES[1:])
    store = tmp_path / f"s{ending}"
    store_product(first, store, "lossless")
    done = append_store(store, second)
    assert done.shape[0] == 2
    assert done.beside_bytes > 0
    np.testing.assert_array_equal(cells(store, 1)[60], pixels(60, 0))
    path = f"zip::{store}" if ending.endswith("zip") else store
    np.testing.assert_array_equal(xr.open_zarr(path, group="r20m").scl[1], classes(0))
    assert verify_store(store).failures == []
    assert [one["product"] for one in describe(store).product.acquisitions] == ["product 0"] * 2


def test_appending_an_offset_or_a_layer_that_is_new(tmp_path):
    store = tmp_path / "s.zarr"
    store_product(a_product(tmp_path / "a", DATES[:1], has_scl=False), store, quality=50)
    append_store(store, a_product(tmp_path / "b", DATES[1:], offsets=(1000,)))
    opened = xr.open_zarr(store)
    assert opened.radiometric_offset.values[:, 0].tolist() == [0, 1000]
    assert "radiometric_offset" not in opened.reflectance.attrs
    scl = xr.open_zarr(store, group="r20m").scl
    np.testing.assert_array_equal(scl, [np.zeros_like(classes(0)), classes(0)])
    assert verify_store(store).failures == []


def test_verify_finds_another_source(tmp_path):
    store = tmp_path / "s.zarr"
    store_product(a_product(tmp_path / "a"), store, "lossless")
    other = a_product(tmp_path / "b", offsets=(3, 3))
    report = verify_store(store, against=other)
    assert not report.ok


def test_a_joint_geotiff_comes_back(tmp_path):
    store = tmp_path / "s.zarr"
    store_product(a_product(tmp_path / "a"), store, "lossless")
    done = decode_store(store, tmp_path / "back")
    assert done.shape == (2, 12, *SIZE)


GRIDS = [{"resolution": 10, "bands": [0, 1]}, {"resolution": 20, "bands": [2]}]


def test_zarr_alone_writes_and_reads_native_grids(tmp_path):
    codec = EozipChunkCodec.from_dict(
        {"name": "eozip.chunk", "configuration": {"codec": "lossless", "grids": GRIDS, "nodata": 0}}
    )
    shape = (1, 3, 40, 52)
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=shape,
        chunks=(1, 3, 24, 24),
        dtype="uint16",
        serializer=codec,
        compressors=None,
    )
    cube = np.random.default_rng(0).integers(1, 4000, shape, np.uint16)
    with pytest.raises(InputError, match="repeated"):
        array[...] = cube
    cube[:, 2] = cube[:, 2, ::2, ::2].repeat(2, -2).repeat(2, -1)
    array[...] = cube
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr", mode="r")[...], cube)


@pytest.mark.parametrize(
    "grids",
    [
        [],
        "10",
        [{"resolution": 10}],
        [{"resolution": 10, "bands": [0, 0]}],
        [{"resolution": 10, "bands": [0]}, {"resolution": 15, "bands": [1]}],
        [{"resolution": 20, "bands": [0]}, {"resolution": 10, "bands": [1]}],
        [{"resolution": True, "bands": [0]}],
        [{"resolution": 10, "bands": [[0]]}],
        [{"resolution": 1 << 40, "bands": [0]}],
        [{"resolution": 10, "bands": list(range(65))}],
    ],
)
def test_grids_that_are_none_are_refused(grids):
    with pytest.raises(FormatError, match="grids"):
        EozipChunkCodec.from_dict(
            {"name": "eozip.chunk", "configuration": {"codec": "lossless", "grids": grids}}
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("offsets", [[0]]),
        ("names", []),
        ("labels", ["a"]),
        ("layers", [{"path": "../x", "kind": "classes", "factor": 2}]),
    ],
)
def test_a_damaged_record_of_a_product_is_refused_by_name(tmp_path, field, value):
    store = tmp_path / "s.zarr"
    store_product(a_product(tmp_path / "in", DATES[:1]), store, quality=30)
    for path in (store / "eozip/zarr.json", store / "zarr.json"):
        document = json.loads(path.read_text())
        held = document.get("consolidated_metadata", {}).get("metadata", {}).get("eozip", document)
        if "product" in held["attributes"]:
            held["attributes"]["product"][field] = value
        path.write_text(json.dumps(document))
    with pytest.raises(FormatError, match=r"product|layers"):
        describe(store)


def test_grids_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    product = a_product(tmp_path / "in", DATES[:1])
    other = a_product(tmp_path / "other", DATES[:1], size=(96, 84))
    from dataclasses import replace

    mixed = replace(product, scenes=(product.scenes[0], other.scenes[1]))
    with pytest.raises(InputError, match="does not fit"):
        store_product(mixed, tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_chunks_that_would_cut_cells_are_refused(tmp_path):
    with pytest.raises(InputError, match="multiple of 6"):
        store_product(a_product(tmp_path / "in", DATES[:1]), tmp_path / "s.zarr", chunk=32)
