"""The context network of pyramid codecs against its definition, written down plainly in int64; and life without torch."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import hatch_build
import numpy as np
import pytest
from safetensors.numpy import load_file
from threadpoolctl import threadpool_info, threadpool_limits

import eozip
from eozip.codecs import registry
from eozip.codecs.pyramid import context, grids, native
from eozip.codecs.pyramid.context import Stage
from eozip.codecs.pyramid.native import NativeStage
from eozip.codecs.pyramid.stages import _NumpyStage
from eozip.errors import WeightsError
from eozip.hub.shipped import shipped_path
from eozip.threads import one_blas_thread
from golden_decode import golden_blob, stored_pixels

CODEC = "tec-elic-small-any-v1"
SIZES = [(1, 1, 1), (3, 5, 7), (2, 6, 4), (1, 2, 9), (2, 50, 67), (1, 90, 64)]


def _weights(rng: np.random.Generator, *, extreme: bool, width: int = 32) -> dict[str, np.ndarray]:
    shapes = {
        "window": (15, 24),
        "trunk": (width, 31, 3, 3),
        "constant": (width, 8),
        "known": (width, 6, 3, 3),
        "neighbours": (3, 3, 3, 3),
        "trunk_bias": (width,),
        "known_bias": (width,),
    }
    for k in (0, 1):
        for name, count in (("first", width), ("second", width), ("out", 12)):
            shapes |= {f"{name}{k}": (count, width), f"{name}{k}_bias": (count,)}
    if extreme:
        return {name: rng.choice([-127, 127], shape).astype(np.int8) for name, shape in shapes.items()}
    return {name: rng.integers(-40, 41, shape).astype(np.int8) for name, shape in shapes.items()}


def _planes(
    rng: np.random.Generator, n: int, h: int, w: int, *, reach: int, channels: int = 9
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    below = rng.integers(-reach, reach + 1, (n, h, w)).astype(np.int32)
    features = rng.choice([-127, 127], (n, channels, h, w)).astype(np.float32)
    constant = rng.integers(-64, 65, (n, 8)).astype(np.float32)
    details = rng.integers(-reach, reach + 1, (n, 3, h, w)).astype(np.int32)
    return below, features, constant, details


def _halves_to_even(sums: np.ndarray, most: int, least: int | None = None) -> np.ndarray:
    """int64 sums in 1/64 of a unit -> units."""
    return np.clip(np.rint(sums / 64), -most if least is None else least, most).astype(np.int64)


def _convolved(v: np.ndarray, weights: np.ndarray) -> np.ndarray:
    padded = np.pad(v, ((0, 0), (0, 0), (1, 1), (1, 1)))
    h, w = v.shape[2:]
    taps = [(y, x) for y in range(3) for x in range(3)]
    return sum(
        np.einsum("oc,nchw->nohw", weights[:, :, y, x].astype(np.int64), padded[:, :, y : y + h, x : x + w])
        for y, x in taps
    )


def _defined(
    stored: dict[str, np.ndarray],
    f: context.Functions,
    planes: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, ...]:
    """Predictions from below, outputs of both passes and predictions from neighbours, of all cells."""
    w = {name: value.astype(np.int64) for name, value in stored.items()}
    below, features, constant, first = (v.astype(np.int64) for v in planes)
    _, rows, columns = below.shape
    padded = np.pad(below, ((0, 0), (2, 2), (2, 2)), mode="edge")
    places = [(y, x) for y in range(5) for x in range(5) if (y, x) != (2, 2)]
    around = np.stack([padded[:, y : y + rows, x : x + columns] - below for y, x in places], 1)
    filtered = np.einsum("oc,nchw->nohw", w["window"], np.clip(around, -63 * 64, 63 * 64))
    predicted = _halves_to_even(filtered[:, 12:], 256 * 64)
    bank = f.features(_halves_to_even(filtered[:, :12], 1 << 30)).astype(np.int64)
    inputs = np.concatenate([bank, features], 1)
    shared = _convolved(inputs, w["trunk"][:, : inputs.shape[1]]) + w["trunk_bias"][:, None, None]
    shared = shared + (constant @ w["constant"].T)[:, :, None, None]
    squashed = f.features(first).astype(np.int64)
    more = (
        _convolved(np.concatenate([squashed, np.abs(squashed)], 1), w["known"])
        + w["known_bias"][:, None, None]
    )
    near = _halves_to_even(_convolved(np.clip(first, -63 * 64, 63 * 64), w["neighbours"]), 256 * 64)
    return predicted, _outputs(w, shared, 0), _outputs(w, shared + more, 1), near


def _outputs(w: dict[str, np.ndarray], sums: np.ndarray, number: int) -> np.ndarray:
    def dense(name: str, v: np.ndarray) -> np.ndarray:
        return np.einsum("oc,nchw->nohw", w[f"{name}{number}"], v) + w[f"{name}{number}_bias"][:, None, None]

    v = _halves_to_even(sums, 255, 0)
    for name in ("first", "second"):
        v = np.minimum(255, v + _halves_to_even(dense(name, v), 255, 0))
    return _halves_to_even(dense("out", v), 127)


def _run(
    stage: Stage, planes: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, ...]:
    below, features, constant, first = planes
    shared, predicted = stage.start(below, features, constant)
    outputs, none = stage.step(shared, None)
    assert none is None
    later, near = stage.step(shared, context.packed(first, 0))
    return predicted, outputs, later, near


def _cells(h: int, w: int, color: int) -> np.ndarray:
    """Where packed cells of a colour stand for columns that are there."""
    return context.packed(np.ones((h, w), bool), color)


@pytest.fixture(scope="session")
def kernel(tmp_path_factory):
    """The compiled kernel of these sources."""
    path = tmp_path_factory.mktemp("kernel") / "kernel.so"
    if platform.machine() != "x86_64" or not hatch_build.compiled(path):
        pytest.skip("no C compiler, or another machine than x86-64: numpy does the work of the kernel")
    return native.library(path)


@pytest.fixture(params=["numpy", *native._VARIANTS[1:]])
def stage_of(request):
    """Makes stages from weights and functions."""
    if request.param == "numpy":
        return _NumpyStage
    kernel = request.getfixturevalue("kernel")
    if kernel is None or kernel.eozip_best() < native._VARIANTS.index(request.param):
        pytest.skip(f"this machine has no {request.param}")
    return lambda stored, f: NativeStage(stored, f, kernel, _NumpyStage(stored, f), request.param)


@pytest.mark.parametrize("channels", [9, 19], ids=["alone", "with references"])
@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize(
    "reach", [1900, 3000, 1 << 23]
)  # differences that are hardly ever, seldom and mostly clipped
@pytest.mark.parametrize("size", SIZES)
def test_a_stage_is_what_its_definition_says(stage_of, size, extreme, reach, channels):
    rng = np.random.default_rng(size)
    stored = _weights(rng, extreme=extreme)
    f = context.functions(context.staircases())
    planes = _planes(rng, *size, reach=reach, channels=channels)
    known = planes[3] * ((np.arange(size[1])[:, None] + np.arange(size[2])) % 2 == 0)
    planes = (*planes[:3], known.astype(np.int32))
    predicted, *expected = _defined(stored, f, planes)
    got_predicted, *got = _run(stage_of(stored, f), planes)
    np.testing.assert_array_equal(got_predicted, predicted)
    for color, wanted, found in zip((0, 1, 1), expected, got, strict=True):
        there = _cells(*size[1:], color)
        np.testing.assert_array_equal(found[..., there], context.packed(wanted, color)[..., there])


def test_pictures_of_more_than_24_bits_are_rounded_by_all_alike(kernel):
    rng = np.random.default_rng(6)
    stored = _weights(rng, extreme=False)
    f = context.functions(context.staircases())
    planes = _planes(rng, 2, 20, 33, reach=3000)
    planes = ((1 << 28) - 5000 + planes[0], *planes[1:])
    stages = [_NumpyStage(stored, f), NativeStage(stored, f, kernel, _NumpyStage(stored, f))]
    for a, b in zip(*(_run(stage, planes) for stage in stages), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("width", [1, 7, 12, 32, 48])
def test_stages_of_any_width(stage_of, width):
    rng = np.random.default_rng(width)
    stored = _weights(rng, extreme=False, width=width)
    f = context.functions(context.staircases())
    planes = _planes(rng, 2, 9, 10, reach=500)
    known = planes[3] * ((np.arange(9)[:, None] + np.arange(10)) % 2 == 0)
    planes = (*planes[:3], known.astype(np.int32))
    expected = _defined(stored, f, planes)
    got = _run(stage_of(stored, f), planes)
    np.testing.assert_array_equal(got[1], context.packed(expected[1], 0))
    np.testing.assert_array_equal(got[2], context.packed(expected[2], 1))


@pytest.mark.parametrize("name", ["tec-tt-small-any-v1-odd", "tec-fp-small-any-v1"])
def test_golden_streams_by_numpy_and_by_the_kernel(stage_of, name, monkeypatch):
    codec = registry.get(name.removesuffix("-odd"))
    stored = load_file(shipped_path(codec.id.replace("tec-tt", "tec-elic")) / "model.safetensors")
    parts = [{k[2:]: v for k, v in stored.items() if k.startswith(f"{level}.")} for level in range(3)]
    model = replace(codec.model, stages=[stage_of(part, codec.model.functions) for part in parts])
    monkeypatch.setitem(vars(codec), "model", model)
    found = eozip.decode(golden_blob(name))
    assert np.array_equal(found, stored_pixels(name)["decoded"])


@pytest.mark.parametrize("name", ["window", "trunk", "known", "neighbours", "second1", "out0_bias"])
def test_weights_of_other_shapes_never_reach_the_kernel(kernel, name):
    stored = _weights(np.random.default_rng(0), extreme=False)
    f = context.functions(context.staircases())
    others = _NumpyStage(stored, f)
    with pytest.raises(WeightsError, match=name):
        NativeStage(stored | {name: stored[name][..., :-1]}, f, kernel, others)
    short = context.Functions(f.squash[:-1], f.tanh)
    with pytest.raises(WeightsError, match="squash"):
        NativeStage(stored, short, kernel, others)


def test_a_kernel_of_other_sources_is_left_alone(tmp_path, kernel, monkeypatch):
    path = tmp_path / "kernel.so"
    path.write_bytes(Path(kernel._name).read_bytes())
    monkeypatch.setattr(native, "_stamp", lambda: 7)
    assert native.library(path) is None
    path.with_name("other.so").write_bytes(b"no library")
    assert native.library(path.with_name("other.so")) is None
    assert native.library(tmp_path / "none.so") is None


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_nothing(threads):
    rng = np.random.default_rng(8)
    stage = _NumpyStage(_weights(rng, extreme=True), context.functions(context.staircases()))
    planes = _planes(rng, 2, 96, 101, reach=1 << 23, channels=19)
    with threadpool_limits(limits=1):
        expected = _run(stage, planes)
    with threadpool_limits(limits=threads):
        for a, b in zip(_run(stage, planes), expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_packed_cells_of_both_colours_make_the_whole(width):
    v = np.arange(3 * 4 * width).reshape(3, 4, width)
    np.testing.assert_array_equal(context.unpacked(context.packed(v, 0), context.packed(v, 1), width), v)


@pytest.mark.parametrize("kernel", range(grids.KERNELS))
@pytest.mark.parametrize("factor", grids.FACTORS)
def test_interpolation_is_the_sum_of_weighted_cells(kernel, factor):
    grid = grids.Grid(kernel, factor, factor - 1, 1 % factor)
    taps = [grids._taps(kernel, factor, phase, size) for phase, size in ((grid.rows, 37), (grid.columns, 30))]
    cells = np.random.default_rng(1).integers(-(1 << 26), 1 << 26, (2, taps[0].count, taps[1].count))
    matrices = [np.zeros((len(t.cell), t.count), object) for t in taps]
    for matrix, t in zip(matrices, taps, strict=True):
        for i, k in np.ndindex(*t.cell.shape):
            matrix[i, t.cell[i, k]] += int(t.weight[i, k])
    made, denominator = grid.interpolated(cells.astype(np.float64), 37, 30)
    assert denominator == taps[0].denominator * taps[1].denominator
    expected = matrices[0] @ cells.astype(object) @ matrices[1].T
    assert (made.astype(np.int64).astype(object) == expected).all()


def test_matrix_products_get_their_threads_back_when_the_last_block_is_left(monkeypatch):
    # libraries of others than numpy, which other tests may have loaded by now, are none of its business
    monkeypatch.setattr(one_blas_thread, "_libraries", None)

    def counts() -> list[int]:
        return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]

    with threadpool_limits(limits=2, user_api="blas"):
        before = counts()
        with one_blas_thread():
            with one_blas_thread():
                assert set(counts()) <= {1}
            assert set(counts()) <= {1}
        assert counts() == before


_ROUND = """
import sys
{block}
import numpy as np, eozip
dn = np.random.default_rng(3).integers(0, 4000, (2, 5, 40, 37)).astype(np.uint16)
blob = eozip.encode(dn, "{codec}", 40)
back = eozip.decode(blob)
print(blob.hex(), back.astype(">u2").tobytes().hex(), sys.modules.get("torch") is not None)
"""


def _fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("block", ["", "sys.modules['torch'] = None"], ids=["torch there", "no torch"])
def test_pyramid_codecs_write_and_read_without_torch(block):
    done = _fresh(_ROUND.format(block=block, codec=CODEC))
    assert done.returncode == 0, done.stderr
    blob, back, torch_imported = done.stdout.split()
    dn = np.random.default_rng(3).integers(0, 4000, (2, 5, 40, 37)).astype(np.uint16)
    here = eozip.encode(dn, CODEC, 40)
    assert blob == here.hex()
    assert back == eozip.decode(here).astype(">u2").tobytes().hex()
    assert torch_imported == "False"


def test_a_number_of_threads_needs_no_torch():
    done = _fresh(
        "import sys; sys.modules['torch'] = None\nfrom eozip import threads\nthreads.choose(2)\n"
        "print(*threads.each(str, range(3), 3, network=False))"
    )
    assert done.stdout.split() == ["0", "1", "2"], done.stderr


def test_a_command_that_needs_torch_names_the_extra(tmp_path):
    done = _fresh(
        "import sys; sys.modules['torch'] = None\nfrom eozip.cli import main\n"
        f"sys.argv = ['eozip', 'train', 'tec-elic-small-any', '--out', {str(tmp_path / 'run')!r}]\nmain()"
    )
    assert done.returncode == 1
    assert "needs torch, which is not installed: pip install 'eozip[torch]'" in done.stderr


def test_a_checkpoint_that_needs_torch_says_so_by_name(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"")
    done = _fresh(
        f"import sys; sys.modules['torch'] = None\nimport eozip\neozip.load({str(tmp_path / 'x.pt')!r})"
    )
    assert "x.pt: needs torch" in done.stderr
    assert CODEC in done.stderr


_WITHOUT = "import sys; sys.modules[{module!r}] = None\nfrom eozip.cli import main\nsys.argv = ['eozip', *{words!r}]\nmain()"


def _command(*words: str, module: str = "torch") -> subprocess.CompletedProcess[str]:
    """A command where a package is not installed."""
    return _fresh(_WITHOUT.format(module=module, words=words))


def test_codecs_are_listed_without_torch():
    done = _command("models")
    assert done.returncode == 0, done.stderr
    assert CODEC in done.stdout
    assert "embed2scale/TerraCodec-1.0-ELIC-S2L2A" in done.stdout


@pytest.mark.parametrize("name", ["tec-elic-smal", "tec-fp-small@0123456789abcdef"])
def test_a_mistyped_name_is_no_want_of_torch(tmp_path, name):
    codes = [f"eozip.load({name!r})", f"eozip.encode(np.zeros((1, 8, 8), np.uint16), {name!r})"]
    for code in codes:
        done = _fresh(f"import sys; sys.modules['torch'] = None\nimport eozip, numpy as np\n{code}")
        assert f"there is no codec '{name}' among those that are shipped" in done.stderr
        assert CODEC in done.stderr
        assert "Published ones" in done.stderr


def test_a_picture_asks_for_the_little_that_it_needs():
    done = _fresh(
        "import sys; sys.modules['matplotlib'] = None\nfrom eozip import picture\npicture.new_figure(1, 1)"
    )
    assert "pip install 'eozip[picture]'" in done.stderr


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory by their own rules"
)
def test_a_chunk_takes_the_memory_that_the_one_before_has_left():
    done = _fresh(
        "import resource, numpy as np, eozip\n"
        "dn = np.random.default_rng(0).integers(0, 4000, (4, 4, 192, 192)).astype(np.uint16)\n"
        f"blob = eozip.encode(dn, {CODEC!r}, 20)\n"
        "pages = []\n"
        "for _ in range(4):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    eozip.decode(blob)\n"
        "    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
        "print(pages[-1])"
    )
    assert int(done.stdout) < 200, done.stderr
