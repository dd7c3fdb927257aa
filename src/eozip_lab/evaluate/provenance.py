"""Where numbers come from: command, versions, machine, commit; and results written whole or not at all."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import eozip
from eozip.errors import OutputError
from eozip.outputs import publish, resolved, temporary

_PACKAGES = ("numpy", "torch", "constriction", "imagecodecs", "av", "rasterio", "zarr", "terracodec")
# name > prefix of imagecodecs' function that tells the version
_ENCODERS = {
    "openjpeg": "jpeg2k",
    "libjxl": "jpegxl",
    "libwebp": "webp",
    "libavif": "avif",
    "lerc": "lerc",
    "sz3": "sz3",
    "zfp": "zfp",
}


def provenance() -> dict[str, Any]:
    """Command line, time, commit, versions and machine of this process; JSON types."""
    return {
        "command": _command(sys.orig_argv[1:]),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": {
            "eozip": eozip.__version__,
            "python": platform.python_version(),
            **_versions(),
            **_encoders(),
        },
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory, system."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def commit() -> str | None:
    """Commit of the checkout this file lies in, "+" behind it if tracked files differ; None if in none."""
    here = Path(__file__).parent
    head = _git(here, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")


def as_json(value: Any) -> str:
    """JSON text of dataclasses, mappings, sequences and numbers; floats to 6 digits, infinite ones null."""
    return json.dumps(_plain(value), indent=1) + "\n"


def write_text(path: Path, text: str, *, overwrite: bool = True) -> None:
    """Write under a temporary name and rename.

    Args:
        path: the file; its folder is made where there is none.
        text: its content.
        overwrite: whether a file that exists may be replaced.

    Raises:
        OutputError: exists, or cannot be written; nothing is left under the name.
    """
    write_bytes(path, text.encode(), overwrite=overwrite)


def write_bytes(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """As `write_text`, bytes."""
    path = resolved(path)
    if path.is_dir():
        raise OutputError(f"{path}: cannot be written, it is a folder; choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path, folder=False) as part:
            part.write_bytes(data)
            publish(part, path, overwrite=overwrite)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error}); choose another place") from error


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _command(arguments: Sequence[str]) -> str:
    """A command line that can be given again: the installed command by its name, scripts behind `python`."""
    installed = bool(arguments) and Path(arguments[0]).name == "eozip"
    first = ["eozip"] if installed else ["python"]
    return shlex.join([*first, *map(_short, arguments[installed:])])


def _short(argument: str) -> str:
    """Paths relative to the working directory if below it: results should not tell where a checkout lay."""
    path = Path(argument)
    return (
        str(path.relative_to(Path.cwd()))
        if path.is_absolute() and path.is_relative_to(Path.cwd())
        else argument
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # an optional package: absent from the list
    return found


def _encoders() -> dict[str, str]:
    """Versions of the encoders inside imagecodecs and PyAV, where those are there and tell."""
    found = {}
    if importlib.util.find_spec("imagecodecs"):
        import imagecodecs  # optional

        told = {name: getattr(imagecodecs, f"{short}_version", None) for name, short in _ENCODERS.items()}
        found = {name: str(tell()) for name, tell in told.items() if tell is not None}
    if importlib.util.find_spec("av"):
        import av  # optional

        found["libavcodec"] = ".".join(map(str, av.library_versions["libavcodec"]))
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
