"""Strip a checkpoint to its averaged weights, a quarter to a third of its size, for a narrow way back.

    python tools/strip_checkpoint.py CHECKPOINT OUT

A run resumed from it starts with zero optimiser moments; a finished run ends as it would have.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from eozip_lab.train import state as states


def strip(checkpoint: Path, out: Path) -> None:
    """Writes the slim form of a checkpoint, a quarter to a third of its size.

    Args:
        checkpoint: as `eozip train` writes it.
        out: file to write, under a temporary name first.

    Raises:
        WeightsError: not a checkpoint of ours.
    """
    content = states.read(checkpoint)
    # tensors that two entries share are stored once
    slim = {**content, "model": content["average"], "optimiser": _without_moments(content["optimiser"])}
    part = out.with_name(f"{out.name}.part")
    torch.save(slim, part)
    os.replace(part, out)


def _without_moments(optimiser: dict[str, Any]) -> dict[str, Any]:
    if "parts" in optimiser:
        return {"parts": [_without_moments(part) for part in optimiser["parts"]]}
    return {**optimiser, "state": {}}


if __name__ == "__main__":
    strip(Path(sys.argv[1]), Path(sys.argv[2]))
