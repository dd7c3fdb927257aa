"""From a trained network to the small integers of a codec, its tables, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eozip.codecs.pyramid import codec as codecs
from eozip.codecs.pyramid import files
from eozip.codecs.pyramid.context import LEVELS, staircases
from eozip.codecs.pyramid.side import ROWS, ROWS_PER_NAT, SCALE_MIN, Side, brightness_of
from eozip.codecs.pyramid.traverse import Ladder, Model, Wanted
from eozip.codecs.rdoq import BITS_PER_SQUARED_STEP, thrifty
from eozip.entropy.logistic_tables import logistic_masses
from eozip.entropy.range_coder import EstimatePort, Tables
from eozip.entropy.tables import pack_tables
from eozip_lab.train.calibrate import NEAR, fitted
from eozip_lab.train.pyramid.data import Pool, cropped
from eozip_lab.train.pyramid.planes import BIAS, INPUTS, WEIGHT, shapes
from eozip_lab.train.pyramid.recipe import Recipe

_BIAS_MAX = 8 * BIAS
_FIT_SIDE = 192  # pixels of a crop that tables are fitted to, at most
_WITHIN_ROW = 0.25  # of a row's width: where its law lies, for scales that are rounded down to a row


def integers(average: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Stored tensors of trained ones, without tables."""
    out: dict[str, np.ndarray] = {}
    for level in range(LEVELS):
        width = len(average[f"stages.{level}.w.trunk_bias"])
        for name in shapes(width):
            value = average[f"stages.{level}.w.{name}"].double().numpy()
            out[f"{level}.{name}"] = _stored(name, value)
    return out | staircases()


def _stored(name: str, value: np.ndarray) -> np.ndarray:
    if name.endswith("_bias"):
        return np.clip(np.rint(value * BIAS), -_BIAS_MAX, _BIAS_MAX).astype(np.int16)
    return np.clip(np.rint(value * WEIGHT), -127, 127).astype(np.int8)


def trained(stored: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The inverse of `integers`: tensors to begin training with."""
    out = {}
    for level in range(LEVELS):
        width = len(stored[f"{level}.trunk_bias"])
        for name in shapes(width):
            value = stored[f"{level}.{name}"].astype(np.float32)
            if name == "trunk" and value.shape[1] < INPUTS:  # older layouts have no, or fewer, references
                value = np.pad(value[:, :21], [(0, 0), (0, INPUTS - 21), (0, 0), (0, 0)])
            units = BIAS if name.endswith("_bias") else WEIGHT
            out[f"stages.{level}.w.{name}"] = torch.from_numpy(value / np.float32(units))
    return out


def _logistic_tables() -> Tables:
    """Tables of all rows, each the logistic law a little above the row's lowest scale."""
    scales = np.exp(SCALE_MIN + (np.arange(ROWS) + _WITHIN_ROW) / ROWS_PER_NAT)
    masses = [logistic_masses(float(scale)) for scale in scales]
    return pack_tables(masses, [-(len(m) // 2) for m in masses])


def _fitted_tables(model: Model, found: Pool, recipe: Recipe) -> Tables:
    """Tables of what a network codes: symbols of training crops at all qualities, counted under each row."""
    counts = np.zeros((ROWS, 2 * NEAR + 1))

    def quantise(residual: np.ndarray, rows: np.ndarray) -> np.ndarray:
        nearest = np.rint(residual).astype(np.int32)
        symbols = thrifty(nearest, residual, rows, model.tables, BITS_PER_SQUARED_STEP)
        near = np.abs(symbols) <= NEAR
        np.add.at(counts, (rows[near], symbols[near] + NEAR), 1)
        return symbols

    rng = np.random.default_rng((recipe.seed, 1))
    kinds = [kind for crops in recipe.crops for kind in found.fitting(crops)]
    for quality in np.linspace(0, 95, recipe.fit_crops):
        kind = kinds[rng.integers(len(kinds))]
        (one,) = kind[rng.integers(len(kind))]
        groups = [g[None] for g in cropped(one.groups, one.even, min(*one.even, _FIT_SIDE), rng)]
        port = EstimatePort()
        wanted = Wanted([np.asarray(g, np.float64) for g in groups], quantise)
        sizes = [g.shape[1:] for g in groups]
        step = _step(float(quality))
        side = Side(EstimatePort(), model.tables)
        Ladder(model, sizes, 1, step, lambda _, p=port: [p], brightness_of(side, step), wanted).run()
    both = (counts + counts[:, ::-1]) / 2
    return pack_tables([fitted(model.tables, r, both[r]) for r in range(ROWS)], model.tables.first.tolist())


def _step(quality: float) -> int:
    """As `PyramidCodec` has it, in 1/16 DN."""
    return codecs.step_of(quality)


def write(folder: Path, average: Mapping[str, Tensor], found: Pool, recipe: Recipe, card: str) -> None:
    """Weights, tables and a card, as `eozip.load` takes them."""
    tensors = integers(average)
    tables = _logistic_tables()
    if recipe.fit_crops:
        model = files.model_of(tensors | files.packed_tables(tables))
        tables = _fitted_tables(model, found, recipe)
    files.write_folder(folder, tensors | files.packed_tables(tables), folder.name, card)
