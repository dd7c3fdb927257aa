"""Decodes the golden chunks of all registered codecs in a process of its own, and says what the entropy coder saw.

    python tests/golden_decode.py OUT.npz

For every codec that has a golden chunk: a digest of what decided its symbols, and the decoded pixels. A frame
whose symbols differ from the encoder's ends it with a `DesyncError`. Needs eozip and torch and no test runner,
so that it can run under any torch (`make test-oldest`).
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

import eozip
from eozip.codecs import registry
from eozip.codecs.base import Codec, Encoded
from eozip.entropy import fixed_point, range_coder

GOLDEN = Path(__file__).parent / "golden"


def golden_codecs() -> tuple[str, ...]:
    """Registered learned codecs with a golden chunk."""
    return tuple(n for n in registry.names() if n != registry.LOSSLESS and golden(n).exists())


def golden(name: str) -> Path:
    """The file with all golden chunks of one codec, and their pixels."""
    return GOLDEN / f"{name.partition('-v1')[0]}-v1.npz"


def golden_blob(name: str) -> bytes:
    """Bytes of a golden chunk."""
    return np.load(golden(name))[f"{name} blob"].tobytes()


def stored_pixels(name: str) -> dict[str, np.ndarray]:
    """Pixels of a golden chunk, `dn` before and `decoded` after coding."""
    held = np.load(golden(name))
    return {part: held[f"{name} {part}"] for part in ("dn", "decoded")}


@contextmanager
def witness() -> Iterator[hashlib._Hash]:
    """A digest of everything that decides a symbol, whichever codec computes it.

    Every table row asked for, every symbol decoded, and every number before it is rounded to its grid: exact
    sums are the same on all machines before rounding too, so a change that rounding would mostly hide is seen.
    """
    digest, decode_each, on_grid = hashlib.sha256(), range_coder._decode_each, fixed_point.on_grid

    def seen_code(ports, counts, rows, tables):
        got = decode_each(ports, counts, rows, tables)
        for values in (rows, got):
            digest.update(np.ascontiguousarray(values, "<i4"))
        return got

    def seen_on_grid(v, unit, most):
        # + 0: no matter which zero
        digest.update(np.ascontiguousarray(v.detach().double().cpu().numpy() + 0.0, "<f8"))
        return on_grid(v, unit, most)

    range_coder._decode_each, fixed_point.on_grid = seen_code, seen_on_grid
    try:
        yield digest
    finally:
        range_coder._decode_each, fixed_point.on_grid = decode_each, on_grid


def decoded(name: str) -> tuple[str, np.ndarray]:
    """Digest of all that decided the symbols, and pixels."""
    with witness() as digest:
        pixels = eozip.decode(golden_blob(name))
    return digest.hexdigest(), pixels


def seen_with_threads(codec: Codec, coded: Encoded, shape: tuple[int, int, int, int], threads: int) -> str:
    """Digest of all that decided the symbols of a chunk (at quality 50), decoded by so many threads."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with witness() as digest:
            codec.decode(coded, shape, 50)
    finally:
        torch.set_num_threads(before)
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    found = {}
    for name in golden_codecs():
        found[f"{name} digest"], found[f"{name} pixels"] = decoded(name)
    np.savez(options.out, torch=torch.__version__, **found)
    print(f"torch {torch.__version__}: {len(golden_codecs())} golden chunks decode")


if __name__ == "__main__":
    main()
