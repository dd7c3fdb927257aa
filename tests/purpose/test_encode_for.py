"""`eozip encode --for`: every chunk serves the purpose, at the lowest quality that does; verify measures it again."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import eozip
from eozip.chunk.candidates import Report
from eozip.chunk.encoding import EncodedChunk
from eozip.cli import cli
from eozip.errors import FormatError, InputError
from eozip.purpose import Pixels, parse_purpose, parse_purposes, sensitivity
from eozip.raster import open_scene
from eozip.store import append_store, describe, verify_store
from eozip.store.codec import EozipChunkCodec
from eozip.store.holding import Holding, _Trial, recorded
from eozip.store.holding import _lowest_quality as lowest_quality
from pyramidscenes import texture
from rasterfiles import write_tif
from storefiles import NAMES, Coarse, change_record, coarse_codec, listed, opened, scene_pixels, write_dates


@pytest.fixture(scope="module", autouse=True)
def _coarse():
    with coarse_codec():
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_dates(tmp_path_factory.mktemp("for"))


def encode(inputs: list[Path], out: Path, *purposes: str, **more):
    settings = {"chunk": 32, "gop": 2, "codec": Coarse.id, **more}
    return eozip.encode_store([str(path) for path in inputs], out, purposes=purposes, **settings)


def chunk_values(inputs: list[Path], store: Path, text: str) -> list[float]:
    """The purpose's value in every chunk, measured by hand from what xarray reads."""
    dn = opened(store).reflectance.values
    original = np.stack([scene_pixels(seed) for seed in (1, 0, 2)])
    purpose, pixels = parse_purpose(text), Pixels(NAMES, 0, 1e-4, 0)
    return [
        purpose.measure(
            original[t : t + 2, :, y : y + 32, x : x + 32], dn[t : t + 2, :, y : y + 32, x : x + 32], pixels
        )
        for t in range(0, 3, 2)
        for y in range(0, 50, 32)
        for x in range(0, 41, 32)
    ]


@pytest.mark.parametrize(
    "text", ["ndvi<0.01", "mean(nir-red)<0.001", "psnr>=50", "angle<0.5", "max-error<=20", "max(ndwi)<0.05"]
)
def test_every_chunk_serves_the_purpose(inputs: list[Path], tmp_path: Path, text: str) -> None:
    summary = encode(inputs, tmp_path / "a.zarr", text)
    purpose = parse_purpose(text)
    values = chunk_values(inputs, tmp_path / "a.zarr", text)
    assert all(purpose.is_served(value) for value in values)
    worst = min(values) if purpose.is_rising else max(values)
    assert summary.purposes[purpose.text] == pytest.approx(worst, rel=1e-5)
    assert verify_store(tmp_path / "a.zarr", against=open_scene(inputs)).ok


def test_no_more_is_spent_than_the_purpose_needs(inputs: list[Path], tmp_path: Path) -> None:
    loose = encode(inputs, tmp_path / "a.zarr", "ndvi<0.03")
    tight = encode(inputs, tmp_path / "b.zarr", "ndvi<0.003")
    assert loose.bytes < tight.bytes
    assert loose.quality[1] < tight.quality[1]


def test_several_purposes_hold_together(inputs: list[Path], tmp_path: Path) -> None:
    encode(inputs, tmp_path / "a.zarr", "ndvi<0.02", "psnr>=45", "max-error<=60")
    for text in ("ndvi<0.02", "psnr>=45", "max-error<=60"):
        assert all(parse_purpose(text).is_served(v) for v in chunk_values(inputs, tmp_path / "a.zarr", text))


def test_what_no_quality_serves_is_coded_exactly(inputs: list[Path], tmp_path: Path) -> None:
    encode(inputs, tmp_path / "a.zarr", "max(ndvi)<=0")
    assert np.array_equal(opened(tmp_path / "a.zarr").reflectance[0].values, scene_pixels(1))


def test_the_purpose_is_recorded_and_measured_again(inputs: list[Path], tmp_path: Path) -> None:
    encode(inputs, tmp_path / "a.zarr", "ndvi<0.01")
    recorded = describe(tmp_path / "a.zarr").facts["purposes"]
    report = verify_store(tmp_path / "a.zarr", against=open_scene(inputs))
    assert recorded["held"][0]["for"] == "ndvi<0.01"
    assert recorded["held"][0]["worst"] == pytest.approx(report.purposes["ndvi<0.01"])


