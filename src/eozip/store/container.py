"""The keys of a store and their bytes: a directory or one zip file, read without zarr and written whole or not at all.

A Zarr store is a set of keys with bytes. A writer puts them key by key under a temporary name beside the target, which is
renamed when complete, so that a full disk or an interrupt never leaves half a store under the final name. Zip entries of
streams are stored without compression: they are compressed already, and readers can then fetch byte ranges."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from eozip.errors import FormatError, LimitError, OutputError
from eozip.keys import Place, RemotePath
from eozip.outputs import flush, flush_folder, locked, publish, put_back, resolved, temporary

_MAX_RATIO = 200
"""How many times larger than its packed bytes an entry may be: streams do not shrink, and metadata by less than this."""
_RATIO_ROOM = 1 << 20  # bytes that any entry may have
# what zipfile and its decompressors raise for bytes that are no zip file, or one of another kind
ZIP_FAULTS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    OverflowError,
    OSError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)
LOCAL_HEADER = 30  # bytes of a zip entry's own header, without name and extra field
SELF = ("zarr.json", "eozip/zarr.json", "reflectance/zarr.json")
"""Keys by which a store says what it is."""


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
        self.path: Place = path
        self._here = path
        self.bytes_read = 0
        self._zip = self._open_zip() if path.is_file() else None
        self._unpacked: tuple[str, bytes] = ("", b"")
        if self._zip is None and not path.is_dir():
            raise FormatError(f"expected a .zarr directory or .zarr.zip file, got {path}, which is neither")

    def _open_zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._here)
        except PermissionError:
            raise
        except ZIP_FAULTS as error:
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
            return sorted(set(self._zip.namelist()))
        files = (file for file in self._here.rglob("*") if file.is_file())
        return sorted(file.relative_to(self._here).as_posix() for file in files)

    def state(self) -> bytes:
        """A digest of what the store says about itself: another one after every change by eozip, zarr or xarray."""
        digest = hashlib.sha256()
        for key in SELF:
            data = self.get(key)
            digest.update(b"-" if data is None else b"+" + hashlib.sha256(data).digest())
        if self._zip is not None:
            status = self._here.stat()
            digest.update(repr((status.st_ino, status.st_size, status.st_mtime_ns)).encode())
        return digest.digest()

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
            file = self._here / key
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
            return self._counted(_read_range(self._here / key, start, stop))
        entry = self._zip.getinfo(key)
        if entry.compress_type != zipfile.ZIP_STORED:  # packed again by another program
            return self._counted(self._entry(key)[start:stop])
        if (
            entry.flag_bits & 1
            or not 0 <= entry.file_size == entry.compress_size <= self._here.stat().st_size
        ):
            raise FormatError(
                f"{self.path}, entry {key}: expected bytes as they are, not encrypted, within the file, got "
                f"{entry.file_size} of them in {entry.compress_size}; the file was changed after writing"
            )
        # zipfile seeks by reading; and it holds the CRC of the whole entry, which a part cannot be held against
        base = entry.header_offset + self._local_header(entry)
        return self._counted(_read_range(self._here, base + start, base + min(stop, entry.file_size)))

    def tail(self, key: str, count: int) -> tuple[bytes, int | None] | None:
        """The last bytes of a key, and how many it has where that is known; None where the store has no such key."""
        size = self.size(key)
        return None if size is None else (self.read(key, max(0, size - count), size), size)

    def _counted(self, data: bytes) -> bytes:
        self.bytes_read += len(data)
        return data

    def _entry(self, key: str) -> bytes:
        """A whole entry of a zip file, unpacked; the last one is kept, as it may be read a range at a time."""
        if self._zip is None or self._unpacked[0] == key:
            return self._unpacked[1]
        entry = self._zip.getinfo(key)
        if entry.file_size > max(_RATIO_ROOM, _MAX_RATIO * entry.compress_size):
            raise LimitError(
                f"{self.path}, entry {key}: expected at most {_MAX_RATIO} times its packed {entry.compress_size} bytes, got "
                f"{entry.file_size}; unpack the store yourself if you trust it"
            )
        try:
            self._unpacked = key, self._zip.read(key)
        except ZIP_FAULTS as error:
            raise FormatError(
                f"{self.path}, entry {key}: {error}; the file was changed after writing"
            ) from error
        return self._unpacked[1]

    def _local_header(self, entry: zipfile.ZipInfo) -> int:
        """Bytes before the entry's data: 30, its name, and a field that only this header tells."""
        if entry.header_offset < 0:
            raise FormatError(
                f"{self.path}, entry {entry.filename}: expected a zip entry, got none before the file"
            )
        head = _read_range(self._here, entry.header_offset, entry.header_offset + LOCAL_HEADER)
        if head[:4] != b"PK\x03\x04" or len(head) < LOCAL_HEADER:
            raise FormatError(
                f"{self.path}, entry {entry.filename}: expected a zip entry, got {head[:4]!r}; the file was "
                "changed after writing"
            )
        name, extra = (int.from_bytes(head[i : i + 2], "little") for i in (26, 28))
        return LOCAL_HEADER + name + extra

    def total_bytes(self) -> int:
        """Bytes of everything: data, metadata, and the zip's own directory."""
        if self._here.is_file():
            return self._here.stat().st_size
        return sum((self._here / name).stat().st_size for name in self.names())


