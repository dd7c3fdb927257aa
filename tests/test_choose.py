"""`eozip choose`: what it tells of a sample is what `encode --for` makes of the whole."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import eozip
import products
from eozip.choose import Choice, choose, draw
from eozip.cli import cli
from eozip.errors import InputError, OutputError
from eozip.store.sampling import whole_bytes
from storefiles import Coarse, coarse_codec, write_dates

SETTINGS = {"chunk": 32, "gop": 2}


@pytest.fixture(scope="module", autouse=True)
def _coarse():
    with coarse_codec():
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [str(path) for path in write_dates(tmp_path_factory.mktemp("choose"))]


@pytest.fixture(scope="module")
def found(inputs: list[str]) -> Choice:
    return choose(inputs, ["ndvi<0.02", "psnr>=40"], [Coarse.id, "lossless"], count=100, **SETTINGS)


def test_all_chunks_tell_the_bytes_that_encode_takes(
    inputs: list[str], found: Choice, tmp_path: Path
) -> None:
    made = eozip.encode_store(
        inputs, tmp_path / "a.zarr", Coarse.id, purposes=["ndvi<0.02", "psnr>=40"], **SETTINGS
    )
    assert found.best.codec == Coarse.id
    assert found.best.bytes.value == pytest.approx(made.bytes, rel=0.05)
    assert found.best.ratio == pytest.approx(made.raw_bytes / made.bytes, rel=0.05)
    assert [min(found.best.qualities), max(found.best.qualities)] == made.quality


def test_the_smallest_that_serves_is_best(found: Choice) -> None:
    assert [offer.codec for offer in found.offers] == [Coarse.id, "lossless"]
    assert found.offers[0].bytes.value < found.offers[1].bytes.value
    assert all(offer.is_reached for offer in found.offers)


def test_the_curve_rises_and_its_spread_is_told(found: Choice) -> None:
    points = found.best.points
    assert [p.bytes.value for p in points] == sorted(p.bytes.value for p in points)
    assert len(points[0].values["ndvi<0.02"]) == found.sampled
    assert points[-1].served == found.sampled


def test_a_part_of_the_chunks_tells_an_interval(inputs: list[str], found: Choice) -> None:
    part = choose(inputs, "ndvi<0.02", [Coarse.id], count=3, **SETTINGS)
    assert part.sampled == 3 < part.chunks
    assert part.best.bytes.low <= part.best.bytes.value <= part.best.bytes.high
    assert part.best.bytes.low < part.best.bytes.high


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        sizes = rng.gamma(4, 100, 40)
        guess = whole_bytes(rng.choice(sizes, 15, replace=False), [1] * 15, 40)
        hits += guess.low <= sizes.sum() <= guess.high
    assert hits >= 45


def test_a_size_gives_the_quality_that_fits(inputs: list[str]) -> None:
    small = choose(inputs, "size<24kB", [Coarse.id], count=100, **SETTINGS).best
    large = choose(inputs, "size<40kB", [Coarse.id], count=100, **SETTINGS).best
    assert 20_000 < small.bytes.value < 24_000
    assert small.qualities[0] < large.qualities[0]


def test_a_size_that_what_a_store_says_of_itself_takes_already_is_not_reached(inputs: list[str]) -> None:
    with pytest.raises(InputError, match="nothing reaches"):
        choose(inputs, "size<8kB", [Coarse.id], count=100, **SETTINGS)


def test_what_nothing_reaches_says_what_is_reached_at_which_price(inputs: list[str]) -> None:
    with pytest.raises(InputError, match=r"nothing reaches all of it; .* about [\d,]+ bytes .* ratio"):
        choose(inputs, ["max-error<=1", "size<2kB"], [Coarse.id], count=3, **SETTINGS)


def test_curves_are_drawn(found: Choice, tmp_path: Path) -> None:
    draw(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    with pytest.raises(OutputError, match="exists"):
        draw(found, tmp_path / "a.png")
    with pytest.raises(OutputError, match="png"):
        draw(found, tmp_path / "a.tif")


def test_the_command_names_codec_quality_and_price(inputs: list[str], tmp_path: Path) -> None:
    command = [
        "choose",
        *inputs,
        "--for",
        "ndvi<0.02",
        "--codec",
        Coarse.id,
        "--chunk",
        "32",
        "--samples",
        "3",
    ]
    done = CliRunner().invoke(cli, [*command, "--plot", str(tmp_path / "a.svg")])
    assert done.exit_code == 0, done.output
    assert f"Choose {Coarse.id}: about" in done.output
    assert "--for 'ndvi<0.02'" in done.output
    assert (tmp_path / "a.svg").exists()
    parsed = json.loads(CliRunner().invoke(cli, [*command, "--json"]).output)
    assert parsed["offers"][0]["codec"] == Coarse.id


def test_the_command_to_go_on_with_says_again_what_was_said(inputs: list[str]) -> None:
    said = ["--bands", "B08,4,B02", "--nodata", "7", "--chunk", "32", "--gop", "2", "--offset", "0"]
    asked = ["--for", "(nir-red)/(nir+red)<0.5", "--codec", "tec-elic-small", "--samples", "1"]
    done = CliRunner().invoke(cli, ["choose", *inputs, *asked, *said])
    assert done.exit_code == 0, done.output
    words = shlex.split(done.output.splitlines()[-1])
    assert words[: 2 + len(inputs)] == ["eozip", "encode", *inputs]
    pairs = list(pairwise(words))
    assert all(pair in pairs for pair in zip(said[::2], said[1::2]))
    assert ("--for", "(nir-red)/(nir+red)<0.5") in pairs


def test_a_product_of_several_dates_is_offered_what_encode_takes(tmp_path: Path) -> None:
    grids = {metres: bands for metres, bands in products.made(side=96).items() if metres < 60}
    for date in ("20210105", "20210310"):
        products.write_bands(tmp_path / date, grids, f"T32TPS_{date}T100000_{{band}}_{{metres}}m.tif")
    paths = [str(tmp_path / date) for date in ("20210105", "20210310")]
    found = choose(paths, "psnr>=40", count=1)
    made = eozip.encode_store(paths, tmp_path / "a.zarr", purposes=["psnr>=40"])
    offers = {offer.codec: offer for offer in found.offers}
    assert made.codec in offers
    assert offers[made.codec].bytes.value == pytest.approx(made.bytes, rel=0.05)


def test_one_date_is_tried_once(inputs: list[str]) -> None:
    """Codecs that differ in what other dates tell make the same bytes of one."""
    found = choose(inputs[:1], "psnr>=40", count=1, chunk=32)
    assert [offer.codec for offer in found.offers] == ["tec-tt-small-any-v1"]


def test_a_purpose_is_needed(inputs: list[str]) -> None:
    done = CliRunner().invoke(cli, ["choose", *inputs])
    assert done.exit_code == 1
    assert "expected a purpose" in done.output


def test_a_plot_of_sizes_alone_is_refused_before_chunks_are_tried(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eozip.choose.choose", lambda *_, **__: pytest.fail("chunks were tried"))
    done = CliRunner().invoke(
        cli, ["choose", *inputs, "--for", "size<1MB", "--plot", str(tmp_path / "a.png")]
    )
    assert done.exit_code == 1
    assert "got sizes alone" in done.output


@pytest.mark.parametrize(
    ("name", "why"),
    [("nowhere/curve.png", "folder"), ("curve.jpg", "png or .svg"), ("there.png", "exists already")],
)
def test_a_plot_that_cannot_be_written_is_said_before_chunks_are_tried(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    (tmp_path / "there.png").write_bytes(b"mine")
    monkeypatch.setattr("eozip.choose.choose", lambda *_, **__: pytest.fail("chunks were tried"))
    done = CliRunner().invoke(cli, ["choose", *inputs, "--for", "psnr>=40", "--plot", str(tmp_path / name)])
    assert done.exit_code == 1
    assert why in done.output
    assert ".part" not in done.output