def test_verify_finds_a_store_that_does_not_serve(inputs: list[Path], tmp_path: Path) -> None:
    encode(inputs, tmp_path / "a.zarr", "ndvi<0.03")
    change_record(
        tmp_path / "a.zarr", lambda a: a["eozip"]["purposes"]["held"][0].update({"for": "ndvi<0.0001"})
    )
    report = verify_store(tmp_path / "a.zarr", against=open_scene(inputs))
    assert any("ndvi<0.0001: expected" in failure for failure in report.failures)


@pytest.mark.parametrize(
    "change",
    [
        {"held": [{"for": "nonsense", "worst": 1}]},
        {"held": None},
        {"held": [{"for": "agreement>=99%", "worst": 1}]},
        {"bands": ["B01"]},
        {"scale": "x"},
        {"classes": {"values": [1], "weights": []}},
    ],
)
def test_a_record_of_nonsense_is_refused_by_name(inputs: list[Path], tmp_path: Path, change: dict) -> None:
    encode(inputs, tmp_path / "a.zarr", "ndvi<0.03")
    change_record(tmp_path / "a.zarr", lambda a: a["eozip"]["purposes"].update(change))
    with pytest.raises(FormatError, match="purposes"):
        verify_store(tmp_path / "a.zarr", against=open_scene(inputs))


def test_appended_dates_serve_the_purpose_too(inputs: list[Path], tmp_path: Path) -> None:
    order = [inputs[1], inputs[0], inputs[2]]
    encode(order[:2], tmp_path / "a.zarr", "ndvi<0.01")
    append_store(tmp_path / "a.zarr", open_scene(order[2:]))
    values = chunk_values(inputs, tmp_path / "a.zarr", "ndvi<0.01")
    assert max(values) < 0.01
    recorded = describe(tmp_path / "a.zarr").facts["purposes"]["held"][0]["worst"]
    assert recorded == pytest.approx(max(values), rel=1e-5)


def test_a_store_fits_the_room_it_is_given(inputs: list[Path], tmp_path: Path) -> None:
    small = encode(inputs, tmp_path / "a.zarr.zip", "size<20kB")
    large = encode(inputs, tmp_path / "b.zarr", "size<30kB")
    assert (tmp_path / "a.zarr.zip").stat().st_size < 20_000
    assert 18_000 < small.bytes < 20_000 < 27_000 < large.bytes < 30_000
    assert large.psnr > small.psnr
    assert verify_store(tmp_path / "b.zarr").purposes["size<30kB"] == large.bytes
    assert listed(tmp_path) == ["a.zarr.zip", "b.zarr"]


def test_a_ratio_is_that_of_the_whole_store(inputs: list[Path], tmp_path: Path) -> None:
    summary = encode(inputs, tmp_path / "a.zarr", "ratio>=2")
    assert summary.raw_bytes / summary.bytes >= 2


def test_a_size_that_no_quality_reaches_says_what_is_reached(inputs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"size<1kB: expected .* 999 bytes, got [\d,]+ at quality 0, with a PSNR of"
    ):
        encode(inputs, tmp_path / "a.zarr", "size<1kB")
    assert listed(tmp_path) == []


def test_purposes_that_exclude_each_other_say_the_price(inputs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="with what else was asked for"):
        encode(inputs, tmp_path / "a.zarr", "max-error<=1", "size<20kB")
    assert listed(tmp_path) == []


def test_a_size_on_an_object_store_is_refused_by_name(inputs: list[Path]) -> None:
    with pytest.raises(InputError, match=r"memory://x/a.zarr: expected a store on this machine for size<9MB"):
        encode(inputs, "memory://x/a.zarr", "size<9MB")


def class_raster(path: Path, **more) -> Path:
    dn = scene_pixels(0)
    labels = 1 + (dn[7] > np.median(dn[7])).astype("uint8") + 2 * (dn[3] > np.median(dn[3])).astype("uint8")
    write_tif(path, np.where(dn[0] == 0, 0, labels)[None].astype("uint8"), ["class"], **more)
    return path


