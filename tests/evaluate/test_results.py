"""Tables and files of results, recomputed by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from eozip.errors import InputError, OutputError
from eozip.raster import create_geotiffs, open_scene
from eozip_lab.evaluate import provenance, tables
from eozip_lab.evaluate.inputs import load_places, place_files
from eozip_lab.evaluate.metrics import Quality, measure, outermost
from eozip_lab.evaluate.sweep import Point
from eozip_lab.simulate import simulate

BANDS = ("B02", "B03", "B04", "B08")
BLANK = Quality(40.0, (40.0,) * 4, 1.0, 0.9, None, 1.0, 9, 0.01, 0.02, 0.0, 0.0)


def point(contender: str, place: str, rate: float, db: float, angle: float = 1.0) -> Point:
    quality = replace(BLANK, psnr=db, band_psnr=(db,) * 4, spectral_angle=angle)
    return Point(place, contender, db, round(1000 * rate), rate, quality, {10: db}, 0.1, 0.1)


def points() -> list[Point]:
    """Codec "a" needs half of what "b" needs; on "sea" both need a tenth; "b" does not reach 44 dB there."""
    made = [point("a", "land", 0.1 * 4 ** ((db - 40) / 6), db, 50 - db) for db in (34.0, 40.0, 46.0)]
    made += [point("b", "land", 0.2 * 4 ** ((db - 40) / 6), db) for db in (34.0, 40.0, 46.0)]
    made += [point("a", "sea", 0.01 * 4 ** ((db - 40) / 6), db) for db in (34.0, 40.0, 46.0)]
    return [*made, *(point("b", "sea", 0.02 * 4 ** ((db - 40) / 6), db) for db in (34.0, 42.0))]


def test_spans_notice_a_step_back():
    table = tables.span_table(points())
    assert (table["a"]["land"].low, table["a"]["land"].high, table["a"]["land"].monotone) == (34, 46, True)
    back = [*points(), point("a", "land", 0.5, 45.0)]
    assert not tables.span_table(back)["a"]["land"].monotone
    dearer = [point("a", "land", 0.2, 40.0), point("a", "land", 0.2, 41.0)]
    assert not tables.span_table(dearer)["a"]["land"].monotone


# --- borders ---


def test_outermost_pixels_of_chunks():
    found = outermost((8, 12), 4, 1)
    assert found.sum() == 6 * 12
    assert not found[1:3, 1:3].any()
    assert found[3:5].all()
    assert found[:, 4].all()
    with pytest.raises(InputError, match="whole chunks"):
        outermost((8, 10), 4, 1)


# --- files ---


def test_places_are_grouped_by_name_and_ordered_by_number(tmp_path):
    files = simulate(tmp_path / "sim", dates=2, size=24)
    scene_ = open_scene(files)
    names = ["hill_10.tif", "hill_9.tif"]
    pixels = np.arange(2, dtype=np.uint16)[:, None, None, None] + np.full((2, 12, 24, 24), 500, np.uint16)
    with create_geotiffs(tmp_path / "places", names, scene_.profile, [{}, {}], []) as writers:
        for writer, frame in zip(writers, pixels):
            writer.write(frame, 0, 0)
    assert [p.name for p in place_files(tmp_path / "places")["hill"]] == ["hill_9.tif", "hill_10.tif"]
    (place,) = load_places(tmp_path / "places", 16)
    assert place.dn.shape == (2, 12, 16, 16)
    assert place.dn[:, 0, 0, 0].tolist() == [501, 500]
    assert place.resolutions[:4] == (60, 10, 10, 10)
    with pytest.raises(InputError, match="32 x 32"):
        load_places(tmp_path / "places", 32)
    with pytest.raises(InputError, match="found none"):
        load_places(tmp_path)


def test_json_has_no_infinities_and_few_digits():
    dn = np.full((1, 4, 12, 12), 500, np.int16)
    value = {"quality": measure(dn, dn, BANDS), "x": 1 / 3, 10: (math.nan, True)}
    found = json.loads(provenance.as_json(value), parse_constant=pytest.fail)
    assert found["quality"]["psnr"] is None
    assert found["x"] == 0.333333
    assert found["10"] == [None, True]


def test_provenance_says_where_numbers_come_from():
    found = json.loads(provenance.as_json(provenance.provenance()))
    assert found["command"].startswith("python ")
    assert found["versions"]["numpy"] == np.__version__
    assert found["machine"]["cores"] >= 1


def test_results_are_written_whole_or_not_at_all(tmp_path):
    provenance.write_text(tmp_path / "a" / "x.json", "{}")
    assert (tmp_path / "a" / "x.json").read_text() == "{}"
    with pytest.raises(OutputError, match="cannot be written"):
        provenance.write_text(tmp_path / "a", "{}")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
