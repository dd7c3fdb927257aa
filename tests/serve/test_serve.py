"""`eozip serve`: tiles, series and services equal what xarray and rasterio say, and bad requests are refused by name."""

from __future__ import annotations

import csv
import io
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen
from xml.etree import ElementTree

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from PIL import Image
from rasterio.warp import transform

from eozip.chunk import api
from eozip.cli import cli
from eozip.errors import FormatError, InputError
from eozip.raster import open_scene
from eozip.serve import Limits, create_app, open_layers
from eozip.serve.run import bind, start_app
from eozip.store import append_store
from eozip.threads import ArrayCache
from rasterfiles import UTM, write_tif
from storefiles import NAMES, make_store, opened, scene_pixels, write_dates

NODATA_PIXEL, PIXEL = (2, 3), (30, 20)


@dataclass
class Site:
    """A running server and what it shows."""

    address: str
    store: Path
    originals: list[Path]

    def get(self, path: str, **asked: Any) -> tuple[int, bytes, str]:
        """Status, body and media type of an address."""
        return fetch(f"{self.address}{path}", **asked)

    def json(self, path: str, **asked: Any) -> Any:
        status, body, _ = self.get(path, **asked)
        assert status == 200, body
        return json.loads(body)

    def picture(self, path: str, **asked: Any) -> np.ndarray:
        status, body, kind = self.get(path, **asked)
        assert status == 200, body
        assert kind == "image/png"
        return np.asarray(Image.open(io.BytesIO(body)).convert("RGBA"))


def fetch(
    address: str, data: bytes | None = None, headers: dict | None = None, **asked: Any
) -> tuple[int, bytes, str]:
    request = Request(f"{address}?{urlencode(asked)}" if asked else address, data, headers or {})
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), answer.headers.get_content_type()
    except HTTPError as error:
        return error.code, error.read(), error.headers.get_content_type()


def place(row: int, column: int) -> dict[str, float]:
    """Longitude and latitude of a pixel's centre."""
    x, y = UTM * (column + 0.5, row + 0.5)
    (lon,), (lat,) = transform("EPSG:32633", "EPSG:4326", [x], [y])
    return {"lon": lon, "lat": lat}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("serve")
    originals = write_dates(folder)
    make_store(originals, folder / "a.zarr", "tec-elic-small", quality=50)
    make_store(originals, folder / "b.zarr.zip", "lossless")
    write_tif(folder / "bare.tif", scene_pixels(0)[:3], crs=None, transform=None)
    make_store([folder / "bare.tif"], folder / "bare.zarr")
    names = [folder / name for name in ("a.zarr", "b.zarr.zip", "bare.zarr")]
    running = start_app(create_app(open_layers(names, [str(path) for path in originals])))
    yield Site(running.address, folder / "a.zarr", originals)
    running.stop()


def middle_tile(site: Site, number: int = 0) -> str:
    layer = site.json("/api/layers")["layers"][number]
    west, south, east, north = layer["bounds"]
    lon, lat, z = np.radians((west + east) / 2), np.radians((south + north) / 2), layer["zooms"][1]
    x = (lon / np.pi + 1) / 2 * 2**z
    y = (1 - np.arcsinh(np.tan(lat)) / np.pi) / 2 * 2**z
    return f"/layers/{number}/tiles/{z}/{int(x)}/{int(y)}.png"


def test_it_says_that_it_is_well(site: Site) -> None:
    assert site.json("/healthz") == {"status": "ok", "layers": 5}


def test_layers_say_what_they_are(site: Site) -> None:
    found = site.json("/api/layers")
    assert [layer["name"] for layer in found["layers"]] == ["a", "b", "bare", "a, original", "b, original"]
    assert found["originals"] == {"0": 3, "1": 4}
    assert found["layers"][0]["colour"] == ["B04", "B03", "B02"]
    assert found["layers"][2]["bounds"] is None
    assert [date[:10] for date in found["layers"][0]["dates"]] == ["2021-07-01", "2021-07-15", "2021-08-02"]


def test_a_tile_shows_pixels_and_leaves_the_rest_transparent(site: Site) -> None:
    z = site.json("/api/layers")["layers"][0]["zooms"][0]
    shown = site.picture(middle_tile(site))
    assert shown.shape == (256, 256, 4)
    assert (shown[..., 3] == 255).any()
    elsewhere = site.picture(f"/layers/0/tiles/{z}/0/0.png")
    assert not elsewhere[..., 3].any()


