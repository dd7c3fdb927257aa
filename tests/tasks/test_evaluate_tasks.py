"""`eozip evaluate-tasks` from folder to files, on tiny data of our own making."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from eozip.errors import InputError
from eozip_lab import tasks
from eozip_lab.commands.evaluate import evaluate
from eozip_lab.commands.evaluate_tasks import evaluate_tasks
from eozip_lab.tasks import report
from eozip_lab.tasks.gallery import strip
from eozip_lab.tasks.pictures import LOST
from reportfiles import write_made_up_report
from tasksfiles import land_chip

TITLE = "# What compression does to the work that follows"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forests at two dates, as crick.npz has them, in a folder below the one that is given."""
    folder = tmp_path_factory.mktemp("data")
    stacks = {}
    for k in range(3):
        dn = land_chip(dates=2, seed=k, noise=60).dn.copy()
        dn[1, 11, 10:20, 10:20] = 9000
        stacks[f"place{k}"] = dn
    (folder / "below").mkdir()
    np.savez(folder / "below" / "crick.npz", **stacks)
    return folder


@pytest.fixture(scope="module")
def found(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("out") / "results"
    plan = tasks.Plan((data,), codecs=("tec-elic-small",), baselines=("klt+jpeg2000",), few=True)
    for run in tasks.run_tasks(plan):
        tasks.write(run, out)
    return out


def document(folder: Path) -> dict:
    return json.loads((folder / "tasks.json").read_text())


def test_bytes_are_equal_and_every_measure_has_a_value(found: Path) -> None:
    pytest.importorskip("imagecodecs")
    (task,) = document(found)["tasks"]
    sizes = {row["method"]: row["bytes"] for row in task["rows"]}
    assert sizes["klt+jpeg2000"] == pytest.approx(sizes["tec-elic-small"], rel=0.15)
    for row in task["rows"]:
        assert row["scores"]["change IoU"]["value"] > 0.3  # a scene of noise at few bytes
    assert task["original"]["change IoU"]["value"] == 1


def test_what_lacks_its_data_is_named(found: Path) -> None:
    skipped = {one["task"]: one["why"] for one in document(found)["skipped"]}
    assert "sen12mscr2.npz" in skipped["clouds"]
    assert "change" not in skipped


def test_the_page_says_that_few_chips_say_nothing(found: Path) -> None:
    text = (found / "tasks.md").read_text()
    assert text.startswith(TITLE)
    assert "say nothing" in text
    assert "## Left out" in text


def test_pictures_of_the_worst_are_small(found: Path) -> None:
    pictures = list((found / "tasks").glob("*.webp"))
    assert "change-change-IoU-1.webp" in {p.name for p in pictures}
    assert sum(p.stat().st_size for p in pictures) < 300_000
    assert "tasks/change-change-IoU-1.webp" in (found / "tasks.md").read_text()


def test_the_gallery_has_ours_and_the_best_classical_at_equal_bytes(found: Path) -> None:
    pytest.importorskip("imagecodecs")
    worst = document(found)["gallery"][0]
    ours, theirs = worst["rows"]
    assert (ours["method"], theirs["method"]) == ("tec-elic-small", "klt+jpeg2000")
    assert theirs["bytes"] == pytest.approx(ours["bytes"], rel=0.3)
    assert ours["value"] < worst["original"]
    assert (found / "tasks" / worst["file"]).is_file()


def test_the_gallery_is_ordered_by_subjects_with_a_name(found: Path) -> None:
    some = {**document(found)["gallery"][0]}
    subjects = report.by_subject([some, some | {"subject": "thin clouds", "task": "clouds"}])
    assert list(subjects) == ["thin clouds", "change"]


def test_the_readme_gets_the_short_table_between_its_markers(found: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.update_readme(readme, document(found))
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "change: change IoU" in text
    assert "old" not in text


def test_a_readme_without_markers_is_left_alone(found: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing here\n")
    with pytest.raises(InputError, match="each once"):
        report.update_readme(readme, document(found))
    assert readme.read_text() == "nothing here\n"


def test_results_of_other_tasks_stay(found: Path, data: Path, tmp_path: Path) -> None:
    earlier = document(found) | {"few": False}
    earlier["tasks"] = [{**earlier["tasks"][0], "name": "clouds"}]
    (tmp_path / "tasks.json").write_text(json.dumps(earlier))
    plan = tasks.Plan((data,), ("change",), (70.0,), ("tec-elic-small",), ("klt+jpeg2000",))
    *_, run = tasks.run_tasks(plan)
    earlier["qualities"] = [70.0]
    (tmp_path / "tasks.json").write_text(json.dumps(earlier))
    tasks.write(run, tmp_path)
    assert {task["name"] for task in document(tmp_path)["tasks"]} == {"clouds", "change"}


def test_tasks_that_nobody_ran_are_named(found: Path) -> None:
    alone = document(found) | {"skipped": []}
    text = report.text(alone)
    assert "## Not run yet" in text
    assert "--tasks 'clouds,water" in text
    assert "Not run yet" not in (found / "tasks.md").read_text()


def test_a_foreign_file_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.json").write_text('{"mine": 1}')
    plan = tasks.Plan((data,), ("change",), (70.0,), ("tec-elic-small",), ("klt+jpeg2000",))
    *_, run = tasks.run_tasks(plan)
    with pytest.raises(InputError, match="another folder"):
        tasks.write(run, tmp_path)
    assert (tmp_path / "tasks.json").read_text() == '{"mine": 1}'


def test_an_unknown_task_is_refused_before_anything(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown task fires: expected some of clouds, water"):
        list(tasks.run_tasks(tasks.Plan((tmp_path,), ("fires",))))


def test_no_data_at_all_says_what_lacks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing of what was asked for.*no crick\.npz"):
        list(tasks.run_tasks(tasks.Plan((tmp_path,), ("change",))))


def test_the_command_refuses_qualities_out_of_range(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        evaluate_tasks, [str(tmp_path), "--out", str(tmp_path / "o"), "--qualities", "120"]
    )
    assert done.exit_code == 2
    assert "0 to 100" in done.output


def test_a_strip_shows_where_most_is_lost_a_row_for_each_method() -> None:
    flat = np.zeros((256, 256, 3), np.uint8)
    marked = flat.copy()
    marked[200:210, 200:210] = LOST
    shown = strip([{"original": flat, "lost": marked}, {"original": flat, "lost": flat}])
    assert shown.shape == (2 * 192 + 4, 2 * 192 + 4, 3)
    assert (shown == LOST).all(2).sum() == 4 * 100


def test_the_page_of_evaluate_has_a_section_of_tasks(found: Path, tmp_path: Path) -> None:
    write_made_up_report(tmp_path)
    done = CliRunner().invoke(evaluate, ["--out", str(tmp_path), "--tasks-from", str(found)])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "report.html").read_text()
    assert '<section id="tasks">' in text
    assert "change: change IoU" in text
    picture = (found / "tasks" / document(found)["gallery"][0]["file"]).read_bytes()
    assert base64.b64encode(picture).decode() in text


def test_a_section_of_tasks_that_nobody_ran_is_refused_before_the_page(tmp_path: Path) -> None:
    write_made_up_report(tmp_path)
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(evaluate, ["--out", str(tmp_path), "--tasks-from", str(tmp_path / "empty")])
    assert isinstance(done.exception, InputError)
    assert "eozip evaluate-tasks" in str(done.exception)
    assert not (tmp_path / "report.html").exists()


def test_a_section_whose_picture_is_gone_is_a_named_error(found: Path, tmp_path: Path) -> None:
    shutil.copytree(found, tmp_path / "results")
    gone = tmp_path / "results" / "tasks" / document(found)["gallery"][0]["file"]
    gone.unlink()
    with pytest.raises(InputError, match=gone.name):
        tasks.page_section(tmp_path / "results")
