"""What is settled before a run begins: budget, device, folder. Faults here are found before data is read."""

from __future__ import annotations

from pathlib import Path

import torch

import eozip
import eozip_lab
from eozip.errors import InputError, OutputError
from eozip_lab.train import export, run_log
from eozip_lab.train.kinds import kind_for
from eozip_lab.train.packing import with_pack
from eozip_lab.train.recipe import Recipe, with_budget
from eozip_lab.train.state import CHECKPOINT


def configured(
    recipe: Recipe, file: Path, minutes: float | None, steps: int | None, seed: int | None, data: Path | None
) -> Recipe:
    """The recipe with the caller's budget, seed and data, checked."""
    recipe = with_budget(recipe if data is None else with_pack(recipe, data), file, minutes, steps, seed)
    export.checked_name(export.full_name(recipe))
    kind_for(recipe).configured(recipe.network)
    run_log.need_matplotlib()
    return recipe


def picked_device(name: str | None) -> torch.device:
    """CUDA where there is any, unless told.

    Raises:
        InputError: no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: expected cpu or cuda, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device: expected cpu or cuda, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device: {name} asked for, but this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return device


def prepared_folder(out: Path, resume: bool) -> Path:
    """The folder of a run, made if need be.

    Raises:
        OutputError: it lies inside the package, holds a run already, or none to resume.
    """
    packages = [Path(package.__file__ or "").resolve().parent for package in (eozip, eozip_lab)]
    package = next((p for p in packages if out.resolve().is_relative_to(p)), None)
    if package is not None:
        raise OutputError(
            f"{out}: lies inside the package {package}; checkpoints go elsewhere, such as runs/"
        )
    if resume and not (out / CHECKPOINT).is_file():
        raise OutputError(f"{out}: no {CHECKPOINT} to resume from; start without --resume")
    if not resume and (out / CHECKPOINT).exists():
        raise OutputError(f"{out}: holds a run already; go on with --resume, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    return out
