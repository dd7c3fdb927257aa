"""What exactness costs: the exact entropy path against the same networks in plain float32, time and bits, in one run.

    python benchmarks/exact.py [--codecs tec-elic-small ...] [--size 256] [--dates 4] [--quality 60] [--repeats 7] [--full]

Both codecs are the shipped one; in the float one every rounding to a grid is left out and every sum is float32, as in
training. Its bytes decode only where they were made. Encoding and decoding take turns, medians count. Bits are those of
rounding to nearest on both sides. The weights of both are the shipped ones: what rounding them cost is in their cards.
`--full` adds TEC-TT at the published size with weights by formula. Exits with 1 if a limit is passed. Let nothing else use
the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eozip import hub
from eozip.codecs import registry
from eozip.codecs.small.arithmetic import FloatArithmetic
from eozip.codecs.small.weight_files import trained_tensors
from eozip.codecs.terracodec import tec_tt
from eozip.entropy.logistic import LOG_SCALE_MIN, bounded
from eozip.entropy.logistic_tables import ROWS, STEP
from eozip.entropy.range_coder import EstimatePort
from eozip_lab.evaluate.inputs import load_places
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.simulate import render, season
from temporal import full_size
from temporal import scene as formula_scene

TIME_LIMITS = {"time": 1.6}  # by kind of entropy model; times the float path
TIME_LIMIT, BITS_LIMIT, FULL_BITS_LIMIT = 1.3, 1.005, 1.01


@dataclass(frozen=True)
class Row:
    """One codec.

    Attributes:
        encode, decode: median seconds of the exact codec.
        encode_ratio, decode_ratio: over those of the float codec.
        bits_ratio: estimated bits, exact over float.
        time_limit, bits_limit: what the ratios may be; a time limit of None is none.
    """

    codec: str
    encode: float
    decode: float
    encode_ratio: float
    decode_ratio: float
    bits_ratio: float
    time_limit: float | None
    bits_limit: float

    @property
    def within(self) -> bool:
        slow = self.time_limit is not None and max(self.encode_ratio, self.decode_ratio) > self.time_limit
        return not slow and self.bits_ratio <= self.bits_limit


class PlainArithmetic(FloatArithmetic):
    """Training's floats, all float32, with the table rows that coding needs."""

    def wide(self, v: Tensor) -> Tensor:
        return v.float()

    def fine(self, v: Tensor) -> Tensor:
        return v.float()

    def place(self, v: Tensor) -> Tensor:
        return v.float()

    def settle(self, v: Tensor) -> Tensor:
        return v.float()

    def rows(self, log_scale: Tensor) -> Tensor:
        row = ((bounded(log_scale) - LOG_SCALE_MIN) / STEP).round()
        return row.long().clamp(0, ROWS - 1)


def in_floats(codec: Any) -> Any:
    """A shipped codec with plain float32 in the place of exact arithmetic."""
    model = type(codec.model)(codec.model.config).eval().requires_grad_(False)
    model.load_state_dict(trained_tensors(hub.shipped_path(codec.id)))
    kind = type(f"Float{type(codec).__name__}", (type(codec),), {"exact": lambda own, device: _plain(own)})
    return kind(**{**vars(codec), "model": model})


def _plain(codec: Any) -> tuple[Any, PlainArithmetic]:
    return codec.model.entropy, PlainArithmetic()


def measured(name: str, dn: np.ndarray, quality: float, repeats: int) -> Row:
    """One shipped codec against itself in floats."""
    exact = registry.get(name)
    pair = (exact, in_floats(exact))
    x = dn.astype(np.float32)
    rounds = [[_timed(codec, x, quality) for codec in pair] for _ in range(1 + repeats)][1:]
    (encode, decode), (float_encode, float_decode) = (
        [statistics.median(one[side][way] for one in rounds) for way in (0, 1)] for side in (0, 1)
    )
    bits = [replace(codec, thrift=np.inf).estimate(x, quality) for codec in pair]
    limit = TIME_LIMITS.get(exact.model.config.entropy, TIME_LIMIT)
    return Row(
        name,
        encode,
        decode,
        encode / float_encode,
        decode / float_decode,
        bits[0] / bits[1],
        limit,
        BITS_LIMIT,
    )


