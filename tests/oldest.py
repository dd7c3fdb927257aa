"""Decodes the golden chunks under the oldest torch that pyproject.toml allows, in an environment of its own.

    python tests/oldest.py [--index https://download.pytorch.org/whl/cpu] [--venv .venv-oldest]

It wants a CPU-only build: builds with CUDA draw in gigabytes of libraries. Those are in PyTorch's own index; where
that cannot be reached, or has none, the script says so and ends with 2. With 0, the oldest torch gave the same
symbols, table rows and sums as the torch of this environment, and pixels within 1 DN.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
UNREACHED = 2


def oldest(package: str) -> str:
    """Lowest version that pyproject.toml allows."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][package]
    (requirement,) = (r for r in wanted if re.match(rf"{package}\W", r))
    return re.search(r">=\s*([0-9.]+)", requirement)[1]


def install(python: Path, index: str) -> bool:
    """torch from the index of CPU builds, everything else as usual; False if there is no such build."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wheel = f"torch=={oldest('torch')}+cpu"
    # no other source: elsewhere the same version is a build with CUDA
    alone = [
        "--isolated",
        "--retries",
        "1",
        "--index-url",
        index,
        "--extra-index-url",
        "https://pypi.org/simple",
    ]
    if subprocess.run([*pip, *alone, wheel]).returncode:
        return False
    subprocess.run([*pip, "-e", str(ROOT), wheel], check=True)
    return True


def decode(python: Path, out: Path) -> dict[str, np.ndarray]:
    subprocess.run([str(python), str(ROOT / "tests" / "golden_decode.py"), str(out)], check=True)
    with np.load(out) as found:
        return dict(found)


def differences(old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> list[str]:
    wrong = [name for name in new if name.endswith(" digest") and old[name] != new[name]]
    pixels = [name for name in new if name.endswith(" pixels")]
    return wrong + [
        name for name in pixels if np.abs(old[name].astype(int) - new[name].astype(int)).max() > 1
    ]


def main() -> int:
    options = _options()
    python = options.venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(options.venv)], check=True)
    if not install(python, options.index):
        print(
            f"no CPU build of torch {oldest('torch')} at {options.index} (not reachable, or none for this Python); "
            "give another --index. Nothing was compared.",
            file=sys.stderr,
        )
        return UNREACHED
    old = decode(python, options.venv / "oldest.npz")
    new = decode(Path(sys.executable), options.venv / "here.npz")
    wrong = differences(old, new)
    print(f"torch {old['torch']} against {new['torch']}: {', '.join(wrong) or 'the same'}")
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", default="https://download.pytorch.org/whl/cpu")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-oldest")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
