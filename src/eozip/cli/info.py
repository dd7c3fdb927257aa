"""`eozip info STORE`: facts from headers alone, without torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import eozip
from eozip import store as stores
from eozip.arguments import Place, RemotePath
from eozip.cli.common import (
    READ_STORE,
    bytes_text,
    date_table,
    day,
    decibels,
    json_option,
    many,
    print_json,
    shares,
    shown,
    tell,
    worst_text,
)
from eozip.errors import InputError

if TYPE_CHECKING:
    from eozip.store import Description


@click.command()
@click.argument("path", type=READ_STORE, metavar="STORE|CHUNK")
@json_option
def info(path: Place, as_json: bool) -> None:
    """Say what a store, or one chunk stream in a file, holds; reads headers alone.

    Bits of a date are estimates where several dates share a group: the group's bytes, shared out as the encoder counted.
    """
    if isinstance(path, Path) and not (path.is_dir() or path.is_file()):
        raise InputError(f"{path}: no such file; expected a .zarr directory, a .zarr.zip file, or a chunk")
    facts = _chunk_facts(path) if isinstance(path, Path) and _is_chunk(path) else store_facts(path)
    if as_json:
        print_json(facts)
    else:
        tell("\n".join(_lines(facts)))


def store_facts(path: Place) -> dict[str, Any]:
    """Facts about a store, ready for JSON."""

    found = stores.describe(path)
    size = found.bytes
    return {
        "store": str(path),
        "shape": list(found.grid.shape),
        "dtype": found.dtype,
        "chunk": list(found.grid.chunk),
        "shard": list(found.grid.shard),
        "bytes": size,
        "bpppb": 8 * size / found.samples,
        "bands": list(found.profile.band_names),
        "dates": list(found.dates),
        "groups": list(found.groups),
        **(
            {"unrecorded_dates": found.shown - found.grid.shape[0]}
            if found.shown > found.grid.shape[0]
            else {}
        ),
        "crs": found.profile.crs,
        "transform": found.profile.transform and list(found.profile.transform),
        **found.codec.to_dict()["configuration"],
        **found.facts,
        **_product_facts(found),
        # every header would be a request of its own
        **({} if isinstance(found.path, RemotePath) else {"sections": asdict(stores.section_sizes(found))}),
    }


def _product_facts(found: Description) -> dict[str, Any]:
    """Grids, and what is known of a product; nothing of a store that is no more than a scene."""
    places = {position: name for name, position in zip(found.profile.band_names, found.band_order)}
    native = {
        "grids": {
            grid.name: {"bands": [places[i] for i in grid.bands], "cells": [grid.height, grid.width]}
            for grid in found.grids
        },
        "samples": found.samples,
    }
    if found.product is None:
        return native if found.codec.grids else {}
    return {**native, "product": found.product.model_dump(mode="json")}


def _is_chunk(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() != ".zip"


def _chunk_facts(path: Path) -> dict[str, Any]:
    """Facts about one stream in a file, ready for JSON."""
    data = path.read_bytes()
    found = eozip.inspect(data)
    header = {key: _plain(value) for key, value in asdict(found.header).items()}
    sections = list(found.sections)
    facts = {"file": str(path), "bytes": found.bytes, "bpppb": found.bpppb, "sections": sections, **header}
    if found.header.levels:  # cells of 16 x 16 pixels at level 0, 1, .. 15
        cells = Counter(eozip.level_map_of(data).ravel().tolist())
        facts["level_cells"] = [cells[level] for level in range(16)]
    if found.header.groups:  # of which nothing is ever dropped
        return {**facts, "reduced": dict(found.reduced), "group_bytes": dict(found.group_bytes)}
    dropped = eozip.dropped(data).reshape(found.header.shape[0], -1).sum(axis=1)
    return {**facts, "date_dropped": dropped.tolist()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _lines(facts: dict[str, Any]) -> list[str]:
    """For people: dates and sections as tables."""
    from eozip.store.holding import recorded  # rasterio and zarr are slow to import

    facts = dict(facts)
    tables: list[str] = []
    if "date_psnr" in facts:
        psnr, bits = facts.pop("date_psnr"), facts.pop("date_bits", [])
        times, bands, height, width = facts["shape"]
        dropped = shares(facts.pop("date_dropped", None), height * width)
        measured = facts.get("samples", times * bands * height * width) // times
        tables += date_table(facts["dates"], psnr, bits, measured, dropped)
    for name, grid in facts.pop("grids", {}).items():
        bands_of = " ".join(band or "-" for band in grid["bands"])
        tables.append(f"  {name}: {bands_of}, {grid['cells'][0]} x {grid['cells'][1]} cells")
    if held := recorded(facts):
        facts["purposes"] = ", ".join(f"{text} ({worst_text(value)})" for text, value in held.items())
    if "product" in facts:
        tables += _product_lines(facts.pop("product"), facts["dates"])
    if isinstance(facts.get("sections"), dict):
        tables += _sections(facts.pop("sections"), str(facts.get("codec", "")))
    return [*(_line(key, value) for key, value in facts.items()), *tables]


def _product_lines(product: dict[str, Any], dates: list[str | None]) -> list[str]:
    """What a product says of its dates, and what lies beside its bands."""
    lines = []
    for date, offsets, one in zip(dates, product["offsets"], product["acquisitions"], strict=True):
        values = sorted(set(offsets))
        told = f" ({one['offset_source']})" if one.get("offset_source") else ""
        names = " ".join(str(one[name]) for name in ("product", "level", "baseline") if one.get(name))
        lines.append(
            f"  {day(date) or 'unknown date'}: {names or product['kind']}, offset {' '.join(f'{v:g}' for v in values)}{told}"
        )
    beside = [layer["path"] for layer in product["layers"]]
    return [*lines, *([f"  beside the bands: {' '.join(beside)}"] if beside else [])]


def _sections(sizes: dict[str, Any], codec: str) -> list[str]:
    """Table of sections; those of tec codecs are for reduced pictures, and `--budget` refuses them."""
    rows = [
        f"  {k:7}  {bytes_text(size):>8}  {bytes_text(needed):>8}"
        for k, (size, needed) in enumerate(zip(sizes["sections"], sizes["budgets"]), start=1)
    ]
    behind = [f"  behind   {bytes_text(sizes['behind']):>8}"] if sizes["behind"] else []
    until = "read up to its end" if codec.startswith("tec-") else "read by --budget"
    title = f"  section      size  {until} ({many(sizes['streams'], 'stream')})"
    return [title, f"  headers  {bytes_text(sizes['exact']):>8}  (with masks and exceptions)", *rows, *behind]


def _line(key: str, value: Any) -> str:
    return f"{shown(key, '') + ':':22} {shown(_text(key, value), '')}"


def _text(key: str, value: Any) -> str:
    if key == "bytes":
        return f"{value} ({bytes_text(value)})"
    if key == "groups" and isinstance(value, list):  # of dates, of a store
        return f"{many(len(value), 'group')} of {' '.join(map(str, value))} dates"
    if key == "dates":
        return " ".join(day(date) or "-" for date in value)
    if key == "psnr":
        return decibels(value)
    if key == "crs" and value:
        return value.split('"')[1] if '"' in value else value
    if key == "transform" and value:
        return " ".join(f"{number:.12g}" for number in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text('', item)}" for name, item in value.items())
    if isinstance(value, list):
        return " ".join(_text("", item) for item in value)
    return "-" if value is None else str(value)
