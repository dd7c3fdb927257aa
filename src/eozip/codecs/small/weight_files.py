"""Weights of the `small` codecs on disk: float networks as float16, exact networks and tables as integers.

g_a.* g_s.* entropy.h_a.*      float16: pixels depend on them, probabilities do not
log_gain mean unit             float32
entropy.*                      int32, multiples of 2**-20
tables.* functions.*           int32: what the coder sees, built once at export and never computed again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eozip import hub
from eozip.codecs.small.extra_band import WithCompanion, with_cirrus
from eozip.codecs.small.image_codec import SmallCodec
from eozip.codecs.small.image_model import SmallImageModel
from eozip.codecs.small.networks import SmallConfig
from eozip.codecs.small.series_codec import SeriesCodec
from eozip.entropy import fixed_point
from eozip.entropy.logistic_tables import logistic_tables
from eozip.entropy.range_coder import Tables
from eozip.entropy.tables import packed, unpacked
from eozip.errors import WeightsError

KIND = "small-image"
SENSOR, SENSOR_WITH_CIRRUS = "-s2l2a-", "-s2l1c-"  # in codec ids
HALF = ("g_a.", "g_s.", "entropy.h_a.")


def save_small(folder: Path, model: SmallImageModel, codec_id: str, sensor: str, card: str) -> None:
    """Export a trained model: float parts to float16, exact parts to their grid, tables built.

    Raises:
        WeightsError: sums of a layer could leave the exact range.
    """
    twin = fixed_point.exact_entropy(model.entropy).state_dict()
    tensors = {name: stored(name, v, twin) for name, v in model.state_dict().items()}
    tensors |= {f"tables.{n}": integers(v) for n, v in packed(logistic_tables()).items()}
    tensors |= {f"functions.{n}": v for n, v in fixed_point.function_steps().items()}
    config = {
        "kind": KIND,
        "id": codec_id,
        "codecs": [codec_id],
        "sensor": sensor,
        "network": asdict(model.config),
    }
    if model.config.entropy != "time" and SENSOR in codec_id:
        config["codecs"] += [codec_id.replace(SENSOR, SENSOR_WITH_CIRRUS)]
    hub.write_folder(folder, tensors, config, card)


def stored(name: str, v: Tensor, exact_values: Mapping[str, Tensor]) -> Tensor:
    if name.startswith(HALF):
        return v.half()
    if name.startswith("entropy."):
        return (exact_values[name.removeprefix("entropy.")] * fixed_point.WEIGHT).to(torch.int32)
    return v.float()


def load_codec(folder: Path, full_id: str | None = None) -> SmallCodec | WithCompanion:
    """The codec of one of the ids that the config.json of a folder lists: the network's own, or with B10 beside its bands.

    Raises:
        WeightsError: as `load_small`.
    """
    codec = load_small(folder)
    return codec if full_id in (None, codec.id) else with_cirrus(full_id, codec)


def load_small(folder: Path) -> SmallCodec:
    """A codec from the files of `save_small`.

    Raises:
        WeightsError: files missing, of another hash, or with wrong tensors.
    """
    weights = hub.read_folder(folder)
    model = SmallImageModel(small_config(weights.config, str(folder))).eval().requires_grad_(False)
    tables = parts(weights.tensors, "tables.")
    functions = parts(weights.tensors, "functions.")
    networks = {n: v for n, v in weights.tensors.items() if not n.startswith(("tables.", "functions."))}
    # int32 grid values stay below 2**24, so float32 holds them exactly
    floats = {
        n: v.float() / fixed_point.WEIGHT if v.dtype == torch.int32 else v.float()
        for n, v in networks.items()
    }
    expected = {name: tuple(v.shape) for name, v in model.state_dict().items()}
    hub.check_tensors(replace(weights, tensors=floats), expected)
    model.load_state_dict(floats)
    codec = SeriesCodec if model.config.entropy == "time" else SmallCodec
    return codec(
        id=str(weights.config["id"]),
        weights_hash=bytes.fromhex(str(weights.config["sha256"])),
        model=model,
        functions=fixed_point.expanded(functions),
        tables=unpacked(tables),
        sensor=str(weights.config["sensor"]),
    )


def replace_tables(folder: Path, tables: Tables) -> None:
    """Writes the weights of a folder again with other probability tables (new bytes, so a new hash)."""
    weights = hub.read_folder(folder)
    tensors = {n: v for n, v in weights.tensors.items() if not n.startswith("tables.")}
    tensors |= {f"tables.{n}": integers(v) for n, v in packed(tables).items()}
    hub.write_folder(folder, tensors, weights.config, (folder / "card.md").read_text(encoding="utf-8"))


def trained_tensors(folder: Path) -> dict[str, Tensor]:
    """Tensors of shipped weights as training holds them: positive weights as logarithms again."""
    model = load_small(folder).model
    tensors = dict(model.state_dict())
    for name in (f"entropy.{n}" for n in model.entropy.logarithms):
        tensors[name] = tensors[name].clamp_min(1 / fixed_point.WEIGHT).log()
    return tensors


def small_config(config: Mapping[str, Any], source: str) -> SmallConfig:
    """The network's sizes in config.json.

    Raises:
        WeightsError: another kind of network, or unknown or missing keys.
    """
    network = dict(config.get("network", {}))
    known = {f.name for f in fields(SmallConfig)}
    if config.get("kind") != KIND or set(network) != known:
        raise WeightsError(
            f"{source}: expected kind {KIND!r} with the sizes {sorted(known)}, got {config.get('kind')!r} "
            f"with {sorted(network)}"
        )
    listed = {key: tuple(network[key]) for key in ("groups", "fit_classes", "emphasis")}
    return SmallConfig(**{**network, **listed})


def parts(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


def integers(v: np.ndarray) -> Tensor:
    return torch.from_numpy(v.astype(np.int32))
