"""Judges: equal pixels give full marks, and a known harm gives the known loss."""

from __future__ import annotations

import numpy as np
import pytest

from eozip_lab.tasks import events
from eozip_lab.tasks.change import Change, changed
from eozip_lab.tasks.indices import Indices, index
from eozip_lab.tasks.phenology import Phenology, _double_logistic, _greenest, _season_starts
from eozip_lab.tasks.pictures import LOST
from eozip_lab.tasks.scores import score
from eozip_lab.tasks.table import TASKS
from eozip_lab.tasks.task import Chip, Tally, Task, TaskSkipped
from eozip_lab.tasks.water import Water, smaller
from tasksfiles import L2A, land_chip, water_chips


def value(tallies: list[Tally], measure: str) -> float:
    found = score(tallies, measure).value
    assert found is not None
    return found


def test_water_is_found_where_it_is() -> None:
    pytest.importorskip("sklearn")
    chips = water_chips()
    found = Water(chips)([chip.dn for chip in chips])
    assert value(found, "water IoU") > 0.99
    assert value(found, "small waters found") == 1


def test_drained_ponds_are_missed_and_nothing_else() -> None:
    pytest.importorskip("sklearn")
    chips = water_chips()
    drained = [chip.dn.copy() for chip in chips]
    for dn in drained:
        dn[:, :, 20:22, 24:26] = dn[:, :, 20:22, 28:30]
    found = Water(chips)(drained)
    assert value(found, "small waters found") == 0
    assert value(found, "water IoU") > 0.95


def test_a_classifier_never_saw_the_place_that_it_is_tested_on() -> None:
    pytest.importorskip("sklearn")
    chips = [*water_chips(), *water_chips()]
    judge = Water(chips)
    folds = {chip.place: set() for chip in chips}
    for chip, fold in zip(chips, judge._fold):
        folds[chip.place].add(fold)
    assert all(len(found) == 1 for found in folds.values())
    assert len(judge._original) == 4


def test_pictures_show_in_red_what_a_measure_lost() -> None:
    pytest.importorskip("sklearn")
    chips = water_chips()
    drained = chips[0].dn.copy()
    drained[:, :, 20:22, 24:26] = drained[:, :, 20:22, 28:30]
    *_, lost = Water(chips).panels(0, drained, "small waters found").values()
    red = (lost == LOST).all(2)
    assert red.sum() == 4
    assert red[20:22, 24:26].all()


def test_small_waters_are_whole_ones() -> None:
    labels = np.zeros((20, 20), bool)
    labels[5:7, 5:7] = labels[0:2, 10:12] = labels[10:18, 10:18] = True
    found = smaller(labels, 25)
    assert found.sum() == 4
    assert found[5, 5]


def test_clusters_of_equal_pixels_are_alike() -> None:
    pytest.importorskip("sklearn")
    from eozip_lab.tasks.landcover import LandCover

    chip = land_chip()
    found = LandCover([chip])([chip.dn])
    assert value(found, "class alike") == 1
    assert value(found, "adjusted Rand, learnt anew") == 1


def test_a_field_that_changed_its_spectrum_is_sorted_elsewhere() -> None:
    pytest.importorskip("sklearn")
    from eozip_lab.tasks.landcover import LandCover

    chip = land_chip()
    dn = chip.dn.copy()
    dn[:, :, :4] = dn[:, :, -4:]  # 4 of 32 rows
    assert value(LandCover([chip])([dn]), "class alike") == pytest.approx(1 - 4 / 32)


def test_an_index_is_off_by_what_the_band_is_off() -> None:
    dn = np.full((1, 12, 8, 8), 1000, np.uint16)
    dn[:, L2A.index("B08")] = 3000
    chip, off = Chip("a", "a", dn, L2A), dn.copy()
    off[:, L2A.index("B04")] = 1200
    (tally,) = Indices([chip])([off])
    total, count = tally.sums["NDVI error x 1000"]
    assert total / count == pytest.approx(2000 / 4000 - 1800 / 4200)
    assert tally.sums["NDWI error x 1000"][0] == 0


def test_pixels_without_data_count_in_no_index() -> None:
    dn = np.full((1, 12, 8, 8), 1000, np.uint16)
    dn[:, :, :2] = 0
    (tally,) = Indices([Chip("a", "a", dn, L2A)])([dn])
    assert tally.sums["NDVI error x 1000"] == (0, 48)
    assert np.isnan(index(dn, L2A, "NDVI")[0, 0, 0])


def test_change_is_where_nbr_falls() -> None:
    dn = np.full((2, 12, 16, 16), 2000, np.uint16)
    dn[1, L2A.index("B12"), 4:7, 4:7] = 3500
    chip = Chip("a", "a", dn, L2A)
    assert changed(dn, L2A).sum() == 9
    same = Change([chip])([dn])
    assert value(same, "change IoU") == value(same, "small changes found") == 1
    lost = dn.copy()
    lost[1, L2A.index("B12"), 4] = 2000
    assert value(Change([chip])([lost]), "change IoU") == pytest.approx(6 / 9)


