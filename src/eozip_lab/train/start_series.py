"""What tec-tt-small starts from: a trained image codec, and networks over past dates that trust them a little."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from eozip.errors import InputError
from eozip_lab.train.start import take


def begin_series(model: torch.nn.Module, dn: Tensor, given: Mapping[str, Tensor]) -> None:
    """Takes transforms and spatial entropy model from `given`; only the networks over time may lack there.

    Raises:
        InputError: something else is missing.
    """
    own = model.state_dict()
    lacking = [n for n in own if not n.startswith("entropy.time.") and n not in given]
    if lacking:
        raise InputError(f"init: expected a trained tec-elic-small of the same sizes; it lacks {lacking[:3]}")
    take(model, given)
