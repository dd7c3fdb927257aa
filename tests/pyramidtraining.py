"""Small data and recipes for the training of pyramid codecs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eozip.codecs.pyramid.grids import Grid
from pyramidscenes import BILINEAR, cube
from trainfiles import scene

TENS = Grid(BILINEAR, 2, 1, 0)


def write_data(folder: Path) -> None:
    """train/*.npz: images of 4 + 3 bands on two grids, and images of 5 bands on one."""
    (folder / "train").mkdir()
    native = [cube((1, 7, 48, 52), {4: TENS, 5: TENS, 6: TENS}, seed)[0] for seed in range(4)]
    np.savez(folder / "train" / "native.npz", places=np.stack(native))
    np.savez(folder / "train" / "other.npz", chips=scene(np.random.default_rng(2), 5, 40, bands=5))


def write_recipe(folder: Path, top: str = "", held: str = "") -> Path:
    """A recipe of seconds on the data of `write_data`; `top` adds or replaces keys."""
    keys = {
        "kind": '"tec-elic-small-any"',
        "name": '"tec-elic-small-any-v9"',
        "data": '"train"',
        "width": "8",
    }
    keys |= {"steps": "4", "log_steps": "2", "fit_crops": "3", "bfloat16": "false"}
    keys |= dict(line.split(" = ", 1) for line in top.splitlines() if line)
    path = folder / "any.toml"
    crops = [
        f"[[crops]]\ngroups = {groups}\nside = {side}\nbatch = 2\nshare = 0.5"
        for groups, side in ((2, 32), (1, 24))
    ]
    path.write_text("\n".join([*(f"{k} = {v}" for k, v in keys.items()), *crops, held]) + "\n")
    return path
