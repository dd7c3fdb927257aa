"""flextec-small: intervals that only shrink, one stream for every rate, budgets by date."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eozip.codecs.base import Encoded
from eozip.codecs.small.intervals import DateState, PlaneCode, first_symbols
from eozip.codecs.small.linear_entropy import Step
from eozip.codecs.small.networks import SmallConfig
from eozip.codecs.small.progressive_codec import PLANES, SECTIONS, levels_per_plane, plane_level, sections_of
from eozip.codecs.small.progressive_files import load_flex
from eozip.codecs.small.refinement import ONE, UNITS, ZERO, refinement, refinement_tensors
from eozip.entropy.fixed_point import ExactArithmetic
from eozip.entropy.logistic_tables import LOG_SCALE_MIN, ROWS, STEP
from eozip.entropy.range_coder import DecodePort, EncodePort, EstimatePort
from eozip.errors import DesyncError, FormatError, InputError, WeightsError
from smallmodels import series_scene, tiny_flex_codec

WIDEST = (
    2 * UNITS - 2
)  # of a latent off the bin of its mean: what is left of two such bins beside half of one


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("flextec-tiny")


@pytest.fixture(scope="module")
def codec(folder):
    return tiny_flex_codec(folder)


@pytest.fixture(scope="module")
def x():
    return series_scene(3, 40, 30)


@pytest.fixture(scope="module")
def coded(codec, x):
    return codec.encode(x, 100)


def cut(coded: Encoded, k: int) -> Encoded:
    return replace(coded, sections=coded.sections[:k])


# --- Probabilities ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables():
    return refinement(refinement_tensors())


def logistic(position: np.ndarray, row: int) -> np.ndarray:
    """Mass below."""
    return 1 / (1 + np.exp(-position / UNITS / np.exp(LOG_SCALE_MIN + STEP * row)))


@pytest.mark.parametrize("row", [0, 30, 64, 90, ROWS - 1])
def test_masses_are_those_of_the_logistic_law(tables, row):
    low, high = (v.ravel() for v in np.meshgrid(np.arange(-900, 900, 37), np.arange(-900, 900, 41)))
    got = tables.mass(np.full(len(low), row), low, high)
    with np.errstate(over="ignore"):
        expected = np.where(high > low, logistic(high, row) - logistic(low, row), 0)
    assert got / ONE == pytest.approx(expected, abs=4 / ONE)
    assert (got[high > low] >= 1).all()
    assert (got[high <= low] == 0).all()


def test_masses_beyond_the_tails_are_least(tables):
    far = np.array([10**6])
    assert tables.mass(np.array([5]), far, far + 64) == 1
    assert tables.mass(np.array([5]), -far, far) == pytest.approx(ONE, rel=1e-6)


@settings(max_examples=200, deadline=None)
@given(whole=st.integers(1, 2**31), share=st.floats(0, 1))
def test_the_binary_row_is_the_nearest_in_log_odds(tables, whole, share):
    part = int(whole * share)
    row = int(tables.row_of(np.array([part]), np.array([whole]))[0])
    odds = np.linspace(-10, 10, len(tables.binary.size))
    with np.errstate(divide="ignore"):
        wanted = np.log(part / whole) - np.log1p(-part / whole) if 0 < part < whole else np.inf * (part or -1)
    clipped = np.clip(wanted, -10, 10)
    # 2**-20 is the grain of shares, which matters at the ends
    assert abs(odds[row] - clipped) <= (odds[1] - odds[0]) * (0.51 if abs(clipped) < 7 else 1.2)
    one = tables.binary.freqs[row, 1] / 2**16
    assert one == pytest.approx(1 / (1 + np.exp(-odds[row])), abs=4e-5)


def test_first_symbols_name_bins_of_one_step_around_the_bin_of_the_mean():
    rest = np.array([0, ZERO - 1, ZERO, ZERO + UNITS - 1, ZERO + UNITS, 10**9], float)
    assert first_symbols(rest).tolist() == [0, 0, 1, 1, 2, 2**15]
    assert first_symbols(-rest).tolist() == [0, 0, -1, -1, -2, -(2**15)]


def test_tables_that_do_not_fit_are_refused():
    tensors = refinement_tensors()
    with pytest.raises(WeightsError, match="tails"):
        refinement({**tensors, "tails": tensors["tails"][:, :-1]})
    with pytest.raises(WeightsError, match="rows"):
        refinement({**tensors, "shares": tensors["shares"][:-1]})


# --- Intervals --------------------------------------------------------------------------------------------------------


def planes_of(tables, functions, latent, means, scales, port, planes):
    """One step of n latents through planes -> what is known after each; latent None: decoding."""
    state, arithmetic, found = DateState(), ExactArithmetic(functions, torch.float64), []
    for plane in planes:
        y = None if latent is None else torch.from_numpy(latent[None, :, None] * 2.0**plane)
        code = PlaneCode(plane, state, {0: port}, None, tables, tables.first, arithmetic, y, None)
        mean = torch.from_numpy(np.rint(means[plane] * UNITS) / UNITS)[None, :, None]
        log_scale = torch.from_numpy(np.rint(scales[plane] * 256) / 256)[None, :, None]
        code(Step(slice(0, 1), torch.arange(len(means[plane])), mean, log_scale, 0, 0))
        found.append(state.known[0, 0])
    return found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.floats(0.1, 300), trust=st.floats(0, 3))
def test_intervals_hold_the_latent_and_only_shrink(codec, tables, seed, spread, trust):
    rng, n, planes = np.random.default_rng(seed), 60, range(4)
    latent = spread * rng.standard_normal(n)  # in steps of plane 0
    means = [2.0**p * (latent + trust * rng.standard_normal(n)) for p in planes]
    scales = [rng.uniform(-3, 5, n) for _ in planes]
    port = EncodePort()
    found = planes_of(tables, codec.functions, latent, means, scales, port, planes)
    for plane, known in enumerate(found):
        position = latent * 2.0**plane * UNITS
        assert (known.low <= position).all()
        assert (position <= known.high).all()
        assert known.plane == plane
        assert (known.high - known.low)[known.near].max(initial=0) <= 2 * ZERO
        assert (known.high - known.low)[~known.near].max(initial=0) <= WIDEST
        inside = known.value(np.rint(means[plane] * UNITS).astype(np.int64))
        assert ((known.low <= inside) & (inside <= known.high)).all()
        if plane:
            before = found[plane - 1].at(plane)
            assert (known.low >= before.low).all()
            assert (known.high <= before.high).all()
            assert not (known.near & ~before.near).any()
    decoded = planes_of(tables, codec.functions, None, means, scales, DecodePort(port.finish()), planes)
    for there, here in zip(decoded, found, strict=True):
        for part in ("low", "high", "near"):
            assert np.array_equal(getattr(there, part), getattr(here, part))


def test_planes_name_every_group_once_and_go_on_with_what_they_began():
    groups = [[g for section in plane for g in section] for plane in PLANES]
    assert all(g == list(range(len(g))) for g in groups)
    assert [len(g) for g in groups] == sorted(len(g) for g in groups)
    assert len(groups[-1]) == len(SmallConfig().groups)
    assert sum(len(plane) for plane in PLANES) == SECTIONS


def test_levels_of_planes_are_no_matter_of_rounding():
    """They decide on probabilities but come from floats: none may be near a tie of the grid of levels."""
    lmbda = SmallConfig().lmbda
    exact = [4096 * (0.2 + p * 5 * np.log(4) / np.log(8000)) for p in range(len(PLANES))]
    assert [4096 * float(plane_level(p, lmbda)) for p in range(len(PLANES))] == np.rint(exact).tolist()
    assert min(abs(v % 1 - 0.5) for v in exact) > 0.03
    # float32 powers that are off by several units in the last place move them by less than a tenth of that
    assert 4096 * len(PLANES) * abs(levels_per_plane(lmbda) - 5 * np.log(4) / np.log(8000)) < 0.003


def test_gains_double_from_plane_to_plane(codec):
    for plane in range(1, len(PLANES)):
        torch.testing.assert_close(codec.gain(plane), 2 * codec.gain(plane - 1), rtol=2e-3, atol=0)


# --- Streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4, 6])
def test_a_cut_stream_gives_the_pixels_of_a_stream_made_so(codec, x, coded, k):
    made = codec.encode_budgets(x, [k] * 3)
    assert made.sections == coded.sections[:k]
    here, there = (codec.decode(c, x.shape, 0) for c in (made, cut(coded, k)))
    assert np.array_equal(here, there)
    assert here.shape == x.shape


def test_a_stream_may_be_cut_behind_any_section_and_every_section_brings_the_picture_nearer(tmp_path):
    codec = tiny_flex_codec(tmp_path, noise=0.0)  # closed forms alone: linear transforms and predictions
    x = series_scene(2, 32, 64, seed=5)
    coded = codec.encode(x, 100)
    errors = [np.square(codec.decode(cut(coded, k), x.shape, 100) - x).mean() for k in range(1, SECTIONS + 1)]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == SECTIONS
    assert errors[-1] < 0.8 * errors[0]  # the rest is noise beyond 18 latents a cell


def test_bytes_of_every_section_are_within_one_per_cent_of_the_estimate(codec, x, coded):
    sizes = [8 * len(section) for section in coded.sections]
    assert sizes == pytest.approx(codec.estimate_sections(x, [SECTIONS] * 3), rel=0.01, abs=64 * 8)
    assert codec.estimate(x, 100) == pytest.approx(sum(sizes), rel=0.01, abs=64 * 8)
    assert sum(coded.bits) == pytest.approx(sum(sizes), abs=72 * SECTIONS)
    assert min(coded.bits) > 0


@settings(max_examples=4, deadline=None)
@given(
    budgets=st.tuples(st.integers(1, SECTIONS), st.integers(0, SECTIONS), st.integers(0, SECTIONS)),
    height=st.integers(1, 32),
    width=st.integers(1, 40),
)
def test_any_budgets_and_sizes_come_back(codec, budgets, height, width):
    x = series_scene(3, height, width)
    coded = codec.encode_budgets(x, budgets)
    assert coded.budgets == budgets
    assert len(coded.sections) == max(budgets)
    decoded = codec.decode(coded, x.shape, 0)
    assert decoded.shape == x.shape
    assert np.isfinite(decoded).all()
    assert [bits > 0 for bits in coded.bits] == [budget > 0 for budget in budgets]


def test_a_date_without_budget_is_forecast_from_the_one_before(codec, x):
    other = x.copy()
    other[1] = 9000
    coded, again = (codec.encode_budgets(v, [4, 0, 4]) for v in (x, other))
    assert coded.bits[1] == 0
    assert coded.sections == again.sections  # the date itself was not looked at
    first = codec.decode(codec.encode_budgets(x[:1], [4]), (1, *x.shape[1:]), 0)
    assert np.abs(codec.decode(coded, x.shape, 0)[:1] - first).max() < 1


@pytest.mark.parametrize("budgets", [[0, 1, 1], [1, 1], [1, 1, SECTIONS + 1], [1, -1, 1], [1, 1, 1, 1]])
def test_bad_budgets_are_refused(codec, x, budgets):
    with pytest.raises(InputError, match="budgets"):
        codec.encode_budgets(x, budgets)
    with pytest.raises(InputError, match="budgets"):
        codec.estimate_sections(x, budgets)


def test_quality_is_a_number_of_sections(codec, x):
    assert [sections_of(q) for q in (0, 50, 100)] == [1, 1 + round((SECTIONS - 1) / 2), SECTIONS]
    assert len(codec.encode(x, 50).sections) == sections_of(50)


# --- Damage -----------------------------------------------------------------------------------------------------------


def test_changed_symbols_are_a_named_date(codec, x, coded):
    checks = (coded.checks[0], coded.checks[1] ^ 1, coded.checks[2])
    with pytest.raises(DesyncError, match=r"\[1\]"):
        codec.decode(replace(coded, checks=checks), x.shape, 100)


def test_streams_whose_fields_contradict_each_other_are_refused(codec, x, coded):
    for other in (
        replace(coded, sections=()),
        replace(coded, sections=(*coded.sections, b"")),
        replace(coded, budgets=coded.budgets[:2]),
        replace(coded, checks=coded.checks[:2]),
        replace(coded, budgets=(0, *coded.budgets[1:])),
        replace(coded, budgets=(SECTIONS + 1, *coded.budgets[1:])),
    ):
        with pytest.raises(FormatError, match="expected"):
            codec.decode(other, x.shape, 100)


def test_dates_swapped_missing_or_of_another_budget_are_noticed(codec, x, coded):
    few, swapped = codec.encode_budgets(x, [2] * 3), codec.encode_budgets(x[[1, 0, 2]], [2] * 3)
    with pytest.raises(FormatError):
        codec.decode(replace(few, sections=swapped.sections), x.shape, 0)
    two = replace(coded, budgets=coded.budgets[:2], checks=coded.checks[:2])
    with pytest.raises(FormatError):
        codec.decode(two, (2, *x.shape[1:]), 100)
    with pytest.raises(FormatError):
        codec.decode(replace(coded, budgets=(SECTIONS, 3, SECTIONS)), x.shape, 100)


def test_the_check_byte_names_the_date_in_a_cut_stream(codec, x, coded):
    """Without the check values of the whole stream: another network desynchronises, and the date is named."""
    model = copy.deepcopy(codec.model)
    with torch.no_grad():
        model.entropy.time[0].merge.weight.add_(2.0**-4)
    with pytest.raises(FormatError) as error:
        replace(codec, model=model).decode(cut(coded, 2), x.shape, 100)
    assert isinstance(error.value, DesyncError) is ("date" in str(error.value))
    first = codec.encode_budgets(x[:1], [2])
    assert replace(codec, model=model).encode_budgets(x[:1], [2]) == first


KEPT = {}


@settings(max_examples=15, deadline=None)
@given(section=st.integers(0, 2), at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_gives_the_same_pixels_or_a_named_error(codec, section, at, bit):
    if not KEPT:
        KEPT["x"] = series_scene(2, 32, 32)
        KEPT["coded"] = codec.encode_budgets(KEPT["x"], [3, 3])
        KEPT["decoded"] = codec.decode(KEPT["coded"], KEPT["x"].shape, 0)
    data = bytearray(KEPT["coded"].sections[section])
    data[at % len(data)] ^= 1 << bit
    sections = list(KEPT["coded"].sections)
    sections[section] = bytes(data)
    try:
        decoded = codec.decode(replace(KEPT["coded"], sections=tuple(sections)), KEPT["x"].shape, 0)
    except FormatError:  # DesyncError is one
        return
    assert np.array_equal(decoded, KEPT["decoded"])


# --- Files ------------------------------------------------------------------------------------------------------------


def test_files_give_the_same_codec_again(codec, folder, x):
    again = load_flex(folder / "flex")
    assert again.weights_hash == codec.weights_hash
    assert again.encode_budgets(x, [2, 1, 2]) == codec.encode_budgets(x, [2, 1, 2])


def test_other_networks_beside_it_are_refused(tmp_path):
    tiny_flex_codec(tmp_path)
    path = tmp_path / "flex" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_sha256": "00" * 8}))
    with pytest.raises(WeightsError, match="base"):
        load_flex(tmp_path / "flex")
    path.write_text(json.dumps({**config, "kind": "small-image"}))
    with pytest.raises(WeightsError, match="small-flex"):
        load_flex(tmp_path / "flex")


def test_ports_that_count_and_ports_that_write_see_the_same_symbols(codec, x):
    counted = codec.walk([EstimatePort() for _ in range(4)], [4, 2, 4], x, x.shape)[0]
    written = codec.walk([EncodePort() for _ in range(4)], [4, 2, 4], x, x.shape)[0]
    assert counted == written
