"""The command line where files tell no dates, or are fewer than those of a store: what it says, and how it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from eozip.cli import cli
from rasterfiles import write_tif
from storefiles import NAMES, scene_pixels, write_dates


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def undated(folder: Path, letters: str) -> list[Path]:
    for letter in letters:
        write_tif(folder / f"{letter}.tif", scene_pixels(ord(letter)), NAMES)
    return [folder / f"{letter}.tif" for letter in letters]


def stored(folder: Path, paths: list[Path]) -> Path:
    run("encode", *paths, folder / "s.zarr", "--codec", "lossless")
    return folder / "s.zarr"


def test_verify_against_too_few_files_says_how_to_give_all(tmp_path):
    (tmp_path / "in").mkdir()
    paths = write_dates(tmp_path / "in")
    store = stored(tmp_path, paths)
    error = run("verify", store, "--against", paths[0], code=1).stderr
    assert "as many dates" in error
    assert "3, got 1" in " ".join(error.split())
    assert "may be repeated" in error
    assert "--bands" not in error
    run("verify", store, "--against", tmp_path / "in")


def test_verify_against_other_bands_still_speaks_of_bands(tmp_path):
    paths = write_dates(tmp_path)
    store = stored(tmp_path, paths[:1])
    write_tif(tmp_path / "t_20210715.tif", scene_pixels()[:3], NAMES[:3])
    assert "--bands" in run("verify", store, "--against", tmp_path / "t_20210715.tif", code=1).stderr


def test_a_picture_counts_undated_originals(tmp_path):
    paths = undated(tmp_path, "abcd")
    store = stored(tmp_path, paths)
    error = " ".join(run("picture", *paths[:3], store, tmp_path / "p.png", code=1).stderr.split())
    assert "None" not in error
    assert "expected 4 originals" in error
    assert "got 3, of which 3 without a date" in error
    run("picture", paths[2], store, tmp_path / "p.png", "--date", 3)


@pytest.mark.parametrize("originals", [0, 1])
def test_the_title_of_a_picture_lies_within_it(tmp_path, originals, monkeypatch):
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **more: (drawn.append(self), save(self, *a, **more))
    )
    paths = write_dates(tmp_path)[:1]
    store = stored(tmp_path, paths)
    run("picture", *paths[:originals], store, tmp_path / "p.png")
    (figure,) = drawn
    title = figure.get_suptitle()
    assert "whole store" in title
    box, whole = figure._suptitle.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1
    assert box.y1 <= whole.y1
    assert box.y0 >= max(axes.get_tightbbox().y1 for axes in figure.axes)


def test_appended_dates_that_are_not_known_are_counted_on(tmp_path):
    store = stored(tmp_path, undated(tmp_path, "abcd"))
    done = run("append", store, *undated(tmp_path, "ef"))
    assert "number 5 " in done.stdout
    assert "number 6 " in done.stdout
    assert "number 1 " not in done.stdout
    assert "cannot be checked" in " ".join(done.stderr.split())
    assert "number 6 " in run("info", store).stdout


def test_appended_dates_that_are_known_are_checked_without_a_word(tmp_path):
    paths = write_dates(tmp_path)
    store = stored(tmp_path, [paths[1]])
    done = run("append", store, paths[0])
    assert "2021-07-15" in done.stdout
    assert "cannot be checked" not in done.stderr
