"""Sensors: the statistics are the published ones, and usual spellings of band names are recognised."""

from __future__ import annotations

from pathlib import Path

import pytest

from eozip import sensors
from eozip.errors import InputError

L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
L1C = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
STAC = ["coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir"]
STAC += ["nir08", "nir09", "swir16", "swir22"]
MEAN = {
    "s2-l2a": "793.243 924.863 1184.553 1340.936 1671.402 2240.082 "
    "2468.412 2563.243 2627.704 2711.071 2416.714 1849.625",
    "s2-l1c": "1607.345 1393.068 1320.225 1373.963 1562.536 2110.071 "
    "2392.832 2321.154 2583.77 838.712 21.753 2205.112 1545.798",
}
STD = {
    "s2-l2a": "1160.144 1201.092 1219.943 1397.225 1400.035 1373.136 "
    "1429.17 1485.025 1447.836 1652.703 1471.002 1365.307",
    "s2-l1c": "786.523 849.702 875.318 1143.578 1126.248 1161.98 "
    "1273.505 1246.79 1342.755 576.795 45.626 1340.347 1145.036",
}
SPELLINGS = {
    "canonical": L2A,
    "lower case, no zeros": [n.lower().replace("b0", "b") for n in L2A],
    "words": [f"Band {n[1:].lstrip('0')}" for n in L2A],
    "B08A": [n.replace("B8A", "B08A") for n in L2A],
    "STAC common names": STAC,
    "GDAL SENTINEL2 driver": [f"B{n[1:].lstrip('0')}, central wavelength 490 nm" for n in L2A],
    "file names": [f"T32TQM_20250415T101559_{n}_10m" for n in L2A],
    "code and name": [f"{n} ({common})" for n, common in zip(L2A, STAC)],
}


def test_names_lists_every_product() -> None:
    assert sensors.names() == tuple(
        sorted(path.stem for path in Path(sensors.__file__).parent.glob("*.toml"))
    )
    assert {"hls", "landsat-c2-l2", "s2-l1c", "s2-l2a"} <= set(sensors.names())


@pytest.mark.parametrize(("sensor_id", "bands"), [("s2-l2a", L2A), ("s2-l1c", L1C)])
def test_bands_and_statistics_have_the_published_order(sensor_id: str, bands: tuple[str, ...]) -> None:
    sensor = sensors.get(sensor_id)
    assert sensor.band_names == bands
    assert len(sensor.mean) == len(sensor.std) == len(bands)
    assert sensors.by_count(len(bands)) is sensor
    assert sensor.offset == 0
    assert sensor.nodata == 0


@pytest.mark.parametrize("sensor_id", ["s2-l2a", "s2-l1c"])
def test_statistics_are_the_published_ones(sensor_id: str) -> None:
    sensor = sensors.get(sensor_id)
    assert " ".join(map(str, sensor.mean)) == MEAN[sensor_id]
    assert " ".join(map(str, sensor.std)) == STD[sensor_id]


def test_native_resolution_and_wavelength() -> None:
    bands = {band.name: band for band in sensors.get("s2-l1c").bands}
    groups = {m: [n for n in L1C if bands[n].native_resolution_m == m] for m in (10, 20, 60)}
    assert groups == {
        10: ["B02", "B03", "B04", "B08"],
        20: ["B05", "B06", "B07", "B8A", "B11", "B12"],
        60: ["B01", "B09", "B10"],
    }
    wavelengths = [bands[n].wavelength_nm for n in L1C]
    assert wavelengths == sorted(wavelengths)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_usual_spellings_are_recognised(spelling: str) -> None:
    sensor, order = sensors.match_bands(SPELLINGS[spelling])
    assert sensor.id == "s2-l2a"
    assert order == tuple(range(12))


WAVELENGTHS = [443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1610, 2190]
BY_WAVELENGTH = {
    "nanometres": [f"{nm} nm" for nm in WAVELENGTHS],
    "bare": [str(nm) for nm in WAVELENGTHS],
    "micrometres": [f"{nm / 1000:g} um" for nm in WAVELENGTHS],
    "bare micrometres": [f"{nm / 1000:.4f}" for nm in WAVELENGTHS],
    "words": [f"wavelength_{nm}.0 nanometers" for nm in WAVELENGTHS],
    "counted": [f"Band {i} ({nm}nm)" for i, nm in enumerate(WAVELENGTHS, start=1)],
    "of Sentinel-2B": [
        *(
            "442.2",
            "492.1",
            "559.0",
            "664.9",
            "703.8",
            "739.1",
            "779.7",
            "832.9",
            "864.0",
            "943.2",
            "1610.4",
            "2185.7",
        )
    ],
}


@pytest.mark.parametrize("spelling", BY_WAVELENGTH)
def test_wavelengths_are_names_of_bands_in_any_order(spelling: str) -> None:
    names = BY_WAVELENGTH[spelling]
    assert sensors.match_bands(names) == (sensors.get("s2-l2a"), tuple(range(12)))
    order = [3, 0, 11, 5, 4, 10, 1, 2, 9, 8, 7, 6]
    shuffled = [names[i] for i in order]
    for sensor in (None, sensors.get("s2-l2a")):
        found = sensors.match_bands(shuffled, sensor)[1]
        assert [shuffled[i] for i in found] == names


def test_wavelengths_of_other_bands_are_no_sensors() -> None:
    with pytest.raises(InputError, match=r"got 12 bands|no known band"):
        sensors.match_bands([str(400 + 10 * i) for i in range(12)])
    landsat = sensors.get("landsat-c2-l2")
    nm = [f"{band.wavelength_nm} nm" for band in landsat.bands]
    assert sensors.match_bands(nm[::-1], landsat)[1] == tuple(range(len(nm)))[::-1]


def test_order_maps_the_file_onto_the_sensor() -> None:
    shuffled = [L1C[i] for i in (4, 0, 12, 3, 2, 1, 11, 10, 9, 8, 7, 6, 5)]
    sensor, order = sensors.match_bands(shuffled)
    assert sensor.id == "s2-l1c"
    assert tuple(shuffled[i] for i in order) == L1C


@pytest.mark.parametrize(
    ("descriptions", "message"),
    [
        (L2A[:11], "got 11 bands"),
        (("B04", "B03", "B02"), "got 3 bands"),
        ((None,) * 12, "band 1 has no description"),
        ((*L2A[:11], ""), "band 12 has no description"),
        ((*L2A[:11], "SCL"), "band 12 is called 'SCL'"),
        ((*L2A[:11], "B99"), "band 12 is called 'B99'"),
        ((*L2A[:11], "B1 minus B2"), "band 12 is called 'B1 minus B2'"),
        ((*L2A[:11], "Band 1"), "B01 occurs more than once"),
        ((), "got 0 bands"),
    ],
)
def test_other_sets_are_refused_with_what_is_supported(descriptions, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        sensors.match_bands(descriptions)
    for part in ("s2-l2a", "s2-l1c", "12 bands", "13 bands", "--bands"):
        assert part in str(caught.value)


def test_unknown_sensor_and_count_list_the_known_ones() -> None:
    with pytest.raises(InputError, match=", ".join(sensors.names())):
        sensors.get("landsat")
    with pytest.raises(InputError, match="got 7 bands"):
        sensors.by_count(7)
