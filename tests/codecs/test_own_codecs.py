"""Codecs of one's own: from a folder, a file or a name, told apart by their weights, found again by the hash in a stream."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from click.testing import CliRunner

import eozip
from eozip import hub, own, sensors
from eozip.cli import cli
from eozip.codecs import registry
from eozip.errors import InputError, UnknownCodecError, WeightsError
from eozip_lab.train.kinds import kind_of
from rasterfiles import write_tif
from test_state_dicts import as_written, small
from trainfiles import scene, write_recipe

SHIPPED = "tec-fp-small-any-v1"


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    """No codec of one test is known in another."""
    monkeypatch.delenv(own.VARIABLE, raising=False)
    monkeypatch.setattr(registry.REGISTRY, "_own", {})
    monkeypatch.setattr(sensors.sensor, "_ADDED", {})


@pytest.fixture(scope="module")
def dn() -> np.ndarray:
    return scene(np.random.default_rng(3), 2, 40)


def retrained(folder: Path, codec_id: str) -> Path:
    """The shipped weights with one tensor changed, under an id."""
    weights = hub.read_folder(hub.shipped_path(SHIPPED))
    name = next(n for n, t in sorted(weights.tensors.items()) if n[0].isdigit() and t.numel() > 100)
    tensors = {**weights.tensors, name: weights.tensors[name] // 2}
    config = {**weights.config, "id": codec_id, "codecs": [codec_id]}
    hub.write_folder(folder, tensors, config, "card")
    return folder


def checkpoint(path: Path, kind: str = "tec-fp") -> Path:
    torch.save(as_written(kind, small(kind)), path)
    return path


def in_a_fresh_process(*arguments: object, codecs: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({own.VARIABLE: str(codecs)} if codecs else {})}
    command = [sys.executable, "-m", "eozip", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def here(*arguments: object) -> str:
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_copy_of_a_shipped_folder_is_the_shipped_codec(tmp_path, dn):
    copied = tmp_path / "copied"
    copied.mkdir()
    for file in hub.shipped_path(SHIPPED).iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    assert eozip.load(copied).weights_hash == registry.get(SHIPPED).weights_hash
    assert registry.resolve(copied) == SHIPPED
    assert eozip.encode(dn, codec=copied) == eozip.encode(dn, codec=SHIPPED)


@pytest.mark.parametrize("short", ["tec-elic-small", "tec-fp-small"])
def test_every_shipped_codec_loads_from_its_folder(short):
    full = registry.resolve(short)
    assert eozip.load(hub.shipped_path(full)).weights_hash == registry.get(full).weights_hash


@pytest.mark.parametrize("codec_id", ["mine", "tec-fp-small-landsat-v7", SHIPPED])
def test_weights_of_ones_own_code_and_decode(tmp_path, dn, codec_id):
    codec = eozip.load(retrained(tmp_path / "w", codec_id))
    blob = eozip.encode(dn, codec=codec, quality=40)
    assert eozip.inspect(blob).header.weights_hash == codec.weights_hash
    assert np.array_equal(
        eozip.decode(blob), eozip.decode(eozip.encode(dn, codec=tmp_path / "w", quality=40))
    )


def test_other_weights_under_a_listed_id_change_nothing_for_others(tmp_path, dn):
    before = eozip.encode(dn, codec=SHIPPED, quality=40)
    picture = eozip.decode(before)
    own_blob = eozip.encode(dn, codec=eozip.load(retrained(tmp_path / "w", SHIPPED)), quality=40)
    assert eozip.encode(dn, codec=SHIPPED, quality=40) == before
    assert np.array_equal(eozip.decode(before), picture)
    assert not np.array_equal(eozip.decode(own_blob), picture)


def test_a_newer_version_of_ones_own_is_not_taken_for_the_shipped_short_name(tmp_path):
    eozip.load(retrained(tmp_path / "w", "tec-fp-small-any-v99"))
    assert registry.resolve(SHIPPED) == SHIPPED


def test_they_are_found_by_the_hash_in_the_stream(tmp_path, dn, monkeypatch):
    retrained(tmp_path / "codecs" / "a", SHIPPED)
    blob = eozip.encode(dn, codec=tmp_path / "codecs" / "a", quality=40)
    expected = eozip.decode(blob)
    registry.REGISTRY._own.clear()
    monkeypatch.setenv(own.VARIABLE, str(tmp_path / "codecs"))
    assert np.array_equal(eozip.decode(blob), expected)


def test_weights_that_are_missing_are_named(tmp_path, dn):
    blob = eozip.encode(dn, codec=retrained(tmp_path / "w", "mine-v1"), quality=40)
    registry.REGISTRY._own.clear()
    digest = eozip.inspect(blob).header.weights_hash.hex()
    with pytest.raises(UnknownCodecError, match=f"mine-v1.*{digest}.*EOZIP_CODECS"):
        eozip.decode(blob)


def test_other_weights_than_those_coded_with_are_named(tmp_path, dn):
    blob = eozip.encode(dn, codec=retrained(tmp_path / "w", SHIPPED), quality=40)
    registry.REGISTRY._own.clear()
    with pytest.raises(WeightsError, match=r"coded with weights .* installed are .*EOZIP_CODECS"):
        eozip.decode(blob)


def test_they_have_names_where_the_variable_says_so(tmp_path, dn, monkeypatch):
    retrained(tmp_path / "codecs" / "deeper" / "a", "mine-v1")
    monkeypatch.setenv(own.VARIABLE, os.pathsep.join(["/no/such/folder", str(tmp_path / "codecs")]))
    assert eozip.decode(eozip.encode(dn, codec="mine-v1")).shape == dn.shape


def test_damaged_weights_in_the_folder_are_named_only_when_asked_for(tmp_path, dn, monkeypatch):
    folder = retrained(tmp_path / "codecs" / "a", "mine-v1")
    blob = eozip.encode(dn, codec=folder)
    (tmp_path / "codecs" / "stray.pt").write_bytes(b"nothing")
    registry.REGISTRY._own.clear()
    monkeypatch.setenv(own.VARIABLE, str(tmp_path / "codecs"))
    assert eozip.decode(blob).shape == dn.shape
    registry.REGISTRY._own.clear()
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(WeightsError, match=r"codecs/a: expected config\.json and model\.safetensors"):
        eozip.decode(blob)


@pytest.mark.parametrize("what", ["an empty folder", "text", "nothing"])
def test_what_is_no_weights_is_named(tmp_path, dn, what):
    path = tmp_path / "x"
    if what == "text":
        path.write_text("hello")
    elif what == "an empty folder":
        path.mkdir()
    with pytest.raises((WeightsError, UnknownCodecError), match="x"):
        eozip.encode(dn, codec=path)


# On the command line ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tif(tmp_path_factory, dn) -> Path:
    path = tmp_path_factory.mktemp("tif") / "scene.tif"
    write_tif(path, dn[0], names=sensors.get("s2-l2a").band_names)
    return path


@pytest.mark.parametrize("kind", ["folder", "tec-elic"])
def test_a_path_serves_as_codec_and_a_fresh_process_decodes(tmp_path, tif, kind):
    place = tmp_path / "codecs"
    place.mkdir()
    source = retrained(place / "a", "mine-v1") if kind == "folder" else checkpoint(place / "x.pt", kind)
    store, back = tmp_path / "s.zarr", tmp_path / "back.tif"
    here("encode", tif, store, "--codec", source, "--quality", "40")
    registry.REGISTRY._own.clear()
    lost = CliRunner().invoke(cli, ["decode", str(store), str(back)])
    assert lost.exit_code == 1
    assert "EOZIP_CODECS" in lost.output
    assert not back.exists()
    done = in_a_fresh_process("decode", store, back, codecs=place)
    assert done.returncode == 0, done.stderr
    with rasterio.open(tif) as a, rasterio.open(back) as b:
        assert a.shape == b.shape


def test_a_published_name_serves_as_codec_and_is_found_in_the_cache(tmp_path, tif, monkeypatch):
    """As huggingface_hub keeps it: no network is asked, neither to encode nor to decode."""
    library = pytest.importorskip("huggingface_hub", reason="huggingface_hub (extra 'hub') is not installed")
    cached = checkpoint(tmp_path / "cached.pt", "tec-elic")
    wanted = ("embed2scale/TerraCodec-1.0-ELIC-S2L2A", "TerraCodec_v1_ELIC_S2L2A_lambda-10.pt")

    def found(repository: str, filename: str) -> str | None:
        return str(cached) if (repository, filename) == wanted else None

    monkeypatch.setattr(library, "try_to_load_from_cache", found)
    store = tmp_path / "s.zarr"
    here("encode", tif, store, "--codec", f"{wanted[0]}@lambda-10")
    registry.REGISTRY._own.clear()
    here("decode", store, tmp_path / "back.tif")
    assert json.loads(here("info", store, "--json"))["codec"].startswith("tec-elic-base-s2l2a-")


def test_a_store_opens_by_xarray_where_the_variable_says(tmp_path, tif, monkeypatch):
    store = tmp_path / "s.zarr"
    here("encode", tif, store, "--codec", retrained(tmp_path / "codecs" / "a", "mine-v1"))
    registry.REGISTRY._own.clear()
    with xr.open_zarr(store) as opened, pytest.raises(UnknownCodecError, match=r"mine-v1.*EOZIP_CODECS"):
        opened["reflectance"].load()
    monkeypatch.setenv(own.VARIABLE, str(tmp_path / "codecs"))
    with xr.open_zarr(store) as opened:
        assert opened["reflectance"].load().shape == (1, 12, 40, 40)


def test_models_lists_them(tmp_path, monkeypatch):
    retrained(tmp_path / "a", "mine-v1")
    monkeypatch.setenv(own.VARIABLE, str(tmp_path))
    listed = json.loads(here("models", "--json"))
    assert listed["own"] == {"mine-v1": str(tmp_path / "a")}


# Another sensor --------------------------------------------------------------------------------------------

BANDS = ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7")
SENSOR = 'id = "landsat-sr"\ntitle = "Landsat 8, surface reflectance"\nnodata = 0\n' + "".join(
    f'[[band]]\nname = "{name}"\nwavelength_nm = {500 + 100 * i}\nnative_resolution_m = 30\nmean = 2500\nstd = 900\n'
    for i, name in enumerate(BANDS)
)


@pytest.fixture(scope="module")
def landsat(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of weights that were trained, for a few steps, on seven bands of GeoTIFFs; and a scene."""
    from eozip_lab.train import run

    folder = tmp_path_factory.mktemp("landsat")
    rng = np.random.default_rng(5)
    (folder / "train").mkdir()
    for i in range(3):
        write_tif(folder / "train" / f"f{i}.tif", scene(rng, 1, 96, 7)[0], names=BANDS)
    write_tif(folder / "val.tif", scene(rng, 1, 64, 7)[0], names=BANDS)
    (folder / "landsat.toml").write_text(SENSOR)
    recipe = write_recipe(folder, 'sensor = "landsat.toml"\nname = "fields-v1"')
    text = recipe.read_text().replace('kind = "npz"', 'kind = "geotiff"').replace('"val.npz"', '"val.tif"')
    recipe.write_text(text.replace('array = "stack"\n', ""))
    done = run(recipe, steps=2, out=folder / "run", device="cpu", threads=1, progress=False)
    assert done.weights is not None
    return done.weights, folder / "val.tif"


