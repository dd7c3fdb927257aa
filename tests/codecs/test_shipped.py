"""The weights in the package: what they promise, on data that every machine has."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import eozip
from eozip import hub
from eozip.codecs import registry
from fields import scene
from golden_decode import golden_blob, stored_pixels

LEARNED = [name for name in registry.names() if name != registry.LOSSLESS]


def test_there_is_one_version_of_every_codec_and_all_are_small():
    assert LEARNED
    assert all(name.endswith("-any-v1") for name in LEARNED)
    assert sum(f.stat().st_size for f in registry.WEIGHTS.rglob("*") if f.is_file()) < 1.1e6


@pytest.mark.parametrize("name", hub.shipped())
def test_the_card_says_how_they_were_made(name):
    card = (hub.shipped_path(name) / "card.md").read_text()
    recipe = json.loads(re.search(r"## Recipe\n\n```json\n(.+)\n```", card)[1])
    assert recipe["name"] == name
    assert re.search(r"^\* steps: \d+", card, re.M)
    assert re.search(r"^\* command: .* commit [0-9a-f]{7}", card, re.M)
    for held in recipe["held"]:
        assert held["array"] in card, "what was held back, and not trained on"


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
    assert np.array_equal(decoded, stored)
