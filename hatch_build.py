"""Compiles the kernel of the pyramid codecs into the package where there is a C compiler; without one numpy does its work.

    python hatch_build.py      # for a source tree that is used in place

Set EOZIP_PURE=1 to leave the kernel out of a wheel that is for any machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any
from zlib import crc32

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path(__file__).parent / "src" / "eozip" / "codecs" / "pyramid"
SOURCES = (FOLDER / "kernel.c", *sorted(FOLDER.glob("*.inc")))  # as native.py has them
LIBRARY = FOLDER / "kernel.so"
_OPTIONS = (
    "-O3",
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-fPIC",
    "-shared",
    "-fno-math-errno",
    "-ffp-contract=off",
)


def compiled(target: Path = LIBRARY) -> bool:
    """Compiles the kernel; False, and a line on stderr, where that is not possible."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or sys.platform == "win32":
        print("eozip: no C compiler: numpy will do the work of the kernel", file=sys.stderr)
        return False
    stamp = crc32(b"".join(path.read_bytes() for path in SOURCES)) & 0x7FFFFFFF
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kernel-") as folder:
        part = Path(folder) / "kernel.so"
        command = [compiler, *_OPTIONS, f"-DSTAMP={stamp}", "-o", str(part), str(SOURCES[0])]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(
                f"eozip: numpy will do the work of the kernel, which failed to compile:\n{done.stderr}",
                file=sys.stderr,
            )
            return False
        part.replace(target)
    return True


class KernelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the kernel into wheels and editable installations."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say that the wheel is for this kind of machine."""
        if self.target_name != "wheel" or os.environ.get("EOZIP_PURE") or not compiled():
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        build_data["artifacts"].append(str(LIBRARY.relative_to(Path(__file__).parent)))


if __name__ == "__main__":
    sys.exit(not compiled())
