"""CUDA picks the same rows, symbols and pixels as the CPU. `make test-gpu` writes results/exact-gpu.json."""

from __future__ import annotations

import copy
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import eozip
import vectors
from eozip import hub
from eozip.codecs.terracodec import temporal
from eozip.codecs.terracodec.exact_tokens import exact_tokens
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from golden_decode import golden_blob, stored_pixels
from pyramidscenes import goldens
from test_tec_tt import fitting_weights

RESULTS = Path(__file__).parents[2] / "results"
REASON = "needs a CUDA device, and torch built with CUDA; this torch sees none"

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason=REASON)]


@dataclass(frozen=True)
class Compared:
    """One comparison of CUDA with the CPU.

    Attributes:
        what: codec or network.
        numbers: how many rows, symbols or outputs were compared.
        different: how many differ.
    """

    what: str
    numbers: int
    different: int


@pytest.fixture(scope="module")
def compared():
    """Collects what the tests compare, and writes it at the end."""
    found: list[Compared] = []
    yield found
    card = {"card": torch.cuda.get_device_name(), "driver": _driver(), "cuda": torch.version.cuda}
    rows = [asdict(row) for row in found]
    write_text(RESULTS / "exact-gpu.json", as_json({"provenance": provenance(), **card, "rows": rows}))


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", list(goldens()))
def test_golden_pixels(name, compared):
    """Pyramid codecs decode on the CPU whatever device is there; their pixels are those of the committed streams."""
    here, got = stored_pixels(name)["decoded"], eozip.decode(golden_blob(name))
    compared.append(Compared(f"{name}, pixels", here.size, int((here != got).sum())))
    assert np.array_equal(here, got)


@pytest.mark.parametrize("tf32", [False, True])
def test_the_transformer(tf32, compared):
    """float64 on CUDA, whatever TF32 says."""
    model = temporal.from_weights(hub.recognise(fitting_weights("tt-small"), "tt-small"), 4)
    twin, y = (
        exact_tokens(model.entropy_model),
        torch.round(20 * vectors.uniform("y", (2, 32, 16, 16))).double(),
    )
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        right, got = (said(copy.deepcopy(twin).to(d), y.to(d)) for d in ("cpu", "cuda"))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    compared.append(Compared(f"tec-tt, TF32 {tf32}", len(right), int((right != got).sum())))
    assert np.array_equal(right, got)


@torch.inference_mode()
def said(twin, y: torch.Tensor) -> np.ndarray:
    past = twin.past(y[:1])
    found = twin.predict(twin.tokens(y[1:]), twin.memories(twin.context(past, past)))
    return np.concatenate([v.double().cpu().numpy().ravel() for v in vars(found).values()])