KEY = re.compile(r"(.+/)?(zarr\.json|c(/\d+)*)")  # of a Zarr v3 hierarchy
_MARK, _DOCUMENT = b"eozip", "zarr.json"
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # a fixed date: the same input gives the same bytes


class Container(Protocol):
    """Keys and bytes of a store being written; `keys` in the order of `put`."""

    keys: list[str]

    def put(self, key: str, data: bytes) -> None: ...

    def close(self) -> None: ...

    def check(self) -> None: ...


class _DirectoryContainer:
    """Each key is a file below `root`, an empty folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keys: list[str] = []
        self._sizes: dict[str, int] = {}

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        folders = [folder for folder in path.parents if folder.is_relative_to(self.root)]
        try:
            for folder in reversed(
                folders[:-1]
            ):  # never the root: what was in it would be lost without a word
                folder.mkdir(exist_ok=True)
            path.write_bytes(data)
        except FileNotFoundError as error:
            raise _taken_away(self.root) from error
        self._sizes[key] = len(data)
        self.keys.append(key)

    def close(self) -> None:
        """Nothing is held open."""

    def check(self) -> None:
        """Looks whether every key is still there.

        Raises:
            OutputError: somebody else removed one.
        """
        for key, size in self._sizes.items():
            path = self.root / key
            if not path.is_file() or path.stat().st_size != size:
                raise _taken_away(path)


class ZipContainer:
    """Each key is an entry of one zip file, which is there and empty: metadata packed, streams as they are."""

    def __init__(self, path: Path) -> None:
        self.keys: list[str] = []
        self._path = path
        self._zip = zipfile.ZipFile(path, "w", compression=zipfile.ZIP_STORED, allowZip64=True)
        self._size = 0

    def put(self, key: str, data: bytes) -> None:
        entry = zipfile.ZipInfo(key, date_time=_ZIP_DATE)
        entry.external_attr = 0o644 << 16
        entry.compress_type = zipfile.ZIP_DEFLATED if key.endswith(_DOCUMENT) else zipfile.ZIP_STORED
        self._zip.writestr(entry, data)
        self.keys.append(key)
        self._size += entry.compress_size

    def close(self) -> None:
        self._zip.close()

    def check(self) -> None:
        """Looks whether the file is still there.

        Raises:
            OutputError: somebody else removed it.
        """
        if not self._path.is_file() or self._path.stat().st_size < self._size:
            raise _taken_away(self._path)


def _taken_away(path: Path) -> OutputError:
    return OutputError(
        f"{path} was removed by somebody else while it was written; run again, and leave *.part files alone while "
        "eozip runs: it removes those of killed runs itself"
    )


def is_zip_name(path: Place) -> bool:
    """Whether the name asks for a zip file."""
    return path.name.lower().endswith(".zip")


def writing(target: Place, overwrite: bool = False) -> AbstractContextManager[Container]:
    """Opens a container for `target` and gives it its name when the block ends without an error.

    Args:
        target: a name ending in `.zarr` (directory) or `.zarr.zip` (one file); a link stands for what it names. On an object
            store a `.zarr`, whose keys appear one by one, and the group's document, without which it is no store, last.
        overwrite: whether a store there may be replaced; it stays until the new one is complete, and nobody else can
            change it meanwhile.

    Raises:
        OutputError: the name has another ending, there is something under it (from the beginning, or since then), another
            program is writing there, or the disk refused a write.
    """
    if isinstance(target, RemotePath):
        from eozip.store.remote import remote_writing

        return remote_writing(target, overwrite)
    return _writing_here(target, overwrite)


@contextmanager
def _writing_here(target: Path, overwrite: bool) -> Iterator[Container]:
    target = resolved(target)
    check_target(target, overwrite)
    try:
        with ExitStack() as stack:
            before = target.stat() if target.exists() else None
            if before is not None:
                stack.enter_context(locked(target))
            part = stack.enter_context(temporary(target, folder=not is_zip_name(target)))
            with _closing(_container(part)) as container:
                yield container
            container.check()
            _check_still(target, before)
            publish(part, target, overwrite=before is not None)
    except OSError as error:
        raise _output_error(target, error) from error


def _check_still(target: Path, before: os.stat_result | None) -> None:
    """What may be replaced is what was there when the run began, and nothing was put into it."""
    if before is None or not os.path.lexists(target):
        return
    if not os.path.samestat(before, target.stat()):
        raise OutputError(f"{target} was replaced by somebody else meanwhile, and stays as it is; run again")
    _check_replaceable(target)


def changing(store: Place) -> AbstractContextManager[Place]:
    """Holds the lock of a store, so that what is read in the block is what `updating` replaces.

    Args:
        store: a `.zarr` directory or `.zarr.zip` file; a link stands for what it names.

    Yields:
        its own path.

    Raises:
        FormatError: there is no store.
        OutputError: another program is changing it, or a link leads out of it.
    """
    if isinstance(store, RemotePath):
        from eozip.store.remote import remote_changing

        return remote_changing(store)
    return _changing_here(store)


@contextmanager
def _changing_here(store: Path) -> Iterator[Place]:
    target = resolved(store)
    with StoreFiles(target):
        _check_links(target)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(target))
        except OSError as error:
            raise _output_error(target, error, "the store is as it was") from error
        yield target


def _check_links(store: Path) -> None:
    """What is written through a folder that is a link would be written somewhere else."""
    for folder, names, _ in os.walk(store):
        for path in (Path(folder, name) for name in names):
            if path.is_symlink():
                raise OutputError(
                    f"{path} leads out of the store {store} by a link, and nothing is written through that; put the "
                    "folder itself in place of the link"
                )


def updating(target: Place, state: bytes) -> AbstractContextManager[Container]:
    """Adds keys to a store, or replaces them; they become part of it when the block ends without an error.

    A zip file is copied with its changes and renamed. In a directory each new file replaces its key by a rename, in
    the order of `put`: what readers rely on must be put last, and earlier keys must suit old and new readers.

    Args:
        target: a store, locked by `changing`.
        state: its `StoreFiles.state` when it was read.

    Raises:
        OutputError: the disk refused, or somebody changed the store without asking for the lock.
    """
    if isinstance(target, RemotePath):
        from eozip.store.remote import remote_updating

        return remote_updating(target, state)
    return _updating_here(target, state)


@contextmanager
def _updating_here(target: Path, state: bytes) -> Iterator[Container]:
    zipped = target.is_file()
    try:
        with temporary(target, folder=not zipped) as part:
            with _closing(_container(part)) as container:
                yield container
                if zipped:
                    _copy_others(target, container)
            container.check()
            with StoreFiles(target) as files:
                if files.state() != state:
                    raise OutputError(f"{target} was changed by somebody else meanwhile; run again")
            if zipped:
                publish(part, target, overwrite=True)
            else:
                flush(part)
                _merge(part, target, container.keys)
    except OSError as error:
        raise _output_error(target, error, "the store shows the dates it showed before") from error


def _container(part: Path) -> Container:
    return _DirectoryContainer(part) if part.is_dir() else ZipContainer(part)


def _copy_others(target: Path, container: Container) -> None:
    done = set(container.keys)
    with StoreFiles(target) as files:
        for key in files.names():
            if key not in done:
                container.put(key, files.get(key) or b"")


def _merge(part: Path, target: Path, keys: Sequence[str]) -> None:
    """Renames every key into the store."""
    for key in keys:
        (target / key).parent.mkdir(parents=True, exist_ok=True)
        os.replace(part / key, target / key)
        flush_folder((target / key).parent)


@contextmanager
def _closing(container: Container) -> Iterator[Container]:
    try:
        yield container
    finally:
        container.close()


def check_target(target: Place, overwrite: bool) -> None:
    """Refuses a target that is misnamed, or that exists while `overwrite` is off, or is no store of eozip.

    Raises:
        OutputError: see above.
    """
    if isinstance(target, RemotePath):
        from eozip.store.remote import check_remote_target

        check_remote_target(target, overwrite)
        return
    target = resolved(target)
    if not target.name.lower().endswith((".zarr", ".zarr.zip")):
        raise OutputError(f"expected an output named *.zarr or *.zarr.zip, got {target}; rename the output")
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; make it first")
    put_back(target)
    if os.path.lexists(target):
        if not overwrite:
            raise OutputError(
                f"{target} exists already; choose another name, or pass --overwrite (overwrite=True)"
            )
        _check_replaceable(target)


def _check_replaceable(target: Path) -> None:
    """Only what eozip itself wrote is ever replaced."""
    try:
        with StoreFiles(target) as files:
            is_ours = any(_MARK in (files.get(key) or b"") for key in SELF)
            others = [name for name in files.names() if not KEY.fullmatch(name)]
    except FormatError:
        is_ours, others = False, []
    if not is_ours or others:
        what = f"holds {others[0]}, which is no part of a store," if others else "is no store of eozip"
        raise OutputError(f"{target} {what} and is not replaced; choose another name, or remove it yourself")


def _output_error(target: Path, error: OSError, left: str = "nothing was left under that name") -> OSError:
    """Our own errors pass; the disk's get the name of the output and what to do."""
    if isinstance(error, OutputError):
        return error
    return OutputError(
        f"cannot write {target}: {error.strerror or error}; {left}. "
        "Free disk space or check permissions, then run again"
    )