def test_a_tile_has_the_colours_of_the_pixels_under_it(site: Site) -> None:
    """Each screen pixel is held against the store's pixel under it."""
    path = middle_tile(site, 1)
    z, x, y = (int(part.removesuffix(".png")) for part in path.split("/")[-3:])
    shown = site.picture(path, bands="B04,B03,B02", low=0.1, high=0.3)
    dn = opened(site.store.parent / "b.zarr.zip").reflectance
    checked = 0
    for row, column in np.argwhere(shown[..., 3] == 255)[::97]:
        lon = ((x + (column + 0.5) / 256) / 2**z * 2 - 1) * 180
        lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (y + (row + 0.5) / 256) / 2**z))))
        (e,), (n,) = transform("EPSG:4326", "EPSG:32633", [lon], [lat])
        i, j = int((UTM.f - n) // 10), int((e - UTM.c) // 10)
        if not (12 < i < 49 and 12 < j < 40):
            continue
        value = dn.isel(time=0, y=i, x=j).sel(band=["B04", "B03", "B02"]).values / 10000
        expected = np.clip((value - 0.1) / 0.2, 0, 1) * 255
        assert np.abs(shown[row, column, :3] - expected).max() <= 2
        checked += 1
    assert checked > 20


def test_every_zoom_has_its_tile(site: Site) -> None:
    for z in (0, 3, 9, 24):
        assert site.picture(f"/layers/0/tiles/{z}/0/0.png").shape == (256, 256, 4)


def test_dates_differ(site: Site) -> None:
    path = middle_tile(site)
    first, second = (
        site.picture(path, date=date, low=0.1, high=0.3) for date in ("2021-07-01", "2021-07-15")
    )
    assert not np.array_equal(first, second)


def test_an_index_is_drawn_in_its_colours(site: Site) -> None:
    shown = site.picture(middle_tile(site), formula="ndvi")
    assert (shown[..., 3] == 255).any()


def test_the_error_of_an_exact_store_is_nothing_and_of_a_lossy_one_is_not(site: Site) -> None:
    exact = site.picture(middle_tile(site, 1), error=1, low=0, high=0.001)
    lossy = site.picture(middle_tile(site, 0), error=1, low=0, high=0.001)
    assert len(np.unique(exact[exact[..., 3] > 0], axis=0)) == 1
    assert len(np.unique(lossy[lossy[..., 3] > 0], axis=0)) > 10


@pytest.mark.parametrize("number", [0, 1])
def test_a_point_has_the_numbers_of_xarray(site: Site, number: int) -> None:
    dataset = opened(site.store.parent / ("a.zarr", "b.zarr.zip")[number])
    expected = dataset.reflectance[:, :, PIXEL[0], PIXEL[1]].values
    found = site.json(f"/layers/{number}/point.json", **place(*PIXEL))
    assert (found["row"], found["column"]) == PIXEL
    assert found["dn"] == expected.tolist()
    assert found["bands"] == dataset.band.values.tolist()
    assert np.allclose(found["reflectance"], expected / 10000, atol=1e-6)


def test_a_point_without_data_says_so(site: Site) -> None:
    found = site.json("/layers/0/point.json", **place(*NODATA_PIXEL), formula="ndvi")
    assert found["dn"][0] == [None] * 12
    assert found["values"] == [None] * 3


def test_a_formula_comes_with_its_bound(site: Site) -> None:
    found = site.json("/layers/0/point.json", **place(*PIXEL), formula="ndvi")
    bands = dict(zip(found["bands"], np.array(found["reflectance"]).T))
    expected = (bands["B08"] - bands["B04"]) / (bands["B08"] + bands["B04"])
    assert np.allclose(found["values"], expected, atol=1e-5)
    assert found["bound"]["kind"] == "typical"
    assert all(0 < value < 0.2 for value in found["value_bound"])


def test_an_exact_store_has_no_error(site: Site) -> None:
    found = site.json("/layers/1/point.json", **place(*PIXEL), formula="ndvi")
    assert found["bound"]["kind"] == "exact"
    assert found["value_bound"] == [0, 0, 0]


def test_a_promised_bound_holds_at_every_pixel(tmp_path: Path) -> None:
    paths = write_dates(tmp_path)
    from eozip.store import encode_files

    encode_files(paths, tmp_path / "bounded.zarr", max_error=40, chunk=16)
    layers = open_layers([tmp_path / "bounded.zarr"])
    running = start_app(create_app(layers))
    _, body, _ = fetch(f"{running.address}/layers/0/point.json", row=30, column=20, formula="ndvi")
    running.stop()
    found = json.loads(body)
    assert found["bound"]["kind"] == "largest"
    assert found["bound"]["reflectance"][0][0] == pytest.approx(0.004)
    original = np.stack([scene_pixels(seed)[:, 30, 20] for seed in (1, 0, 2)]) / 10000
    true = (original[:, 7] - original[:, 3]) / (original[:, 7] + original[:, 3])
    assert np.all(np.abs(np.array(found["values"]) - true) <= np.array(found["value_bound"]) * 1.1)


def test_a_point_as_csv_is_a_line_a_date(site: Site) -> None:
    _, body, kind = site.get("/layers/0/point.csv", row=30, column=20, formula="ndvi")
    rows = list(csv.DictReader(io.StringIO(body.decode())))
    assert kind == "text/csv"
    assert len(rows) == 3
    assert float(rows[0]["B08"]) > 0
    assert float(rows[0]["bound"]) > 0


def square() -> dict:
    corners = [place(*at) for at in ((20, 20), (20, 30), (40, 30), (40, 20), (20, 20))]
    return {"type": "Polygon", "coordinates": [[[c["lon"], c["lat"]] for c in corners]]}


def test_a_polygon_has_the_mean_of_xarray(site: Site) -> None:
    found = site.json("/layers/0/polygon.json", data=json.dumps(square()).encode())
    dataset = opened(site.store).reflectance
    inside = dataset[:, :, 20:41, 20:31].values / 10000
    assert 180 <= found["pixels"] <= 231
    assert np.allclose(np.array(found["mean"]), inside.mean(axis=(2, 3)), atol=3e-3)
    assert found["names"] == dataset.band.values.tolist()


def test_a_polygon_of_whole_pixels_counts_each_of_them(site: Site) -> None:
    corners = [(25, 15), (25, 19), (29, 19), (29, 15), (25, 15)]
    xy = [UTM * (column, row) for row, column in corners]
    lon, lat = transform("EPSG:32633", "EPSG:4326", [x for x, _ in xy], [y for _, y in xy])
    shape = {"type": "Polygon", "coordinates": [[list(pair) for pair in zip(lon, lat)]]}
    found = site.json("/layers/1/polygon.json", geometry=json.dumps(shape), formula="ndvi")
    dn = opened(site.store.parent / "b.zarr.zip").reflectance[:, :, 25:29, 15:19].values.astype(float)
    expected = ((dn[:, 7] - dn[:, 3]) / (dn[:, 7] + dn[:, 3])).mean(axis=(1, 2))
    assert found["pixels"] == 16
    assert np.allclose(np.array(found["mean"])[:, 0], expected, atol=2e-5)


def test_a_polygon_as_csv_is_a_line_a_date_and_name(site: Site) -> None:
    _, body, _ = site.get("/layers/0/polygon.csv", geometry=json.dumps(square()), formula="ndvi")
    rows = list(csv.DictReader(io.StringIO(body.decode())))
    assert [row["name"] for row in rows] == ["ndvi"] * 3


@pytest.mark.parametrize(
    "geometry",
    [
        "",
        "{",
        "[]",
        '{"type": "Point", "coordinates": [1, 2]}',
        '{"type": "Polygon", "coordinates": []}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}',
        '{"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [1, 0], [0, 0]]]}',
        '{"type": "Polygon", "coordinates": [[[999, 0], [1, 1], [1, 0], [0, 0]]]}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 0]]]}',
        '{"type": "Polygon", "coordinates": 7}',
        '{"type": "MultiPolygon", "coordinates": [7]}',
        "[" * 5000,
        "NaN",
        '{"type": "FeatureCollection", "features": 7}',
        '{"type": "FeatureCollection", "features": []}',
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": {"type": "Point"}}]}',
        '{"type": "FeatureCollection", "features": [{"type": "MultiPolygon", "coordinates": 7}]}',
    ],
)
def test_what_is_no_polygon_on_the_layer_is_refused(site: Site, geometry: str) -> None:
    status, body, _ = site.get("/layers/0/polygon.json", data=geometry.encode() or b" ")
    assert status == 400, body
    assert "geometry: expected" in json.loads(body)["error"]


def test_features_are_their_polygons(site: Site) -> None:
    plain = site.json("/layers/0/polygon.json", geometry=json.dumps(square()))
    feature = {"type": "Feature", "properties": {}, "geometry": square()}
    for same in (feature, {"type": "FeatureCollection", "features": [feature, feature]}):
        assert site.json("/layers/0/polygon.json", geometry=json.dumps(same)) == plain


@pytest.mark.parametrize("number", ["\u00b2", "\u0661", "9" * 5000])
def test_digits_that_count_nothing_are_refused(site: Site, number: str) -> None:
    for path, asked in (
        ("point.json", "row"),
        ("image.png", "date"),
        ("image.png", "side"),
        ("chunk.json", "column"),
    ):
        status, body, _ = site.get(f"/layers/0/{path}", **{"row": 1, "column": 1, asked: number})
        assert status == 400, body
    status, body, _ = site.get(
        "/wmts", request="GetTile", layer=number, tilematrix=1, tilecol=1, tilerow=number
    )
    assert status == 400, body


def test_a_polygon_that_is_too_large_is_refused(site: Site) -> None:
    status, _, _ = site.get("/layers/0/polygon.json", data=b" " * (2 << 20))
    assert status == 413


def test_a_chunk_says_its_bytes(site: Site) -> None:
    chunks = [site.json("/layers/0/chunk.json", row=row, column=2) for row in (0, 17, 33, 49)]
    assert [chunk["rows"] for chunk in chunks] == [[0, 16], [16, 32], [32, 48], [48, 50]]
    assert all(chunk["bytes"] > 0 for chunk in chunks[1:])
    assert site.json("/layers/0/chunk.json", row=2, column=2, date=3)["dates"] == [2, 3]


def test_a_histogram_counts_the_pixels(site: Site) -> None:
    found = site.json("/layers/1/histogram.json", bands="B04,B03,B02")
    assert found["names"] == ["B04", "B03", "B02"]
    assert 1700 < sum(found["counts"][0]) <= 50 * 41 - 10 * 10


def test_a_store_without_a_place_is_a_picture(site: Site) -> None:
    shown = site.picture("/layers/2/image.png")
    assert shown.shape == (50, 41, 4)
    assert not shown[5, 5, 3]
    status, body, _ = site.get("/layers/2/tiles/3/1/1.png")
    assert status == 400
    assert "image.png" in json.loads(body)["error"]


def test_a_thumbnail_is_small(site: Site) -> None:
    assert max(site.picture("/layers/0/thumbnail.png", date=2).shape[:2]) <= 96


def test_a_thumbnail_of_the_error_is_the_picture_of_it(site: Site) -> None:
    asked = {"error": 1, "low": 0, "high": 0.01}
    small = site.picture("/layers/0/thumbnail.png", **asked)
    assert np.array_equal(small, site.picture("/layers/0/image.png", side=96, **asked))


def test_tilejson_says_where_tiles_are(site: Site) -> None:
    found = site.json("/layers/0/tilejson.json", formula="ndvi")
    z, x, y = middle_tile(site).removesuffix(".png").split("/")[-3:]
    address = found["tiles"][0].replace("{z}", z).replace("{x}", x).replace("{y}", y)
    status, _, kind = fetch(address)
    assert (status, kind) == (200, "image/png")
    assert found["minzoom"] <= int(z) <= found["maxzoom"]


def test_wmts_is_read_by_gdal(site: Site) -> None:
    import rasterio

    with rasterio.open(f"WMTS:{site.address}/wmts/1.0.0/WMTSCapabilities.xml,layer=0-colour") as source:
        assert source.crs.to_epsg() == 3857
        window = rasterio.windows.from_bounds(*source.bounds, transform=source.transform)
        shown = source.read(window=window, out_shape=(source.count, 64, 64))
    assert shown[:3].any()


def test_wmts_names_every_view_and_date(site: Site) -> None:
    _, body, kind = site.get("/wmts", SERVICE="WMTS", REQUEST="GetCapabilities")
    text = body.decode()
    assert kind == "application/xml"
    ElementTree.fromstring(text)
    assert "1-ndvi" in text
    assert "2021-08-02" in text
    assert "2-colour" not in text  # it has no place on the map


def test_wmts_answers_by_keys_too(site: Site) -> None:
    z, x, y = middle_tile(site).removesuffix(".png").split("/")[-3:]
    asked = {"request": "GetTile", "LAYER": "0-ndvi", "TileMatrix": z, "TileCol": x, "TileRow": y}
    status, _, kind = site.get("/wmts", **asked)
    assert (status, kind) == (200, "image/png")


@pytest.mark.parametrize(
    "path",
    [
        "/layers/0/tiles/25/0/0.png",
        "/layers/0/tiles/3/8/0.png",
        "/layers/0/tiles/3/0/0.gif",
        "/layers/0/tiles/3/0/0.png?formula=__import__('os')",
        "/layers/0/tiles/3/0/0.png?formula=B99",
        "/layers/0/tiles/3/0/0.png?bands=B04,B03",
        "/layers/0/tiles/3/0/0.png?bands=B04,B03,B02&formula=ndvi",
        "/layers/0/tiles/3/0/0.png?date=1999",
        "/layers/0/tiles/3/0/0.png?date=0",
        "/layers/0/tiles/3/0/0.png?low=1&high=0",
        "/layers/0/tiles/3/0/0.png?low=nan&high=1",
        "/layers/2/image.png?error=1",
        "/layers/1/image.png?error=2",
        "/layers/0/image.png?formulla=ndvi",
        "/layers/0/thumbnail.png?band=B04",
        "/layers/0/tilejson.json?Bands=B04,B03,B02",
        "/layers/0/point.json?row=1&col=1&column=1",
        "/layers/0/chunk.json?row=1&column=1&x=1",
        "/layers/0/point.xml?row=1&column=1",
        "/layers/0/image.png?side=99999",
        "/layers/0/image.png?side=-1",
        "/layers/0/point.json",
        "/layers/0/point.json?lon=inf&lat=1",
        "/layers/0/point.json?lon=0&lat=0",
        "/layers/0/point.json?row=50&column=0",
        "/layers/0/point.json?row=1&column=1&formula=ndvi%2B",
        "/layers/3/chunk.json?row=1&column=1",
        "/wmts?request=GetTile&layer=../etc/passwd",
        "/wmts?request=DescribeLayer",
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_a_reason(site: Site, path: str) -> None:
    status, body, _ = fetch(
        f"{site.address}{path}" if "'" not in path else f"{site.address}{quote(path, '/?=')}"
    )
    assert status == 400, body
    assert "expected" in json.loads(body)["error"] or "no band" in json.loads(body)["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/layers/9/image.png",
        "/static/../app.py",
        "/static/..%2Fapp.py",
        "/static/%2e%2e/app.py",
        "/etc/passwd",
    ],
)
def test_nothing_lies_outside_what_was_given(site: Site, path: str) -> None:
    status, body, _ = site.get(path)
    assert status == 404, body


def test_only_those_who_call_it_by_its_own_name_are_answered(site: Site) -> None:
    status, body, _ = site.get("/api/layers", headers={"Host": "evil.example"})
    assert status == 421
    assert "localhost" in json.loads(body)["error"]


def test_appended_dates_are_shown_without_a_new_start(tmp_path: Path) -> None:
    paths = write_dates(tmp_path)
    make_store(paths[:1], tmp_path / "c.zarr")
    layers = open_layers([tmp_path / "c.zarr"])
    running = start_app(create_app(layers))
    append_store(tmp_path / "c.zarr", open_scene(paths[2:]))
    found = json.loads(fetch(f"{running.address}/api/layers")[1])
    series = json.loads(fetch(f"{running.address}/layers/0/point.json", row=30, column=20)[1])
    running.stop()
    assert len(found["layers"][0]["dates"]) == 2
    assert series["dn"][1] == scene_pixels(2)[:, 30, 20].tolist()


def test_a_port_in_use_is_named(site: Site) -> None:
    port = int(site.address.rsplit(":", 1)[1])
    with pytest.raises(InputError, match=rf"port {port} .* in use"):
        bind("127.0.0.1", port)


def test_a_port_in_use_is_named_by_the_command(site: Site) -> None:
    port = site.address.rsplit(":", 1)[1]
    done = CliRunner().invoke(cli, ["serve", str(site.store), "--port", port])
    assert done.exit_code == 1
    assert "in use" in done.output


@pytest.mark.parametrize("base", ["not a url", "example.org", "ftp://example.org", "http://"])
def test_a_base_that_is_no_address_is_refused(site: Site, base: str) -> None:
    done = CliRunner().invoke(cli, ["serve", str(site.store), "--port", "0", "--base", base])
    assert done.exit_code == 1
    assert "base: expected" in done.output


def test_a_host_of_another_machine_is_named() -> None:
    with pytest.raises(InputError, match="address of this machine"):
        bind("203.0.113.7", 0)


def test_it_listens_on_this_machine_alone(site: Site) -> None:
    assert site.address.startswith("http://127.0.0.1:")


def test_what_is_no_store_of_ours_is_refused(tmp_path: Path) -> None:
    xr.Dataset({"a": ("x", [1, 2])}).to_zarr(tmp_path / "other.zarr", zarr_format=3)
    with pytest.raises(FormatError, match="not written by eozip"):
        open_layers([tmp_path / "other.zarr"])
    with pytest.raises(FormatError, match="neither"):
        open_layers([tmp_path / "nothing.zarr"])


def test_originals_of_another_place_are_refused(site: Site, tmp_path: Path) -> None:
    moved = write_dates(tmp_path, transform=UTM * UTM.translation(5, 5))
    with pytest.raises(InputError, match="original: expected"):
        open_layers([site.store], [str(path) for path in moved])


def test_a_damaged_chunk_is_an_error_and_the_server_goes_on(tmp_path: Path) -> None:
    make_store(write_dates(tmp_path), tmp_path / "d.zarr")
    (shard,) = (tmp_path / "d.zarr" / "reflectance" / "c" / "0").rglob("0/0/0")
    data = bytearray(shard.read_bytes())
    data[100:200] = b"\0" * 100
    shard.write_bytes(data)
    layers = open_layers([tmp_path / "d.zarr"])
    running = start_app(create_app(layers))
    status, body, _ = fetch(f"{running.address}/layers/0/image.png", date=1)
    healthy = fetch(f"{running.address}/healthz")[0]
    told, document, _ = fetch(f"{running.address}/api/layers")
    running.stop()
    assert told == 200
    assert json.loads(document)["layers"][0]["cloud"][0] == {"percent": None, "source": "unreadable"}
    assert status == 500
    assert "d, shard c/0/0/0/0" in json.loads(body)["error"]
    assert healthy == 200


def test_more_requests_than_may_wait_are_turned_away() -> None:
    import anyio
    from starlette.exceptions import HTTPException

    from eozip.serve.app import _Desk

    async def crowd() -> None:
        desk = _Desk(Limits(at_once=1, waiting=0))
        desk._here = 1
        with pytest.raises(HTTPException, match="too many"):
            await desk.run(lambda: 1)

    anyio.run(crowd)


def test_the_cache_keeps_its_size_and_makes_each_array_once() -> None:
    cache, made = ArrayCache(1000), []
    for key in (1, 2, 3, 3, 1):
        cache.get(key, lambda key=key: made.append(key) or np.zeros(400, np.uint8))
    assert made == [1, 2, 3, 1]
    assert cache.bytes == 800


def test_a_zoomed_out_tile_reads_a_part_of_the_bytes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tif(tmp_path / "wide.tif", scene_pixels(0, (12, 128, 128)), NAMES)
    make_store([tmp_path / "wide.tif"], tmp_path / "wide.zarr", "tec-elic-small", quality=70, chunk=128)
    sizes = {}
    decode = api.decode
    monkeypatch.setattr(
        api, "decode", lambda data, reduce: sizes.update({reduce: len(data)}) or decode(data, reduce=reduce)
    )
    store = open_layers([tmp_path / "wide.zarr"]).stores[0]
    store.read(0, slice(0, 128), slice(0, 128), 8)
    store.read(0, slice(0, 128), slice(0, 128), 1)
    assert sizes[8] < 0.6 * sizes[1]


def test_a_missing_package_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("eozip.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    done = CliRunner().invoke(cli, ["serve", str(site.store)])
    assert done.exit_code == 1
    assert "pip install 'eozip[serve]'" in done.output


def test_a_port_of_zero_is_any(site: Site) -> None:
    with bind("127.0.0.1", 0) as found:
        assert isinstance(found, socket.socket)
        assert found.getsockname()[1] > 0
