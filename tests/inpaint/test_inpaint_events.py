"""Floods, snow and fires of one date, which the dates before and after do not show: as measured, or as uncertain."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from eozip.cli import cli
from eozip.inpaint import Filled, inpaint
from eozip.store import describe, read_dropped
from inpaintfiles import L2A, masks, season
from rasterfiles import write_tif
from storefiles import opened

DAYS = [0.0, 10.0, 20.0, 30.0, 40.0]
DATES = ("20220101", "20220111", "20220121", "20220131", "20220210")
T, SIDE = 2, 96
EVENTS = {
    "flood": np.array([300, 280, 260, 200, 180, 150, 140, 120, 110, 100, 60, 40]),
    "snow": np.array([7600, 7500, 7400, 7300, 7200, 7000, 6900, 6800, 6700, 6000, 700, 650]),
    "fire": np.array([280, 300, 320, 400, 480, 500, 520, 540, 560, 500, 1300, 1600]),
}


def where() -> np.ndarray:
    """Bool [SIDE, SIDE]: where it happened, a round place."""
    y, x = np.indices((SIDE, SIDE))
    return (y - 48) ** 2 + (x - 48) ** 2 < 30**2


def eventful(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A series with an event at date T, and without it: uint16 [5, 12, SIDE, SIDE]."""
    calm = season(5, 12, SIDE, SIDE)
    dn, random = calm.copy(), np.random.default_rng(1)
    spectrum = EVENTS[kind][:, None] * random.normal(1, 0.1, (1, int(where().sum())))
    dn[T][:, where()] = np.clip(spectrum, 1, None).astype(np.uint16)
    return dn, calm


def clouds() -> np.ndarray:
    """Bool [5, SIDE, SIDE]: half of the event's date."""
    hidden = np.zeros((5, SIDE, SIDE), bool)
    hidden[T] = masks(1, SIDE, SIDE, 0.5)[0]
    return hidden


@pytest.fixture(scope="module", params=EVENTS)
def case(request) -> tuple[np.ndarray, np.ndarray, Filled, Filled]:
    """With the event and without it; both filled."""
    dn, calm = eventful(request.param)
    return dn, calm, inpaint(dn, clouds(), days=DAYS), inpaint(calm, clouds(), days=DAYS)


def test_what_was_measured_is_there_to_the_bit(case):
    dn, _, filled, _ = case
    seen = np.broadcast_to(~clouds()[:, None], dn.shape)
    assert np.array_equal(filled.dn[seen], dn[seen])
    assert (filled.provenance[T][where() & ~clouds()[T]] == 0).all()


def test_what_was_hidden_is_marked_and_uncertain(case):
    dn, _, filled, calm = case
    at = where() & clouds()[T]
    assert (filled.provenance[T][at] > 0).all()
    assert np.median(filled.sigma[T][:, at]) > 2 * np.median(calm.sigma[T][:, at])
    off = np.abs(filled.dn[T].astype(float) - dn[T])
    assert (off <= 1.645 * filled.sigma[T])[:, at].mean() > 0.8
    assert (off <= 1.645 * filled.sigma[T])[:, clouds()[T]].mean() > 0.85


def test_other_dates_do_not_show_it(case):
    """A date hidden whole beside it, as if nothing had happened, but less sure."""
    dn, before, _, _ = case
    hidden = np.zeros((5, SIDE, SIDE), bool)
    hidden[T + 1] = True
    filled, calm = (inpaint(x, hidden, days=DAYS) for x in (dn, before))
    event = np.abs(dn[T].astype(float) - before[T])[:, where()].mean()
    shown = np.abs(filled.dn[T + 1].astype(float) - calm.dn[T + 1])[:, where()].mean()
    assert shown < 0.35 * event  # half, between two neighbours
    assert filled.sigma[T + 1][:, where()].mean() > 1.2 * calm.sigma[T + 1][:, where()].mean()


def run(*arguments: object) -> None:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)


def files(folder, planes, names):
    folder.mkdir()
    for date, plane in zip(DATES, planes, strict=True):
        write_tif(folder / f"tile_{date}.tif", plane, names, nodata=None)
    return folder


@pytest.mark.parametrize("kind", EVENTS)
def test_through_a_store_that_spends_nothing_on_clouds(tmp_path, kind):
    dn, _ = eventful(kind)
    hidden, at = clouds()[T], where()
    source = files(tmp_path / "in", dn, L2A)
    mask = files(tmp_path / "masks", clouds()[:, None].astype(np.uint8), ("mask",))
    run("encode", source, tmp_path / "s.zarr", "--mask", mask, "--drop", "masked", "--quality", 80)
    run("inpaint", tmp_path / "s.zarr", tmp_path / "f.zarr", "--mask", mask)
    with opened(tmp_path / "s.zarr") as stored, opened(tmp_path / "f.zarr") as filled:
        there, found = stored.reflectance.values, filled.reflectance.values
        provenance, sigma = filled.provenance.values, filled.sigma.values
    assert np.array_equal(found[T][:, ~hidden], there[T][:, ~hidden])
    assert np.abs(found[T].astype(float) - dn[T])[:, at & ~hidden].mean() < 30
    assert ((provenance > 0) == clouds()).all()
    off = np.sqrt(np.square(found[T].astype(float) - dn[T]).mean(0))
    assert (off <= 1.645 * sigma[T])[at & hidden].mean() > 0.8


def test_what_a_store_was_never_sent_is_not_taken_for_measured(tmp_path):
    dn, _ = eventful("flood")
    source = files(tmp_path / "in", dn, L2A)
    mask = files(tmp_path / "masks", clouds()[:, None].astype(np.uint8), ("mask",))
    little = np.zeros((5, 1, SIDE, SIDE), np.uint8)
    little[0, 0, 0, 0] = 1
    other = files(tmp_path / "other", little, ("mask",))
    run("encode", source, tmp_path / "s.zarr", "--mask", mask, "--drop", "masked", "--quality", 40)
    run("inpaint", tmp_path / "s.zarr", tmp_path / "f.zarr", "--mask", other)
    dropped = read_dropped(describe(tmp_path / "s.zarr"))
    assert dropped[T].mean() > 0.1
    with opened(tmp_path / "f.zarr") as filled:
        assert ((filled.provenance.values > 0) == (dropped | little[:, 0].astype(bool))).all()
