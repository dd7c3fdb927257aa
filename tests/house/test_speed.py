"""benchmarks/speed.py and anchors.py: settings at equal PSNR, mirrored stacks, published figures within their rounding."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eozip.errors import InputError
from reportfiles import write_made_up_report

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def speed() -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / "speed.py"))


@pytest.fixture(scope="module")
def anchors() -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / "anchors.py"))


class Noise:
    """A contender whose PSNR is its setting, or 60 less its setting."""

    name, settings = "noise", "for tests"

    def __init__(self, is_falling: bool) -> None:
        self.is_falling = is_falling

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        self.db = 60 - setting if self.is_falling else setting
        self.dn = dn
        return b"x"

    def decode(self, blob: bytes) -> np.ndarray:
        error = 10_000 / 10 ** (self.db / 20)
        return (self.dn + np.resize([round(error), -round(error)], self.dn.shape)).astype(np.uint16)


@pytest.mark.parametrize(("is_falling", "coarse", "fine"), [(False, 20.0, 80.0), (True, 51.0, 0.0)])
def test_settings_are_found_whichever_way_they_count(speed, is_falling, coarse, fine):
    dn = np.full((1, 2, 8, 8), 5000, np.uint16)
    found = speed["same_psnr"](Noise(is_falling), dn, 40.0, coarse, fine)
    assert (60 - found if is_falling else found) == pytest.approx(40, abs=0.15)


def test_stacks_are_mirrored_to_larger_chunks(speed):
    dn = np.arange(9, dtype=np.uint16).reshape(1, 1, 3, 3)
    assert speed["mirrored"](dn, 2)[0, 0].tolist() == [[0, 1], [3, 4]]
    assert speed["mirrored"](dn, 5)[0, 0, 0].tolist() == [0, 1, 2, 2, 1]
    assert speed["mirrored"](dn, 5)[0, 0, :, 0].tolist() == [0, 3, 6, 6, 3]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_measures_every_codec_beside_the_others(speed, tmp_path, monkeypatch):
    arguments = ["--sizes", "32", "--repeats", "1", "--data", str(tmp_path)]
    arguments += ["--codecs", "tec-tt-small", "tec-elic-small", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["speed.py", *arguments])
    speed["main"]()
    found = json.loads((tmp_path / "speed.json").read_text())
    (turn,) = found["turns"]
    assert set(turn["others"]) == {"OpenJPEG", "x265", "klt-t+av1"}
    ours = turn["ours"]["tec-tt-small"]
    assert turn["ratios"]["tec-tt-small"]["x265"]["total"] == pytest.approx(
        ours["total"] / turn["others"]["x265"]["total"], rel=1e-4
    )
    assert found["without_kernel"]["bytes"] == turn["ours"]["tec-elic-small"]["bytes"]
    assert found["first_date_in_a_fresh_process"] > 0


@pytest.mark.parametrize(
    ("published", "ours", "kept"),
    [
        (0.271, 0.2689, True),
        (0.16, 0.151, True),
        (0.16, 0.149, False),
        (0.718, 0.745, False),
        (0.1, None, None),
    ],
)
def test_published_figures_are_reproduced_within_three_percent_and_rounding(anchors, published, ours, kept):
    found = anchors["anchor"]("x", "y", published, ours)
    assert found.is_kept is kept
    assert found.ratio == (None if ours is None else pytest.approx(ours / published))


def test_anchors_need_both_places_of_the_report(anchors, tmp_path):
    assert anchors["stack_anchors"](tmp_path / "report.json") == []
    made = write_made_up_report(tmp_path)
    assert anchors["stack_anchors"](tmp_path / "report.json") == []
    text = json.dumps(made)
    for own, place in zip(("hill", "sea/~$</script><b>$x_$"), anchors["PLACES"]):
        text = text.replace(json.dumps(own)[1:-1], place)
    (tmp_path / "report.json").write_text(text)
    found = {(one.codec, one.what[-5:]): one for one in anchors["stack_anchors"](tmp_path / "report.json")}
    assert found["jpeg2000", "40 dB"].ours == pytest.approx(0.275)
    assert found["jpeg2000", "40 dB"].is_kept
    assert found["klt+jpeg2000", "44 dB"].ratio == pytest.approx(0.0675 * 4 ** (4 / 6) / 0.236)
    assert not found["klt+jpeg2000", "44 dB"].is_kept


def test_what_is_absent_is_said(anchors, tmp_path):
    assert anchors["frame_anchors"]([]) == []
    said = anchors["skipped"](tmp_path / "report.json", [])
    assert "run `eozip evaluate` first" in said["whole stacks"]
    assert "EOZIP_DATA" in said["one frame"]
    with pytest.raises(InputError):
        anchors["load_report"](tmp_path)
