"""Training of the pyramid codecs in miniature: the twin's numbers, data held back, runs, weights."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import eozip
from eozip import hub
from eozip.cli import cli
from eozip.codecs.pyramid import coarseness, files, haar, narrowing, references, traverse, walk
from eozip.codecs.pyramid import codec as codecs
from eozip.codecs.pyramid.context import VALUE
from eozip.codecs.pyramid.model import Model, Wanted
from eozip.codecs.pyramid.side import Side, brightness_of
from eozip.codecs.pyramid.traverse import CERTAIN, Decoded, Ladder
from eozip.entropy.range_coder import EstimatePort, Tables, code_each
from eozip.errors import InputError, OutputError
from eozip_lab.train import run, sitting
from eozip_lab.train import state as states
from eozip_lab.train.pyramid import data, export, maps, task
from eozip_lab.train.pyramid.network import (
    Net,
    Reference,
    References,
    Traversal,
    analyse,
    predicted,
    synthesise,
)
from eozip_lab.train.pyramid.quantisers import Quantise, Quantised, in_steps, rows_of
from eozip_lab.train.pyramid.recipe import Held, load
from pyramidscenes import CODEC, SERIES, codec_of, cube, texture, wild
from pyramidtraining import TENS, write_data, write_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
STEP = 16 * 90  # in 1/16 DN
LEVEL_SHAPES = [(0, (12, 16)), (1, (10, 14)), (4, (6, 22))]


@pytest.fixture
def whole_steps(shipped: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec that rounds details to whole steps, as its twin does: training knows no trellis."""
    tables = files.model_of(shipped).tables

    def coded(ports: list, counts: list[int], symbols: np.ndarray, rows: np.ndarray, _: Tables) -> np.ndarray:
        return code_each(ports, counts, symbols, rows, tables)

    def quantised(residual: np.ndarray, rows: np.ndarray, *_: object, **__: object) -> np.ndarray:
        return export.thrifty(np.rint(residual).astype(np.int32), residual, rows, tables)

    for module, name, value in (
        (traverse, "trellis_each", coded),
        (traverse, "SPACING", coarseness.VALUE),
        (coarseness, "SPACING", coarseness.VALUE),
        (coarseness, "_WIDER", coarseness._HALF_OCTAVE),
        (walk, "quantised", quantised),
        (narrowing.LevelReader, "takes", lambda *_: False),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def shipped() -> dict[str, np.ndarray]:
    return files.read_folder(hub.shipped_path(CODEC))[1]


def twin_of(stored: dict[str, np.ndarray]) -> Net:
    """In float32, with the weights of a codec."""
    net = Net(len(stored["0.trunk_bias"]))
    net.load_state_dict(export.trained(stored))
    return net.eval()


# --- the twin's numbers are the codec's ---


class Recorder(EstimatePort):
    """Keeps the rows and symbols of every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[np.ndarray, np.ndarray]] = []

    def code(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        out = super().code(symbols, rows, tables)
        self.calls.append((np.array(rows), np.array(out)))
        return out


def level_inputs(shape: tuple[int, int], seed: int) -> dict[str, np.ndarray]:
    """Two dates, three planes: pictures and parents in 1/64 step, wanted details in steps; some of them extreme.

    And details of two references of each date, of five bands, at this level and below.
    """
    rng = np.random.default_rng(seed)
    h, w = shape[0] // 2, shape[1] // 2
    spread = np.exp(rng.uniform(-1, 5, (2, 3, 1, 1)))
    below = np.rint(rng.standard_normal((2, 3, h, w)) * spread * VALUE).astype(np.int32)
    below[0, 1, 0, :2] = -(1 << 22), 1 << 22
    parents = np.rint(rng.standard_normal((2, 3, 3, -(-h // 2), -(-w // 2))) * VALUE * 9).astype(np.int32)
    parents[1, 0, :, 0, 0] = 1 << 20
    wanted = (2 * rng.integers(-900, 900, (2, 3, 3, h, w)) + 1) / 256  # no residual is a tie
    wanted[1, 2, 0, 1, 1], wanted[0, 0, 2, 0, 0] = 4000 + 1 / 256, -3000 - 1 / 256
    wanted[0, 1] *= 1 / 4
    mixing = rng.uniform(-1, 1, (2, 2, 5, 3))
    told = {
        name: np.rint(
            np.einsum("trck,tkohw->trcohw", mixing, v) + 40 * rng.standard_normal((2, 2, 5, *v.shape[2:]))
        )
        for name, v in (("here", wanted * VALUE), ("before", parents))
    }
    return {"below": below, "parents": parents, "wanted": wanted} | {
        name: v.astype(np.int32) for name, v in told.items()
    }


def known_of(level: int, given: dict) -> list[list[Decoded]]:
    """What the codec is given of references."""
    pairs = [zip(*own, strict=True) for own in zip(given["here"], given["before"], strict=True)]
    return [[Decoded(remainders={level: here, level + 1: before}) for here, before in own] for own in pairs]


def coded_by_codec(
    model: Model,
    level: int,
    shape: tuple[int, int],
    given: dict,
    known: list[list[Decoded]],
    levels: np.ndarray | None = None,
) -> tuple[np.ndarray, list]:
    """Details, and rows and symbols of each plane and colour, of both dates together."""
    ports = [Recorder(), Recorder()]
    wanted = Wanted([], lambda r, *_: np.rint(r).astype(np.int32))
    brightness = brightness_of(Side(EstimatePort(), model.tables), STEP)
    ladder = Ladder(model, [], 2, STEP, lambda _: ports, brightness, wanted, known, levels=levels)
    ladder.made = [Decoded(), Decoded()]
    ladder._corrects = lambda level: False  # networks are not told of corrections, nor is their training
    bases: Any = [SimpleNamespace(present=np.ones(3, bool))] * 2
    out = ladder._details(level, given["below"], given["parents"], given["wanted"], bases, shape)
    calls = [
        [np.concatenate(v) for v in zip(*pair, strict=True)]
        for pair in zip(*(p.calls[-6:] for p in ports), strict=True)
    ]
    return out, calls


def coded_by_twin(
    net: Net,
    level: int,
    shape: tuple[int, int],
    given: dict,
    reference: Reference | None,
    levels: np.ndarray | None = None,
) -> tuple[np.ndarray, list]:
    """The same; references are given as what they say, whoever has fitted it."""
    calls = []

    def quantise(residual: Tensor, scale: Tensor, _: Tensor) -> Quantised:
        rows = rows_of(scale)  # [3, dates, cells of a colour]
        symbols = torch.round(residual) * (rows >= CERTAIN)
        sent = (rows >= CERTAIN).transpose(0, 1)
        calls.append(tuple(v.transpose(0, 1)[sent].numpy() for v in (rows, symbols)))
        return in_steps(symbols)

    traversal = Traversal(net, torch.full((2,), STEP / 16), quantise, in_turn=True, levels=levels)
    traversal._reference = lambda *_: reference  # type: ignore[method-assign]
    values = [torch.from_numpy(given[k]).float() / VALUE for k in ("below", "parents")]
    with torch.no_grad():
        out = traversal.details(level, *values, torch.from_numpy(given["wanted"]).float(), shape)
    return out.numpy() * VALUE, calls


def said_by_codec(level: int, given: dict) -> Reference:
    """What the codec's references tell of both dates, as the twin has it."""
    told = []
    for picture, dates in zip(given["below"], known_of(level, given), strict=True):
        below, here = ([date.remainders_at(n) for date in dates] for n in (level + 1, level))
        told.append(references.told(picture, below, here))
    parts = (np.stack([getattr(t, part.name) for t in told]) for part in fields(Reference))
    predicted, remainders, missed, activity = (torch.from_numpy(v).float() / VALUE for v in parts)
    return Reference(predicted, remainders, missed, activity[:, None])


@pytest.mark.usefixtures("whole_steps")
@pytest.mark.parametrize("has_map", [False, True], ids=["plain", "map"])
@pytest.mark.parametrize("is_told", [False, True], ids=["alone", "with references"])
@pytest.mark.parametrize("make", [dict, wild], ids=["shipped", "largest weights"])
@pytest.mark.parametrize(("level", "shape"), LEVEL_SHAPES)
def test_twin_has_the_means_rows_and_symbols_of_the_codec(
    shipped: dict, make: Callable, level: int, shape: tuple[int, int], is_told: bool, has_map: bool
) -> None:
    """With references the twin is given the codec's fit: what is compared is all that follows from it, to the bit."""
    stored, given = make(shipped), level_inputs(shape, level)
    size = (shape[0] << level, shape[1] << level)
    levels = maps.level_maps(2, size, np.random.default_rng(level)) % 6 if has_map else None
    known, says = (known_of(level, given), said_by_codec(level, given)) if is_told else ([], None)
    out, calls = coded_by_codec(files.model_of(stored), level, shape, given, known, levels)
    twin, twins = coded_by_twin(twin_of(stored), level, shape, given, says, levels)
    for (rows, symbols), (own_rows, own_symbols) in zip(calls, twins, strict=True):
        np.testing.assert_array_equal(own_rows, rows)
        np.testing.assert_array_equal(own_symbols, symbols)
    np.testing.assert_array_equal(twin, out)  # mean + symbol


@pytest.mark.parametrize("seed", range(3))
def test_the_twins_fit_is_the_codecs_but_for_the_last_bits(seed: int) -> None:
    """Both round weights to 1/256, after sums in another order: a few may fall to the other side."""
    rng = np.random.default_rng(seed)
    below = rng.integers(-20 * VALUE, 20 * VALUE, (2, 2, 4, 3, 12, 13)).astype(np.int32)
    here = rng.integers(-20 * VALUE, 20 * VALUE, (2, 2, 4, 3, 24, 26)).astype(np.int32)
    mixing = rng.uniform(-1, 1, (3, 8))
    own = np.stack([np.tensordot(mixing, v.reshape(8, 3, 12, 13), 1) for v in below])
    own = np.rint(own + VALUE * rng.standard_normal(own.shape)).astype(np.int32)
    pictures = haar.synthesise(np.zeros((2, 3, 12, 13), np.int32), own, (24, 26))  # whose remainders are own
    twin = predicted(
        torch.from_numpy(pictures).float() / VALUE, *(torch.from_numpy(v) for v in (below, here))
    )
    for date in range(2):
        x, after = (v[date].reshape(8, 3, *v.shape[-2:]) for v in (below, here))
        codec = references.told(pictures[date], [x], [after])
        for part in fields(Reference):
            off = np.abs(getattr(twin, part.name)[date].numpy() * VALUE - getattr(codec, part.name))
            assert off.max() <= 8 * 20 * VALUE / 256  # all eight weights, and the largest details
            assert np.median(off) < 1


@pytest.mark.parametrize("shape", [(8, 12), (7, 9)])
def test_transform_is_the_codecs(shape: tuple[int, int]) -> None:
    x = texture((1, 2, *shape), 3)
    below, details = analyse(torch.from_numpy(x))
    for own, other in zip((below, details), haar.analyse(x), strict=True):
        np.testing.assert_allclose(own.numpy(), other, atol=1e-9)
    np.testing.assert_allclose(synthesise(below, details, shape).numpy(), x)


def thrift_of(tables: Tables) -> Quantise:
    """The symbols that an encoder sends, for the twin."""

    def quantise(residual: Tensor, scale: Tensor, _: Tensor) -> Quantised:
        rows, flat = rows_of(scale).numpy().ravel(), residual.numpy().ravel()
        nearest = np.rint(flat).astype(np.int32)
        symbols = export.thrifty(nearest, flat, rows, tables)
        return in_steps(torch.from_numpy(np.where(rows < CERTAIN, 0, symbols)).view_as(residual).float())

    return quantise


@pytest.mark.usefixtures("whole_steps")
@pytest.mark.parametrize("is_told", [False, True], ids=["alone", "with references"])
def test_estimated_bits_are_near_real_bytes(
    shipped: dict, is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the second of two dates whose bands differ in strength; with references it knows the first as it was decoded."""
    monkeypatch.setattr(codecs, "anchors_of", lambda *_: (0,))
    monkeypatch.setattr(Ladder, "_corrects", lambda *_: False)
    codec, step = codec_of(shipped, SERIES if is_told else CODEC), 48 * 75**0.4
    gains = np.random.default_rng(1).uniform(0.7, 1.3, (2, 10, 1, 1))
    shared = (gains[:, :4] * texture((1, 4, 96, 96), 1), gains[:, 4:] * texture((1, 6, 48, 48), 2))
    own = (texture((2, 4, 96, 96), 3), texture((2, 6, 48, 48), 4))  # else side information would be all
    fields = [(a + b) / 2 for a, b in zip(shared, own, strict=True)]
    groups = [(factor, np.rint(x).astype(np.float32)) for factor, x in zip((1, 2), fields, strict=True)]
    coded = codec.encode_groups(groups, 60)
    real = 8 * sum(len(codecs.parted(section, 2, codec.id)[1]) for section in coded.sections)
    known = None
    if is_told:
        first = codec.decode_groups(coded, (2, 10, 96, 96), [(1, 4), (2, 6)], dates=[0])
        known = References(
            [torch.from_numpy(group)[None] for group in first], torch.tensor([[step / 100]])
        )  # as it is
    quantise = thrift_of(codec.model.tables)
    twin = Traversal(twin_of(shipped), torch.tensor([step]), quantise, True, known)
    with torch.no_grad():
        twin.run([torch.from_numpy(x[1:]) for _, x in groups])
    # the twin does not know that a basis may be that of a reference
    assert abs(float(twin.bits) - real) < (0.16 if is_told else 0.07) * real


# --- data ---


def test_interpolated_bands_are_put_back_onto_their_grid() -> None:
    dn = cube((1, 7, 48, 52), {4: TENS, 5: TENS, 6: TENS})[0]
    found = data.example("a:b", 0, dn)
    assert found is not None
    tens, twenties = found.groups
    assert tens.shape == (4, 46, 52)  # the first row belongs to a cell that is cut
    assert twenties.shape == (3, 23, 26)
    cells = TENS.solved(dn[4:])[:, 1:24, 1:27]  # without those before the first pixels, which lean on them
    np.testing.assert_array_equal(twenties, np.rint(cells))
    np.testing.assert_array_equal(tens, dn[:4, 1:47])


def test_images_of_one_grid_and_images_with_nodata() -> None:
    dn = np.rint(texture((1, 5, 40, 40), 3)[0]).astype(np.uint16)
    found = data.example("a:b", 0, dn)
    assert found is not None
    assert [g.shape for g in found.groups] == [(5, 40, 40)]
    dn[:, :9] = 0
    assert data.example("a:b", 0, dn) is None


def test_crops_of_both_groups_show_the_same_place() -> None:
    fine = np.arange(3 * 20 * 24, dtype=np.uint16).reshape(3, 20, 24)
    both = data.Example("a:b", 0, (fine, fine[:, ::2, ::2].copy()))
    for seed in range(20):
        tens, twenties = data.cropped(both.groups, both.even, 8, np.random.default_rng(seed))
        corners = [tens[:, a::2, b::2] for a in (0, 1) for b in (0, 1)]
        assert sum(np.array_equal(c, twenties) for c in corners) == 1


def test_the_shipped_recipe_holds_back_what_is_judged_on() -> None:
    arrays = [("sen12mscr2:pairs14", 28), ("sen12mscr2:1868summer_102", 6), ("hls_water:chips", 277)]
    arrays += [("dsen2:S2A_MSIL1C_20170527_T33UUB", 1), ("dsen2:S2B_MSIL1C_20171022_T49JGM", 1)]
    arrays += [("worldcereal:00002806639B424A", 118)]
    free = data.free_images([*arrays, ("crick:1", 2)], load("tec-elic-small-any").held)
    held = {name: sorted(set(range(count)) - set(free[name])) for name, count in arrays}
    assert held["sen12mscr2:pairs14"] == [0, 1, 10, 11, 18, 19]  # places 0, 5 and 9, two dates each
    assert held["sen12mscr2:1868summer_102"] == list(range(6))
    assert held["worldcereal:00002806639B424A"] == list(range(118))
    assert held["hls_water:chips"] == list(range(221, 277))
    assert held["dsen2:S2B_MSIL1C_20171022_T49JGM"] == [0]
    assert held["dsen2:S2A_MSIL1C_20170527_T33UUB"] == []
    assert free["crick:1"] == [0, 1]


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (Held("native:place"), r"held\[0\].*native:place.*got none"),
        (Held("native:*", (1, 9)), r"expected images 0\.\.3, got \[9\]"),
    ],
)
def test_held_images_that_are_not_there_are_refused(held: Held, message: str) -> None:
    with pytest.raises(InputError, match=message):
        data.free_images([("native:places", 4)], [held])


def test_held_images_are_never_drawn(folder: Path) -> None:
    held = '[[held]]\narray = "native:places"\nimages = [1, 3]\n[[held]]\narray = "other:*"\nlast = 0.4'
    found = data.pool(load(write_recipe(folder, held=held)), lambda _: None)
    assert [(e.name, e.image) for e in found.examples] == [
        *(("native:places", i) for i in (0, 2)),
        *(("other:chips", i) for i in (0, 1, 2)),
    ]
    assert found.facts["held_back"] == 4


def test_batches_follow_from_the_generator_alone(folder: Path) -> None:
    recipe = load(write_recipe(folder))
    found = data.pool(recipe, lambda _: None)
    first, again, other = (data.batch(found, recipe, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.step, again.step)
    assert all(torch.equal(a, b) for a, b in zip(first.groups, again.groups, strict=True))
    assert not torch.equal(first.step, other.step)


# --- recipes ---


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ("learnrate = 3", "unknown key 'learnrate'"),
        ("lr = nan", "lr: expected a finite number"),
        ("step_min = inf", "step_min: expected a finite number"),
        ("lr = -1.0", "lr: expected more than 0"),
        ("ema = 1.0", "ema: expected 0 <= ema < 1"),
        ("warm_up = 0", "warm_up: expected more than 0 and less than 1"),
        ("step_max = 3.0", "step_max: expected at least step_min"),
        ("few = 0.9", "finest_only, coarsest_only and few"),
        ("seed = -1", "seed: expected 0 or more"),
        ("weight_decay = -1.0", "weight_decay: expected 0 or more"),
        ('kind = "tec-elic-small"', "kind: expected tec-elic-small-any"),
    ],
)
def test_wrong_values_of_a_recipe_are_refused(tmp_path: Path, top: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write_recipe(tmp_path, top))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("side = 32", "side = 31", r"crops\[0\].side: expected an even number"),
        ("groups = 1", "groups = 3", r"crops\[1\].groups: expected 1 or 2"),
        ("share = 0.5", "share = nan", r"crops\[0\]: share: expected a finite number"),
        ("batch = 2", "batch = 0", r"crops\[0\].batch: expected 1 or more"),
    ],
)
def test_wrong_crops_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write_recipe(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        load(path)


def test_crops_larger_than_every_image_are_refused(folder: Path) -> None:
    path = write_recipe(folder)
    path.write_text(path.read_text().replace("side = 32", "side = 64"))
    with pytest.raises(InputError, match=r"crops\[0\]: no image.*64 pixels"):
        run(path, out=folder / "out", progress=False)


# --- runs ---


def averages(out: Path) -> dict[str, Tensor]:
    return states.read(out / states.CHECKPOINT)["average"]


def test_a_few_steps_lower_the_rate(folder: Path) -> None:
    recipe = load(write_recipe(folder, "lr = 5e-3"))
    pool, state = data.pool(recipe, lambda _: None), task._fresh(recipe)
    drawn = [data.batch(pool, recipe, np.random.default_rng(seed)) for seed in range(2)]
    found = []  # the loss weighs examples by their rates, which change
    for _ in range(12):
        for one in drawn:
            loss, rate, decibels = task._loss_of(state.model, one)
            for group in state.optimiser.param_groups:
                group["lr"] = recipe.lr
            assert sitting._descend(state, loss, 1.0)
            found.append((rate, decibels))
    rates, decibels = np.array(found).reshape(12, 2, 2).transpose(2, 0, 1)
    assert (rates[-1] < 0.95 * rates[0]).all()
    assert (decibels[-1] > decibels[0] - 0.6).all()


def test_an_example_without_error_has_a_finite_psnr() -> None:
    drawn = data.Batch((torch.full((2, 3, 24, 24), 900.0),), torch.tensor([100.0, 40.0]))
    loss, rate, decibels = task._loss_of(Net(8), drawn)
    assert np.isfinite([loss.item(), rate, decibels]).all()
    assert decibels == pytest.approx(10 * np.log10(12e8))


def interrupt_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    real = sitting._look_after

    def look_after(r: sitting.Run) -> None:
        real(r)
        if r.state.step == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sitting, "_look_after", look_after)


def test_resumed_run_equals_an_uninterrupted_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_recipe(folder, "bfloat16 = true\nfit_crops = 0")
    whole = run(recipe, out=folder / "whole", progress=False)
    interrupt_after(monkeypatch, 2)
    first = run(recipe, out=folder / "parts", progress=False)
    assert (first.finished, first.steps, first.weights) == (False, 2, None)
    monkeypatch.undo()
    second = run(recipe, out=folder / "parts", resume=True, progress=False)
    assert second.finished
    for name, value in averages(whole.out).items():
        assert torch.equal(value, averages(second.out)[name]), name


def test_resume_refuses_another_recipe_unless_told(folder: Path) -> None:
    run(write_recipe(folder, "steps = 1\nfit_crops = 0"), out=folder / "out", progress=False)
    other = write_recipe(folder, "steps = 2\nclip = 0.5\nfit_crops = 0")
    with pytest.raises(InputError, match=r"another recipe.*clip"):
        run(other, out=folder / "out", resume=True, progress=False)
    assert run(other, out=folder / "out", resume=True, other_recipe=True, progress=False).steps == 2


def test_a_folder_with_a_run_is_refused(folder: Path) -> None:
    recipe = write_recipe(folder, "steps = 1\nfit_crops = 0")
    run(recipe, out=folder / "out", progress=False)
    with pytest.raises(OutputError, match="holds a run already"):
        run(recipe, out=folder / "out", progress=False)


def test_exported_weights_encode_and_decode(folder: Path) -> None:
    outcome = run(write_recipe(folder), out=folder / "out", progress=False)
    assert outcome.weights == folder / "out" / "tec-elic-small-any-v9"
    codec = eozip.load(outcome.weights)
    dn = cube((1, 7, 40, 36), {4: TENS, 5: TENS, 6: TENS}, 9)
    decoded = codec.decode(codec.encode(dn.astype(np.float32), 90.0), dn.shape, 90.0)
    assert np.abs(decoded - dn).mean() < 60
    card = (outcome.weights / "card.md").read_text()
    assert "steps: 4" in card
    assert '"seed": 0' in card


def test_exported_weights_are_those_of_the_average(folder: Path) -> None:
    outcome = run(write_recipe(folder, "fit_crops = 0"), out=folder / "out", progress=False)
    assert outcome.weights is not None
    stored = files.read_folder(outcome.weights)[1]
    again = export.integers(export.trained(stored))
    for name, value in export.integers(averages(outcome.out)).items():
        np.testing.assert_array_equal(stored[name], value)
        np.testing.assert_array_equal(again[name], value)


def test_a_run_begins_with_the_weights_it_is_given(shipped: dict, tmp_path: Path) -> None:
    recipe = load("tec-elic-small-any")
    state = task._fresh(replace(recipe, init=str(hub.shipped_path(CODEC))))
    for name, value in export.integers(state.model.state_dict()).items():
        np.testing.assert_array_equal(value, shipped[name])


# --- the command ---


def test_the_command_trains_and_reports(folder: Path) -> None:
    out = folder / "out"
    result = CliRunner().invoke(
        cli, ["train", str(write_recipe(folder)), "--steps", "2", "--out", str(out), "--json"]
    )
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["steps"], facts["finished"]) == (2, True)
    assert eozip.load(Path(facts["weights"])).id == "tec-elic-small-any-v9"


def test_an_interrupt_keeps_the_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(monkeypatch, 1)
    out = folder / "out"
    result = CliRunner().invoke(cli, ["train", str(write_recipe(folder)), "--out", str(out)])
    assert result.exit_code == 130
    assert "interrupted at step 1" in result.stderr
    assert states.read(out / states.CHECKPOINT)["step"] == 1


@pytest.mark.parametrize(
    "option", [["--device", "cuda"], ["--profile"], ["--pack", "x.zip"], ["--data", "x.zip"]]
)
def test_options_that_are_not_for_this_kind_are_refused(folder: Path, option: list[str]) -> None:
    result = CliRunner().invoke(cli, ["train", str(write_recipe(folder)), *option])
    assert result.exit_code == 2
    assert "tec-elic-small-any" in result.stderr


def drawn_maps() -> np.ndarray:
    """Levels of 400 maps of 5 x 7 cells."""
    drawn = maps.level_maps(400, (76, 104), np.random.default_rng(3))
    assert drawn.shape == (400, 76, 104)
    levels = drawn[:, ::16, ::16]
    np.testing.assert_array_equal(drawn, levels.repeat(16, 1).repeat(16, 2)[:, :76, :104])
    return levels


def test_level_maps_have_two_levels_of_whole_cells() -> None:
    levels = drawn_maps()
    assert all(len(np.unique(one)) <= 2 for one in levels)
    assert (levels.min(), levels.max()) == (0, 15)


def is_solid(inside: np.ndarray) -> bool:
    """Has 2 x 2 cells next to each other."""
    return bool((inside[1:, 1:] & inside[:-1, 1:] & inside[1:, :-1] & inside[:-1, :-1]).any())


def test_level_maps_hold_regions_as_good_as_wanted_and_narrow_ones() -> None:
    found = [one for one in drawn_maps() if one.min() == 0 and 4 <= one.max() <= 12]
    assert {int(one.max()) for one in found} == set(range(4, 13))
    inside = [one == 0 for one in found]
    assert min(one.sum() for one in inside) == 1
    assert 0.3 < np.mean([is_solid(one) for one in inside]) < 0.8


def test_level_maps_hold_clouds_of_which_nothing_is_sent() -> None:
    clouds = [one == 15 for one in drawn_maps() if set(np.unique(one)) == {0, 15}]
    assert len(clouds) > 40
    assert np.mean([is_solid(one) for one in clouds]) > 0.5