def test_classes_are_kept(inputs: list[Path], tmp_path: Path) -> None:
    path = class_raster(tmp_path / "classes.tif")
    loose = encode(inputs, tmp_path / "a.zarr", "agreement>=80%", classes=path)
    tight = encode(inputs, tmp_path / "b.zarr", "agreement>=99%", classes=path)
    assert loose.bytes < tight.bytes
    assert tight.purposes["agreement>=99%"] >= 0.99
    report = verify_store(tmp_path / "b.zarr", against=open_scene(inputs))
    assert report.ok
    assert report.purposes["agreement>=99%"] >= 0.99


def test_classes_of_another_grid_are_refused(inputs: list[Path], tmp_path: Path) -> None:
    write_tif(tmp_path / "small.tif", np.ones((1, 9, 9), "uint8"), ["class"])
    write_tif(tmp_path / "float.tif", np.ones((1, 50, 41), "float32"), ["class"])
    from rasterfiles import UTM

    class_raster(tmp_path / "moved.tif", transform=UTM * UTM.translation(3, 0))
    for name in ("small", "float", "moved", "none"):
        with pytest.raises(InputError, match="classes: expected"):
            encode(inputs, tmp_path / "a.zarr", "agreement>=99%", classes=tmp_path / f"{name}.tif")


