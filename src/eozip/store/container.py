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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from eozip.errors import FormatError, OutputError

LOCAL_HEADER = 30  # bytes of a zip entry's own header, without name and extra field
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # a fixed date: the same input gives the same bytes


class Container(Protocol):
    """Keys and bytes of a store being written; `keys` in the order of `put`."""

    keys: list[str]

    def put(self, key: str, data: bytes) -> None: ...

    def close(self) -> None: ...


class DirectoryContainer:
    """Each key is a file below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keys: list[str] = []
        root.mkdir()

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.keys.append(key)

    def close(self) -> None:
        """Nothing is held open."""


class ZipContainer:
    """Each key is an uncompressed entry of one zip file."""

    def __init__(self, path: Path) -> None:
        self.keys: list[str] = []
        self._zip = zipfile.ZipFile(path, "x", compression=zipfile.ZIP_STORED, allowZip64=True)

    def put(self, key: str, data: bytes) -> None:
        entry = zipfile.ZipInfo(key, date_time=ZIP_DATE)
        entry.external_attr = 0o644 << 16
        self._zip.writestr(entry, data)
        self.keys.append(key)

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
        with _closing(
            ZipContainer(temporary) if is_zip_name(target) else DirectoryContainer(temporary)
        ) as container:
            yield container
        _rename(temporary, target)
    except OSError as error:
        raise _output_error(target, error) from error
    finally:
        _remove(temporary)


@contextmanager
def updating(target: Path) -> Iterator[Container]:
    """Adds keys to a store, or replaces them; they become part of it when the block ends without an error.

    A zip file is copied with its changes and renamed. In a directory each new file replaces its key by a rename, in
    the order of `put`: what readers rely on must be put last, and earlier keys must suit old and new readers.

    Args:
        target: a store.

    Raises:
        OutputError: the disk refused, or somebody else changed the store meanwhile.
    """
    temporary = _temporary_beside(target)
    zipped = target.is_file()
    before = _root(target)
    try:
        with _closing(ZipContainer(temporary) if zipped else DirectoryContainer(temporary)) as container:
            yield container
            if zipped:
                _copy_others(target, container)
        if _root(target) != before:
            raise OutputError(f"{target} was changed by somebody else meanwhile; run again")
        if zipped:
            os.replace(temporary, target)
        else:
            _merge(temporary, target, container.keys)
    except OSError as error:
        raise _output_error(target, error, "the store shows the dates it showed before") from error
    finally:
        _remove(temporary)


def _root(target: Path) -> bytes | None:
    with StoreFiles(target) as files:
        return files.get("zarr.json")


def _copy_others(target: Path, container: Container) -> None:
    done = set(container.keys)
    with StoreFiles(target) as files:
        for key in files.names():
            if key not in done:
                container.put(key, files.get(key) or b"")


def _merge(temporary: Path, target: Path, keys: Sequence[str]) -> None:
    for key in keys:
        (target / key).parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary / key, target / key)


@contextmanager
def _closing(container: Container) -> Iterator[Container]:
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


def _output_error(target: Path, error: OSError, left: str = "nothing was left under that name") -> OSError:
    """Our own errors pass; the disk's get the name of the output and what to do."""
    if isinstance(error, OutputError):
        return error
    return OutputError(
        f"cannot write {target}: {error.strerror or error}; {left}. "
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


def _read_range(file: Path, start: int, stop: int) -> bytes:
    with file.open("rb") as source:
        source.seek(start)
        return source.read(max(0, stop - start))


class StoreFiles:
    """Keys and bytes of a finished store, read without zarr.

    Args:
        path: a `.zarr` directory or a `.zarr.zip` file.

    Attributes:
        bytes_read: bytes of keys read so far.

    Raises:
        FormatError: there is no store at `path`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read = 0
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
        size = self.size(key)
        if size is None:
            return None
        return self.read(key, 0, size) if self._zip is None else self._counted(self._entry(key))

    def size(self, key: str) -> int | None:
        """Bytes of one key, or None where the store has no such key."""
        if self._zip is None:
            file = self.path / key
            return file.stat().st_size if file.is_file() else None
        try:
            return self._zip.getinfo(key).file_size
        except KeyError:
            return None

    def read(self, key: str, start: int, stop: int) -> bytes:
        """Bytes of a key there is, from `start` up to `stop`; nothing else of it is read.

        Raises:
            FormatError: the container itself is damaged at this key.
        """
        if self._zip is None:
            return self._counted(_read_range(self.path / key, start, stop))
        entry = self._zip.getinfo(key)
        if entry.compress_type != zipfile.ZIP_STORED:  # packed again by another program
            return self._counted(self._entry(key)[start:stop])
        # zipfile seeks by reading; and it holds the CRC of the whole entry, which a part cannot be held against
        base = entry.header_offset + self._local_header(entry)
        return self._counted(_read_range(self.path, base + start, base + min(stop, entry.file_size)))

    def _counted(self, data: bytes) -> bytes:
        self.bytes_read += len(data)
        return data

    def _entry(self, key: str) -> bytes:
        try:
            return self._zip.read(key) if self._zip is not None else b""
        except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise FormatError(
                f"{self.path}, entry {key}: {error}; the file was changed after writing"
            ) from error

    def _local_header(self, entry: zipfile.ZipInfo) -> int:
        """Bytes before the entry's data: 30, its name, and a field that only this header tells."""
        head = _read_range(self.path, entry.header_offset, entry.header_offset + LOCAL_HEADER)
        if head[:4] != b"PK\x03\x04" or len(head) < LOCAL_HEADER:
            raise FormatError(
                f"{self.path}, entry {entry.filename}: expected a zip entry, got {head[:4]!r}; the file was "
                "changed after writing"
            )
        name, extra = (int.from_bytes(head[i : i + 2], "little") for i in (26, 28))
        return LOCAL_HEADER + name + extra

    def total_bytes(self) -> int:
        """Bytes of everything: data, metadata, and the zip's own directory."""
        if self.path.is_file():
            return self.path.stat().st_size
        return sum((self.path / name).stat().st_size for name in self.names())
