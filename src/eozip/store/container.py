"""Where the keys of a store live: a directory or one zip file, written under a temporary name.

A Zarr store is a set of keys with bytes. Both containers here are written key by key beside the target and
renamed when complete, so that a full disk or an interrupt never leaves half a store under the final name. Zip
entries are stored uncompressed: chunks are compressed already, and readers can then fetch byte ranges.
"""

from __future__ import annotations

import os
import shutil
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from eozip.errors import FormatError, OutputError

ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # a fixed date: the same input gives the same bytes


class Container(Protocol):
    """Keys and bytes of a store being written."""

    def put(self, key: str, data: bytes) -> None: ...

    def close(self) -> None: ...


class DirectoryContainer:
    """Each key is a file below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def close(self) -> None:
        """Nothing is held open."""


class ZipContainer:
    """Each key is an uncompressed entry of one zip file."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "x", compression=zipfile.ZIP_STORED, allowZip64=True)

    def put(self, key: str, data: bytes) -> None:
        entry = zipfile.ZipInfo(key, date_time=ZIP_DATE)
        entry.external_attr = 0o644 << 16
        self._zip.writestr(entry, data)

    def close(self) -> None:
        self._zip.close()


def is_zip_name(path: Path) -> bool:
    """Whether the name asks for a zip file."""
    return path.name.lower().endswith(".zip")


@contextmanager
def writing(target: Path, overwrite: bool = False) -> Iterator[Container]:
    """Opens a container for `target` and gives it its name when the block ends without an error.

    Args:
        target: a name ending in `.zarr` (directory) or `.zarr.zip` (one file).
        overwrite: whether an existing target may be replaced; it stays until the new one is complete.

    Raises:
        OutputError: the name has another ending, the target exists, or the disk refused a write.
    """
    check_target(target, overwrite)
    temporary = _temporary_beside(target)
    try:
        yield from _fill(temporary, is_zip_name(target))
        _rename(temporary, target)
    except OSError as error:
        raise _output_error(target, error) from error
    finally:
        _remove(temporary)


def _fill(temporary: Path, zipped: bool) -> Iterator[Container]:
    container = ZipContainer(temporary) if zipped else DirectoryContainer(temporary)
    try:
        yield container
    finally:
        container.close()


def check_target(target: Path, overwrite: bool) -> None:
    """Refuses a target that is misnamed, or that exists while `overwrite` is off.

    Raises:
        OutputError: see above.
    """
    if not target.name.lower().endswith((".zarr", ".zarr.zip")):
        raise OutputError(f"expected an output named *.zarr or *.zarr.zip, got {target}; rename the output")
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; make it first")
    if target.exists() and not overwrite:
        raise OutputError(
            f"{target} exists already; choose another name, or pass --overwrite (overwrite=True)"
        )


def _output_error(target: Path, error: OSError) -> OSError:
    """Our own errors pass; the disk's get the name of the output and what to do."""
    if isinstance(error, OutputError):
        return error
    return OutputError(
        f"cannot write {target}: {error.strerror or error}; nothing was left under that name. "
        "Free disk space or check permissions, then run again"
    )


def _temporary_beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")


def _rename(temporary: Path, target: Path) -> None:
    """Gives the finished container its name; an old directory steps aside, as it cannot be replaced."""
    if not target.exists() or (target.is_file() and temporary.is_file()):
        os.replace(temporary, target)
        return
    aside = _temporary_beside(target)
    os.replace(target, aside)
    os.replace(temporary, target)
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


class StoreFiles:
    """Keys and bytes of a finished store, read without zarr.

    Args:
        path: a `.zarr` directory or a `.zarr.zip` file.

    Raises:
        FormatError: there is no store at `path`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = self._open_zip() if path.is_file() else None
        if self._zip is None and not path.is_dir():
            raise FormatError(f"expected a .zarr directory or .zarr.zip file, got {path}, which is neither")

    def _open_zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except zipfile.BadZipFile as error:
            raise FormatError(
                f"expected a zip file, got {self.path}: {error}; the file is cut short or is no eozip store"
            ) from error

    def __enter__(self) -> StoreFiles:
        return self

    def __exit__(self, *_: object) -> None:
        if self._zip is not None:
            self._zip.close()

    def names(self) -> list[str]:
        """Every key, sorted."""
        if self._zip is not None:
            return sorted(self._zip.namelist())
        files = (file for file in self.path.rglob("*") if file.is_file())
        return sorted(file.relative_to(self.path).as_posix() for file in files)

    def get(self, key: str) -> bytes | None:
        """The bytes of one key, or None where the store has no such key.

        Raises:
            FormatError: the container itself is damaged at this key.
        """
        if self._zip is None:
            file = self.path / key
            return file.read_bytes() if file.is_file() else None
        try:
            return self._zip.read(key)
        except KeyError:
            return None
        except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise FormatError(
                f"{self.path}, entry {key}: {error}; the file was changed after writing"
            ) from error

    def total_bytes(self) -> int:
        """Bytes of everything: data, metadata, and the zip's own directory."""
        if self.path.is_file():
            return self.path.stat().st_size
        return sum((self.path / name).stat().st_size for name in self.names())
