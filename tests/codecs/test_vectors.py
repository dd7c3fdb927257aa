"""The published networks reproduce the golden vectors, so they load and run the published checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vectors
from eozip.codecs.terracodec.models import ElicModel, FactorizedModel

SIZES = {"fp-small": (24, 32), "fp-base": (128, 192), "elic-small": (32, 160), "elic-base": (128, 192)}
SIZES["elic-large"] = (192, 320)


def build(name: str) -> torch.nn.Module:
    kind = ElicModel if name.startswith("elic") else FactorizedModel
    return kind(12, *SIZES[name]).eval()


def close(got: torch.Tensor, expected: np.ndarray) -> bool:
    """Within 1e-4 of the largest value."""
    return float(np.abs(got.numpy() - expected).max()) <= 1e-4 * float(np.abs(expected).max())


@pytest.mark.parametrize("name", sorted(SIZES))
def test_image_network_reproduces_its_golden_vector(name):
    golden = vectors.load(name)
    model = build(name)
    model.load_state_dict(golden.weights)  # strict: every name and shape of the layout, and no other
    with torch.inference_mode():
        got = model.estimate(golden.x)
    for key, expected in golden.expected.items():
        assert close(getattr(got, key), expected), key
