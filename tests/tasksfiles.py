"""Tiny seeded scenes with known answers, for the tests of tasks."""

from __future__ import annotations

import numpy as np

from eozip_lab.tasks.task import Chip

L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
HLS = ("B01", "B02", "B03", "B04", "B8A", "B11", "B12")
_WATER = np.array([500, 500, 450, 300, 150, 60, 40])
_LAND = np.array([400, 450, 700, 600, 2800, 2000, 1200])


def water_chips(count: int = 4, size: int = 32) -> list[Chip]:
    """Lakes of known shape; a pond of 2 x 2 in each."""
    chips = []
    for k in range(count):
        random = np.random.default_rng(k)
        labels = np.zeros((size, size), bool)
        labels[:, : size // 4 + k] = True
        labels[20:22, 24:26] = True
        mean = np.where(labels[..., None], _WATER, _LAND)
        dn = np.clip(mean + random.normal(0, 20, mean.shape), 1, None).astype(np.uint16)
        bands = np.moveaxis(dn, -1, 0)[None]
        chips.append(Chip(f"chip {k}", f"place {k}", bands, HLS, {"water": labels}, held=k == 0))
    return chips


def land_chip(size: int = 32, dates: int = 1, seed: int = 0, noise: float = 5) -> Chip:
    """Six fields of far different spectra and little noise, bright first."""
    random = np.random.default_rng(seed)
    fields = random.integers(300, 4000, (6, len(L2A)))
    which = np.arange(size)[:, None] * 6 // size + np.zeros(size, int)
    x = fields[which] + random.normal(0, noise, (dates, size, size, len(L2A)))
    return Chip("land", "land", np.moveaxis(np.clip(x, 1, None), -1, 1).astype(np.uint16), L2A)
