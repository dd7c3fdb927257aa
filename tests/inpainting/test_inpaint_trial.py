"""Measuring inpainting: our protocol, AllClear's files and metrics, resuming, tables."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from skimage.metrics import structural_similarity

from eozip.cli import cli
from eozip.errors import InputError
from eozip.inpaint.baselines import LeastCloudyFilled, MeanClear, NearestClear
from eozip.inpaint.registry import DEFAULT, get_predictor
from eozip_lab.inpainting.allclear import (
    LEAST_CLOUDY,
    PUBLISHED,
    AllClearScore,
    _cloud_and_shadow,
    _evaluate_sample,
    _load_series,
    batch_means,
    image,
    mask,
    mean_scores,
    metrics,
    predicted,
    read_samples,
    scored_by_land_cover,
)
from eozip_lab.inpainting.run import Journal, run_cases, summary
from eozip_lab.inpainting.scores import score
from eozip_lab.inpainting.synthetic_clouds import CLOUDY, Truth, cases, load_truths
from inpaintfiles import L1C, L2A, season, truth, write_allclear
from rasterfiles import write_tif


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


# --- our own protocol ---


def test_cases_are_the_same_every_time_and_score_what_was_hidden():
    a, b = (list(cases(truth(), (0.1, 1.0), 1)) for _ in range(2))
    assert [case.key for case in a] == [case.key for case in b]
    assert len(a) == 6
    for one, other in zip(a, b):
        assert np.array_equal(one.series.hidden, other.series.hidden)
        assert one.scored.mean() == pytest.approx(one.cover, abs=0.01)
        assert (one.series.hidden[one.date] >= one.scored).all()
        assert (one.series.x[one.date][:, one.scored] == 0).all()
        assert (one.truth[:, one.scored] > 0).any()


def test_real_clouds_are_hidden_and_not_scored():
    x = season().astype(np.float32)
    x[2, 1] = CLOUDY + 1  # a whole date
    x[:, 1, :2, :2] = CLOUDY + 1  # a corner of every date
    for case in cases(Truth("fields", x, L2A), (0.5,), 2):
        assert case.date != 2
        assert case.series.hidden[2].all()
        assert not case.scored[:2, :2].any()


def test_a_series_without_clear_dates_is_refused():
    x = np.full((3, 12, 20, 20), 5000, np.float32)
    with pytest.raises(InputError, match="clear series"):
        list(cases(Truth("bright", x, L2A), (0.5,), 1))


def test_scores_of_known_errors():
    random = np.random.default_rng(0)
    x = random.uniform(200, 3000, (4, 40, 40)).astype(np.float32)
    scored = np.zeros((40, 40), bool)
    scored[10:30, 10:30] = True
    off = np.where(scored, x + 50, 77)
    found = score(x, off, scored, np.full_like(x, 40))
    assert (found.mae, found.rmse) == (pytest.approx(50, rel=1e-4), pytest.approx(50, rel=1e-4))
    assert found.psnr == pytest.approx(20 * math.log10(10_000 / 50), abs=1e-3)
    assert found.inside == 1
    assert score(x, off, scored, np.full_like(x, 30)).inside == 0
    assert score(x, 2 * x, scored).sam == pytest.approx(0, abs=1e-4)
    shown = np.where(scored, off, x) / 1e4
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    maps = [structural_similarity(x[c] / 1e4, shown[c], full=True, **options)[1][scored] for c in range(4)]
    assert found.ssim == pytest.approx(np.mean(maps), abs=1e-5)


def test_journal_resumes_and_survives_a_cut_line(tmp_path):
    path, found = tmp_path / "rows", list(cases(truth(), (0.3,), 1))
    run_cases(found[:2], [MeanClear()], Journal(path))
    path.write_text(path.read_text()[:-20])  # interrupted while writing
    journal, runs = Journal(path), []
    assert len(journal.rows) == 1
    run_cases(found, [MeanClear()], journal, seen=lambda case, predictor, x_hat: runs.append(case.key))
    assert runs == [case.key for case in found[1:]]
    assert [row["key"] for row in Journal(path).rows] == [case.key for case in found]


def test_summary_names_winner_and_best_baseline():
    def rows(predictor, mae, cover):
        metrics = dict.fromkeys(("rmse", "psnr", "sam", "ssim", "inside", "seconds"), 1.0)
        base = {"key": f"a {cover}", "place": "a", "dates": 4, "cover": cover, "predictor": predictor}
        return {**base, "mae": mae, **metrics}

    table = [rows("regression", 10.0, 0.2), rows("regression", 20.0, 0.3), rows("mean-clear", 30.0, 0.2)]
    table += [rows("nearest-clear", 25.0, 0.2), rows("regression", 99.0, 1.0)]
    groups = summary(table)
    assert [group["cover"] for group in groups] == [[0.1, 0.3], [0.9, 1.0]]
    assert groups[0]["predictors"]["regression"]["mae"] == 15
    assert (groups[0]["winner"], groups[0]["best_baseline"]) == ("regression", "nearest-clear")
    assert groups[1]["best_baseline"] is None


def test_command_on_places_with_pictures(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for t, dn in enumerate(season(3)):
        write_tif(folder / f"fields_{t}.tif", dn, L2A)
    out, names = tmp_path / "r.json", "mean-clear,nearest-clear"
    options = ("--predictors", names, "--covers", "0.3", "--pictures", tmp_path / "p")
    assert "mean-clear" in run("evaluate-inpainting", folder, out, *options).stdout
    document = json.loads(out.read_text())
    assert len(document["rows"]) == 6
    assert document["default"] == DEFAULT
    assert document["summary"][0]["cases"] == 3
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["fields_0.3.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "p", "r.json"]
    assert "exists already" in run("evaluate-inpainting", folder, out, code=1).output
    run("evaluate-inpainting", folder, tmp_path / "x", "--covers", "2", code=2)


def test_npz_series_have_days(tmp_path):
    dates = np.array(["2020-01-01", "2020-01-11", "2020-02-10"])
    np.savez(tmp_path / "s.npz", reflectance=season(3), bands=np.array(L2A), dates=dates)
    (found,) = load_truths(tmp_path / "s.npz")
    assert found.days == (0, 10, 40)
    (tmp_path / "t.npz").write_bytes(b"no")
    with pytest.raises(InputError, match="reflectance"):
        load_truths(tmp_path / "t.npz")


# --- AllClear ---


@pytest.fixture(scope="module")
def allclear(tmp_path_factory):
    folder = tmp_path_factory.mktemp("allclear")
    return folder, write_allclear(folder)


def test_layout_is_read(allclear):
    folder, metadata = allclear
    samples = read_samples(metadata, folder)
    assert [sample.id for sample in samples] == ["0", "1"]
    assert all(path.exists() for sample in samples for _, path in (*sample.inputs, sample.target))
    series, date = _load_series(samples[0])
    assert series.x.shape == (4, 13, 256, 256)
    assert date == 3
    assert series.hidden[3].all()
    assert series.hidden[0][:, :38].all()  # 40 columns less 2 that the centre crop leaves out
    assert series.hidden[0, 128, 128]  # NaN
    assert not series.hidden[0, 20:100, 60:].any()
    assert list(series.days) == [0, 5, 10, 15]


def test_copying_a_date_scores_as_computed_by_hand(allclear):
    folder, metadata = allclear
    sample = read_samples(metadata, folder)[0]
    found = _evaluate_sample(sample, LeastCloudyFilled())
    target, clear = image(sample.target[1]), ~mask(sample.target[1])
    first, second, third = (image(path) for _, path in sample.inputs)
    copied = first.copy()
    for t, other in ((0, second), (1, third)):
        hole = mask(sample.inputs[t][1])
        copied[:, hole] = other[:, hole]
    copied[:, mask(sample.inputs[0][1]) & mask(sample.inputs[1][1])] = third[
        :, mask(sample.inputs[0][1]) & mask(sample.inputs[1][1])
    ]
    seen = ~np.logical_and.reduce([mask(path) for _, path in sample.inputs])
    error = (copied - target)[:, clear & seen] / 1e4
    assert (clear & ~seen).mean() < 0.2
    partly = metrics(copied / np.float32(1e4), target / np.float32(1e4), clear & seen)
    assert partly.mae == pytest.approx(np.abs(error).mean(), rel=1e-4)
    assert partly.psnr == pytest.approx(-10 * np.log10((error**2).mean()), abs=1e-3)
    assert 0.5 * partly.mae < found.mae < 3 * partly.mae


def test_metrics_of_allclear_are_those_of_the_published_formulas():
    random = np.random.default_rng(0)
    a, b = random.uniform(0.05, 0.4, (2, 3, 256, 256)).astype(np.float32)
    clear = random.random((256, 256)) > 0.3
    found = metrics(a, b, clear)
    cosine = (a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)
    assert found.sam == pytest.approx(np.degrees(np.arccos(cosine))[clear].mean(), rel=1e-4)
    # as their code: unit vectors along axis 2 of [N, C, H, W], angles [N, C, W] spread over the mask
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    angles = np.degrees(np.arccos(np.clip((x * y).sum(1), -1, 1)))[:, None] * clear
    assert found.sam_as_published == pytest.approx(angles.sum() / (3 * clear.sum()), rel=1e-4)
    assert found.rmse == pytest.approx(np.sqrt(((a - b)[:, clear] ** 2).mean()), rel=1e-4)
    assert metrics(a, a, clear).ssim == pytest.approx(1, abs=1e-5)


def test_samples_without_scored_pixels_do_not_count():
    nothing = metrics(*np.zeros((2, 3, 256, 256), np.float32), np.zeros((256, 256), bool))
    assert all(math.isnan(value) for value in asdict(nothing).values())
    means = mean_scores([nothing, AllClearScore(1, 2, math.inf, 4, 5, 6), AllClearScore(3, 2, 30, 4, 5, 6)])
    assert means == {"mae": 2, "rmse": 2, "psnr": 30, "sam": 4, "sam_as_published": 5, "ssim": 6}


def test_command_on_allclear(allclear, tmp_path):
    folder, metadata = allclear
    out = tmp_path / "r.json"
    options = ("--protocol", "allclear", "--root", folder, "--predictors", "mean-clear", "--limit", 1)
    run("evaluate-inpainting", metadata, out, *options)
    document = json.loads(out.read_text())
    assert (document["samples"], document["default"]) == (1, "regression")
    assert 0 < document["means"]["mean-clear"]["mae"] < 0.1


def test_their_least_cloudy_copies_one_image_clouds_and_all(allclear):
    folder, metadata = allclear
    sample = read_samples(metadata, folder)[0]
    paths = [path for _, path in sample.inputs]
    least = min(paths, key=lambda path: float(_cloud_and_shadow(path).sum()))
    for name in ("leastcloudy", "least-cloudy"):
        assert np.array_equal(predicted(sample, PUBLISHED[name]), image(least) / np.float32(1e4))
    target, clear = image(sample.target[1]) / np.float32(1e4), ~mask(sample.target[1])
    assert _evaluate_sample(sample, LEAST_CLOUDY) == metrics(image(least) / np.float32(1e4), target, clear)


def test_their_mosaic_is_zero_where_nothing_is_clear(allclear):
    folder, metadata = allclear
    sample = read_samples(metadata, folder)[0]
    masks = np.stack([mask(path) for _, path in sample.inputs])
    x = np.stack([image(path) for _, path in sample.inputs]) / np.float32(1e4)
    found = predicted(sample, PUBLISHED["mosaicing"])
    assert (found[:, masks.all(axis=0)] == 0).all()
    once = (~masks).sum(axis=0) == 1
    assert np.allclose(found[:, once], (x * ~masks[:, None]).sum(axis=0)[:, once])


def test_pixels_of_inputs_without_a_number_are_hidden(tmp_path):
    metadata = write_allclear(tmp_path, rois=1)
    sample = read_samples(metadata, tmp_path)[0]
    first = sample.inputs[0][1]
    x = season(1, 13, 260, 260)[0].astype(np.float32)
    x[4, 102, 152] = np.nan
    write_tif(first, x, L1C, nodata=None)
    series, _ = _load_series(sample)
    assert not mask(first)[100, 150]
    assert series.hidden[0, 100, 150]
    assert not series.hidden[0, 100, 151]


def test_scores_by_land_cover(tmp_path):
    metadata = write_allclear(tmp_path, rois=1)
    sample = read_samples(metadata, tmp_path)[0]
    output = predicted(sample, LEAST_CLOUDY)
    assert scored_by_land_cover(sample, output) == {}
    classes = np.zeros((1, 260, 260), np.float32)
    classes[0, :, 130:], classes[0, 200:] = 6, np.nan
    where = Path(str(sample.target[1]).replace("s2_toa", "dw"))
    where.parent.mkdir()
    write_tif(where, classes, (None,), nodata=None)
    found = scored_by_land_cover(sample, output)
    assert list(found) == ["water", "built"]
    target, clear = image(sample.target[1]) / np.float32(1e4), ~mask(sample.target[1])
    clear[:, 128:], clear[198:] = False, False
    assert found["water"].mae == pytest.approx(np.abs(output - target)[:, clear].mean(), rel=1e-5)


def test_means_over_batches_are_those_of_the_published_code():
    scores = [AllClearScore(*[float(value)] * 6) for value in (1, 2, 6)]
    assert batch_means(scores, 2)["mae"] == pytest.approx((1.5 + 6) / 2)
    assert batch_means(scores, 5)["mae"] == pytest.approx(3)
    nothing, exact = AllClearScore(*[math.nan] * 6), AllClearScore(0, 0, math.inf, 0, 0, 1)
    assert batch_means([*scores, nothing], 2)["mae"] == pytest.approx((1.5 + 6) / 2)
    assert batch_means([*scores, exact], 2)["psnr"] == math.inf


def test_the_default_is_kriging_where_the_target_is_hidden_whole(allclear):
    folder, metadata = allclear
    sample = read_samples(metadata, folder)[0]
    default, plain = (predicted(sample, get_predictor(name)) for name in ("regression", "kriging"))
    assert np.array_equal(default, plain)


def test_the_command_knows_their_names_and_batches(allclear, tmp_path):
    folder, metadata = allclear
    out, names = tmp_path / "r.json", "leastcloudy,mosaicing,least-cloudy-filled"
    options = ("--protocol", "allclear", "--root", folder, "--predictors", names, "--batch", 1)
    run("evaluate-inpainting", metadata, out, *options)
    document = json.loads(out.read_text())
    assert list(document["means"]) == names.split(",")
    assert (document["batch"], document["land_cover"]["leastcloudy"]) == (1, {})
    run("evaluate-inpainting", metadata, tmp_path / "x.json", "--predictors", "leastcloudy", code=1)


def test_other_layouts_are_named(allclear, tmp_path):
    (tmp_path / "m.json").write_text('{"0": {"target": 3}}')
    with pytest.raises(InputError, match="AllClear's metadata"):
        read_samples(tmp_path / "m.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_samples(tmp_path / "none.json")
    _folder, metadata = allclear
    sample = read_samples(metadata)[0]  # paths of another machine
    with pytest.raises(InputError, match="no such file"):
        _evaluate_sample(sample, NearestClear())
    write_tif(tmp_path / "roi_s2_toa_2022_1_3_median.tif", season(1, 13)[0], L1C)
    with pytest.raises(InputError, match="256 x 256"):
        image(tmp_path / "roi_s2_toa_2022_1_3_median.tif")


# --- what we say about ourselves ---


def test_results_hold_what_the_tool_says_about_its_default():
    document = json.loads((Path(__file__).parents[2] / "results" / "inpainting.json").read_text())
    groups = [group for group in document["summary"] if group["cover"][1] <= 0.5]
    assert {group["dates"] for group in groups} == {4, 12}
    for group in groups:
        default = group["predictors"][document["default"]]
        best = group["predictors"][group["best_baseline"]]
        assert default["mae"] < 0.5 * best["mae"]
        assert default["sam"] < best["sam"]
        # to the hundredth: a class of 12 dates is three cases
        assert 0.85 <= round(default["inside"], 2) <= 0.95
        others = [means for name, means in group["predictors"].items() if name != document["default"]]
        assert default["mae"] <= min(means["mae"] for means in others)
    for group in document["summary"]:  # hidden altogether, too, where nothing is there to learn from
        best = group["predictors"][group["best_baseline"]]
        assert group["predictors"][document["default"]]["mae"] < best["mae"]
    assert document["default"] == get_predictor(DEFAULT).name


def test_results_hold_what_the_page_says_of_long_series_and_events():
    wide = json.loads((Path(__file__).parents[2] / "results" / "inpainting.json").read_text())["wide"]
    assert {group["dates"] for group in wide["summary"]} == {97, 118}
    for group in wide["summary"]:
        default = group["predictors"][DEFAULT]
        assert default["mae"] <= min(means["mae"] for means in group["predictors"].values())
        assert 0.85 <= round(default["inside"], 2) <= 0.96
    for kind in ("flood", "snow", "fire"):
        mine = [
            r for r in wide["events"] if (r["event"], r["predictor"], r["part"]) == (kind, DEFAULT, "event")
        ]
        assert len(mine) == 12
        assert 0.85 <= np.mean([row["inside"] for row in mine]) <= 0.95
