"""A store in so many bytes: `--target-size`, `encode_store(target_size=)`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import xarray as xr
from click.testing import CliRunner

import eozip
from eozip.chunk.sizes import SLACK
from eozip.cli import cli
from eozip.errors import InputError, OutputError
from eozip.purpose import parse_size
from eozip.store import convert, describe, verify_store
from pyramidscenes import season
from rasterfiles import write_tif
from storefiles import NAMES, Coarse, coarse_codec, listed, opened, write_dates

SETTINGS = {"chunk": 32, "gop": 2, "codec": Coarse.id}


@pytest.fixture(scope="module", autouse=True)
def _coarse():
    with coarse_codec():
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_dates(tmp_path_factory.mktemp("size"))


def bytes_of(store: Path) -> int:
    files = [store] if store.is_file() else [path for path in store.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


def is_exact(got: int, asked: int) -> bool:
    return (1 - SLACK) * asked <= got <= asked


@pytest.mark.parametrize("asked", [25_000, 29_000])
@pytest.mark.parametrize("name", ["a.zarr", "a.zarr.zip"])
def test_a_store_has_the_bytes_that_were_asked_for(inputs, tmp_path, name, asked):
    summary = eozip.encode_store(inputs, tmp_path / name, target_size=asked, **SETTINGS)
    assert is_exact(bytes_of(tmp_path / name), asked)
    assert summary.bytes == bytes_of(tmp_path / name)
    assert listed(tmp_path) == [name]


def test_a_store_of_more_chunks_than_are_sampled_has_them_too(inputs, tmp_path):
    summary = eozip.encode_store(
        inputs, tmp_path / "a.zarr.zip", target_size=30_000, **{**SETTINGS, "chunk": 16}
    )
    assert summary.chunks > 12
    assert is_exact(summary.bytes, 30_000)


def test_a_store_of_so_many_bytes_is_a_store_of_one_quality(inputs, tmp_path):
    summary = eozip.encode_store(inputs, tmp_path / "a.zarr", target_size=30_000, **SETTINGS)
    low, high = summary.quality
    assert low == high == describe(tmp_path / "a.zarr").codec.quality
    assert not verify_store(tmp_path / "a.zarr").failures


def test_its_seconds_are_those_of_all_tries(inputs, tmp_path, monkeypatch):
    wait, encode, tries = 0.05, convert.encode_store, []

    def slow(*args, **kwargs):
        tries.append(args)
        time.sleep(wait)
        return encode(*args, **kwargs)

    monkeypatch.setattr(convert, "encode_store", slow)
    summary = eozip.encode_store(inputs, tmp_path / "a.zarr", target_size=25_000, **SETTINGS)
    assert len(tries) > 1
    assert summary.seconds > wait * len(tries)
    shape = opened(tmp_path / "a.zarr").reflectance.shape
    assert summary.mpx_per_s * summary.seconds == pytest.approx(shape[0] * shape[2] * shape[3] / 1e6)


@pytest.mark.parametrize("codec", ["tec-tt-small", "flextec-small"])
def test_a_series_of_the_small_codecs_has_them(tmp_path, codec):
    (tmp_path / "in").mkdir()
    for t, dn in enumerate(season((2, 12, 64, 60), {}, 1)):
        write_tif(tmp_path / f"in/2021070{t + 1}.tif", dn, NAMES)
    summary = eozip.encode_store(tmp_path / "in", tmp_path / "a.zarr.zip", codec, target_size=11_000)
    assert is_exact(summary.bytes, 11_000)


def test_arrays_of_xarray_have_them(inputs, tmp_path):
    eozip.encode_store(inputs, tmp_path / "a.zarr", quality=90, **SETTINGS)
    dataset: xr.Dataset = opened(tmp_path / "a.zarr")
    dataset.reflectance.encoding.clear()
    summary = eozip.to_zarr(dataset.reflectance, tmp_path / "b.zarr.zip", target_size=26_000, **SETTINGS)
    assert is_exact(summary.bytes, 26_000)


def test_the_command_says_how_near_it_came(inputs, tmp_path):
    out = tmp_path / "a.zarr.zip"
    arguments = ["--codec", Coarse.id, "--chunk", "32", "--gop", "2", "--target-size", "30kB"]
    result = CliRunner().invoke(cli, ["encode", *map(str, inputs), str(out), *arguments])
    assert result.exit_code == 0, result.output
    assert is_exact(out.stat().st_size, 30_000)
    assert f"{out.stat().st_size:,} of 30,000 bytes" in result.stdout


def test_more_room_than_the_best_quality_needs_is_the_best_quality(inputs, tmp_path):
    summary = eozip.encode_store(inputs, tmp_path / "a.zarr.zip", target_size=10**9, **SETTINGS)
    assert summary.quality == [100.0, 100.0]
    room = ["--target-size", "3MB", "--codec", Coarse.id, "--chunk", "32", "--overwrite"]
    told = CliRunner().invoke(cli, ["encode", *map(str, inputs), str(tmp_path / "a.zarr"), *room])
    assert "at quality 100, the best there is: only --codec lossless keeps more" in told.stdout


def test_a_size_that_no_quality_reaches_says_the_smallest(inputs, tmp_path):
    smallest = eozip.encode_store(inputs, tmp_path / "a.zarr", quality=0.0, **SETTINGS).bytes
    with pytest.raises(InputError, match=f"at least {smallest:,} bytes .* quality 0 .* got 900;"):
        eozip.encode_store(inputs, tmp_path / "b.zarr", target_size=900, **SETTINGS)
    assert listed(tmp_path) == ["a.zarr"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"quality": 50}, "two of them"),
        ({"target_psnr": 40}, "two of them"),
        ({"max_error": 40}, "not both"),
        ({"budgets": 4}, "two of them"),
        ({"purposes": "ndvi<0.02"}, "purposes alone"),
        ({"codec": "lossless"}, "another codec"),
        ({"mask": "scl:3", "masked_quality": 20}, "masked_quality|mask"),
        ({"target_size": 0}, "from 1"),
        ({"target_size": 0.5}, "whole number"),
    ],
)
def test_what_does_not_go_with_a_size_is_refused_before_anything_is_written(
    inputs, tmp_path, options, expected
):
    with pytest.raises(InputError, match=expected):
        eozip.encode_store(inputs, tmp_path / "a.zarr", **{"target_size": 30_000, **SETTINGS, **options})
    assert listed(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--target-size", "lots"],
        ["--target-size", "30 lightyears"],
        ["--target-size", "0"],
        ["--target-size", "-5kB"],
        ["--target-size", "30kB", "--quality", "50"],
        ["--target-size", "30kB", "--target-psnr", "50"],
        ["--target-size", "30kB", "--max-error", "5"],
        ["--target-size", "30kB", "--budgets", "5"],
        ["--target-size", "30kB", "--for", "ndvi<0.02"],
    ],
)
def test_the_command_refuses_sizes_that_cannot_be(inputs, tmp_path, arguments):
    result = CliRunner().invoke(cli, ["encode", *map(str, inputs), str(tmp_path / "a.zarr"), *arguments])
    assert result.exit_code == 2
    assert "size" in result.stderr
    assert listed(tmp_path) == []


def test_a_size_on_an_object_store_is_refused_by_name(inputs):
    with pytest.raises(InputError, match=r"memory://x/a.zarr: expected a store on this machine"):
        eozip.encode_store(inputs, "memory://x/a.zarr", target_size=30_000, **SETTINGS)


def test_a_store_that_is_there_stays_unless_it_may_be_replaced(inputs, tmp_path):
    eozip.encode_store(inputs, tmp_path / "a.zarr", quality=0, **SETTINGS)
    before = bytes_of(tmp_path / "a.zarr")
    with pytest.raises(OutputError, match="exists already"):
        eozip.encode_store(inputs, tmp_path / "a.zarr", target_size=30_000, **SETTINGS)
    assert bytes_of(tmp_path / "a.zarr") == before
    eozip.encode_store(inputs, tmp_path / "a.zarr", target_size=30_000, overwrite=True, **SETTINGS)
    assert is_exact(bytes_of(tmp_path / "a.zarr"), 30_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("200kB", 200_000), ("1.5MB", 1_500_000), ("1 GiB", 1 << 30), ("60000", 60_000), ("7B", 7)],
)
def test_sizes_are_read(text, expected):
    assert parse_size(text) == expected
