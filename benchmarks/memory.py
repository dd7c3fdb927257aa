"""Peak memory of encoding and decoding a large GeoTIFF, each in a process of its own.

    python benchmarks/memory.py [--size 4096] [--codec tec-elic-small] [--dates 1] [--limit 3.0]

Peak RSS is what the kernel says at the process's end (ru_maxrss), torch and all. Exit code 1 if over
the limit (GiB).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

_CHILD = (
    "import json, resource, sys, time\n"
    "from eozip.cli import cli\n"
    "started = time.perf_counter()\n"
    "cli(sys.argv[1:], standalone_mode=False)\n"
    "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    "print(json.dumps({'peak_kib': peak, 'seconds': time.perf_counter() - started}))\n"
)


def measured(name: str, *arguments: object) -> float:
    """Runs one command and prints its peak; returns GiB."""
    command = [sys.executable, "-c", _CHILD, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    facts = json.loads(done.stdout.splitlines()[-1])
    unit = 1 if sys.platform == "darwin" else 1024
    gib = facts["peak_kib"] * unit / 2**30
    print(f"{name:10} {gib:6.2f} GiB peak {facts['seconds']:8.1f} s", flush=True)
    return gib


def main() -> int:
    """Simulates, encodes, decodes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--dates", type=int, default=1)
    parser.add_argument("--codec", default="tec-elic-small")
    parser.add_argument("--limit", type=float, default=3.0)
    parser.add_argument("--input", type=Path, help="folder of GeoTIFFs to use instead of simulating")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, store, back = (
            options.input or Path(folder, "sim"),
            Path(folder, "s.zarr"),
            Path(folder, "back"),
        )
        if options.input is None:
            measured("simulate", "simulate", source, "--size", options.size, "--dates", options.dates)
        peaks = [
            measured("encode", "encode", source, store, "--codec", options.codec),
            measured("decode", "decode", store, back),
        ]
    print(f"limit {options.limit:.2f} GiB: {'kept' if max(peaks) <= options.limit else 'EXCEEDED'}")
    return int(max(peaks) > options.limit)


if __name__ == "__main__":
    sys.exit(main())