@pytest.mark.parametrize(
    ("purposes", "more", "said"),
    [
        (["ndvi<0.02"], {"quality": 50}, "purposes alone, got quality"),
        (["ndvi<0.02"], {"max_error": 5}, "purposes alone, got max_error"),
        (["agreement>=99%"], {}, "--classes"),
        (["b99<0.1"], {}, "no band 'b99'"),
        (["ndvi"], {}, "expected a purpose such as"),
        (["max-error<0"], {}, "max-error"),
        (["b99<0.1", "size<9MB"], {}, "no band 'b99'"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_is_written(
    inputs: list[Path], tmp_path: Path, purposes: list[str], more: dict, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        encode(inputs, tmp_path / "a.zarr", *purposes, **more)
    assert listed(tmp_path) == []


def test_dropped_pixels_do_not_count(tmp_path: Path) -> None:
    paths = write_dates(tmp_path)
    mask = np.zeros((1, 50, 41), "uint8")
    mask[:, 16:32] = 1
    (tmp_path / "masks").mkdir()
    for path in paths:
        write_tif(tmp_path / "masks" / path.name, mask, ["mask"], nodata=None)
    settings = {"codec": "tec-tt-small", "mask": f"scl:1@{tmp_path / 'masks'}", "chunk": 48}
    eozip.encode_store([str(p) for p in paths], tmp_path / "a.zarr", purposes="ndvi<0.03", **settings)
    assert describe(tmp_path / "a.zarr").facts["date_dropped"] != [0, 0, 0]
    assert verify_store(tmp_path / "a.zarr", against=open_scene(paths)).ok


def test_the_command_says_the_worst_of_its_chunks(inputs: list[Path], tmp_path: Path) -> None:
    command = ["encode", *map(str, inputs), str(tmp_path / "a.zarr"), "--for", "ndvi<0.01", "--chunk", "32"]
    done = CliRunner().invoke(cli, [*command, "--codec", Coarse.id])
    assert done.exit_code == 0, done.output
    assert "ndvi<0.01: worst 0.00" in done.output
    checked = CliRunner().invoke(
        cli, ["verify", str(tmp_path / "a.zarr"), *(f"--against={p}" for p in inputs)]
    )
    assert checked.exit_code == 0, checked.output
    assert "ndvi<0.01: worst 0.00" in checked.output


def test_info_names_the_purposes_that_are_held(inputs: list[Path], tmp_path: Path) -> None:
    eozip.encode_store(inputs, tmp_path / "a.zarr", Coarse.id, purposes=["psnr>=45", "max-error<=200"])
    (line,) = [
        line
        for line in CliRunner().invoke(cli, ["info", str(tmp_path / "a.zarr")]).output.splitlines()
        if line.startswith("purposes:")
    ]
    assert re.fullmatch(r"purposes: +psnr>=45 \(worst 4\d\.\d+\), max-error<=200 \(worst \d+\)", line)


@pytest.mark.parametrize("record", [None, 7, {}, {"held": 7}, {"held": [7, {"for": "a", "worst": "b"}]}])
def test_a_record_of_nonsense_holds_nothing(record: object) -> None:
    assert recorded({"purposes": record}) == {}


def test_the_command_prints_json(inputs: list[Path], tmp_path: Path) -> None:
    command = [
        "encode",
        *map(str, inputs),
        str(tmp_path / "a.zarr"),
        "--for",
        "psnr>=45",
        "--codec",
        Coarse.id,
    ]
    found = json.loads(CliRunner().invoke(cli, [*command, "--json"]).output)
    assert found["purposes"]["psnr>=45"] >= 45


def test_classes_without_a_purpose_are_wrong_usage(inputs: list[Path], tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["encode", str(inputs[0]), str(tmp_path / "a.zarr"), "--classes", "c.tif"])
    assert done.exit_code == 2


@pytest.mark.parametrize("edge", [0, 1, 37, 59, 60, 61, 99, 100])
def test_the_search_finds_the_lowest_quality_that_serves(edge: int) -> None:
    tried = []

    def trial(quality: int) -> _Trial:
        tried.append(quality)
        return _Trial(EncodedChunk(b"", Report("x", quality)), {}, quality >= edge)

    assert lowest_quality(trial).coded.report.quality == edge
    assert len(tried) <= 10
    assert lowest_quality(lambda quality: _Trial(EncodedChunk(b"", Report("x", 0)), {}, False)) is None


@pytest.mark.parametrize(
    ("text", "bound"), [("max-error<20", 19), ("max-error<=20", 20), ("max-error<0.5", 0)]
)
def test_a_largest_error_is_a_whole_number(text: str, bound: int) -> None:
    assert Holding((parse_purpose(text),), Pixels(NAMES, 0, 1e-4, 0)).max_error == bound


PIXELS = Pixels(("B03", "B04", "B08"), 0, 1e-4, 0)


def test_pixels_that_matter_less_are_coded_more_coarsely() -> None:
    """A scene whose left quarter is dark: there an index asks for small errors, elsewhere larger ones will do."""
    dn = texture((1, 3, 64, 128), 3)
    dn[..., :32] /= 8
    whole = np.rint(dn).astype(np.uint16)
    codec = EozipChunkCodec("tec-elic-small-any-v1", quality=60)

    def coded(settings: dict) -> EncodedChunk:
        given = dict(settings)
        level_map = given.pop("level_map", None)
        made = replace(codec, **given).encoded(whole, level_map=level_map)
        return made if made.pixels is not None else replace(made, pixels=codec.decoded(made.blob))

    hold = Holding(parse_purposes(["mean(ndvi)<0.03"]), PIXELS)
    alike, by_place = (hold.encoded(coded, whole, can_level=can_level) for can_level in (False, True))
    assert by_place.is_served
    assert by_place.coded.report.levels
    assert len(by_place.coded.blob) < 0.9 * len(alike.coded.blob)


@pytest.mark.parametrize("text", ["psnr>=42", "max-error<=20"])
def test_to_some_purposes_all_pixels_are_alike(text: str) -> None:
    dn = np.rint(texture((1, 3, 32, 32), 1)).astype(np.uint16)
    assert sensitivity(parse_purposes([text]), dn, PIXELS) is None


def test_an_index_of_dark_pixels_is_more_sensitive() -> None:
    dn = np.full((1, 3, 16, 32), 4000, np.uint16)
    dn[..., :16] = 1000
    found = sensitivity(parse_purposes(["ndvi<0.02", "angle<2"]), dn, PIXELS)
    assert found[0, 0, 0] == pytest.approx(4 * found[0, 0, 20], rel=0.01)


def test_pixels_without_data_do_not_matter() -> None:
    dn = np.full((1, 3, 16, 16), 4000, np.uint16)
    dn[..., :4] = 0
    assert not sensitivity(parse_purposes(["ndvi<0.02"]), dn, PIXELS)[..., :4].any()
