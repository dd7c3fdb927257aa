"""What a model card shows beside its figures: hashes of the data, and the picture of the worst chunk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eozip.chunk import api
from eozip.chunk.pixels import psnr
from eozip.outputs import publish
from eozip.picture import new_figure
from eozip_lab.train.data_sources import open_sources
from eozip_lab.train.kinds import kind_for
from eozip_lab.train.recipe import Recipe
from eozip_lab.train.validate import Stack, place_files

WORST = "worst.png"
_QUALITY = 60.0  # at which chunks are compared: the default of `eozip.encode`
_MOST_BYTES = 200_000  # of the picture
_HASHED_BYTES = 8 << 30  # beyond this, names and sizes are hashed
_RED_GREEN_BLUE = ("B04", "B03", "B02")


@dataclass(frozen=True)
class Chunk:
    """One date of one place, encoded alone.

    Attributes:
        place, date: which one.
        bpppb, psnr: what came of it.
        dn, dn_hat: [C, H, W], before and after.
    """

    place: str
    date: int
    bpppb: float
    psnr: float
    dn: np.ndarray
    dn_hat: np.ndarray

    def text(self) -> str:
        """One sentence."""
        return (
            f"{self.place}, date {self.date}, quality {_QUALITY:g}: {self.psnr:.2f} dB at {self.bpppb:.4f} bpppb, largest "
            f"error {int(np.abs(self.dn.astype(int) - self.dn_hat).max())} DN"
        )


def worst_chunk(codec: Any, stacks: Sequence[Stack]) -> Chunk:
    """The date with the lowest PSNR of all places, each coded alone."""
    chunks = [_coded(codec, s, date) for s in stacks for date in range(len(s.dn))]
    return min(chunks, key=lambda chunk: chunk.psnr)


def _coded(codec: Any, stack: Stack, date: int) -> Chunk:
    dn = np.clip(stack.dn[date], 0, 65535).astype(np.uint16)
    blob = api.encode(dn, codec, _QUALITY)
    dn_hat = api.decode_array(blob)
    return Chunk(stack.name, date, 8 * len(blob) / dn.size, psnr(dn, dn_hat), dn, dn_hat)


def draw_worst(chunk: Chunk, band_names: Sequence[str], path: Path) -> None:
    """Original, decoded and error of a chunk side by side: PNG of at most 200 kB."""
    from PIL import Image  # optional

    buffer = io.BytesIO()
    _figure(chunk, band_names).savefig(buffer, format="png", dpi=100)
    picture = Image.open(buffer).convert("RGB")
    for colours in (256, 128, 64, 32, 16, 8):
        data = io.BytesIO()
        picture.quantize(colours).save(data, "png", optimize=True)
        if len(data.getvalue()) <= _MOST_BYTES:
            break
    part = path.with_name(path.name + ".part")
    part.write_bytes(data.getvalue())
    publish(part, path, overwrite=True)


def _figure(chunk: Chunk, band_names: Sequence[str]) -> Any:
    figure = new_figure(8.4, 3.2)
    names = _RED_GREEN_BLUE if set(_RED_GREEN_BLUE) <= set(band_names) else list(band_names)[:3]
    rgb = [list(band_names).index(name) for name in names]
    top = float(np.percentile(chunk.dn[rgb], 99)) or 1.0
    error = np.sqrt(np.square(chunk.dn.astype(np.float64) - chunk.dn_hat).mean(0))
    left, middle, right = figure.subplots(1, 3)
    for axes, dn, title in ((left, chunk.dn, "original"), (middle, chunk.dn_hat, "decoded")):
        axes.imshow(np.clip(dn[rgb].transpose(1, 2, 0) / top, 0, 1))
        axes.set_title(f"{title}, {' '.join(names)}", fontsize=8)
    shown = right.imshow(error, vmin=0, cmap="inferno")
    right.set_title("error over all bands, RMS", fontsize=8)
    figure.colorbar(shown, ax=right, shrink=0.8, label="DN")
    for axes in (left, middle, right):
        axes.axis("off")
    figure.suptitle(chunk.text(), fontsize=8)
    return figure


def hash_lines(recipe: Recipe) -> list[str]:
    """SHA-256 of everything that a recipe reads, a line each: training data as one, and every validation file."""
    sources = open_sources(recipe, kind_for(recipe).band_names)
    try:
        parts = [(f"data[{k}]", source.files()) for k, source in enumerate(sources)]
    finally:
        for source in sources:
            source.close()
    parts += [(path.name, (path,)) for path in place_files(recipe)]
    return [_hash_line(name, sorted(set(files))) for name, files in parts]


def _hash_line(name: str, files: Sequence[Path]) -> str:
    sizes = sum(path.stat().st_size for path in files)
    what = f"{len(files)} files, {sizes:,} bytes"
    if sizes > _HASHED_BYTES:
        text = "".join(f"{path.name} {path.stat().st_size}\n" for path in files)
        return f"{name}: {what}; of names and sizes `{hashlib.sha256(text.encode()).hexdigest()}`"
    return f"{name}: {what}; `{_digest(files)}`"


def _digest(files: Sequence[Path]) -> str:
    """Of one file, or of what `sha256sum` says about several."""
    lines = [f"{_file_digest(path)}  {path.name}\n" for path in files]
    return lines[0].split()[0] if len(lines) == 1 else hashlib.sha256("".join(lines).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
