"""From a trained network to the small integers of a codec, its tables, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eozip.codecs.pyramid import codec as codecs
from eozip.codecs.pyramid import files
from eozip.codecs.pyramid.coarseness import SPACING
from eozip.codecs.pyramid.context import BITS_PER_SQUARED_STEP, LEVELS, VALUE, staircases
from eozip.codecs.pyramid.model import Model, Wanted
from eozip.codecs.pyramid.side import ROWS, Side, brightness_of
from eozip.codecs.pyramid.traverse import Ladder
from eozip.codecs.pyramid.walk import quantised
from eozip.entropy.logistic_tables import REACH, logistic_masses
from eozip.entropy.range_coder import EstimatePort, Tables
from eozip.entropy.tables import pack_tables
from eozip.entropy.trellis import turns_under
from eozip_lab.train.calibrate import NEAR, fitted
from eozip_lab.train.pyramid import passes
from eozip_lab.train.pyramid.data import Pool, cropped
from eozip_lab.train.pyramid.planes import BIAS, WEIGHT, shapes
from eozip_lab.train.pyramid.quantisers import logistic_trellis, scales_of_rows
from eozip_lab.train.pyramid.recipe import Recipe
from eozip_lab.train.recipe import located

_BIAS_MAX = 8 * BIAS
_LATER_CARD = "\n---\n\nNetworks of flextec-small's later passes:\n\n"
_FIT_SIDE = 192  # pixels of a crop that tables are fitted to, at most


def integers(average: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Stored tensors of trained ones, without tables."""
    out: dict[str, np.ndarray] = {}
    for level in range(LEVELS):
        width = len(average[f"stages.{level}.w.trunk_bias"])
        for name in shapes(width):
            value = average[f"stages.{level}.w.{name}"].double().numpy()
            out[f"{level}.{name}"] = _stored(name, value)
    return out | staircases()


