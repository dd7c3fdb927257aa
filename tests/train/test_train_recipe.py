"""Recipes: every fault has a message that names the key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eozip.errors import InputError
from eozip_lab.train import state
from eozip_lab.train.augment import Augment
from eozip_lab.train.kinds import KINDS, kind_of
from eozip_lab.train.recipe import (
    _SHIPPED,
    DataSource,
    Place,
    Recipe,
    _Validation,
    differences,
    kind_named,
    load,
    located,
)
from eozip_lab.train.setup import configured
from trainfiles import write_recipe

DOCS = Path(__file__).parents[2] / "docs" / "training.md"


@pytest.mark.parametrize(
    "name", [n for n in sorted(p.stem for p in _SHIPPED.glob("*.toml")) if kind_named(n) in KINDS]
)
def test_shipped_recipes_are_valid(name):
    recipe = load(name)
    assert kind_of(recipe.kind).configured(recipe.network).bands == 12


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ("learnrate = 3", "unknown key 'learnrate'"),
        ("step = 3", "unknown key 'step'.*did you mean 'steps'"),
        ('lr = "fast"', "lr: expected float, got 'fast'"),
        ("steps = 1.5", "steps: expected int, got 1.5"),
        ("steps = true", "steps: expected int, got True"),
        ("steps = 0", "steps: expected more than 0"),
        ("ema = 1.0", "ema: expected 0 <= ema < 1"),
        ("warm_up = 0", "warm_up: expected more than 0 and less than 1"),
        ("seed = -1", "seed: expected 0 or more"),
        ("lr = -1.0", "lr: expected more than 0"),
        ("lr = nan", "lr: expected a finite number"),
        ("clip = -nan", "clip: expected a finite number"),
        ("minutes = inf", "minutes: expected a finite number"),
        ("muon_lr = -inf", "muon_lr: expected a finite number"),
    ],
)
def test_wrong_keys_and_values(tmp_path, top, message):
    with pytest.raises(InputError, match=message):
        load(write_recipe(tmp_path, top))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("crop = 32", "crop = 40", r"data\[0\].crop: expected a multiple of 32, got 40"),
        ("crop = 32", "crops = 32", r"data\[0\]: unknown key 'crops'"),
        ("batch = 4", "batch = 0", r"data\[0\].batch: expected 1 or more"),
        ('path = "train"', "", r"data\[0\]: missing path"),
        (
            'kind = "npz"',
            'kind = "jpeg"',
            r"data\[0\].kind: expected one of npz, series, geotiff, ssl4eo",
        ),
        ("size = 64", "size = 50", "validation.size: expected a multiple of 32"),
        ("qualities = [0, 100]", "qualities = [0, 101]", "validation.qualities"),
        ('paths = ["val.npz"]', "paths = []", "expected at least one place with paths"),
        ("size = 64", "size = 64\nevery_minutes = inf", "every_minutes: expected a finite number"),
        ("qualities = [0, 100]", "qualities = [0, nan]", r"qualities\[1\]: expected a finite number"),
        ("[validation]", "[validation", "expected a TOML file"),
    ],
)
def test_wrong_tables(tmp_path, old, new, message):
    path = write_recipe(tmp_path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("top", "network", "message"),
    [
        ('kind = "tec-xy"', "", "kind: expected one of tec-fp, tec-elic, tec-tt, flextec"),
        ("", "width = 3", "network: unknown key 'width'"),
        ("", "bands = 4", "network: bands: expected 12"),
        ('name = "../x"', "", "name: expected an id"),
    ],
)
def test_faults_found_before_data_is_read(tmp_path, top, network, message):
    path = write_recipe(tmp_path, top, network=f"\n[network]\n{network}\n")
    with pytest.raises(InputError, match=message):
        configured(load(path), path, None, None, None, None)


def test_budget_must_be_given_somewhere(tmp_path):
    path = write_recipe(tmp_path)
    path.write_text(path.read_text().replace("steps = 12\n", ""))
    recipe = load(path)
    with pytest.raises(InputError, match="no budget"):
        configured(recipe, path, None, None, None, None)
    assert configured(recipe, path, 2.0, None, None, None).minutes == 2.0


def test_callers_budget_replaces_the_recipes(tmp_path):
    path = write_recipe(tmp_path, "minutes = 3")
    made = configured(load(path), path, None, 7, 5, None)
    assert (made.minutes, made.steps, made.seed) == (None, 7, 5)


@pytest.mark.parametrize("minutes", [float("nan"), float("inf"), 0])
def test_a_callers_budget_is_checked_too(tmp_path, minutes):
    file = write_recipe(tmp_path, "steps = 3")
    with pytest.raises(InputError, match="minutes: expected more than 0"):
        configured(load(file), file, minutes, None, None, None)


def test_unknown_recipe_lists_the_shipped_ones():
    with pytest.raises(InputError, match=r"no recipe nothing.*tec-elic-small-any"):
        load("nothing")


def test_paths_are_relative_to_the_recipe_and_to_eozip_data(tmp_path, monkeypatch):
    recipe = load(write_recipe(tmp_path))
    assert recipe.data[0].path == str(tmp_path / "train")
    monkeypatch.setenv("EOZIP_DATA", str(tmp_path))
    (tmp_path / "there").mkdir()
    assert located("$EOZIP_DATA/there") == tmp_path / "there"
    with pytest.raises(InputError, match=r"the recipe names it \(\$EOZIP_DATA is .*; set it\)"):
        located("$EOZIP_DATA/away")


def test_a_recipe_survives_its_checkpoint(tmp_path):
    recipe = load(write_recipe(tmp_path))
    again = state.recipe_of({"recipe": recipe.to_json()})
    assert again.to_json() == recipe.to_json()
    assert differences(recipe, again) == []


def test_the_guide_explains_every_key():
    text = DOCS.read_text()
    for cls in (Recipe, DataSource, Place, _Validation, Augment):
        for key in cls.__dataclass_fields__:
            assert re.search(rf"^\| `{key}` \|", text, re.M), (
                f"{cls.__name__}.{key} is not in docs/training.md"
            )
