"""Token budgets: from `eozip.encode` and the command line to the stream, for every date or for each."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import CliRunner

import eozip
from eozip import sensors
from eozip.cli import cli
from eozip.errors import FormatError, InputError
from eozip.store.codec import EozipChunkCodec
from rasterfiles import write_tif
from test_state_dicts import as_written, small
from trainfiles import scene


@pytest.fixture(scope="module")
def dn() -> np.ndarray:
    return scene(np.random.default_rng(4), 3, 48)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("flex") / "flex.pt"
    torch.save(as_written("flextec", small("flextec")), path)
    return path


@pytest.mark.parametrize("name", ["flextec-small", "checkpoint"])
def test_budgets_stand_in_the_stream(dn, checkpoint, name):
    codec = eozip.load(checkpoint) if name == "checkpoint" else name
    for asked, found in ((4, (4, 4, 4)), ([5, 0, 2], (5, 0, 2)), (np.array([1, 1, 1]), (1, 1, 1))):
        header = eozip.inspect(blob := eozip.encode(dn, codec=codec, budgets=asked)).header
        assert header.budgets == found
        assert eozip.decode(blob).shape == dn.shape


def test_fewer_sections_are_fewer_bytes(dn):
    sizes = [len(eozip.encode(dn, codec="flextec-small", budgets=k)) for k in (1, 4, 8)]
    assert sizes == sorted(set(sizes))


def test_a_bound_on_the_error_holds_beside_a_budget(dn):
    blob = eozip.encode(dn, codec="flextec-small", budgets=3, max_error=60)
    assert np.abs(eozip.decode(blob).astype(int) - dn).max() <= 60


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"budgets": 0}, "from 1"),
        ({"budgets": [0, 1, 1]}, "from 1"),
        ({"budgets": [4, 4]}, "each of 3 dates"),
        ({"budgets": 300}, "from 1"),
        ({"budgets": 2.5}, "whole number"),
        ({"budgets": "4"}, "whole number"),
        ({"budgets": 4, "quality": 50}, "budgets or quality"),
        ({"budgets": 4, "target_psnr": 40}, "budgets or target_psnr"),
        ({"budgets": 4, "codec": "tec-fp-small"}, "have none"),
        ({"budgets": 4, "codec": "lossless"}, "have none"),
    ],
)
def test_budgets_that_cannot_be_are_named(dn, options, expected):
    with pytest.raises(InputError, match=expected):
        eozip.encode(dn, **{"codec": "flextec-small", **options})


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize(("asked", "in_store"), [("4", [4]), ("6,2,1", [6, 2, 1])])
def test_the_command_line_takes_them(dn, tmp_path, asked, in_store):
    names = sensors.get("s2-l2a").band_names
    for date, pixels in zip(("20240101", "20240201", "20240301", "20240401"), (*dn, dn[0])):
        write_tif(tmp_path / f"s_{date}.tif", pixels, names=names)
    store, tifs = tmp_path / "s.zarr", sorted(tmp_path.glob("*.tif"))
    run("encode", *tifs, store, "--codec", "flextec-small", "--budgets", asked, "--gop", 3)
    assert json.loads(run("info", store, "--json"))["budgets"] == in_store
    values = xr.open_zarr(store)["reflectance"].values
    spread = [in_store[0]] * 3 if len(in_store) == 1 else in_store
    together = eozip.decode(eozip.encode(dn, codec="flextec-small", budgets=spread))
    alone = eozip.decode(eozip.encode(dn[:1], codec="flextec-small", budgets=in_store[0]))
    expected = np.concatenate([together, alone])
    # floats behind the symbols: other threads may round otherwise
    assert np.abs(values.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "options",
    [["--budgets", "x"], ["--budgets", "4,4"], ["--budgets", "0"], ["--quality", 5, "--budgets", 4]],
)
def test_the_command_line_names_what_is_wrong(dn, tmp_path, options):
    write_tif(tmp_path / "a.tif", dn[0], names=sensors.get("s2-l2a").band_names)
    asked = ["encode", tmp_path / "a.tif", tmp_path / "s.zarr", "--codec", "flextec-small", *options]
    done = CliRunner().invoke(cli, list(map(str, asked)))
    assert done.exit_code in (1, 2)
    assert "budgets" in done.output
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("budgets", [[], [0], [True], [2.5], "4", [1] * 5000, {"a": 1}])
def test_budgets_in_metadata_are_not_believed(budgets):
    entry = EozipChunkCodec("flextec-small-any-v1").to_dict()
    entry["configuration"]["budgets"] = budgets
    with pytest.raises(FormatError, match="budgets"):
        EozipChunkCodec.from_dict(entry)
