"""The adapter for the published package, against a stub module with its public interface."""

from __future__ import annotations

import sys
import types
import zlib

import numpy as np
import pytest
import torch

import eozip
from eozip.errors import EozipError, FormatError, InputError
from eozip_lab.evaluate import baselines, packing, terracodec, trees
from eozip_lab.simulate import render, season


class StubImage:
    """compress(x) > {"strings", "shape", "bits"}, decompress(**that) > tensor, as README of terracodec 0.3 has it."""

    def __init__(self, compression: float) -> None:
        self.step = 1 / float(compression)

    def eval(self) -> StubImage:
        return self

    def compress(self, x: torch.Tensor) -> dict[str, object]:
        y = torch.round(x / self.step).to(torch.int32).numpy()
        string = zlib.compress(y.tobytes())
        return {"strings": [[string], [b"z"]], "shape": x.shape, "bits": torch.tensor(8.0 * len(string))}

    def decompress(self, strings: list[list[bytes]], shape: list[int], bits: object) -> torch.Tensor:
        assert strings[1] == [b"z"]
        y = np.frombuffer(zlib.decompress(strings[0][0]), np.int32).reshape(tuple(shape))
        return torch.from_numpy(y.astype(np.float32)) * self.step


class StubFlex(StubImage):
    """compress(x, quality=8), decompress(that) > (tensor, something)."""

    def compress(self, x: torch.Tensor, quality: int) -> dict[str, object]:  # type: ignore[override]
        self.step = 1 / quality
        assert x.ndim == 5
        return {**super().compress(x), "quality": quality}

    def decompress(self, compressed: dict[str, object]) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        self.step = 1 / int(compressed["quality"])  # type: ignore[call-overload]
        strings, shape = compressed["strings"], compressed["shape"]
        return super().decompress(strings, shape, None), None  # type: ignore[arg-type]


@pytest.fixture
def stub(monkeypatch):
    """The stub as an installed package; returns the lambdas that were built."""
    built: list[object] = []
    module = types.ModuleType("terracodec")
    module.__spec__ = types.SimpleNamespace(name="terracodec")  # type: ignore[assignment]

    def image(pretrained: bool, compression: float) -> StubImage:
        assert pretrained
        built.append(compression)
        return StubImage(compression)

    module.terracodec_v1_fp_s2l2a = module.terracodec_v1_elic_s2l2a = image  # type: ignore[attr-defined]
    module.flextec_v1_s2l2a = lambda pretrained: StubFlex(1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "terracodec", module)
    terracodec._loaded.cache_clear()
    yield built
    terracodec._loaded.cache_clear()


def scene(size: int = 40, dates: int = 2) -> np.ndarray:
    return render(3, season(dates, 3), range(size), range(size))


def test_it_is_unavailable_where_it_is_not_installed():
    assert "terracodec is not installed" in baselines.unavailable("terracodec-fp")


def test_images_come_back_and_every_byte_is_counted(stub):
    assert baselines.unavailable("terracodec-fp") is None
    codec, dn = baselines.contender("terracodec-fp"), scene()
    blobs = [codec.encode(dn, lmbda) for lmbda in (0.5, 40.0)]
    back = [codec.decode(blob) for blob in blobs]
    assert [(b.shape, b.dtype) for b in back] == [(dn.shape, dn.dtype)] * 2
    assert eozip.psnr(dn, back[1]) > eozip.psnr(dn, back[0]) + 20
    assert stub == [0.5, 40, 0.5, 40]  # whole lambdas as integers, as the package has them
    x = ((dn - terracodec._statistics()[0]) / terracodec._statistics()[1]).astype(np.float32)
    strings = [StubImage(40).compress(torch.from_numpy(date[None]))["strings"][0][0] for date in x]
    assert len(blobs[1]) > sum(map(len, strings))  # both dates, not the first alone
    assert len(blobs[1]) < sum(map(len, strings)) + 300


def test_flexible_codecs_get_their_quality(stub):
    codec, dn = baselines.contender("flextec"), scene(256, 2)
    blobs = [codec.encode(dn, quality) for quality in (2.0, 16.0)]
    assert len(blobs[1]) > len(blobs[0])
    terracodec._loaded.cache_clear()  # as in another process
    assert eozip.psnr(dn, codec.decode(blobs[1])) > eozip.psnr(dn, codec.decode(blobs[0])) + 10


def test_other_sizes_and_bands_are_named(stub):
    with pytest.raises(InputError, match="expected 256 x 256"):
        baselines.contender("terracodec-elic").encode(scene(), 10.0)
    with pytest.raises(InputError, match="expected 12 bands"):
        baselines.contender("terracodec-fp").encode(scene()[:, :3], 10.0)


def test_another_interface_is_named(stub, monkeypatch):
    monkeypatch.setattr(StubImage, "compress", lambda self: None)
    with pytest.raises(EozipError, match=r"expected version 0\.3"):
        baselines.contender("terracodec-fp").encode(scene(), 10.0)
    monkeypatch.delattr(sys.modules["terracodec"], "flextec_v1_s2l2a")
    with pytest.raises(InputError, match="expected a function flextec"):
        baselines.contender("flextec").encode(scene(256, 1), 8.0)


def test_damage_is_a_format_error(stub):
    codec = baselines.contender("terracodec-fp")
    blob = codec.encode(scene(16, 1), 10.0)
    parts = packing.unpack(blob)[2]
    for damaged in (parts[:1], [b"x", *parts[1:]], [parts[0], b"x", parts[2]], [*parts[:2], parts[2] + b"x"]):
        with pytest.raises(FormatError):
            codec.decode(packing.pack(scene(16, 1), damaged))


@pytest.mark.parametrize(
    "tree",
    [
        {"a": [b"xy", (1, 2.5, None, True)], 3: {"b": b""}},
        [b"", [b"q" * 1000], "text"],
        {"t": np.arange(6, dtype=np.int16).reshape(2, 3)},
    ],
)
def test_trees_come_back(tree):
    back, rest = trees.restored_tree([*trees.flattened(tree), b"more"])
    assert rest == [b"more"]
    if isinstance(tree, dict) and "t" in tree:
        assert (back["t"].numpy() == tree["t"]).all()
    else:
        assert repr(back) == repr(tree).replace("(", "[").replace(")", "]")


def test_trees_refuse_what_they_cannot_hold():
    with pytest.raises(InputError, match="got function"):
        trees.flattened({"f": test_trees_come_back})
    with pytest.raises(InputError, match="whole numbers as keys"):
        trees.flattened({(1, 2): 3})
