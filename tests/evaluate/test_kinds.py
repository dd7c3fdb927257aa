"""Evidence by kind: what counts, what is measured anew, and what the tables say."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from eozip.cli import cli
from eozip.codecs.pyramid import grids
from eozip.errors import InputError, OutputError
from eozip_lab.evaluate.kinds import contenders, measure, sets, tables
from eozip_lab.evaluate.kinds.contenders import Way
from eozip_lab.evaluate.kinds.measure import Found, Point
from pyramidscenes import BILINEAR, cube, texture
from reportfiles import write_made_up_report

BANDS = {10: ["B02", "B03", "B04", "B08"], 20: ["B05", "B06", "B07", "B8A", "B11", "B12"], 60: ["B01", "B09"]}


def write_native(path: Path, side: int = 48, dates: int = 1) -> Path:
    """r10, r20, r60 of one place."""
    sides = {m: side * 10 // m for m in BANDS}
    arrays = {
        f"r{m}": np.rint(texture((dates, len(names), sides[m], sides[m]), m)).astype(np.uint16)
        for m, names in BANDS.items()
    }
    np.savez(path, **arrays, **{f"bands{m}": np.array(names) for m, names in BANDS.items()})
    return path


def write_listing(folder: Path, *changes: dict[str, Any]) -> Path:
    """A TOML file of sets of FOLDER/native.npz."""
    if not (folder / "native.npz").exists():
        write_native(folder / "native.npz")
    lines = []
    for change in changes:
        facts = {"name": "scene", "kind": "native", "files": [str(folder / "native.npz")], **change}
        lines += ["[[set]]", *(f"{key} = {json.dumps(value)}" for key, value in facts.items())]
    path = folder / "sets.toml"
    path.write_text("\n".join(lines))
    return path


def read(folder: Path, **change: Any) -> sets.KindSet:
    return sets.read(sets.listed(write_listing(folder, change))[0])


def made_up(name: str, size: Callable[[float], int], is_ours: bool = False, mark: str = "1") -> Way:
    """Steps of a setting: its bytes, and pixels rounded to multiples of it."""

    def code(scene: sets.Scene, sensor: str, step: float) -> tuple[int, sets.Groups]:
        return size(step), {m: np.rint(a / step) * step for m, a in scene.groups.items()}

    return Way(name, is_ours, f"{name} {mark}", (1024.0, 512.0, 256.0, 128.0, 64.0), code)


OURS = made_up("tec-elic-small", lambda step: int(40_000 / step), is_ours=True)
OTHER = made_up("other", lambda step: int(60_000 / step))


def never(scene: sets.Scene, sensor: str, setting: float) -> tuple[int, sets.Groups]:
    raise AssertionError("measured again")


# --- what counts ---


def test_only_native_samples_count(tmp_path: Path) -> None:
    (found,) = measure.measured([read(tmp_path)], [OURS], tmp_path / "kinds.json")
    assert found.samples == {10: 4 * 48**2, 20: 6 * 24**2, 60: 2 * 8**2}
    rate, _ = found.curve(OURS.name)[0]
    step = found.points[OURS.name][0].setting
    assert rate == pytest.approx(8 * int(40_000 / step) / sum(found.samples.values()))


def test_psnr_is_of_all_samples_together(tmp_path: Path) -> None:
    one = read(tmp_path)
    (found,) = measure.measured([one], [OURS], tmp_path / "kinds.json")
    step = found.points[OURS.name][-1].setting
    errors = [np.square(a - np.rint(a / step) * step).ravel() for a in one.scenes[0].groups.values()]
    expected = 10 * math.log10(1e8 / np.concatenate(errors).mean())
    assert found.curve(OURS.name)[-1][1] == pytest.approx(expected)


def test_a_cubes_bands_are_told_apart_by_their_resolution(tmp_path: Path) -> None:
    np.savez(tmp_path / "cube.npz", dn=texture((1, 12, 24, 24), 1).astype(np.uint16))
    one = read(tmp_path, files=[str(tmp_path / "cube.npz")])
    (found,) = measure.measured([one], [OURS], tmp_path / "kinds.json")
    assert found.samples == {10: 4 * 24**2, 20: 6 * 24**2, 60: 2 * 24**2}


def test_pixels_without_data_count_nowhere(tmp_path: Path) -> None:
    one = read(tmp_path, edge=True, baselines=False)
    (found,) = measure.measured([one], [OURS], tmp_path / "kinds.json")
    assert found.samples[10] == 4 * np.count_nonzero(one.scenes[0].groups[10][0, 0])
    assert 0.4 < found.samples[10] / (4 * 48**2) < 0.9


def test_tiles_are_all_of_the_scene(tmp_path: Path) -> None:
    tiles = read(tmp_path, cut=24).scenes
    assert len(tiles) == 4
    whole = read(tmp_path).scenes[0].groups
    for metres, pixels in whole.items():
        rows = [np.concatenate([t.groups[metres] for t in tiles[k : k + 2]], 3) for k in (0, 2)]
        assert np.array_equal(np.concatenate(rows, 2), pixels)


def test_few_bands_leave_groups_out(tmp_path: Path) -> None:
    (scene,) = read(tmp_path, take=["B02", "B08", "B11"]).scenes
    assert dict(scene.bands) == {10: ("B02", "B08"), 20: ("B11",)}


def test_settings_far_beyond_the_tables_are_not_tried(tmp_path: Path) -> None:
    steps = tuple(2.0**k for k in range(13, -1, -1))
    way = Way("other", False, "x", steps, OTHER.code)
    (found,) = measure.measured([read(tmp_path)], [way], tmp_path / "kinds.json")
    psnrs = [db for _, db in found.curve("other")]
    assert sum(db < 36 for db in psnrs) == 1
    assert max(psnrs) > 48
    assert len(psnrs) < len(steps) / 2


# --- contenders ---


@pytest.mark.parametrize("name", ["klt+jpeg2000, 10 m given 20 m", "klt+hevc, 10 m given 20 m", "klt+av1"])
def test_classical_contenders_give_back_every_group(tmp_path: Path, name: str) -> None:
    pytest.importorskip("av")
    way = next(way for way in contenders.classical() if way.name == name)
    (found,) = measure.measured([read(tmp_path)], [way], tmp_path / "kinds.json")
    psnrs = [db for _, db in found.curve(name)]
    assert psnrs[-1] > 45
    assert psnrs == sorted(psnrs)


def test_an_equal_setting_is_an_equal_error_in_every_group() -> None:
    pytest.importorskip("av")
    rng = np.random.default_rng(1)
    # the narrow range of 20 m would be coded finely, were it alone
    dim = {
        m: rng.integers(1000, 1000 + top, (1, 2, 40, 40)).astype(np.uint16)
        for m, top in ((10, 4000), (20, 800))
    }
    way = contenders.classical(["klt+hevc"])[0]
    _, made = way.code(sets.Scene(dim, {10: ("a", "b"), 20: ("c", "d")}), "s2-l2a", 12.0)
    errors = [float(np.square(made[m].astype(float) - dim[m]).mean()) for m in (10, 20)]
    assert max(errors) < 4 * min(errors)


def test_coarser_than_the_coarsest_setting_is_a_coarser_scale() -> None:
    pytest.importorskip("av")
    dn = np.rint(texture((1, 4, 64, 64), 1)).astype(np.uint16)
    scene = sets.Scene({10: dn}, {10: ("a", "b", "c", "d")})
    way = contenders.classical(["klt+hevc"])[0]
    sizes, errors = [], []
    for setting in (67.0, 60.0, 53.0, 46.0):
        size, made = way.code(scene, "s2-l2a", setting)
        sizes.append(size)
        errors.append(float(np.square(made[10].astype(float) - dn).mean()))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_a_name_takes_groups_apart_and_given_each_other() -> None:
    names = [way.name for way in contenders.classical(["klt+jpeg2000"])]
    assert names == ["klt+jpeg2000", "klt+jpeg2000, 10 m given 20 m"]
    with pytest.raises(InputError, match="got klt"):
        contenders.classical(["klt", "sz3"])


def test_shipped_codecs_code_groups_and_cubes_of_any_bands(tmp_path: Path) -> None:
    way = contenders.own("tec-elic-small", (30.0, 80.0))
    pair = [read(tmp_path), read(tmp_path, name="few", take=["B02", "B8A"])]
    for found in measure.measured(pair, [way], tmp_path / "kinds.json"):
        low, high = found.curve(way.name)
        assert low[0] < high[0]
        assert low[1] < high[1]


def test_codecs_over_time_take_no_single_date(tmp_path: Path) -> None:
    found = measure.measured(
        [read(tmp_path)], [contenders.own("tec-tt-small", (30.0,))], tmp_path / "kinds.json"
    )
    assert found[0].points == {}


def test_sets_of_small_stacks_meet_no_baselines(tmp_path: Path) -> None:
    path = write_listing(tmp_path, {}, {"name": "tiles", "cut": 24, "against": "scene"})
    found = measure.measured(
        [sets.read(one) for one in sets.listed(path)], [OURS, OTHER], tmp_path / "kinds.json"
    )
    assert [list(one.points) for one in found] == [[OURS.name, OTHER.name], [OURS.name]]


# --- what is measured anew ---


def test_nothing_is_measured_twice(tmp_path: Path) -> None:
    one, path = read(tmp_path), tmp_path / "kinds.json"
    before = measure.measured([one], [OURS, OTHER], path)
    again = [Way(w.name, w.own, w.fingerprint, w.settings, never) for w in (OURS, OTHER)]
    after = measure.measured([one], again, path)
    for name in (OURS.name, OTHER.name):
        for (rate, db), (rate_, db_) in zip(before[0].curve(name), after[0].curve(name)):
            assert (rate_, db_) == pytest.approx((rate, db), rel=1e-6)


def test_new_weights_measure_only_their_own_points(tmp_path: Path) -> None:
    one, path = read(tmp_path), tmp_path / "kinds.json"
    measure.measured([one], [OURS, OTHER], path)
    other = Way(OTHER.name, False, OTHER.fingerprint, OTHER.settings, never)
    better = made_up(OURS.name, lambda step: int(10_000 / step), is_ours=True, mark="2")
    (found,) = measure.measured([one], [better, other], path)
    assert {p.bytes: p.setting for p in found.points[OURS.name]} == {
        int(10_000 / p.setting): p.setting for p in found.points[OURS.name]
    }


def test_a_run_that_was_ended_goes_on(tmp_path: Path) -> None:
    pair = [
        sets.read(one) for one in sets.listed(write_listing(tmp_path, {}, {"name": "few", "take": ["B02"]}))
    ]
    path = tmp_path / "kinds.json"

    def ended(scene: sets.Scene, sensor: str, setting: float) -> tuple[int, sets.Groups]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure.measured(pair, [OURS, Way("other", False, OTHER.fingerprint, OTHER.settings, ended)], path)
    only = [Way(OURS.name, True, OURS.fingerprint, OURS.settings, never)]
    assert [list(one.points) for one in measure.measured(pair[:1], only, path)] == [[OURS.name]]


def test_contenders_that_do_not_take_part_keep_their_points(tmp_path: Path) -> None:
    path = tmp_path / "kinds.json"
    measure.measured([read(tmp_path)], [OURS, OTHER], path)
    (found,) = measure.measured([read(tmp_path)], [OURS], path)
    assert set(found.points) == {OURS.name, OTHER.name}
    (changed,) = measure.measured([read(tmp_path, window=[0, 0, 36, 36])], [OURS], path)
    assert set(changed.points) == {OURS.name}


def test_cells_are_the_same_pixels_by_any_product_of_matrices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grids.Grid(BILINEAR, 2, 0, 1)
    np.savez(tmp_path / "cube.npz", dn=cube((1, 12, 72, 72), dict.fromkeys((4, 5, 6, 8, 10, 11), grid)))
    solved, digests = grids.Grid.solved, set()

    def shaken(one: grids.Grid, x: np.ndarray, steps: float) -> np.ndarray:
        return solved(one, x) * (1 + steps * np.finfo(x.dtype).eps)

    for steps in (0, 2, -2):  # as sums in another order differ
        monkeypatch.setattr(grids.Grid, "solved", functools.partialmethod(shaken, steps=steps))
        digests.add(read(tmp_path, files=[str(tmp_path / "cube.npz")], cells=True).digest())
    assert len(digests) == 1


def test_sets_whose_files_are_absent_keep_their_points(tmp_path: Path) -> None:
    path = tmp_path / "kinds.json"
    measure.measured([read(tmp_path)], [OURS], path)
    (kept,) = measure.measured([], [OURS], path, absent=["scene"])
    assert kept.listed.name == "scene"
    assert [one.listed.name for one in measure.load(path)] == ["scene"]


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "kinds.json"
    path.write_text('{"schema": "something else"}')
    with pytest.raises(OutputError, match="something else"):
        measure.measured([read(tmp_path)], [OURS], path)
    assert path.read_text() == '{"schema": "something else"}'


# --- listings ---


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"crop": 3}, "crop"),
        ({"cut": 4}, "cut"),
        ({"against": "nobody"}, "nobody"),
        ({"files": []}, "files"),
        ({"axis": "band"}, "axis"),
    ],
)
def test_listings_that_mean_nothing_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        sets.listed(write_listing(tmp_path, change))


@pytest.mark.parametrize("change", [{"take": ["B99"]}, {"window": [0, 0, 999, 999]}, {"pick": [4]}])
def test_what_does_not_fit_the_data_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        read(tmp_path, **change)


def test_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scene"):
        sets.listed(write_listing(tmp_path, {}, {}))


# --- tables ---


def found(name: str, ours: float, other: float, **listed: Any) -> Found:
    """A set where ours and another codec need so many bits per sample at 40 dB."""

    def points(bits: float) -> list[Point]:
        dbs = (34.0, 40.0, 46.0, 50.0)
        return [
            Point(db, round(bits * 125_000 * 2 ** ((db - 40) / 6)), {10: 1e14 / 10 ** (db / 10)}, 0.0, "")
            for db in dbs
        ]

    facts = sets.Listed(name=name, kind="made up", files=("x",), **listed)
    held = {"tec-elic-small": points(ours), "klt+av1": points(other), "jpeg2000": points(2 * other)}
    return Found(facts, 1, {10: (1, 1, 1000, 1000)}, 1, {10: 1_000_000}, held)


def test_the_worst_comes_first() -> None:
    order = [found("good", 1, 2), found("bad", 3, 2), found("fair", 1.8, 2)]
    rows = tables.equal_psnr(order).splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["bad", "fair", "good"]
    assert rows[0].split(" | ")[3] == "klt+av1"
    assert rows[0].split(" | ")[5] == "1.50"


def test_losses_are_told() -> None:
    told = tables.losses([found("good", 1, 2), found("bad", 3, 2)])
    assert told
    assert all(sentence.startswith("bad, ") for sentence in told)


def test_the_slowest_preset_is_the_best_other_codec_and_told() -> None:
    one = found("fair", 1, 2)
    quick = [replace(point, cpu_seconds=2.0) for point in one.points["klt+av1"]]
    slow = [replace(point, cpu_seconds=12.0) for point in one.points["tec-elic-small"]]
    both = replace(one, points={**one.points, "klt+av1": quick, "klt+av1 preset 0": slow})
    assert tables.best(both, 40) == "klt+av1 preset 0"
    assert "AV1 needs 0.50 of the bits that it has by preset 2 on 1 sets, in 6 times" in tables.means([both])


def test_equal_bytes_are_those_of_ours() -> None:
    (row,) = tables.equal_bytes([found("fair", 1, 2)]).splitlines()[2:]
    cells = [cell.strip() for cell in row.strip("| ").split(" | ")]
    assert cells[:3] == ["fair", "1.0000", "klt+av1"]
    assert float(cells[3]) == pytest.approx(40, abs=0.01)
    assert float(cells[4]) == pytest.approx(34, abs=0.02)


def test_fewer_bands_are_compared_by_bytes() -> None:
    whole, few = found("whole", 1, 2), found("few", 0.9, 2, against="whole", compare="bytes", limit=1.0)
    assert tables.against(few, whole, "tec-elic-small", 40) == pytest.approx(0.9, rel=1e-3)
    assert "| 0.90 |" in tables.compared([whole, few])


def test_a_codec_that_does_not_get_there_is_a_loss() -> None:
    one = found("short", 1, 2)
    short = Found(
        one.listed,
        1,
        one.shapes,
        1,
        one.samples,
        {**one.points, "tec-elic-small": one.points["tec-elic-small"][:2]},
    )
    assert "short, 44 dB: klt+av1 is best, tec-elic-small has no such point." in tables.losses([short])


def test_the_command_writes_points_and_tables(tmp_path: Path) -> None:
    listing = write_listing(tmp_path, {}, {"name": "absent", "files": [str(tmp_path / "no.npz")]})
    asked = ["evaluate", str(listing), "--out", str(tmp_path / "out"), "--codecs", "tec-fp-small"]
    done = CliRunner().invoke(cli, [*asked, "--baselines", "klt+jpeg2000", "--qualities", "20,70"])
    assert done.exit_code == 0, done.output
    assert "absent: no " in done.output
    assert "klt+jpeg2000" in (tmp_path / "out" / "kinds.md").read_text()
    assert [one.listed.name for one in measure.load(tmp_path / "out" / "kinds.json")] == ["scene"]


# --- the page ---


def write_exact(folder: Path) -> None:
    sizes = {"lossless": 500, "max-error": 250, "lerc": 1000, "sz3": 2000}
    rows = [{"data": "there", "samples": 1000, "eozip": 900, "jpeg2000": 1000, "jpegxl": 950}]
    bounded = [{"data": "there", "samples": 1000, "error": 16, "bytes": sizes}]
    (folder / "lossless.json").write_text(json.dumps({"rows": rows, "bounded": bounded}))


def test_the_page_of_evaluate_has_a_section_of_kinds(tmp_path: Path) -> None:
    write_made_up_report(tmp_path)
    (tmp_path / "results" / "kinds").mkdir(parents=True)
    measure.measured([read(tmp_path)], [OURS, OTHER], tmp_path / "results" / "kinds" / "kinds.json")
    write_exact(tmp_path / "results")
    done = CliRunner().invoke(
        cli, ["evaluate", "--out", str(tmp_path), "--kinds-from", str(tmp_path / "results")]
    )
    assert done.exit_code == 0, done.output
    text = (tmp_path / "report.html").read_text()
    assert '<section id="kinds">' in text
    assert all(f"<td>{cell}</td>" in text for cell in ("scene", "0.67", "0.900", "4.000", "16.000"))


def test_a_page_of_kinds_that_nobody_measured_is_refused(tmp_path: Path) -> None:
    write_made_up_report(tmp_path)
    asked = ["evaluate", "--out", str(tmp_path), "--kinds-from", str(tmp_path)]
    assert "kinds.json: no such file" in CliRunner().invoke(cli, asked).output
    (tmp_path / "kinds").mkdir()
    measure.measured([read(tmp_path)], [OURS, OTHER], tmp_path / "kinds" / "kinds.json")
    (tmp_path / "lossless.json").write_text('{"rows": [7]}')
    assert "benchmarks/lossless.py" in CliRunner().invoke(cli, asked).output
    assert not (tmp_path / "report.html").exists()


# --- reports ---


def test_a_report_on_the_same_pixels_stands_for_others(tmp_path: Path) -> None:
    dn = texture((2, 12, 32, 32), 1).astype(np.uint16)
    np.savez(tmp_path / "cube.npz", reflectance=dn)
    asked = [str(tmp_path / "cube.npz"), "--codecs", "none", "--baselines", "jpeg2000", "--every", "7"]
    done = CliRunner().invoke(cli, ["evaluate", *asked, "--out", str(tmp_path / "r")])
    assert done.exit_code == 0, done.output
    report = tmp_path / "r" / "report.json"
    one = read(tmp_path, files=asked[:1], report=str(report))
    (told,) = measure.measured([one], [OURS, OTHER], tmp_path / "kinds.json")
    assert list(told.points) == ["jpeg2000", OURS.name]
    expected = [(p["bpppb"], p["psnr"]) for p in json.loads(report.read_text())["points"]]
    for (rate, db), (rate_, db_) in zip(told.curve("jpeg2000"), expected):
        assert (rate, db) == pytest.approx((rate_, db_), rel=1e-4)


def test_a_report_on_other_pixels_is_refused(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"schema": "eozip-evaluate/1", "places": [{"sha256": "no"}], "points": []}))
    np.savez(tmp_path / "cube.npz", dn=texture((1, 12, 24, 24), 1).astype(np.uint16))
    one = read(tmp_path, files=[str(tmp_path / "cube.npz")], report=str(report))
    with pytest.raises(OutputError, match="pixels of scene"):
        measure.measured([one], [OURS], tmp_path / "kinds.json")
