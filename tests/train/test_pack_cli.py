"""What belongs to training beside training: packs, profiles, cards, and the rehearsal of a lent machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from eozip.cli import cli
from eozip.errors import InputError
from eozip_lab.train import export, model_card, run
from eozip_lab.train import state as states
from eozip_lab.train.model_card import Chunk
from eozip_lab.train.profile import BACKWARD, DATA, ENTROPY, OPTIMISER, profile
from trainfiles import write_data, write_recipe

SCRIPT = Path(__file__).parents[2] / "tools" / "gpu.sh"
QUIET = {"progress": False, "device": "cpu"}


@pytest.fixture(autouse=True)
def own_cache(one_thread, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return tmp_path


def told(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["train", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stdout


def test_pack_by_the_command_line_keeps_to_its_limit(folder):
    recipe, out = write_recipe(folder), folder / "pack.zip"
    facts = json.loads(told(recipe, "--pack", out, "--limit-mib", 1, "--json"))
    assert facts["bytes"] == out.stat().st_size <= 2**20
    assert 0 < facts["tiles"] <= facts["candidates"]
    assert told(recipe, "--pack", out, code=1) == ""  # it exists


def test_different_things_to_do_are_refused_together(folder):
    told(write_recipe(folder), "--pack", folder / "p.zip", "--profile", code=2)


def test_profile_says_where_the_seconds_go(folder):
    found = profile(write_recipe(folder), steps=3, device="cpu")
    assert set(found.parts) == {DATA, "g_a", "g_s", ENTROPY, BACKWARD, OPTIMISER}
    assert sum(found.parts.values()) == pytest.approx(found.seconds)
    assert found.crops == 4 + 2 + 4  # the two sources take turns
    assert found.crops_per_second == pytest.approx(found.crops / (3 * found.seconds))
    assert 0 < found.share < 1
    assert not (folder / "runs").exists()


def test_profile_by_the_command_line(folder):
    text = told(write_recipe(folder), "--profile", "--steps", 1, "--device", "cpu")
    assert "crops per second" in text
    assert "backward" in text
    facts = json.loads(told(write_recipe(folder), "--profile", "--steps", 1, "--device", "cpu", "--json"))
    assert facts["peak_gflops"] > 0


# --- cards ---


def test_the_card_of_an_export_is_complete_and_can_be_renewed(folder):
    recipe = write_recipe(folder, "steps = 2")
    outcome = run(recipe, out=folder / "out", **QUIET)
    first = (outcome.weights / "card.md").read_text()
    picture = outcome.weights / "worst.png"
    for part in (
        "command:",
        "commit:",
        "hardware:",
        "minutes:",
        "## Data hashes",
        "| place | 100 |",
        "worst.png",
    ):
        assert part in first
    assert picture.stat().st_size <= model_card._MOST_BYTES
    assert picture.read_bytes().startswith(b"\x89PNG")
    picture.unlink()
    told(recipe, "--card", outcome.weights)
    assert (outcome.weights / "card.md").read_text() == first
    assert picture.is_file()


def test_a_card_without_measured_parts_gets_them_before_its_recipe():
    text = export._with_section("# name\n\n- steps: 3\n\n## Recipe\n\n{}\n", "Worst chunk", ["here"])
    assert text == "# name\n\n- steps: 3\n\n## Worst chunk\n\nhere\n\n## Recipe\n\n{}\n"
    assert export._with_section(text, "Worst chunk", ["there"]) == text.replace("here", "there")


def test_a_folder_without_card_is_refused(folder):
    with pytest.raises(InputError, match=r"card\.md"):
        export.renew(folder, write_recipe(folder))


def test_data_hashes_follow_the_data(folder):
    recipe = export.load(write_recipe(folder))
    before = model_card.hash_lines(recipe)
    assert len(before) == 3  # two sources, one validation file
    arrays = dict(np.load(folder / "train" / "water.npz"))
    arrays["c"][0, 0, 0, 0] += 1
    np.savez(folder / "train" / "water.npz", **arrays)
    after = model_card.hash_lines(recipe)
    assert before[0] != after[0]
    assert before[2] == after[2]  # the place


def test_the_picture_of_a_noisy_chunk_stays_small(tmp_path):
    dn = np.random.default_rng(0).integers(0, 9000, (12, 256, 256)).astype(np.uint16)
    bands = [f"B{k:02d}" for k in range(12)]
    model_card.draw_worst(Chunk("noise", 0, 1.0, 30.0, dn, dn[:, ::-1]), bands, tmp_path / "worst.png")
    assert 1000 < (tmp_path / "worst.png").stat().st_size <= model_card._MOST_BYTES


# --- the rehearsal of a lent machine ---


def started(folder: Path, *arguments: object, **variables: object) -> subprocess.Popen[str]:
    given = {"PYTHON": sys.executable, "DEVICE": "cpu", "SITE": "/nowhere", "RUNS": folder / "runs"}
    given |= {"PACK": folder / "pack.zip", "OUT": folder / "back", "OMP_NUM_THREADS": 1}
    env = os.environ | {key: str(value) for key, value in (given | variables).items()}
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(
        command, env=env, cwd=SCRIPT.parents[1], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def test_a_call_that_is_cut_short_hands_over_what_the_next_goes_on_from(folder):
    recipe = write_recipe(folder, "checkpoint_minutes = 0.01", "real_bytes = false")
    told(recipe, "--pack", folder / "pack.zip", "--limit-mib", 1)
    (folder / "back").mkdir()
    call = started(folder, "train", recipe, 60, HAND_OVER=1)
    while not (folder / "back" / "checkpoint.sha256").is_file() and call.poll() is None:
        time.sleep(0.2)
    call.terminate()  # as the end of CALL_SECONDS would
    text = call.communicate(timeout=60)[0]
    assert call.returncode == 0
    assert "stopped in time" in text
    names = {path.name for path in (folder / "back").iterdir()}
    assert {"checkpoint.sha256", "log.jsonl", "checkpoint.part-00"} <= names
    assert len(names) <= 8
    assert started(folder, "collect", folder / "back", recipe, RUNS=folder / "home").wait() == 0
    checkpoint = folder / "home" / "tiny"
    step = states.read(checkpoint / states.CHECKPOINT)["step"]
    assert step > 0
    further = run(recipe, out=checkpoint, resume=True, other_recipe=True, steps=step + 2, **QUIET)
    assert (further.finished, further.steps) == (True, step + 2)


def test_pieces_of_two_checkpoints_are_refused(folder):
    (folder / "back").mkdir()
    (folder / "back" / "checkpoint.part-00").write_bytes(b"one")
    (folder / "back" / "checkpoint.sha256").write_text("0" * 64)
    assert started(folder, "collect", folder / "back", folder / "tiny.toml").wait() == 1
    assert not (folder / "runs" / "tiny" / "checkpoint.pt").exists()
