"""Build wheel and sdist into dist, install each into a clean environment, and code one array there.

python tools/check_package.py [--no-install]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
TRY = (
    "import numpy as np, eozip; dn = np.full((12, 64, 64), 1500, np.uint16); "
    "assert abs(eozip.decode(eozip.encode(dn)).astype(int) - 1500).max() < 50; print(eozip.__version__)"
)
NEEDED = ("py.typed", "LICENSE", "model.safetensors", "s2-l2a.toml")


def build() -> list[Path]:
    """Wheel and sdist, new in dist."""
    DIST.mkdir(exist_ok=True)
    for old in DIST.glob("eozip-*"):
        old.unlink()
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(DIST)], cwd=ROOT, check=True)
    return sorted(DIST.glob("eozip-*"))


def check_content(package: Path) -> None:
    """Exits where a package lacks files that it must hold."""
    if package.suffix == ".whl":
        held = zipfile.ZipFile(package).namelist()
    else:
        with tarfile.open(package) as archive:
            held = archive.getnames()
    missing = [name for name in NEEDED if not any(path.endswith(f"/{name}") for path in held)]
    if missing:
        sys.exit(f"{package.name}: expected files named {', '.join(missing)}, got none; see pyproject.toml")


def check_installed(package: Path) -> None:
    """Installs a package into an environment of its own and codes an array there."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", package], check=True)
        subprocess.run([python, "-c", TRY], cwd=folder, check=True)
        subprocess.run(
            [python.with_name("eozip"), "--help"], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )


def main() -> None:
    """Build and check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-install", action="store_true", help="look into the packages, install nothing")
    asked = parser.parse_args()
    for package in build():
        check_content(package)
        if not asked.no_install:
            check_installed(package)
        print(f"{package.name}: {package.stat().st_size / 1e6:.1f} MB, good")


if __name__ == "__main__":
    main()
