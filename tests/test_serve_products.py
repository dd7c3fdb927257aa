"""Stores of products in `eozip serve`: bands on their own grids at every reduction, offsets by date."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eozip.serve import open_layers
from eozip.serve.pictures import parse_view, whole_values
from eozip.serve.series import point_series
from eozip.store import describe, verify_store
from eozip.store.convert import encode_product
from eozip.store.options import StoreOptions
from productstores import a_product, store_product
from storefiles import opened


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("products")
    store_product(a_product(folder / "in", offsets=(0, 1000)), folder / "p.zarr", quality=70)
    return folder / "p.zarr"


def test_a_window_is_that_of_xarray(store: Path) -> None:
    layer = open_layers([store]).stores[0]
    _, _, height, width = layer.facts.shape
    expected = opened(store).reflectance[1].values
    assert np.array_equal(layer.read(1, slice(0, height), slice(0, width)), expected)


@pytest.mark.parametrize("reduce", [2, 4, 8])
def test_reduced_pictures_lie_where_the_whole_ones_do(store: Path, reduce: int) -> None:
    layer = open_layers([store]).stores[0]
    _, bands, height, width = layer.facts.shape
    whole = opened(store).reflectance[0].values.astype(float)
    small = layer.read(0, slice(0, height), slice(0, width), reduce).astype(float)
    assert small.shape == (bands, -(-height // reduce), -(-width // reduce))
    inside = whole[:, height // 4 : height // 4 * 3, width // 4 : width // 4 * 3].mean(axis=(1, 2))
    middle = small[
        :, small.shape[1] // 4 : small.shape[1] // 4 * 3, small.shape[2] // 4 : small.shape[2] // 4 * 3
    ]
    assert np.allclose(middle.mean(axis=(1, 2)), inside, rtol=0.03)


def test_offsets_of_a_date_are_taken_off(store: Path) -> None:
    found, layer = describe(store), open_layers([store]).stores[0]
    series = point_series(layer, 50, 40)
    dn = opened(store).reflectance[:, :, 50, 40].values.astype(float)
    assert np.allclose(series["reflectance"], (dn - np.array(found.offsets)) * 1e-4, atol=1e-6)


def test_an_index_of_bands_on_two_grids_is_drawn(store: Path) -> None:
    layer = open_layers([store]).stores[0]
    values, _ = whole_values(layer, 0, parse_view(layer.facts, None, "nbr"), 64)
    assert np.isfinite(values).any()


def test_purposes_hold_on_native_grids(tmp_path: Path) -> None:
    product = a_product(tmp_path / "in", offsets=(0, 1000))
    summary = encode_product(
        product, tmp_path / "s.zarr", StoreOptions(chunk=48, purposes=["ndvi<0.02", "psnr>=44"])
    )
    report = verify_store(tmp_path / "s.zarr", against=product)
    assert report.failures == []
    assert report.purposes == pytest.approx(summary.purposes)
    assert summary.purposes["psnr>=44"] >= 44
