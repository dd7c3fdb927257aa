"""The weights in the package: what they promise, on data that every machine has."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import eozip
from eozip import hub
from eozip.codecs import registry
from eozip.codecs.small import image_codec
from eozip.codecs.small.image_model import SmallImageModel
from eozip.codecs.small.native_grid import Grid, Group, projected
from eozip.codecs.small.weight_files import trained_tensors
from eozip.entropy.logistic_tables import logistic_tables
from golden_decode import golden_blob, stored_pixels
from smallmodels import scene, unfitted

TRAINED = [name for name in hub.shipped() if hub.read_config(hub.shipped_path(name))["kind"] == "small-image"]
SMALL = [
    name for name in TRAINED if name in registry.names()
]  # without the base that they share tensors with
LEARNED = [name for name in registry.names() if name != registry.LOSSLESS]
GRIDDED = [name for name in LEARNED if registry.get(name).sensor != registry.ANY_SENSOR]  # by native_grid.py


def trainable(config, folder):
    """The same weights as training holds them, in plain floats."""
    model = SmallImageModel(config)
    model.load_state_dict(trained_tensors(folder))
    return model.eval()


def golden_scene(codec: str) -> np.ndarray:
    """With bands on native grids, all but one on its second date."""
    own = registry.get(codec)
    dn = torch.from_numpy(scene(2, 24, 40, seed=5, bands=own.bands))
    at = [k for k in range(own.bands) if k != getattr(own, "band", None)]  # a companion has no grid
    for group in groups_of_codec(own):
        bands = [at[k] for k in group.bands]
        put = projected(dn[:, bands], Grid(0, group.factor, 1, group.factor - 1))
        put[1, 0] = dn[1, bands[0]]
        dn[:, bands] = put
    return dn.numpy().round().astype(np.uint16)


def groups_of_codec(codec) -> tuple[Group, ...]:
    return getattr(codec, "codec", codec).groups


@pytest.mark.parametrize("name", GRIDDED)
def test_golden_streams_name_their_grids(name, monkeypatch):
    """Both groups are on their grids, and what is on none was left out."""
    named = []
    monkeypatch.setattr(image_codec, "put_on_grids", lambda _, placings: named.extend(placings))
    eozip.decode(golden_blob(name))
    assert [placing.grid for placing in named] == [Grid(0, 2, 1, 1), Grid(0, 6, 1, 5)]
    assert [(~placing.kept).nonzero().tolist() for placing in named] == [[[1, 0]]] * 2


def test_there_is_one_version_of_every_codec_and_all_are_small():
    assert LEARNED
    assert all(name.endswith("-v1") for name in LEARNED)
    assert sum(f.stat().st_size for f in registry.WEIGHTS.rglob("*") if f.is_file()) < 18e6


@pytest.mark.parametrize("name", TRAINED)
def test_the_card_says_how_they_were_made(name):
    card = (hub.shipped_path(name) / "card.md").read_text()
    recipe = json.loads(re.search(r"## Recipe\n\n```json\n(.+)\n```", card)[1])
    places = [place["name"] for place in recipe["validation"]["places"]]
    measured = {
        (place, float(quality)) for place, quality in re.findall(r"^\| (\w+) \| ([\d.]+) \|", card, re.M)
    }
    assert measured == {(place, q) for place in [*places, "mean"] for q in recipe["validation"]["qualities"]}
    assert re.search(r"^- commit: [0-9a-f]{7}", card, re.M)
    assert len(re.findall(r"`[0-9a-f]{64}`", card)) >= len(recipe["data"]), "each source of data by its hash"


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("quality", [5, 50, 95])
def test_bytes_estimate_and_training_pass_agree(name, quality):
    codec = replace(registry.get(name), thrift=np.inf)  # the training pass rounds to nearest
    # past dates are beyond the pass of images: tests/codecs/test_series.py has theirs
    dates = 1 if codec.model.config.entropy == "time" else 2
    x = scene(dates, 128, 128, seed=1)
    written = 8 * len(codec.encode(x, quality).sections[0])
    assert written == pytest.approx(codec.estimate(x, quality), rel=0.01, abs=64 * 8)
    model = trainable(codec.model.config, hub.shipped_path(name))
    # the training pass has the logistic law that the shipped tables were fitted from, and no closing fit
    plain = unfitted(replace(codec, tables=logistic_tables()))
    exact, parallel = [], []
    for seed in (1, 2, 3, 4):  # a latent near a tie falls another way in floats, and takes others with it
        x = scene(dates, 128, 128, seed=seed)
        exact.append(plain.estimate(x, quality))
        with torch.no_grad():
            _, bits = model(model.standardise(torch.from_numpy(x)), codec.level(quality, dates), hard=True)
        parallel.append(float(bits.sum()))
    # 64 bits apart: at the lowest quality there are 2,400
    assert np.mean(exact) == pytest.approx(np.mean(parallel), rel=0.02, abs=64)


@pytest.mark.parametrize("name", SMALL)
def test_thrift_saves_bits(name):
    codec = registry.get(name)
    x = scene(1, 96, 96, seed=2)
    nearest = replace(codec, thrift=np.inf)
    assert len(codec.encode(x, 60).sections[0]) < len(nearest.encode(x, 60).sections[0])


@pytest.mark.parametrize("name", LEARNED)
def test_quality_spans_its_range_monotonically(name):
    own = registry.get(name)
    dn, sensor = scene(1, 96, 96, seed=3, bands=own.bands or 12).round().astype(np.uint16), own.sensor
    sizes, psnrs = [], []
    for quality in (0, 25, 50, 75, 100):
        blob = eozip.encode(dn, codec=name, quality=quality, sensor=sensor)
        sizes.append(len(blob))
        psnrs.append(eozip.psnr(dn, eozip.decode(blob)))
    assert sizes == sorted(sizes)
    assert psnrs == sorted(psnrs)
    assert psnrs[-1] > 44  # independent noise in every band leaves no more


@pytest.mark.parametrize("name", LEARNED)
def test_golden_streams_decode_for_ever(name):
    stored = stored_pixels(name)["decoded"]
    decoded = eozip.decode(golden_blob(name))
    assert decoded.dtype == stored.dtype
    assert np.abs(decoded.astype(int) - stored.astype(int)).max() <= 1


@pytest.mark.parametrize("name", [n for n in LEARNED if "l1c" in n])
def test_the_companion_band_is_within_half_a_step(name):
    codec = registry.get(name)
    dn = golden_scene(name)
    dn[:, codec.band] = np.random.default_rng(0).integers(0, 80, dn[:, codec.band].shape)
    decoded = eozip.decode(eozip.encode(dn, codec=name, quality=70, sensor="s2-l1c"))
    error = np.abs(decoded[:, codec.band].astype(int) - dn[:, codec.band])
    assert error.max() <= codec.step(70) // 2 + 1
