"""Keys and bytes of a store: what reads them without zarr, from a folder or a zip file, here or on an object store; and what
a writer of them fulfils.

On an object store a window costs three requests for the metadata, one for the index of each shard it touches, and one for
each range of chunks that lie close together within a shard.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import re
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, ZipStore

from eozip.arguments import Place, RemotePath
from eozip.errors import FormatError, LimitError
from eozip.keys import RemoteKeys

GROUP = "zarr.json"
LEASED = ".eozip-writing"
"""Key that a writer holds on an object store."""
_BLOCK = 1 << 16  # bytes that are fetched at once of a zip file's directory

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
        return self._counted(self._range(base + start, base + min(stop, entry.file_size)))

    def _range(self, start: int, stop: int) -> bytes:
        """Bytes of the zip file that was opened; an append puts another one in its place, where keys lie elsewhere."""
        opened = None if self._zip is None else self._zip.fp
        if opened is None:
            return _read_range(self._here, start, stop)
        return os.pread(opened.fileno(), max(0, stop - start), start)

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
        head = self._range(entry.header_offset, entry.header_offset + LOCAL_HEADER)
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


class Container(Protocol):
    """Keys and bytes of a store being written; `keys` in the order of `put`."""

    keys: list[str]

    def put(self, key: str, data: bytes) -> None: ...

    def close(self) -> None: ...

    def check(self) -> None: ...


class Plain:
    """A container that does nothing at its end."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def close(self) -> None:
        """Nothing is held open."""

    def check(self) -> None:
        """Nothing is kept back."""


def is_zip_name(path: Place) -> bool:
    """Whether the name asks for a zip file."""
    return path.name.lower().endswith(".zip")


# --- on an object store ---


def is_url(store: object) -> bool:
    """Whether a name is one that fsspec resolves, and no path of this machine."""
    return isinstance(store, RemotePath) or (isinstance(store, str) and ("://" in store or "::" in store))


def store_files(path: Place | str, options: Mapping[str, Any] | None = None) -> StoreFiles:
    """Open a store, here or wherever fsspec reads: a folder of keys, or one zip file, by byte ranges.

    Args:
        path: a path, or a URL such as s3://bucket/scene.zarr or https://host/scene.zarr.zip.
        options: for fsspec.

    Raises:
        FormatError: there is none.
    """
    if not is_url(path):
        return StoreFiles(Path(str(path)))
    where = path if isinstance(path, RemotePath) else RemotePath(str(path).rstrip("/"))
    kind = _RemoteZip if is_zip_name(where) and not where.url.startswith("zip::") else RemoteFiles
    return kind(where, options or {})


class RemoteFiles(StoreFiles):
    """Keys and bytes of a store on an object store: metadata is asked for once, and nothing is listed but by `names`.

    Args:
        path: the URL.
        options: for fsspec.
    """

    def __init__(self, path: RemotePath, options: Mapping[str, Any] | None = None) -> None:
        self.path: Place = path
        self.bytes_read = 0
        self.keys = RemoteKeys(path, options or {})
        self._zip = None
        self._documents: dict[str, bytes | None] = {}

    def names(self) -> list[str]:
        """Every key, sorted."""
        return [key for key in self.keys.sizes() if key != LEASED]

    def get(self, key: str) -> bytes | None:
        """The bytes of one key, or None where the store has no such key."""
        if not key.endswith(GROUP):
            data = self.keys.get(key)
            return None if data is None else self._counted(data)
        if key not in self._documents:
            data = self.keys.get(key)
            self._documents[key] = None if data is None else self._counted(data)
        return self._documents[key]

    def size(self, key: str) -> int | None:
        """Bytes of one key, or None where the store has no such key."""
        if key.endswith(GROUP):
            data = self.get(key)
            return None if data is None else len(data)
        return self.keys.size(key)

    def read(self, key: str, start: int, stop: int) -> bytes:
        """Bytes of a key there is."""
        return self._counted(self.keys.read(key, start, stop))

    def tail(self, key: str, count: int) -> tuple[bytes, int | None] | None:
        """The last bytes of a key; how many it has would cost a request more."""
        data = self.keys.tail(key, count)
        return None if data is None else (self._counted(data), None)

    def reader(self, key: str, spans: Sequence[tuple[int, int]]) -> Callable[[int, int], bytes]:
        """Fetch ranges of a key, those that lie close together by one request; give a reader of them."""
        self.bytes_read += sum(stop - start for start, stop in spans)
        return self.keys.ranges(key, spans)

    def total_bytes(self) -> int:
        """Bytes of every key."""
        return sum(self.keys.sizes().values())


