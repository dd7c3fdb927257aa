"""`eozip info STORE`: facts from headers alone, without torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from eozip.chunk import api
from eozip.cli.common import (
    STORE,
    bytes_text,
    date_table,
    decibels,
    json_option,
    print_json,
    shares,
    shown,
    tell,
)
from eozip.errors import InputError


@click.command()
@click.argument("path", type=STORE, metavar="STORE|CHUNK")
@json_option
def info(path: Path, as_json: bool) -> None:
    """Say what a store, or one chunk stream in a file, holds; reads headers alone.

    Bits of a date are estimates where several dates share a group: the group's bytes, shared out as the encoder counted.
    """
    if not (path.is_dir() or path.is_file()):
        raise InputError(f"{path}: no such file; expected a .zarr directory, a .zarr.zip file, or a chunk")
    facts = store_facts(path) if path.is_dir() or path.suffix.lower() == ".zip" else chunk_facts(path)
    if as_json:
        print_json(facts)
    else:
        tell("\n".join(_lines(facts)))


def store_facts(path: Path) -> dict[str, Any]:
    """Facts about a store, ready for JSON."""
    from eozip.store import describe, section_sizes

    found = describe(path)
    samples = 1
    for length in found.grid.shape:
        samples *= length
    return {
        "store": str(path),
        "shape": list(found.grid.shape),
        "dtype": found.dtype,
        "chunk": list(found.grid.chunk),
        "shard": list(found.grid.shard),
        "bytes": found.bytes,
        "bpppb": 8 * found.bytes / samples,
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
        "sections": asdict(section_sizes(found)),
    }


def chunk_facts(path: Path) -> dict[str, Any]:
    """Facts about one stream in a file, ready for JSON."""
    data = path.read_bytes()
    found = api.inspect(data)
    header = {key: _plain(value) for key, value in asdict(found.header).items()}
    sections = list(found.sections)
    facts = {"file": str(path), "bytes": found.bytes, "bpppb": found.bpppb, "sections": sections, **header}
    dropped = api.dropped(data).reshape(found.header.shape[0], -1).sum(axis=1)
    return {**facts, "date_dropped": dropped.tolist()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _lines(facts: dict[str, Any]) -> list[str]:
    """For people: dates and sections as tables."""
    facts = dict(facts)
    tables: list[str] = []
    if "date_psnr" in facts:
        psnr, bits = facts.pop("date_psnr"), facts.pop("date_bits", [])
        _, bands, height, width = facts["shape"]
        dropped = shares(facts.pop("date_dropped", None), height * width)
        tables += date_table(facts["dates"], psnr, bits, bands * height * width, dropped)
    if isinstance(facts.get("sections"), dict):
        tables += _sections(facts.pop("sections"))
    return [*(_line(key, value) for key, value in facts.items()), *tables]


def _sections(sizes: dict[str, Any]) -> list[str]:
    rows = [
        f"  {k:7}  {bytes_text(size):>8}  {bytes_text(needed):>8}"
        for k, (size, needed) in enumerate(zip(sizes["sections"], sizes["budgets"]), start=1)
    ]
    behind = [f"  behind   {bytes_text(sizes['behind']):>8}"] if sizes["behind"] else []
    title = f"  section      size  read by --budget ({sizes['streams']} streams)"
    return [title, f"  headers  {bytes_text(sizes['exact']):>8}  (with masks and exceptions)", *rows, *behind]


def _line(key: str, value: Any) -> str:
    return f"{shown(key, '') + ':':22} {shown(_text(key, value), '')}"


def _text(key: str, value: Any) -> str:
    if key == "bytes":
        return f"{value} ({bytes_text(value)})"
    if key == "psnr":
        return decibels(value)
    if key == "crs" and value:
        return value.split('"')[1] if '"' in value else value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return " ".join(_text("", item) for item in value)
    return "-" if value is None else str(value)
