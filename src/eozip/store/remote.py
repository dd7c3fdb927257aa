"""Stores on object stores: read by a bounded number of requests, written key by key with the group's document last.

A window costs: three requests for the metadata, one for the index of each shard it touches, and one for each range of
chunks that lie close together within a shard. Nothing has a temporary name: a key appears whole, and without the group's
document (`zarr.json`) there is no store. That one is created by a conditional write, and one writer at a time holds a lease,
`.eozip-writing`.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, ZipStore

from eozip.arguments import Place, RemotePath
from eozip.errors import FormatError, InputError, OutputError
from eozip.keys import Lease, RemoteKeys, leased, token_of
from eozip.store.files import KEY, LOCAL_HEADER, SELF, ZIP_FAULTS, Container, StoreFiles, is_zip_name

GROUP, _WRITING = "zarr.json", ".eozip-writing"
_BLOCK = 1 << 16  # bytes that are fetched at once of a zip file's directory
_MARK, _PIXELS = b"eozip", re.compile(r"reflectance/c/|levels/\d+/reflectance/c/")


def is_url(store: object) -> bool:
    """Whether a name is one that fsspec resolves, and no path of this machine."""
    return isinstance(store, RemotePath) or (isinstance(store, str) and ("://" in store or "::" in store))


def store_files(path: Place | str, options: Mapping[str, Any] | None = None) -> StoreFiles:
    """Opens a store, here or wherever fsspec reads: a folder of keys, or one zip file, by byte ranges.

    Args:
        path: a path, or a URL such as s3://bucket/scene.zarr or https://host/scene.zarr.zip.
        options: for fsspec.

    Raises:
        FormatError: there is none.
    """
    if not is_url(path):
        return StoreFiles(Path(str(path)))
    where = path if isinstance(path, RemotePath) else RemotePath(str(path).rstrip("/"))
    kind = RemoteZip if is_zip_name(where) and not where.url.startswith("zip::") else RemoteFiles
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
        return [key for key in self.keys.sizes() if key != _WRITING]

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
        """Fetches ranges of a key, those that lie close together by one request; gives a reader of them."""
        self.bytes_read += sum(stop - start for start, stop in spans)
        return self.keys.ranges(key, spans)

    def total_bytes(self) -> int:
        """Bytes of every key."""
        return sum(self.keys.sizes().values())


class RemoteZip(StoreFiles):
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
        """Fetches ranges of a key, those that lie close together by one request; gives a reader of them."""
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


class _RemoteContainer:
    """Puts shards where they belong; all else waits for `commit`, in the order in which it came, the group's document last.

    Args:
        keys: the store.
        lease: held by this writer.
        state: `StoreFiles.state` of the store that is changed; None of one that is new.
    """

    def __init__(self, keys: RemoteKeys, lease: Lease, state: bytes | None = None) -> None:
        self.keys: list[str] = []
        self._store, self._lease, self._state = keys, lease, state
        self.where = keys.where
        self._before = set() if state is None else set(keys.sizes())
        self._waiting: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> None:
        """Writes a shard, or keeps another key for `commit`."""
        if _PIXELS.match(key):
            self._store.put(key, data)
        else:
            self._waiting[key] = data
        self.keys.append(key)

    def close(self) -> None:
        """Nothing is held open."""

    def check(self) -> None:
        """Looks whether nobody else took over.

        Raises:
            OutputError: somebody did.
        """
        self._lease.check()

    def commit(self) -> None:
        """Writes what waited.

        Raises:
            OutputError: somebody else wrote there meanwhile.
        """
        self.check()
        where = RemotePath(str(self._store.where))
        if self._state is not None and RemoteFiles(where).state() != self._state:
            raise OutputError(f"{where} was changed by somebody else meanwhile; run again")
        group = self._waiting.pop(GROUP, None)
        for key, data in self._waiting.items():
            self._store.put(key, data)
        if group is None:
            return
        if self._state is not None:
            self._store.put(GROUP, group)
        elif not self._store.create(GROUP, group):
            raise OutputError(
                f"{where} exists already, and was not there before; its {GROUP} stays as it is: choose another name, or "
                "pass --overwrite (overwrite=True)"
            )

    def undo(self) -> None:
        """Removes the keys that were not there before."""
        self._store.remove([key for key in self.keys if key not in self._before])


@contextmanager
def remote_writing(target: RemotePath, overwrite: bool) -> Iterator[Container]:
    """See `eozip.store.container.writing`. A store that is replaced is removed first."""
    check_remote_target(target, overwrite)
    keys = RemoteKeys(target)
    with leased(keys, _WRITING) as lease:
        check_remote_target(target, overwrite)
        old = [key for key in keys.sizes() if key != _WRITING]
        keys.remove([GROUP] if GROUP in old else [])  # first of all: half a store is none
        keys.remove([key for key in old if key != GROUP])
        with _undoing(_RemoteContainer(keys, lease)) as container:
            yield container


@contextmanager
def remote_changing(store: RemotePath) -> Iterator[Place]:
    """See `eozip.store.container.changing`."""
    _check_name(store)
    if RemoteFiles(store).get(GROUP) is None:
        raise FormatError(f"expected a store, got {store}, which has no {GROUP}; check the URL")
    with leased(RemoteKeys(store), _WRITING):
        yield store


@contextmanager
def remote_updating(target: RemotePath, state: bytes) -> Iterator[Container]:
    """See `eozip.store.container.updating`: shards are replaced as they come, which suits readers of the dates before."""
    keys = RemoteKeys(target)
    lease = Lease(keys, _WRITING, _held_by(keys))
    with _undoing(_RemoteContainer(keys, lease, state)) as container:
        yield container


def _held_by(keys: RemoteKeys) -> str:
    """The token of the lease that this process took in `remote_changing`."""
    return token_of(keys.get(_WRITING)) or ""


@contextmanager
def _undoing(container: _RemoteContainer) -> Iterator[_RemoteContainer]:
    with ExitStack() as undo:
        undo.callback(container.undo)
        yield container
        container.commit()
        undo.pop_all()


def check_remote_target(target: RemotePath, overwrite: bool) -> None:
    """See `eozip.store.container.check_target`."""
    _check_name(target)
    keys = RemoteKeys(target)
    if keys.get(GROUP) is None and not overwrite:
        others = [key for key in keys.sizes() if not (KEY.fullmatch(key) or key == _WRITING)]
        if others:
            raise OutputError(f"{target} holds {others[0]}, which is no part of a store; choose another name")
        return
    if not overwrite:
        raise OutputError(
            f"{target} exists already; choose another name, or pass --overwrite (overwrite=True)"
        )
    found = list(keys.sizes())
    others = [key for key in found if not (KEY.fullmatch(key) or key == _WRITING)]
    is_ours = any(_MARK in (keys.get(key) or b"") for key in SELF)
    if found and (others or (GROUP in found and not is_ours)):
        what = f"holds {others[0]}, which is no part of a store," if others else "is no store of eozip"
        raise OutputError(f"{target} {what} and is not replaced; choose another name, or remove it yourself")


def _check_name(path: RemotePath) -> None:
    if is_zip_name(path):
        raise InputError(
            f"{path}: expected a store of keys (*.zarr), got a zip file on an object store; copy it to this "
            'machine, or read it with xarray.open_zarr("zip::s3://...")'
        )
    if not path.name.lower().endswith(".zarr"):
        raise InputError(f"expected a store named *.zarr, got {path}; check the URL")


def plain_store(path: Place) -> Store:
    """A store as zarr opens it, for reading."""
    if isinstance(path, RemotePath):
        url = f"zip::{path}" if is_zip_name(path) else str(path)
        return FsspecStore.from_url(url, read_only=True)
    return ZipStore(path, mode="r") if path.is_file() else LocalStore(path, read_only=True)
