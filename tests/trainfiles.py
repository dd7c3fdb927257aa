"""Small training data and recipes for tests, made up from smooth noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NETWORK = """
[network]
n = 16
m = 32
"""


def scene(rng: np.random.Generator, dates: int, size: int, bands: int = 12) -> np.ndarray:
    """Correlated smooth bands, uint16 [T, C, size, size] in 300 .. 6000."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    f[0, 0] = np.inf
    shape = (dates, 4, size, size)
    fields = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * f**-1.3, s=(size, size))
    fields /= fields.std((2, 3), keepdims=True)
    weights = np.random.default_rng(0).normal(
        0, 1, (bands, 4)
    )  # every scene is made of the same four materials
    mixed = np.einsum("ck,tkij->tcij", weights, fields)
    return np.clip(2500 + 400 * mixed + rng.normal(0, 8, mixed.shape), 300, 6000).astype(np.uint16)


def write_data(folder: Path) -> None:
    """train/*.npz (one array of 10 bands among them) and val.npz."""
    rng = np.random.default_rng(1)
    (folder / "train").mkdir()
    np.savez(folder / "train" / "fields.npz", a=scene(rng, 3, 96), b=scene(rng, 1, 64))
    np.savez(folder / "train" / "water.npz", c=scene(rng, 2, 80) // 4, ten=scene(rng, 1, 96, bands=10))
    np.savez(folder / "val.npz", stack=scene(rng, 2, 64))


def write_recipe(folder: Path, top: str = "", validation: str = "", network: str = NETWORK) -> Path:
    """A recipe of seconds on the data of `write_data`; `top` and `validation` add or replace keys."""
    keys = {"kind": '"tec-fp"', "lr": "2e-3", "log_steps": "5", "steps": "12"}
    keys |= dict(line.split(" = ", 1) for line in top.splitlines() if line)
    path = folder / "tiny.toml"
    path.write_text(
        "\n".join(f"{k} = {v}" for k, v in keys.items())
        + network
        + f"""
[[data]]
kind = "npz"
path = "train"
crop = 32
batch = 4

[[data]]
kind = "npz"
path = "train"
only = ["f*"]
crop = 64
batch = 2

[validation]
size = 64
qualities = [0, 100]
{validation}

[[validation.places]]
name = "place"
paths = ["val.npz"]
array = "stack"
"""
    )
    return path
