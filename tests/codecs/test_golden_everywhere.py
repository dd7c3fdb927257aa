"""The committed golden chunk of every registered codec gives the same symbols and table rows under every setting.

A new codec is covered as soon as it is registered and `tests/golden/make.py` has made its chunk; without one, a test fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eozip import hub
from eozip.codecs import registry
from eozip.codecs.pyramid.codec import PyramidCodec
from eozip.errors import WeightsError
from golden_decode import (
    decoded,
    golden,
    golden_codecs,
    stored_pixels,
)

TESTS = Path(__file__).parents[1]
LEARNED = [name for name in registry.names() if name != registry.LOSSLESS]
SETTINGS = {  # shipped codecs compute with numpy and with a kernel compiled for any CPU
    "2 threads": {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
    "old vector instructions": {
        "NPY_DISABLE_CPU_FEATURES": " ".join(np.show_config(mode="dicts")["SIMD Extensions"]["found"]),
        "OPENBLAS_CORETYPE": "Prescott",
        "ATEN_CPU_CAPABILITY": "default",
    },
}


@pytest.fixture(scope="module")
def usual():
    return {name: decoded(name) for name in golden_codecs()}


def stored(name: str) -> np.ndarray:
    return stored_pixels(name)["decoded"].astype(int)


def holds(name: str, got: tuple[str, np.ndarray], usual: dict[str, tuple[str, np.ndarray]]) -> bool:
    """Same rows and symbols as usual; pixels of a pyramid codec equal to the committed ones, others within 1 DN of them."""
    digest, pixels = got
    most = 0 if isinstance(registry.get(name), PyramidCodec) else 1
    return str(digest) == usual[name][0] and np.abs(pixels.astype(int) - stored(name)).max() <= most


@pytest.mark.parametrize("name", LEARNED)
def test_every_registered_codec_has_a_golden_chunk(name):
    assert golden(name).exists(), f"make it: python tests/golden/make.py; no {golden(name)}"


@pytest.mark.parametrize("setting", sorted(SETTINGS))
def test_other_settings_of_the_processor(setting, usual, tmp_path):
    command = [sys.executable, str(TESTS / "golden_decode.py"), str(tmp_path / "out.npz")]
    done = subprocess.run(command, env={**os.environ, **SETTINGS[setting]}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    for name in golden_codecs():
        assert holds(name, (found[f"{name} digest"], found[f"{name} pixels"]), usual), name


@pytest.mark.parametrize("name", hub.shipped())
def test_changed_weights_are_refused(name, tmp_path):
    """The smallest change of a file of weights: it is another codec, and says so."""
    folder = shutil.copytree(hub.shipped_path(name), tmp_path / name)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="SHA-256"):
        hub.read_folder(folder)
