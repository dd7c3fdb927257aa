"""`eozip train` from recipe to weights, in miniature."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eozip.errors import InputError, OutputError, WeightsError
from eozip_lab.train import run, sitting, validate
from eozip_lab.train import state as states
from eozip_lab.train.export import Facts, export_checkpoint
from eozip_lab.train.kinds import kind_of
from eozip_lab.train.objective import sampled_levels, schedule
from eozip_lab.train.recipe import load
from trainfiles import write_data, write_recipe

QUIET = {"progress": False, "device": "cpu"}
NO_BYTES = "real_bytes = false"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return tmp_path


def averages(out: Path) -> dict[str, torch.Tensor]:
    return states.read(out / states.CHECKPOINT)["average"]


def logged(out: Path, event: str) -> list[dict]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_training_improves_places_never_seen(folder):
    recipe = write_recipe(folder, "steps = 60\nlr = 5e-3", NO_BYTES)
    out = run(recipe, out=folder / "out", **QUIET).out
    assert len(logged(out, "train")) == 12
    before, after = (line["mean"] for line in logged(out, "validation"))
    for start, end in zip(before, after, strict=True):  # at every level fewer bits and a better picture
        assert end["bpppb"] < start["bpppb"]
        assert end["psnr"] > start["psnr"]
    assert after[0]["bpppb"] < 0.95 * before[0]["bpppb"]


def test_exported_weights_encode_with_the_measured_bytes(folder):
    recipe = write_recipe(folder, 'name = "tec-fp-s2l2a-v7"\nsteps = 3')
    outcome = run(recipe, out=folder / "out", **QUIET)
    assert outcome.finished
    assert outcome.steps == 3
    kind = kind_of("tec-fp")
    codec = kind.load(outcome.weights)
    assert outcome.weights.name == "tec-fp-s2l2a-v7"
    assert codec.id == f"tec-fp-base-s2l2a-{codec.weights_hash.hex()}"
    stacks = validate.load_places(load(recipe), kind.band_names)
    assert tuple(validate.real_bytes(codec, stacks, (0.0, 100.0))) == outcome.points
    card = (outcome.weights / "card.md").read_text()
    assert "steps: 3" in card
    assert f"| place | 100 | {outcome.points[1].bpppb:.4f} |" in card
    assert "left out: 1" in card
    assert (outcome.out / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_estimates_are_near_real_bytes(folder):
    recipe = write_recipe(folder, "steps = 3")
    outcome = run(recipe, out=folder / "out", **QUIET)
    kind = kind_of("tec-fp")
    stacks = validate.load_places(load(recipe), kind.band_names)
    [real] = validate.real_bytes(kind.load(outcome.weights), stacks, (0.0,))
    estimate = logged(outcome.out, "validation")[-1]["mean"][0]
    overhead = 8 * 200 / (2 * 12 * 64 * 64)  # header and check values of a chunk, bits per sample
    assert abs(real.bpppb - estimate["bpppb"]) < 0.03 * real.bpppb + overhead
    assert abs(real.psnr - estimate["psnr"]) < 0.1


def test_resumed_run_equals_an_uninterrupted_one(folder, monkeypatch):
    recipe = write_recipe(folder, "steps = 10", NO_BYTES)
    whole = run(recipe, out=folder / "whole", **QUIET)
    interrupt_after(monkeypatch, 4)
    first = run(recipe, out=folder / "parts", **QUIET)
    assert not first.finished
    assert first.steps == 4
    assert first.weights is None
    monkeypatch.undo()
    second = run(recipe, out=folder / "parts", resume=True, **QUIET)
    assert second.finished
    for name, value in averages(whole.out).items():
        assert torch.equal(value, averages(second.out)[name]), name
    steps = [line["step"] for line in logged(second.out, "train")]
    assert steps == sorted(set(steps))


def interrupt_after(monkeypatch, step: int) -> None:
    real = sitting._look_after

    def look_after(r):
        real(r)
        if r.state.step == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sitting, "_look_after", look_after)


def test_interrupt_gives_the_signal_handlers_back(folder, monkeypatch):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupt_after(monkeypatch, 1)
    assert not run(write_recipe(folder), out=folder / "out", **QUIET).finished
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_resume_refuses_another_recipe_unless_told(folder, monkeypatch):
    interrupt_after(monkeypatch, 2)
    run(write_recipe(folder, validation=NO_BYTES), out=folder / "out", **QUIET)
    monkeypatch.undo()
    other = write_recipe(folder, "clip = 0.5\nsteps = 4", NO_BYTES)
    with pytest.raises(InputError, match=r"another recipe.*clip"):
        run(other, out=folder / "out", resume=True, **QUIET)
    assert run(other, out=folder / "out", resume=True, other_recipe=True, **QUIET).steps == 4


def test_more_steps_are_no_other_recipe(folder):
    recipe = write_recipe(folder, "steps = 2", NO_BYTES)
    run(recipe, out=folder / "out", **QUIET)
    assert run(recipe, out=folder / "out", resume=True, steps=3, **QUIET).steps == 3


def test_minutes_end_a_run(folder):
    recipe = write_recipe(folder, validation=NO_BYTES)
    outcome = run(recipe, out=folder / "out", minutes=0.02, **QUIET)
    assert outcome.finished
    assert 1.2 <= outcome.seconds < 30


def test_seed_decides(folder):
    recipe = write_recipe(folder, "steps = 2", NO_BYTES)
    outs = [
        run(recipe, out=folder / name, seed=seed, **QUIET).out
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    a, b, c = (averages(out)["network.g_a.0.weight"] for out in outs)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_one_broken_batch_is_skipped(folder, monkeypatch):
    break_batches(monkeypatch, {3})
    outcome = run(write_recipe(folder, "steps = 6", NO_BYTES), out=folder / "out", **QUIET)
    assert (outcome.steps, outcome.skipped) == (6, 1)
    assert all(v.isfinite().all() for v in averages(outcome.out).values())
    assert [line["step"] for line in logged(outcome.out, "skipped")] == [4]


def test_broken_batches_without_end_stop_the_run(folder, monkeypatch):
    break_batches(monkeypatch, set(range(2, 100)))
    with pytest.raises(sitting._DivergedError, match="20 steps in a row"):
        run(write_recipe(folder, "steps = 50", NO_BYTES), out=folder / "out", **QUIET)


def break_batches(monkeypatch, broken: set[int]) -> None:
    real = sitting._step

    def step(r, dn):
        real(r, dn * float("nan") if r.state.step in broken else dn)

    monkeypatch.setattr(sitting, "_step", step)


def test_output_folder_is_guarded(folder):
    recipe = write_recipe(folder, "steps = 1", NO_BYTES)
    with pytest.raises(OutputError, match="inside the package"):
        run(recipe, out=Path(sitting.__file__).parent / "out", **QUIET)
    with pytest.raises(OutputError, match="to resume from"):
        run(recipe, out=folder / "new", resume=True, **QUIET)
    run(recipe, out=folder / "out", **QUIET)
    with pytest.raises(OutputError, match="holds a run already"):
        run(recipe, out=folder / "out", **QUIET)


def test_damaged_checkpoint_is_a_clear_error(folder):
    recipe = write_recipe(folder, "steps = 1", NO_BYTES)
    out = run(recipe, out=folder / "out", **QUIET).out
    path = out / states.CHECKPOINT
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="expected a checkpoint"):
        run(recipe, out=out, resume=True, **QUIET)


def test_checkpoint_exports_later(folder):
    recipe = write_recipe(folder, "steps = 2", NO_BYTES)
    outcome = run(recipe, out=folder / "out", **QUIET)
    again = export_checkpoint(outcome.out / states.CHECKPOINT, folder / "again", Facts(2, 1.0))
    name = "model.safetensors"
    assert (again / name).read_bytes() == (outcome.weights / name).read_bytes()


def test_missing_device(folder):
    recipe = write_recipe(folder)
    with pytest.raises(InputError, match="expected cpu or cuda"):
        run(recipe, out=folder / "out", progress=False, device="abacus")
    absent = f"cuda:{torch.cuda.device_count() + 1}"
    with pytest.raises(InputError, match="CUDA devices"):
        run(recipe, out=folder / "out", progress=False, device=absent)
    assert not (folder / "out").exists()


def test_init_takes_what_fits_and_the_rest_begins_anew(folder):
    first = run(write_recipe(folder, "steps = 4", NO_BYTES), out=folder / "first", **QUIET).out
    keys = f'steps = 1\ninit = "first/{states.CHECKPOINT}"\ntrain_only = ["network.entropy_bottleneck."]'
    wide = write_recipe(folder, keys, NO_BYTES, network="\n[network]\nn = 16\nm = 48\n")
    second = run(wide, out=folder / "second", **QUIET).out
    old, new = averages(first), averages(second)
    shared = [name for name, value in new.items() if name in old and old[name].shape == value.shape]
    assert any(name.startswith("network.g_") for name in shared)
    assert len(shared) < len(new)
    for name in shared:
        assert torch.allclose(new[name], old[name], atol=1e-6), name
    assert all(value.isfinite().all() for value in new.values())


def test_train_only_must_leave_something(folder):
    with pytest.raises(InputError, match="train_only: no parameter begins with any of nothing"):
        run(write_recipe(folder, 'train_only = ["nothing"]', NO_BYTES), out=folder / "out", **QUIET)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_trains_and_exports_like_the_cpu(folder):
    recipe = write_recipe(folder, "steps = 8")
    gpu = run(recipe, out=folder / "gpu", progress=False, device="cuda")
    cpu = run(recipe, out=folder / "cpu", **QUIET)
    for a, b in zip(gpu.points, cpu.points, strict=True):
        assert abs(a.psnr - b.psnr) < 0.5


def test_schedule_and_levels():
    assert schedule(0.0, 0.02) == 0.0
    assert schedule(1.0, 0.02) == pytest.approx(0.02)
    assert max(schedule(k / 100, 0.02) for k in range(101)) == schedule(0.02, 0.02)
    t = sampled_levels(6, 12, np.random.default_rng(0)).sort().values
    assert t[0] >= 0
    assert t[-1] <= 5
    assert torch.equal((t / 5 * 12).floor(), torch.arange(12.0))


def test_rates_at_a_psnr():
    points = [validate.Point("a", q, 0.1 * 2**k, 30 + 6 * k) for k, q in enumerate((0, 50, 100))]
    points += [replace(p, place="b", bpppb=3 * p.bpppb) for p in points]
    assert validate.mean_at_psnr(points, 36.0) == pytest.approx(0.4)
    assert validate.mean_at_psnr(points, 39.0) == pytest.approx(0.4 * 2**0.5)
    assert validate.mean_at_psnr(points, 50.0) is None