class _RemoteZip(StoreFiles):
    """A store that is one zip file elsewhere: its directory is read once, then the ranges that are asked for.

    Args:
        path: the URL.
        options: for fsspec.

    Raises:
        FormatError: it is no zip file.
    """

    def __init__(self, path: RemotePath, options: Mapping[str, Any] | None = None) -> None:
        self.path: Place = path
        self.bytes_read = 0
        self._unpacked = "", b""
        self._lock = threading.Lock()
        self._starts: dict[str, int] = {}
        self._keys = RemoteKeys(path, options or {})
        size = self._keys.size("")
        if size is None:
            raise FormatError(f"expected a store, got {path}, where nothing is; check the URL")
        self._length = size
        try:
            self._zip = zipfile.ZipFile(io.BufferedReader(_Ranges(self._keys, size), _BLOCK))
        except ZIP_FAULTS as error:
            raise FormatError(
                f"expected a zip file, got {path}: {error}; it is cut short, or no store"
            ) from error

    def state(self) -> bytes:
        """A digest of what the store says about itself."""
        digest = hashlib.sha256(str(self._length).encode())
        for key in SELF:
            digest.update(hashlib.sha256(self.get(key) or b"").digest())
        return digest.digest()

    def get(self, key: str) -> bytes | None:
        """The bytes of one key, or None where the store has no such key."""
        if self.size(key) is None:
            return None
        with self._lock:
            return self._counted(self._entry(key))

    def read(self, key: str, start: int, stop: int) -> bytes:
        """Bytes of a key there is."""
        return self.reader(key, [(start, stop)])(start, stop)

    def reader(self, key: str, spans: Sequence[tuple[int, int]]) -> Callable[[int, int], bytes]:
        """Fetch ranges of a key, those that lie close together by one request; give a reader of them."""
        if self._zip is None:
            raise RuntimeError("the store is closed")
        entry = self._zip.getinfo(key)
        if entry.compress_type != zipfile.ZIP_STORED:
            with self._lock:
                data = self._entry(key)
            return lambda start, stop: self._counted(data[start:stop])
        base, size = self._start(entry), entry.file_size
        inside = [(base + start, base + min(stop, size)) for start, stop in spans if start < min(stop, size)]
        fetched = self._keys.ranges("", inside)
        return lambda start, stop: self._counted(fetched(base + start, base + max(start, min(stop, size))))

    def total_bytes(self) -> int:
        """Bytes of the file."""
        return self._length

    def _start(self, entry: zipfile.ZipInfo) -> int:
        """Where the data of an entry begin."""
        if entry.filename not in self._starts:
            at = entry.header_offset
            head = self._keys.read("", at, at + LOCAL_HEADER)
            if head[:4] != b"PK\x03\x04" or len(head) < LOCAL_HEADER:
                raise FormatError(
                    f"{self.path}, entry {entry.filename}: expected a zip entry, got {head[:4]!r}"
                )
            name, extra = (int.from_bytes(head[i : i + 2], "little") for i in (26, 28))
            self._starts[entry.filename] = at + LOCAL_HEADER + name + extra
        return self._starts[entry.filename]


class _Ranges(io.RawIOBase):
    """A file elsewhere, for `zipfile`."""

    def __init__(self, keys: RemoteKeys, size: int) -> None:
        super().__init__()
        self._keys, self._size, self._at = keys, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._keys.read("", self._at, min(self._at + len(buffer), self._size))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def plain_store(path: Place) -> Store:
    """A store as zarr opens it, for reading."""
    if isinstance(path, RemotePath):
        url = f"zip::{path}" if is_zip_name(path) else str(path)
        return FsspecStore.from_url(url, read_only=True)
    return ZipStore(path, mode="r") if path.is_file() else LocalStore(path, read_only=True)