def season(start: float, days: np.ndarray, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    clean = _double_logistic(days, 0.2, 0.8, 0.1, start, 0.08, start + 110)
    return clean + rng.normal(0, noise, clean.shape)


def test_the_start_of_a_season_is_found() -> None:
    days = np.arange(0, 420, 6)
    ndvi = np.repeat(season(130, days, 0.02)[:, None, None], 6, 1).repeat(6, 2)
    clear = np.ones(ndvi.shape, bool)
    starts = _season_starts(days, ndvi, clear, _greenest(days, ndvi, clear))
    assert starts[3, 3] == pytest.approx(130, abs=3)


def test_bare_ground_has_no_season() -> None:
    days = np.arange(0, 420, 6)
    ndvi = np.random.default_rng(0).normal(0.2, 0.01, (70, 6, 6))
    clear = np.ones(ndvi.shape, bool)
    assert np.isnan(_season_starts(days, ndvi, clear, _greenest(days, ndvi, clear))).all()


def series_chips(start: float) -> list[Chip]:
    """36 months of one field in chunks of twelve dates; NDVI from red and near infrared."""
    days = np.arange(0, 432, 6)
    ndvi = season(start, days)
    dn = np.full((len(days), 12, 16, 16), 1000, np.uint16)
    dn[:, L2A.index("B08")] = np.rint(1000 * (1 + ndvi) / (1 - ndvi))[:, None, None]
    clear = np.ones((len(days), 16, 16), bool)
    return [
        Chip(f"s {k}", "s", dn[k : k + 12], L2A, {"days": days[k : k + 12], "clear": clear[k : k + 12]})
        for k in range(0, len(days), 12)
    ]


def test_a_later_season_is_as_many_days_later() -> None:
    chips, later = series_chips(130), series_chips(142)
    judge = Phenology(chips)
    assert value(judge([c.dn for c in chips]), "start within 5 days") == 1
    found = judge([c.dn for c in later])
    assert value(found, "start of season, days off") == pytest.approx(12, abs=1)
    assert value(found, "start within 5 days") == 0


def eventful_chip(seed: int = 0) -> Chip:
    """Four calm dates of vegetation with floods and fires at one."""
    random = np.random.default_rng(seed)
    base = np.array([300, 350, 600, 400, 900, 2200, 2700, 2900, 3000, 3000, 1500, 700])
    dn = np.clip(base[:, None, None] + random.normal(0, 30, (4, 12, 64, 64)), 1, None).astype(np.uint16)
    waters = np.array([[500, 500, 450, 300, 200, 150, 150, 120, 100, 90, 50, 40]])
    return events._with_events("made", dn, waters)


def test_events_are_seen_by_their_own_date_alone() -> None:
    chip = eventful_chip()
    seen = events.shown(chip.dn, chip)
    assert (chip.facts["size"] > 0).sum() > 20
    assert seen[chip.facts["size"] > 0].mean() > 0.95
    assert not seen[chip.facts["size"] == 0].any()


def test_a_series_that_forgets_the_date_loses_every_event() -> None:
    chip = eventful_chip()
    t = int(chip.facts["date"])
    forgot = chip.dn.copy()
    forgot[t] = forgot[t - 1]
    judge = events.Events([chip])
    assert value(judge([chip.dn]), "event found, 4 x 4") == 1
    assert value(judge([forgot]), "event found, 4 x 4") == 0
    assert value(judge([forgot]), "nothing made up") == 1


def test_what_was_measured_beside_clouds_comes_out_as_measured() -> None:
    """The event that past and future do not show, too."""
    chip = events._with_clouds(eventful_chip())
    found = events.Filling([chip])([events.filled(chip, "linear-in-time")])
    assert value(found, "measured event as measured") == 1
    assert value(found, "measured pixels as measured") == 1
    assert value(found, "hidden pixels marked") == 1
    assert value(found, "hidden event found") < 0.5  # the seam alone tells of it


def test_s2cloudless_sees_a_cloud_and_its_loss() -> None:
    pytest.importorskip("s2cloudless")
    from eozip_lab.tasks.clouds import Clouds

    rng = np.random.default_rng(0)
    land = np.array([1300, 1000, 900, 800, 1100, 2000, 2400, 2500, 2600, 900, 1800, 1000])
    dn = np.clip(land[:, None, None] + rng.normal(0, 30, (1, 12, 64, 64)), 1, None)
    dn[..., 20:50, 20:50] = 6000
    dn = dn.astype(np.uint16)
    chip, gone = Chip("a", "a", dn, L2A), dn.copy()
    gone[..., 20:50, 20:50] = dn[..., :30, :30]
    judge = Clouds([chip])
    assert value(judge([dn]), "cloud IoU") == 1
    lost = judge([gone])
    assert value(lost, "cloud IoU") == 0
    assert value(lost, "clear kept clear") == 1


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_names_data_and_judge_that_exist(task: Task) -> None:
    from eozip_lab.tasks.task import member

    assert callable(member(task.data))
    assert callable(member(task.judge))
    assert len({m.name for m in task.measures}) == len(task.measures)


def test_an_absent_package_is_named() -> None:
    task = Task("x", "x", "data:land", "indices:Indices", (), needs=("no_such_package_here",))
    with pytest.raises(TaskSkipped, match=r"no_such_package_here.*eozip\[tasks\]"):
        task.make_judge([])
