"""Weights of pyramid codecs on disk: small integers, read by numpy alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from eozip.codecs.pyramid import context, stages
from eozip.codecs.pyramid.appending import SeriesCodec
from eozip.codecs.pyramid.codec import PyramidCodec
from eozip.codecs.pyramid.earlier import Later
from eozip.codecs.pyramid.flexible import FlexCodec
from eozip.codecs.pyramid.model import Model
from eozip.codecs.pyramid.side import ROWS
from eozip.entropy.range_coder import Tables
from eozip.errors import WeightsError

KIND = "pyramid"
LATER = "later."
_COMES_AND_GOES = 31 << 20  # bytes; just below the largest that glibc learns from


def load_codec(folder: Path, full_id: str | None = None) -> PyramidCodec:
    """The codec in a folder of weights.

    Raises:
        WeightsError: files missing, of another hash, or with wrong tensors.
    """
    config, tensors = read_folder(folder)
    temporal = config.get("temporal")
    name = full_id or str(config["id"])
    _keep_memory()
    flexible = config.get("flexible")
    digest, model = bytes.fromhex(str(config["sha256"])), model_of(tensors)
    is_temporal = isinstance(temporal, list) and name in temporal
    if isinstance(flexible, list) and name in flexible:
        return FlexCodec(name, digest, model, is_temporal, later=later_of(tensors, model))
    return (SeriesCodec if is_temporal else PyramidCodec)(name, digest, model, is_temporal)


def _keep_memory() -> None:
    """Lets the C library keep memory that one chunk has freed for the next one.

    glibc gives it back to the system at once, unless it has seen that blocks as large come and go; to get it again, page by
    page, took 10 to 20 % of the time of every chunk. The block is never touched and costs nothing.
    """
    np.empty(_COMES_AND_GOES, np.uint8)


def model_of(tensors: dict[str, np.ndarray]) -> Model:
    """Networks and tables from stored integers.

    Raises:
        WeightsError: tensors that are missing or do not fit each other.
    """
    try:
        tables = _unpacked_tables(tensors, "tables", ROWS)
        trellis = _unpacked_tables(tensors, "trellis", 2 * ROWS)
        _check_alike(trellis)
        source = partial(model_of, tensors)
        return Model(stages.stages(tensors), context.functions(tensors), tables, trellis, source)
    except (KeyError, ValueError) as fault:
        raise WeightsError(f"pyramid weights: tensors that do not fit: {fault}") from fault


def later_of(tensors: dict[str, np.ndarray], model: Model | None = None) -> Later:
    """Networks of passes after the first, from tensors whose names begin with `LATER`; `model`: that of the others.

    Raises:
        WeightsError: tensors that are missing or do not fit each other.
    """
    model = model or model_of(tensors)
    try:
        around = [tensors[f"{LATER}{level}.around"].astype(np.float32) for level in range(context.LEVELS)]
        source = partial(later_of, tensors)
        return Later(replace(model, stages=stages.stages(tensors, LATER)), around, source)
    except (KeyError, ValueError) as fault:
        raise WeightsError(f"pyramid weights: tensors that do not fit: {fault}") from fault


def read_folder(folder: Path) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """config.json and model.safetensors, compared with their hash."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as fault:
        raise WeightsError(
            f"{folder}: expected config.json and model.safetensors of a codec: {fault}"
        ) from fault
    digest = _digest_of(folder)
    if config.get("sha256") != digest:
        raise WeightsError(
            f"{folder}: expected SHA-256 {config.get('sha256')} in config.json, got {digest}; fetch the folder again"
        )
    return config, tensors


def _digest_of(folder: Path) -> str:
    """First 16 hex digits of the SHA-256 of model.safetensors, as `eozip.hub` has it for all weights."""
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def packed_tables(tables: Tables, name: str = "tables") -> dict[str, np.ndarray]:
    """Tables without padding, as tensors of a name."""
    used = np.arange(tables.freqs.shape[1]) < tables.size[:, None]
    return {
        f"{name}.freqs": tables.freqs[used].astype(np.uint16),
        f"{name}.first": tables.first.astype(np.int16),
        f"{name}.size": tables.size.astype(np.int16),
    }


def _unpacked_tables(tensors: dict[str, np.ndarray], name: str, rows: int) -> Tables:
    """The inverse of `packed_tables`."""
    first, size = (tensors[f"{name}.{part}"].astype(np.int32) for part in ("first", "size"))
    if len(size) != rows or int(size.sum()) != len(tensors[f"{name}.freqs"]):
        raise WeightsError(f"pyramid weights: expected {rows} table rows of {name}, got {len(size)}")
    freqs = np.zeros((rows, int(size.max())), np.uint32)
    freqs[np.arange(freqs.shape[1]) < size[:, None]] = tensors[f"{name}.freqs"]
    return Tables(freqs=freqs, first=first, size=size)


def _check_alike(trellis: Tables) -> None:
    """Rows of both quantisers begin at the same symbol, are as long, and reach as far up as down."""
    is_alike = (trellis.first[:ROWS] == trellis.first[ROWS:]) & (trellis.size[:ROWS] == trellis.size[ROWS:])
    if not is_alike.all() or (trellis.size != 2 - 2 * trellis.first).any():
        raise WeightsError("pyramid weights: rows of both quantisers do not fit each other")


def write_folder(folder: Path, tensors: dict[str, np.ndarray], codec_id: str, card: str) -> None:
    """Write weights that `load_codec` reads: of a codec; if it is a tec-elic, of the tec-tt and flextec that share them.

    Raises:
        WeightsError: a tec-elic without networks of later passes, which flextec needs.
    """
    flexible = [codec_id.replace("tec-elic", "flextec", 1)] if "tec-elic" in codec_id else []
    temporal = [codec_id.replace("tec-elic", "tec-tt", 1), *flexible] if flexible else []
    if flexible and not any(name.startswith(LATER) for name in tensors):
        raise WeightsError(
            f"{codec_id}: expected tensors {LATER}0.trunk, ... of later passes too, got none; "
            "see eozip_lab.train.pyramid.export.later_tensors"
        )
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "model.safetensors"
    )
    config = {
        "kind": KIND,
        "id": codec_id,
        "codecs": [codec_id, *temporal],
        "temporal": temporal,
        "flexible": flexible,
        "sensor": "any",
        "sha256": _digest_of(folder),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "card.md").write_text(card, encoding="utf-8")