def _timed(codec: Any, x: np.ndarray, quality: float) -> tuple[float, float]:
    started = time.perf_counter()
    coded = codec.encode(x, quality)
    encoded = time.perf_counter()
    codec.decode(coded, x.shape, quality)
    return encoded - started, time.perf_counter() - encoded


def full(size: int) -> Row:
    """TEC-TT of the published size: one date given one other, through both token models."""
    codec = full_size("tec-tt")
    x = formula_scene(2, size)
    with torch.inference_mode():
        y = tec_tt.latents(codec.model, x[None], codec.sensor)
        known = codec.path.known(y[:, 1])
        past = torch.round(y[:, 0])
        runs = [
            _said(codec, network, past, known) for network in (codec.path.exact, codec.model.entropy_model)
        ]
    (context, tokens, bits), (float_context, float_tokens, float_bits) = runs
    ratios = context / float_context, tokens / float_tokens
    return Row(
        "tec-tt-base: context, tokens", context, tokens, *ratios, bits / float_bits, None, FULL_BITS_LIMIT
    )


def _said(codec: Any, network: Any, past: Tensor, known: Tensor) -> tuple[float, float, float]:
    """Seconds of the context and of the parallel pass over tokens, and bits."""
    dtype = torch.float64 if network is codec.path.exact else torch.float32
    started = time.perf_counter()
    separate = network.past(past.to(dtype))
    memories = network.memories(network.context(separate, separate))
    prepared = time.perf_counter()
    said = network.predict(known.to(dtype), memories)
    done, port = time.perf_counter(), EstimatePort()
    codec.path.code(port.code, known, said.mean.double(), said.scale.double())
    return prepared - started, done - prepared, port.bits


def main() -> int:
    """Measures, prints, writes; 1 if a limit is passed."""
    options = _options()
    torch.set_num_threads(options.threads)
    dn, pixels = _stack(options)
    rows = [
        _noted(measured, registry.resolve(c), dn, options.quality, options.repeats) for c in options.codecs
    ]
    rows += [_noted(full, options.size)] if options.full else []
    found = {
        "provenance": provenance(),
        "pixels": pixels,
        "threads": options.threads,
        "quality": options.quality,
    }
    results = {
        **found,
        "repeats": options.repeats,
        "rows": [{**asdict(row), "within": row.within} for row in rows],
    }
    if options.out:
        write_text(options.out / "exact.json", as_json(results))
    print(json.dumps(results["rows"]) if options.json else "\n".join(_line(row) for row in rows))
    return 0 if all(row.within for row in rows) else 1


def _noted(run: Callable[..., Row], *arguments: Any) -> Row:
    print(f"{run.__name__} {arguments[0]}", file=sys.stderr, flush=True)
    return run(*arguments)


def _line(row: Row) -> str:
    limit = "no limit" if row.time_limit is None else f"limit {row.time_limit}"
    return (
        f"{row.codec}: encode {row.encode:.3f} s, {row.encode_ratio:.2f} of the float path; decode {row.decode:.3f} s, "
        f"{row.decode_ratio:.2f} ({limit}); bits {row.bits_ratio:.5f} (limit {row.bits_limit}); "
        f"{'within' if row.within else 'NOT WITHIN'}"
    )


def _stack(options: argparse.Namespace) -> tuple[np.ndarray, str]:
    size, dates = options.size, options.dates
    if (options.data / "val").is_dir():
        place = load_places(options.data / "val", size)[0]
        dn = place.dn[:dates]
        return dn, f"{place.name} {dn.shape}"
    print(f"no {options.data / 'val'}: measuring a simulated scene", file=sys.stderr)
    return render(0, season(dates, 0), range(size), range(size)), "simulated (eozip_lab.simulate, seed 0)"


def _options() -> argparse.Namespace:
    root = Path(__file__).parents[1]
    data = Path(os.environ.get("EOZIP_DATA") or root.parent / "shared") / "data"
    # flextec-small runs the networks of tec-tt-small, and has no float form of its intervals
    named = [n for n in hub.shipped() if "-s2l2a-v" in n and not n.startswith("flextec")]
    shipped = [n.rpartition("-v")[0].removesuffix("-s2l2a") for n in named]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=data, help="folder with val/")
    parser.add_argument("--codecs", nargs="*", default=list(dict.fromkeys(shipped)))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--dates", type=int, default=4)
    parser.add_argument("--quality", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--full", action="store_true", help="TEC-TT of the published size too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="folder for exact.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