def test_another_sensor_from_recipe_to_store_and_back(landsat, tmp_path):
    weights, tif = landsat
    card = (weights / "card.md").read_text()
    assert "Sensor: landsat-sr" in card
    assert "Copernicus" not in card
    store, back = tmp_path / "s.zarr", tmp_path / "back.tif"
    here("encode", tif, store, "--codec", weights)
    done = in_a_fresh_process("decode", store, back, codecs=weights.parent)
    assert done.returncode == 0, done.stderr
    here("decode", store, tmp_path / "own.tif")
    with rasterio.open(tif) as a, rasterio.open(back) as b, rasterio.open(tmp_path / "own.tif") as c:
        assert a.descriptions == b.descriptions
        assert np.abs(b.read().astype(int) - c.read()).max() <= 1
    assert json.loads(here("info", store, "--json"))["sensor"] == "landsat-sr"


def test_the_header_says_the_sensor_of_the_codec(landsat):
    weights, tif = landsat
    with rasterio.open(tif) as src:
        blob = eozip.encode(src.read(), codec=weights)
    assert eozip.inspect(blob).header.sensor == "landsat-sr"


def test_facts_of_a_store_need_neither_weights_nor_sensor(landsat, tmp_path, monkeypatch):
    weights, tif = landsat
    store = tmp_path / "s.zarr"
    here("encode", tif, store, "--codec", weights)
    registry.REGISTRY._own.clear()
    sensors.sensor._ADDED.clear()
    assert "landsat-sr" in here("info", store)
    with xr.open_zarr(store) as opened:
        assert list(opened["band"].values) == list(BANDS)


