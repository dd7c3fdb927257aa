"""Stores and chunks as cards of HTML: a picture, and what they say about themselves."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eozip.chunk import api
from eozip.errors import InputError
from eozip.notebook.plots import RGB, stretched
from eozip.store import describe, read_pixels

_SIDE = 256  # pixels of a card's picture


@dataclass(frozen=True, repr=False)  # pixels are no text
class Card:
    """What a notebook shows of a store or a chunk.

    Attributes:
        title: its name.
        facts: text by name.
        picture: PNG, or None where none can be drawn.
    """

    title: str
    facts: Mapping[str, str]
    picture: bytes | None = None

    def __repr__(self) -> str:
        width = max(map(len, self.facts), default=0)
        return "\n".join([self.title, *(f"  {name:{width}}  {text}" for name, text in self.facts.items())])

    def _repr_html_(self) -> str:
        pairs = [(html.escape(name), html.escape(text)) for name, text in self.facts.items()]
        left = "style='text-align:left'"
        rows = "".join(f"<tr><th {left}>{name}</th><td {left}>{text}</td></tr>" for name, text in pairs)
        image = ""
        if self.picture is not None:
            data = base64.b64encode(self.picture).decode()
            image = f"<img alt='{html.escape(self.title)}' src='data:image/png;base64,{data}' style='max-width:256px'>"
        style = "display:flex;gap:1em;align-items:flex-start;flex-wrap:wrap"
        return f"<div style='{style}'>{image}<table><caption>{html.escape(self.title)}</caption>{rows}</table></div>"


def show(source: str | Path | bytes) -> Card:
    """Show what a store, or the bytes of one chunk, hold: a card with figures and a picture.

    Args:
        source: a `.zarr` directory or `.zarr.zip` file, or what `eozip.encode` gave.

    Raises:
        FormatError: neither of them.
        InputError: something else.
    """
    if isinstance(source, bytes | bytearray):
        return _chunk_card(bytes(source))
    if isinstance(source, str | Path):
        return _store_card(source)
    raise InputError(f"expected a store or the bytes of a chunk, got {type(source).__name__}")


def _store_card(path: str | Path) -> Card:
    found = describe(path)
    times, bands, height, width = found.grid.shape
    raw = found.samples * np.dtype(found.dtype).itemsize
    dates = [date[:10] for date in found.dates if date]
    psnr = found.facts["psnr"]
    low, high = found.facts["quality_used"] or (0, 0)
    facts = {
        "size": f"{times} dates x {bands} bands x {height} x {width} pixels",
        "dates": _between(dates),
        "bands": " ".join(name or "-" for name in found.profile.band_names),
        "codec": found.codec.codec,
        "quality": f"{low:g}" if low == high else f"{low:g} to {high:g}",
        "PSNR": "every pixel exact" if psnr is None else f"{psnr:.2f} dB",
        "bytes": f"{found.bytes:,}, {raw / max(1, found.bytes):.1f} times smaller",
    }
    names = [str(found.profile.band_names[i] or "") for i in np.argsort(found.band_order)]
    rows, columns = _middle(height), _middle(width)
    dn = read_pixels(found, slice(0, 1), rows, columns)[0]
    return Card(Path(str(path)).name, facts, _picture(dn, names, found.codec.nodata))


def _chunk_card(blob: bytes) -> Card:
    info = api.inspect(blob)
    header = info.header
    facts = {
        "size": " x ".join(map(str, header.shape)),
        "bands": " ".join(info.bands) or "without names",
        "codec": header.codec,
        "quality": f"{header.quality:g}",
        "bytes": f"{info.bytes:,}, {8 * np.dtype(header.dtype).itemsize / info.bpppb:.1f} times smaller, "
        f"{info.bpppb:.4f} bits per pixel and band",
    }
    if header.groups:
        facts["grids"] = ", ".join(f"{bands} bands at {size} m" for size, bands in info.groups.items())
    largest = max(header.shape[-2:])
    made = api.decode(blob, reduce=min(32, 1 << max(0, math.ceil(math.log2(largest / _SIDE)))))
    dn = next(iter(made.values())) if isinstance(made, dict) else made
    return Card("chunk", facts, _picture(dn[0] if dn.ndim == 4 else dn, list(info.bands), header.nodata))


def _between(dates: list[str]) -> str:
    return "unknown" if not dates else dates[0] if len(dates) == 1 else f"{min(dates)} to {max(dates)}"


def _middle(length: int) -> slice:
    start = max(0, (length - _SIDE) // 2)
    return slice(start, min(length, start + _SIDE))


def _picture(dn: np.ndarray, names: list[str], nodata: int | None) -> bytes | None:
    """PNG of red, green and blue of [C, h, w]; None where there is no library to write it."""
    try:
        from PIL import Image  # optional
    except ImportError:
        return None
    picks = [next((names.index(name) for name in same if name in names), None) for same in RGB]
    chosen = [p for p in picks if p is not None]
    chosen = chosen if len(chosen) == 3 else [min(i, len(dn) - 1) for i in range(3)]
    shades = stretched(np.moveaxis(dn[chosen], 0, 2), nodata)
    out = io.BytesIO()
    Image.fromarray((shades * 255).astype(np.uint8)).save(out, format="PNG")
    return out.getvalue()