def later_integers(average: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Stored tensors of trained networks of later passes."""
    out = {}
    for name, value in average.items():
        _, level, _, own = name.split(".", 3)
        out[f"{files.LATER}{level}.{own}"] = _stored(own, value.double().numpy())
    return out


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
            units = BIAS if name.endswith("_bias") else WEIGHT
            out[f"stages.{level}.w.{name}"] = torch.from_numpy(value / np.float32(units))
    return out


def trained_later(stored: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The inverse of `later_integers`."""
    out = {}
    for name in (name for name in stored if name.startswith(files.LATER)):
        level, own = name.removeprefix(files.LATER).split(".", 1)
        units = BIAS if own.endswith("_bias") else WEIGHT
        out[f"stages.{level}.w.{own}"] = torch.from_numpy(stored[name].astype(np.float32) / np.float32(units))
    return out


def _logistic_tables() -> Tables:
    """Tables of all rows, each the logistic law a little above the row's lowest scale."""
    masses = [logistic_masses(float(scale)) for scale in scales_of_rows()]
    return pack_tables(masses, [-(len(m) // 2) for m in masses])


def _fitted_tables(model: Model, found: Pool, recipe: Recipe, crops: int) -> tuple[Tables, Tables]:
    """Tables of what a network codes: symbols of training crops at all qualities, counted under each row.

    Those of whole steps, which flextec's first pass has, and those of both quantisers.
    """
    whole, either = np.zeros((ROWS, 2 * NEAR + 1)), np.zeros((2 * ROWS, 2 * NEAR + 1))

    def quantise(residual: np.ndarray, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        in_steps = residual * (SPACING / VALUE)
        nearest = np.rint(in_steps).astype(np.int32)
        _count(whole, rows, thrifty(nearest, in_steps, rows, model.tables))
        symbols = quantised(residual, rows, counts, model.trellis)
        _count(either, rows + ROWS * turns_under(symbols, rows, model.trellis), symbols)  # of one date
        return symbols

    rng = np.random.default_rng((recipe.seed, 1))
    kinds = [kind for crops in recipe.crops for kind in found.fitting(crops)]
    for quality in np.linspace(0, 95, crops):
        kind = kinds[rng.integers(len(kinds))]
        (one,) = kind[rng.integers(len(kind))]
        groups = [g[None] for g in cropped(one.groups, one.even, min(*one.even, _FIT_SIDE), rng)]
        port = EstimatePort()
        wanted = Wanted([np.asarray(g, np.float64) for g in groups], quantise)
        sizes = [g.shape[1:] for g in groups]
        step = _step(float(quality))
        side = Side(EstimatePort(), model.tables)
        Ladder(model, sizes, 1, step, lambda _, p=port: [p], brightness_of(side, step), wanted).run()
    return _refitted(model.tables, whole), _refitted(model.trellis, either)


def _count(counts: np.ndarray, rows: np.ndarray, symbols: np.ndarray) -> None:
    near = np.abs(symbols) <= NEAR
    np.add.at(counts, (rows[near], symbols[near] + NEAR), 1)


def _refitted(tables: Tables, counts: np.ndarray) -> Tables:
    both = (counts + counts[:, ::-1]) / 2
    return pack_tables([fitted(tables, r, both[r]) for r in range(len(both))], tables.first.tolist())


def thrifty(symbols: np.ndarray, residual: np.ndarray, rows: np.ndarray, tables: Tables) -> np.ndarray:
    """Move a symbol one step towards 0 where the bits saved are worth more than the error added.

    Rate-distortion optimised quantisation; effects on later predictions are not looked at.

    Args:
        symbols: int32 [n], nearest to residual.
        residual: float [n], in steps.
        rows: [n] table rows.
        tables: for what symbols cost.
    """
    some = np.flatnonzero((symbols != 0) & (np.abs(symbols) < REACH))
    here, row, r = symbols[some], rows[some], residual[some]
    closer = here - np.sign(here)
    bits = tables.bits
    last = tables.size[row] - 1
    entry, other = (np.clip(s - tables.first[row], 0, last) for s in (here, closer))
    saved = bits[row, entry] - bits[row, other]
    added = (r - closer) ** 2 - (r - here) ** 2
    symbols = symbols.copy()
    symbols[some] = np.where(saved > BITS_PER_SQUARED_STEP * added, closer, here)
    return symbols


def _step(quality: float) -> int:
    """As `PyramidCodec` has it, in 1/16 DN."""
    return codecs.step_of(quality)


def write(folder: Path, average: Mapping[str, Tensor], found: Pool, recipe: Recipe, card: str) -> None:
    """Weights, tables and a card, as `eozip.load` takes them."""
    tensors = with_tables(integers(average), found, recipe)
    files.write_folder(folder, tensors | later_tensors(average, recipe), folder.name, card)


def later_tensors(average: Mapping[str, Tensor], recipe: Recipe) -> dict[str, np.ndarray]:
    """Networks of later passes for new ones of the first: those of the folder that training began with, or the same."""
    if recipe.init and located(recipe.init).is_dir():
        stored = files.read_folder(located(recipe.init))[1]
        kept = {name: value for name, value in stored.items() if name.startswith(files.LATER)}
        if kept:
            return kept
    return later_integers(passes.later_of(average))


def write_later(folder: Path, average: Mapping[str, Tensor], others: Path, card: str) -> None:
    """Weights of a folder with other networks of later passes; its card goes on with theirs."""
    tensors = files.read_folder(others)[1] | later_integers(average)
    before = (others / "card.md").read_text(encoding="utf-8").split(_LATER_CARD)[0]
    files.write_folder(folder, tensors, folder.name, before + _LATER_CARD + card)


def with_tables(tensors: Mapping[str, np.ndarray], found: Pool, recipe: Recipe) -> dict[str, np.ndarray]:
    """Tensors with tables that fit the networks.

    A path through the trellis follows from what symbols cost, so its tables are fitted to those before, a few times over.
    """
    logistic = files.packed_tables(_logistic_tables())
    whole, either = logistic, files.packed_tables(logistic_trellis(), "trellis")
    for part in (8, 4, 1) if recipe.fit_crops else ():
        model = files.model_of({**tensors, **logistic, **either})
        counted = _fitted_tables(model, found, recipe, -(-recipe.fit_crops // part))
        whole, either = files.packed_tables(counted[0]), files.packed_tables(counted[1], "trellis")
    return {**tensors, **whole, **either}
