"""The adapter for the published package, against a stub module with its public interface."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

import eozip
from eozip.errors import EozipError, FormatError, InputError
from eozip_lab.evaluate import baselines
from eozip_lab.evaluate.baselines import packing, terracodec
from eozip_lab.evaluate.baselines import terracodec_worker as worker
from eozip_lab.simulate import render, season

STUB = '''
import base64, os, zlib
import numpy as np
import torch

class Image:
    """compress(x) gives strings, shape, bits and, like ELIC, y_hat; decompress(strings, shape, **others) a tensor."""
    def __init__(self, step): self.step = step
    def eval(self): return self
    def compress(self, x):
        if os.environ.get("STUB") == "none": return None
        if os.environ.get("STUB") == "die": os._exit(3)
        print("what a package prints")
        assert x.shape[-1] % 16 == x.shape[-2] % 16 == 0
        y = torch.round(x / self.step).to(torch.int32).numpy()
        string = zlib.compress(y.tobytes())
        return {"strings": [[string], [b"z"]], "shape": x.shape, "bits": 8.0 * len(string), "y_hat": x.clone()}
    def decompress(self, strings, shape, **others):
        assert strings[1] == [b"z"] and not others
        y = np.frombuffer(zlib.decompress(strings[0][0]), np.int32).reshape(tuple(shape))
        return torch.from_numpy(y.astype(np.float32)) * self.step

class Temporal(Image):
    """compress(x) gives base64 text and more, decompress takes the dict itself."""
    def compress(self, x, quality=None):
        if quality is not None: self.step = 1 / quality
        assert x.ndim == 5
        found = super().compress(x)
        text = base64.b64encode(found["strings"][0][0]).decode()
        return {"strings": [[text]], "shape": list(x.shape), "bits": [1], "quality": quality, "latent_hw": [1, 1]}
    def decompress(self, payload):
        if payload["quality"] is not None: self.step = 1 / payload["quality"]
        strings = [[base64.b64decode(payload["strings"][0][0])], [b"z"]]
        return super().decompress(strings, payload["shape"]), None

def terracodec_v1_fp_s2l2a(pretrained, compression):
    assert pretrained and (isinstance(compression, int) or compression != int(compression))
    return Image(1 / compression)

terracodec_v1_elic_s2l2a = terracodec_v1_fp_s2l2a
def terracodec_v1_tt_s2l2a(pretrained, compression): return Temporal(1 / compression)
if os.environ.get("STUB") != "old":
    def flextec_v1_s2l2a(pretrained): return Temporal(1)
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the stub as a package."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "terracodec.py").write_text(STUB)
    return folder


@pytest.fixture
def stub(installed, monkeypatch):
    """The stub, as the worker's Python finds it; a fresh worker where a test changes how it behaves."""
    monkeypatch.setenv("PYTHONPATH", str(installed))
    terracodec.unavailable.cache_clear()
    changed = []

    def behaving(how: str) -> None:
        monkeypatch.setenv("STUB", how)
        changed.append(how)
        forget()

    yield behaving
    terracodec.unavailable.cache_clear()
    if changed:
        forget()


def forget() -> None:
    if terracodec._process.cache_info().currsize:
        terracodec._process(terracodec.python()).close()
    terracodec._process.cache_clear()


def scene(size: int = 40, dates: int = 2) -> np.ndarray:
    return render(3, season(dates, 3), range(size), range(size))


def test_it_is_unavailable_where_it_is_not_installed():
    assert "terracodec is not installed" in baselines.unavailable("terracodec-fp")


