"""Speed of the full-size temporal codecs: seconds per frame, GMAC done, share of the machine's matrix peak.

    python benchmarks/temporal.py [--kind tec-tt] [--size 256] [--dates 3] [--threads 2] [--budget 16]

Weights come from hashes (speed does not depend on them), so nothing is downloaded. Peak is what torch's own
float32 matrix product reaches in this run, measured before and after; the best counts. GMAC are those of the
operations that really ran (linear layers, convolutions), counted while the same codec runs once more; float64
ones and those of 8-bit integers count once, like float32, though the machine does them at half or four times the speed;
a product in two pieces counts twice. Let nothing else use the cores.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from eozip import hub, sensors
from eozip.codecs.base import Encoded
from eozip.codecs.terracodec import flextec, tec_tt
from eozip.codecs.terracodec.temporal import TemporalModel

SCALE_HEAD = "scale_head.4.bias"


@dataclass(frozen=True)
class Row:
    """One direction of one run.

    Attributes:
        name: What ran.
        seconds: Per frame, mean over the dates.
        gmac: Per frame.
        gflops: 2 GMAC / seconds.
        share: Of the float32 peak.
    """

    name: str
    seconds: float
    gmac: float
    gflops: float
    share: float


def main() -> None:
    """Measures and prints."""
    options = _options()
    torch.set_num_threads(options.threads)
    codec = full_size(options.kind)
    x = scene(options.dates, options.size)
    before = peak_gflops()
    rows, peak = measured(codec, x, options.budget, before)
    if options.json:
        print(
            json.dumps({"peak_gflops": peak, "threads": options.threads, "rows": [asdict(r) for r in rows]})
        )
        return
    print(
        f"{options.kind}, {options.size} x {options.size}, {options.dates} dates, {options.threads} threads"
    )
    print(f"peak of a float32 matrix product: {peak:.0f} GFLOP/s")
    for row in rows:
        print(
            f"{row.name:14} {row.seconds:7.2f} s/frame {row.gmac:7.1f} GMAC/frame {row.gflops:6.0f} GFLOP/s "
            f"{100 * row.share:5.1f} % of peak"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=("tec-tt", "flextec"), default="tec-tt")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--dates", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=int, default=16, help="FlexTEC: tokens sent")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def full_size(kind: str) -> tec_tt.TemporalCodec | flextec.FlexibleCodec:
    """A codec of the published size with weights from hashes."""
    model = TemporalModel(flexible=kind == "flextec")
    tensors = {name: _filled(name, t) for name, t in model.state_dict().items()}
    build = {"tec-tt": tec_tt.from_weights, "flextec": flextec.from_weights}[kind]
    return build(hub.recognise(tensors, "formula"))


def _filled(name: str, like: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    u = torch.rand(like.shape, generator=generator) * 2 - 1
    if like.dim() > 1 and not name.endswith("_pos"):
        return u * math.sqrt(3 / like[0].numel())
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.1 * u
    return 0.1 * u + 3 * name.endswith(SCALE_HEAD)  # wide scales, as of latents that carry something


def scene(dates: int, size: int) -> np.ndarray:
    """Smooth DN [dates, 12, size, size]."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.standard_normal((dates, 12, 10, 10)).astype(np.float32))
    x = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").numpy()
    sensor = sensors.get("s2-l2a")
    return (
        x * np.array(sensor.std, np.float32)[:, None, None] + np.array(sensor.mean, np.float32)[:, None, None]
    )


def peak_gflops(seconds: float = 1.5) -> float:
    """Best of float32 matrix products of the largest shape in the network, for about so long."""
    a, b = torch.randn(2048, 768), torch.randn(768, 3072)
    best, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * 2048 * 768 * 3072 / best / 1e9


def measured(
    codec: tec_tt.TemporalCodec | flextec.FlexibleCodec, x: np.ndarray, budget: int, before: float
) -> tuple[list[Row], float]:
    """Rows of encoding and decoding, and the peak."""

    def encode() -> Encoded:
        if isinstance(codec, flextec.FlexibleCodec):
            return codec.encode_budgets(x, [budget] * len(x))
        return codec.encode(x, 50.0)

    encode_seconds, coded = timed(encode)
    decode_seconds, _ = timed(lambda: codec.decode(coded, x.shape, 50.0))
    peak = max(before, peak_gflops())
    macs = [counted(encode), counted(lambda: codec.decode(coded, x.shape, 50.0))]
    rows = []
    for name, seconds, gmac in zip(("encode", "decode"), (encode_seconds, decode_seconds), macs):
        speed = 2 * gmac / seconds
        rows.append(Row(name, seconds / len(x), gmac / len(x), speed, speed / peak))
    return rows, peak


def timed(run: Callable[[], object]) -> tuple[float, object]:
    """Seconds of one run, and its result."""
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def counted(run: Callable[[], object]) -> float:
    """GMAC that one run does, products of 8-bit integers among them."""
    integers = {torch.ops.aten._int_mm: lambda a, b, **_: 2 * a[0] * a[1] * b[1]}
    with FlopCounterMode(display=False, custom_mapping=integers) as counter:
        run()
    return counter.get_total_flops() / 2e9


if __name__ == "__main__":
    main()
