"""Bands on their own grids, sets of bands by name, and reduced pictures: one chunk each."""

from __future__ import annotations

import struct
from dataclasses import replace

import google_crc32c
import numpy as np
import pytest

import eozip
from eozip import bitstream, sensors
from eozip.bitstream import Group
from eozip.chunk.api import decode_array
from eozip.codecs.scales import all_over, averaged, ratio
from eozip.errors import ChecksumError, FormatError, InputError, LimitError
from toy_codec import registered

SIZES = {10: (4, 72, 60), 20: (6, 36, 30), 60: (2, 12, 10)}
BANDS = {10: ["B02", "B03", "B04", "B08"], 20: ["B05", "B06", "B07", "B8A", "B11", "B12"], 60: ["B01", "B09"]}
NODATA = 0


def scene(sizes=SIZES, dates: int = 0, seed: int = 0, dtype: str = "uint16") -> dict[int, np.ndarray]:
    """Groups that show one landscape, with a little noise of their own."""
    rng = np.random.default_rng(seed)
    out = {}
    for resolution, (bands, height, width) in sizes.items():
        y, x = np.arange(height)[:, None] * resolution / 10, np.arange(width) * resolution / 10
        land = 1500 + 600 * np.sin(x / 9 + seed) * np.cos(y / 13) + 400 * ((x // 17 + y // 11) % 2)
        planes = land * np.linspace(0.7, 1.4, bands)[:, None, None]
        shape = (max(dates, 1), bands, height, width)
        pixels = np.rint(planes + rng.normal(0, 15, shape)).astype(dtype)
        out[resolution] = pixels if dates else pixels[0]
    return out


def with_faults(dates: int = 0) -> dict[int, np.ndarray]:
    """The scene with a nodata corner, and a few values out of range, in each group."""
    groups = scene(dates=dates)
    for pixels in groups.values():
        pixels[..., :5, :7] = NODATA
        pixels[..., -1, -3] = 60_000
    return groups


def joined(groups: dict[int, np.ndarray]) -> np.ndarray:
    return np.concatenate([groups[r].ravel() for r in sorted(groups)])


def worst(a: dict[int, np.ndarray], b: dict[int, np.ndarray]) -> int:
    return int(np.abs(joined(a).astype(int) - joined(b)).max())


@pytest.fixture(scope="module")
def coded() -> tuple[dict[int, np.ndarray], bytes]:
    """A scene and its chunk."""
    groups = with_faults()
    return groups, eozip.encode_groups(groups, quality=60, nodata=NODATA, sensor="s2-l2a", bands=BANDS)


# --- groups ---


def test_groups_come_back_in_shape_and_dtype(coded):
    groups, blob = coded
    back = eozip.decode(blob)
    assert {k: (v.shape, v.dtype) for k, v in back.items()} == {
        k: (v.shape, v.dtype) for k, v in groups.items()
    }


def test_decode_groups_gives_the_same(coded):
    _, blob = coded
    one, other = eozip.decode(blob), eozip.decode_groups(blob)
    assert all(np.array_equal(one[k], other[k]) for k in SIZES)


def test_several_dates_of_int16_come_back():
    groups = scene(dates=3, dtype="int16")
    back = eozip.decode(eozip.encode_groups(groups, quality=50))
    assert {k: (v.shape, v.dtype) for k, v in back.items()} == {
        k: (v.shape, v.dtype) for k, v in groups.items()
    }


def test_nodata_and_values_out_of_range_are_exact_in_every_group(coded):
    groups, blob = coded
    for resolution, pixels in eozip.decode(blob).items():
        true = groups[resolution]
        assert np.array_equal(pixels == NODATA, true == NODATA)
        assert np.array_equal(pixels[true == 60_000], true[true == 60_000])


def test_groups_cost_less_than_one_cube():
    groups = scene()
    cube = np.concatenate([v.repeat(r // 10, 1).repeat(r // 10, 2) for r, v in groups.items()])
    blob = eozip.encode_groups(groups, quality=60)
    assert len(blob) < len(eozip.encode(cube, "tec-elic-small-any-v1", 60))


@pytest.mark.parametrize("dates", [0, 2])
@pytest.mark.parametrize("most", [3, 25, 400])
def test_max_error_holds_for_every_native_sample(most: int, dates: int):
    groups = with_faults(dates)
    back = eozip.decode(eozip.encode_groups(groups, max_error=most, nodata=NODATA))
    assert worst(groups, back) <= most


def test_max_error_above_a_quality_adds_a_residual_layer():
    groups = with_faults()
    blob = eozip.encode_groups(groups, quality=60, max_error=20, nodata=NODATA)
    assert worst(groups, eozip.decode(blob)) <= 20


@pytest.mark.parametrize("target", [44.0, 60.0])
def test_target_psnr_counts_native_samples(target: float):
    groups = with_faults()
    back = eozip.decode(eozip.encode_groups(groups, target_psnr=target, nodata=NODATA))
    true = joined(groups)
    assert eozip.psnr(true, joined(back), true != NODATA) >= target


def test_quality_100_reaches_46_db():
    rng = np.random.default_rng(1)
    groups = {r: rng.integers(1, 10_000, size).astype("uint16") for r, size in SIZES.items()}
    back = eozip.decode(eozip.encode_groups(groups, quality=100))
    assert eozip.psnr(joined(groups), joined(back)) >= 46


@pytest.mark.parametrize("options", [{"codec": "lossless"}, {"max_error": 0}])
@pytest.mark.parametrize("dates", [0, 2])
def test_lossless_groups_are_exact(options, dates: int):
    groups = with_faults(dates)
    back = eozip.decode(eozip.encode_groups(groups, nodata=NODATA, **options))
    assert worst(groups, back) == 0


def test_groups_that_no_network_takes_fall_back_to_lossless():
    groups = {10: np.full((2, 4, 4), 7, "uint16"), 20: np.ones((1, 2, 2), "uint16")}
    blob = eozip.encode_groups(groups, quality=100)
    assert eozip.inspect(blob).header.codec == "lossless"
    assert worst(groups, eozip.decode(blob)) == 0


def test_groups_of_nodata_alone_take_a_header():
    groups = {r: np.zeros(size, "uint16") for r, size in SIZES.items()}
    blob = eozip.encode_groups(groups, nodata=NODATA)
    assert len(blob) < 200
    assert worst(groups, eozip.decode(blob)) == 0


@pytest.mark.parametrize(
    "sizes",
    [
        {10: (1, 1, 1)},
        {30: (7, 41, 33)},
        {10: (3, 33, 47), 20: (1, 17, 24)},
        {10: (1, 61, 55), 60: (1, 11, 10)},
        {20: (6, 31, 40), 60: (3, 11, 14)},
        {15: (1, 50, 40), 30: (7, 25, 20)},
    ],
)
def test_any_grids_and_odd_sizes(sizes):
    groups = scene(sizes)
    assert worst(groups, eozip.decode(eozip.encode_groups(groups, quality=100))) < 400


def test_an_offset_is_taken_off_and_put_back():
    groups = {k: v + np.uint16(1000) for k, v in scene().items()}
    blob = eozip.encode_groups(groups, quality=80, offset=1000)
    plain = eozip.encode_groups(scene(), quality=80)
    assert worst(eozip.decode(blob), {k: v + np.uint16(1000) for k, v in eozip.decode(plain).items()}) == 0


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({}, "expected a mapping"),
        ([np.ones((1, 4, 4), "uint16")], "expected a mapping"),
        ({10: np.ones((1, 8, 8), "uint16"), 20: np.ones((1, 5, 4), "uint16")}, r"groups\[20\]: expected"),
        ({10: np.ones((1, 8, 8), "uint16"), 20: np.ones((1, 4, 4), "int16")}, "of uint16"),
        ({10: np.ones((1, 8, 8), "uint16"), 25: np.ones((1, 4, 4), "uint16")}, "multiples of the finest"),
        ({1: np.ones((1, 8, 8), "uint16"), 100: np.ones((1, 1, 1), "uint16")}, "at most 64 times"),
        ({10: np.ones((1, 8, 8), "uint16"), 20: np.ones((1, 1, 4, 4), "uint16")}, "got both"),
        ({10: np.ones((2, 1, 8, 8), "uint16"), 20: np.ones((1, 1, 4, 4), "uint16")}, r"groups\[20\]"),
        ({10: np.ones((40, 8, 8), "uint16"), 20: np.ones((40, 4, 4), "uint16")}, "C = 80"),
        ({-10: np.ones((1, 8, 8), "uint16")}, "rising whole numbers"),
        ({10.0: np.ones((1, 8, 8), "uint16")}, "whole numbers as resolutions"),
        ({"10": np.ones((1, 8, 8), "uint16")}, "whole numbers as resolutions"),
        ({10: np.ones((1, 8, 8), "float32")}, r"groups\[10\]: expected uint16 or int16"),
        ({10: np.ones((8, 8), "uint16")}, r"groups\[10\]: expected \[T, C, H, W\]"),
        ({10: np.ones((1, 0, 8), "uint16")}, "at least one pixel"),
        ({10 * 2**k: np.ones((1, -(-64 // 2**k), 1), "uint16") for k in range(7)} | {30: 0, 50: 0}, "groups"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, message: str):
    with pytest.raises(InputError, match=message):
        eozip.encode_groups(groups)


def test_a_codec_of_one_grid_is_refused_by_name():
    with registered() as toy, pytest.raises(InputError, match="toy-s2l2a-v1 takes all bands on one grid"):
        eozip.encode_groups(scene(), toy.id)


# --- names ---


def test_inspect_tells_groups_and_bands(coded):
    _, blob = coded
    info = eozip.inspect(blob)
    assert info.groups == {10: 4, 20: 6, 60: 2}
    assert info.bands == (*BANDS[10], *BANDS[20], *BANDS[60])
    assert info.header.sensor == "s2-l2a"


def test_inspect_counts_native_samples(coded):
    groups, blob = coded
    assert eozip.inspect(blob).bpppb == pytest.approx(8 * len(blob) / joined(groups).size)


def test_four_bands_by_name():
    dn = scene()[10]
    blob = eozip.encode(dn, bands=["B02", "B03", "B04", "B08"], sensor="s2-l2a")
    assert eozip.inspect(blob).bands == ("B02", "B03", "B04", "B08")
    assert eozip.decode(blob).shape == dn.shape


def test_names_may_be_aliases_in_any_order():
    blob = eozip.encode(scene()[10][:3], bands=["red", "Green", "b02"], sensor="s2-l2a")
    assert eozip.inspect(blob).bands == ("B04", "B03", "B02")


def test_absent_bands_cost_nothing():
    dn = scene()[10]
    names = eozip.encode(dn, bands=["B02", "B03", "B04", "B08"], sensor="s2-l2a")
    assert len(names) - len(eozip.encode(dn, "tec-elic-small-any-v1", sensor="s2-l2a")) == 4 * 4


def test_bands_without_names_are_coded():
    dn = scene({10: (5, 40, 40)})[10]
    blob = eozip.encode(dn)
    assert eozip.inspect(blob).bands == ()
    assert eozip.decode(blob).shape == dn.shape


@pytest.mark.parametrize(("sensor", "count"), [("hls", 7), ("landsat-c2-l2", 7), ("s2-l1c", 13)])
def test_every_sensor_codes_its_bands(sensor: str, count: int):
    names = sensors.get(sensor).band_names
    blob = eozip.encode(scene({30: (count, 40, 40)})[30], "tec-elic-small-any-v1", sensor=sensor, bands=names)
    assert eozip.inspect(blob).header.sensor == sensor
    assert eozip.inspect(blob).bands == names


def test_bright_landsat_pixels_are_no_exceptions():
    dn = scene({30: (7, 40, 40)})[30] * np.uint16(10) + np.uint16(7273)
    blob = eozip.encode(dn, quality=50, sensor="landsat-c2-l2")
    header = eozip.inspect(blob).header
    assert header.offset == 7273
    assert not bitstream.unpack(blob).exceptions


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (["B02", "B03", "B04", "B99"], "has no 'B99'; it has B01 B02"),
        (["B02", "B03", "B04", None], "has no None"),
        (["B02", "B03", "B04"], "expected 4 names"),
        (["B02", "B03", "B04", "blue"], "B02 more than once"),
        ("B02 B03", "expected a list of names"),
        (7, "expected a list of names"),
    ],
)
def test_unknown_names_are_refused_with_the_sensors_list(bands, message: str):
    with pytest.raises(InputError, match=message):
        eozip.encode(scene()[10], bands=bands, sensor="s2-l2a")


@pytest.mark.parametrize("codec", [None, "lossless"])
def test_an_unknown_sensor_is_refused_with_those_there_are(codec):
    with pytest.raises(InputError, match=r"unknown sensor 'foo': expected one of .*s2-l2a"):
        eozip.encode(scene()[10], codec, sensor="foo")
    with pytest.raises(InputError, match="unknown sensor 'foo'"):
        eozip.encode_groups(scene(), codec, sensor="foo")


def test_names_of_an_unknown_sensor_are_refused():
    with pytest.raises(InputError, match="unknown sensor 'modis'"):
        eozip.encode(scene()[10], bands=["B02", "B03", "B04", "B08"], sensor="modis")


@pytest.mark.parametrize(
    "bands",
    [{10: BANDS[10], 20: BANDS[20]}, {**BANDS, 60: ["B01"]}, {**BANDS, 60: ["B01", "B02"]}, ["B01"]],
)
def test_names_that_do_not_fit_the_groups_are_refused(bands):
    with pytest.raises(InputError, match="bands"):
        eozip.encode_groups(scene(), sensor="s2-l2a", bands=bands)


# --- reduced pictures and parts ---


@pytest.mark.parametrize("reduce", [2, 4, 8, 16, 32])
def test_reduced_groups_are_block_averages(coded, reduce: int):
    """To within half a DN, twice, and the rounding of levels: 1/64 of a step of 270 DN."""
    groups, blob = coded
    clear = {r: np.where(v == 60_000, 1500, v).astype("uint16") for r, v in groups.items()}
    blob = eozip.encode_groups({r: np.maximum(v, 500) for r, v in clear.items()}, quality=60)
    full, small = eozip.decode(blob), eozip.decode(blob, reduce=reduce)
    for resolution, pixels in small.items():
        expected = averaged(full[resolution].astype(np.int64), ratio(reduce, resolution // 10))
        assert pixels.shape == expected.shape
        assert np.abs(pixels - expected).max() <= 270 / 64 + 1


@pytest.mark.parametrize("reduce", [2, 4, 8, 16, 32])
def test_a_prefix_is_enough_and_gives_the_same(coded, reduce: int):
    _, blob = coded
    needed = eozip.inspect(blob).reduced[reduce]
    whole, prefix = eozip.decode(blob, reduce=reduce), eozip.decode(blob[:needed], reduce=reduce)
    assert all(np.array_equal(whole[k], prefix[k]) for k in SIZES)


def test_an_eighth_takes_the_first_section_alone(coded):
    _, blob = coded
    info = eozip.inspect(blob)
    assert info.reduced[8] == info.reduced[32] < info.reduced[2] < info.reduced[1] == len(blob)


@pytest.mark.parametrize("reduce", [2, 8])
def test_a_byte_less_than_needed_is_refused(coded, reduce: int):
    _, blob = coded
    with pytest.raises(FormatError, match="fetch more of it"):
        eozip.decode(blob[: eozip.inspect(blob).reduced[reduce] - 1], reduce=reduce)


@pytest.mark.parametrize(
    "options", [{"quality": 60}, {"quality": 60, "max_error": 25}, {"codec": "lossless"}]
)
@pytest.mark.parametrize("resolution", [10, 20, 60])
def test_one_group_reads_its_prefix_and_is_what_the_whole_gives(options, resolution: int):
    blob = eozip.encode_groups(with_faults(), nodata=NODATA, **options)
    needed = eozip.inspect(blob).group_bytes[resolution]
    part = eozip.decode_groups(blob[:needed], groups=[resolution])
    assert list(part) == [resolution]
    assert np.array_equal(part[resolution], eozip.decode(blob)[resolution])


def test_coarse_groups_leave_the_finest_section_alone(coded):
    _, blob = coded
    info = eozip.inspect(blob)
    assert info.group_bytes[60] < info.group_bytes[20] < info.group_bytes[10] == len(blob)


def test_bands_by_name_or_position_across_groups(coded):
    _, blob = coded
    full = eozip.decode(blob)
    part = eozip.decode(blob, bands=["B12", "B04", "B05"])
    assert list(part) == [10, 20]
    assert np.array_equal(part[20], full[20][[5, 0]])
    assert np.array_equal(eozip.decode(blob, bands=[2])[10], full[10][[2]])


def test_a_reduced_pixel_is_nodata_where_all_of_its_pixels_are(coded):
    groups, blob = coded
    small = eozip.decode(blob, reduce=4)
    assert np.array_equal(small[10] == NODATA, all_over(groups[10] == NODATA, 4))


@pytest.mark.parametrize("codec", ["lossless", "tec-elic-small-any-v1"])
@pytest.mark.parametrize("reduce", [2, 8])
def test_cubes_reduce_to_block_averages(codec: str, reduce: int):
    dn = scene({10: (3, 45, 52)}, dates=2)[10]
    blob = eozip.encode(dn, codec, 80)
    small = eozip.decode(blob, reduce=reduce)
    expected = averaged(eozip.decode(blob).astype(np.int64), reduce)
    assert small.shape == expected.shape
    assert np.abs(small - expected).max() <= 114 / 64 + 1


def test_interpolated_bands_reduce_onto_the_grid_of_the_others():
    fine, coarse = scene({10: (2, 64, 64)})[10], scene({20: (2, 32, 32)})[20]
    cube = np.concatenate([fine, coarse.repeat(2, 1).repeat(2, 2)])
    blob = eozip.encode(cube, "tec-elic-small-any-v1", 90)
    small = eozip.decode(blob[: eozip.inspect(blob).reduced[8]], reduce=8)
    expected = averaged(cube.astype(np.int64), 8)
    assert small.shape == expected.shape
    assert np.sqrt(np.square(small - expected).mean()) < 60


@pytest.mark.parametrize("bands", [[2, 0], ["B04", "B02"]])
def test_bands_of_a_cube_come_in_the_order_asked_for(bands):
    blob = eozip.encode(scene()[10], bands=BANDS[10], sensor="s2-l2a", max_error=50)
    assert np.array_equal(eozip.decode(blob, bands=bands), eozip.decode(blob)[[2, 0]])


def test_a_codec_without_scales_is_decoded_whole_and_reduced():
    dn = scene({10: (12, 32, 40)})[10]
    with registered() as toy:
        blob = eozip.encode(dn, toy.id, 60, max_error=60)
        expected = averaged(eozip.decode(blob).astype(np.int64), 8)
        assert np.array_equal(eozip.decode(blob, reduce=8), expected)


@pytest.mark.parametrize("reduce", [0, 3, 64, -8, 2.0, "8", True, None])
def test_other_reductions_are_refused(coded, reduce):
    with pytest.raises(InputError, match="reduce: expected one of"):
        eozip.decode(coded[1], reduce=reduce)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"groups": [30]}, "expected some of"),
        ({"groups": []}, "expected some of"),
        ({"groups": 10.5}, "expected some of"),
        ({"bands": ["B99"]}, "expected some of"),
        ({"bands": [99]}, "positions 0..11"),
        ({"bands": [-1]}, "positions 0..11"),
        ({"bands": [1.5]}, "names or positions"),
        ({"bands": []}, "expected some"),
        ({"bands": ["B02", "B02"]}, "none twice"),
        ({"bands": "B02"}, "expected a list"),
        ({"bands": ["B02"], "groups": [20]}, "none of the groups"),
        ({"budget": 1, "reduce": 8}, "give budget alone"),
    ],
)
def test_parts_that_are_not_there_are_refused(coded, wanted, message: str):
    with pytest.raises(InputError, match=message):
        eozip.decode(coded[1], **wanted)


def test_groups_of_a_cube_and_arrays_of_groups_are_refused(coded):
    blob = eozip.encode(scene()[10], "lossless")
    for call in (lambda: eozip.decode(blob, groups=[10]), lambda: eozip.decode_groups(blob)):
        with pytest.raises(InputError, match="one"):
            call()
    with pytest.raises(InputError, match="decode_groups"):
        decode_array(coded[1])
    with pytest.raises(InputError, match="dropped"):
        eozip.dropped(coded[1])


# --- hostile bytes ---


def forged(blob: bytes, **fields) -> bytes:
    """The chunk with other facts in its header."""
    chunk = bitstream.unpack(blob)
    return bitstream.pack(replace(chunk, header=replace(chunk.header, **fields)))


@pytest.mark.parametrize(
    "fields",
    [
        {"groups": ()},
        {"groups": (Group(10, 4), Group(20, 6), Group(40, 2))},
        {"groups": (Group(10, 6), Group(20, 4), Group(60, 2))},
        {"scales": False},
        {"shape": (1, 12, 72, 62)},
        {"checks": (1,)},
        {"codec": "lossless"},
    ],
)
def test_headers_that_do_not_fit_their_sections_are_refused(coded, fields):
    with pytest.raises(FormatError):
        eozip.decode(forged(coded[1], **fields))


@pytest.mark.parametrize("fields", [{"scales": True}, {"groups": (Group(10, 2), Group(20, 2))}])
def test_scales_and_groups_of_lossless_sections_are_refused(fields):
    blob = eozip.encode(scene()[10], "lossless")
    reduce = 1 if "groups" in fields else 8
    with pytest.raises(FormatError):
        eozip.decode(forged(blob, **fields), reduce=reduce)


def resealed(blob: bytes, at: int, field: bytes) -> bytes:
    """The chunk with other bytes in its header, under a checksum that fits."""
    size = bitstream.header_size(blob)
    head = blob[:at] + field + blob[at + len(field) : size - 4]
    return head + struct.pack("<I", google_crc32c.value(head)) + blob[size:]


@pytest.mark.parametrize(
    ("at", "field", "error"),
    [
        (0, bytes([9]), LimitError),
        (0, bytes([0]), FormatError),
        (1, struct.pack("<H", 0), FormatError),
        (1, struct.pack("<H", 20), FormatError),
        (4, struct.pack("<H", 15), FormatError),
        (3, bytes([5]), FormatError),
        (10, bytes([0]), FormatError),
        (11, b"\xff", FormatError),
    ],
)
def test_forged_groups_and_names_are_named(coded, at: int, field: bytes, error):
    blob = coded[1]
    start = blob.index(b"\x03" + struct.pack("<HB", 10, 4))
    with pytest.raises(error):
        eozip.decode(resealed(blob, start + at, field))


def test_any_damage_to_a_chunk_of_groups_is_a_named_error(coded):
    blob = coded[1]
    rng = np.random.default_rng(3)
    for at in rng.integers(0, len(blob), 60):
        damaged = bytearray(blob)
        damaged[at] ^= 1 << int(rng.integers(8))
        with pytest.raises((FormatError, ChecksumError)):
            eozip.decode(bytes(damaged))
        with pytest.raises(FormatError):
            eozip.decode(blob[:at])


def test_sections_of_noise_are_named_or_decode(coded):
    """Under right checksums: nothing but a named error, or pixels."""
    chunk = bitstream.unpack(coded[1])
    rng = np.random.default_rng(4)
    for _ in range(12):
        sections = tuple(rng.bytes(int(rng.integers(1, 200))) for _ in chunk.sections)
        with pytest.raises(FormatError):
            eozip.decode(bitstream.pack(replace(chunk, sections=sections)))