def test_images_come_back_and_every_needed_byte_is_counted(stub):
    assert baselines.unavailable("terracodec-fp") is None
    codec, dn = baselines.contender("terracodec-fp"), scene()
    blobs = [codec.encode(dn, lmbda) for lmbda in (0.5, 40.0)]
    back = [codec.decode(blob) for blob in blobs]
    assert [(b.shape, b.dtype) for b in back] == [(dn.shape, dn.dtype)] * 2
    assert eozip.psnr(dn, back[1]) > eozip.psnr(dn, back[0]) + 20
    mean, std = terracodec._statistics()
    x = terracodec._padded(((dn - mean) / std).astype(np.float32))
    strings = [zlib.compress(np.rint(date[None] * np.float32(40)).astype(np.int32).tobytes()) for date in x]
    counted = sum(map(len, strings))
    assert 0.98 * counted < len(blobs[1]) < 1.02 * counted + 300  # both dates, and no y_hat, 330 kB a date


@pytest.mark.parametrize("size", [(200, 250), (17, 33), (64, 64)])
def test_fp_takes_any_size(stub, size):
    codec, dn = baselines.contender("terracodec-fp"), scene(256, 1)[..., : size[0], : size[1]]
    assert codec.decode(codec.encode(dn, 40.0)).shape == dn.shape


def test_the_temporal_one_takes_its_dict_back(stub):
    codec, dn = baselines.contender("terracodec-tt"), scene(256, 2)
    blob = codec.encode(dn, 40.0)
    assert eozip.psnr(dn, codec.decode(blob)) > 50
    mean, std = terracodec._statistics()
    raw = zlib.compress(
        np.rint(((dn - mean) / std).astype(np.float32) * np.float32(40)).astype(np.int32).tobytes()
    )
    assert len(blob) < 1.02 * len(raw) + 300  # as base64 it would be a third more


def test_flexible_codecs_get_their_quality(stub):
    codec, dn = baselines.contender("flextec"), scene(256, 2)
    blobs = [codec.encode(dn, quality) for quality in (2.0, 16.0)]
    assert len(blobs[1]) > len(blobs[0])
    forget()  # as in another run
    assert eozip.psnr(dn, codec.decode(blobs[1])) > eozip.psnr(dn, codec.decode(blobs[0])) + 10


def test_other_sizes_and_bands_are_named(stub):
    with pytest.raises(InputError, match="expected 256 x 256"):
        baselines.contender("terracodec-elic").encode(scene(), 10.0)
    with pytest.raises(InputError, match="expected 12 bands"):
        baselines.contender("terracodec-fp").encode(scene()[:, :3], 10.0)


def test_another_interface_is_named(stub):
    stub("none")
    with pytest.raises(EozipError, match=r"terracodec-fp.*TypeError.*expected version 0\.3"):
        baselines.contender("terracodec-fp").encode(scene(), 10.0)
    stub("old")
    with pytest.raises(EozipError, match="expected a function flextec"):
        baselines.contender("flextec").encode(scene(256, 1), 8.0)


def test_a_process_that_ends_is_named_and_the_next_begins_anew(stub):
    stub("die")
    codec = baselines.contender("terracodec-fp")
    with pytest.raises(EozipError, match="process has ended"):
        codec.encode(scene(), 10.0)
    stub("")
    assert codec.decode(codec.encode(scene(), 10.0)).shape == scene().shape


def test_another_python_can_be_named(stub, monkeypatch):
    monkeypatch.setenv(terracodec._PYTHON, "/no/such/python")
    assert "cannot be run" in baselines.unavailable("terracodec-fp")


def test_damage_is_a_format_error(stub):
    codec = baselines.contender("terracodec-fp")
    blob = codec.encode(scene(16, 1), 10.0)
    parts = packing.unpack(blob)[2]
    for damaged in (parts[:1], [b"x", parts[1]], [parts[0], b"x"], [parts[0], parts[1] + b"x"]):
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
    back = worker._restored_tree(worker._flattened(tree))
    if isinstance(tree, dict) and "t" in tree:
        assert (back["t"].numpy() == tree["t"]).all()
    else:
        assert repr(back) == repr(tree).replace("(", "[").replace(")", "]")


def test_trees_refuse_what_they_cannot_hold():
    with pytest.raises(ValueError, match="expected numbers"):
        worker._flattened({"f": np.array(["text"])})