def test_published_layouts_train_on_another_sensor(tmp_path):
    (tmp_path / "landsat.toml").write_text(SENSOR)
    kind = replace(kind_of("tec-fp"), sensor=sensors.named(str(tmp_path / "landsat.toml")).id)
    model = kind.build(kind.configured({"n": 8, "m": 16})).eval()
    kind.save(tmp_path / "w", model, "fields-v1", kind.sensor, "card")
    (tmp_path / "w" / own.SENSOR_FILE).write_text(SENSOR)
    sensors.sensor._ADDED.clear()
    codec = eozip.load(tmp_path / "w")
    assert (codec.sensor, codec.bands) == ("landsat-sr", 7)
    dn = scene(np.random.default_rng(2), 1, 40, 7)
    blob = eozip.encode(dn, codec=codec)
    assert eozip.inspect(blob).header.sensor == "landsat-sr"
    assert eozip.decode(blob).shape == dn.shape


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("std = 900", "std = 0"), "std"),
        (("std = 900", "std = nan"), "finite|std"),
        (('name = "SR_B2"', 'name = "SR_B1"'), "no name twice"),
        (('id = "landsat-sr"', 'id = "../x"'), "id"),
        (("mean = 2500\n", ""), "mean"),
        (("nodata = 0", "nodata = 'x'"), "nodata|expected a sensor"),
        (("[[band]]", "[[band"), "expected a sensor"),
    ],
)
def test_a_sensor_that_cannot_be_is_named(tmp_path, change, expected):
    path = tmp_path / "x.toml"
    path.write_text(SENSOR.replace(*change))
    with pytest.raises(InputError, match=f"x.toml.*({expected})"):
        sensors.named(str(path))


def test_another_sensor_under_a_known_id_is_refused(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(SENSOR.replace("landsat-sr", "s2-l2a"))
    with pytest.raises(InputError, match="another of this id"):
        sensors.named(str(path))
