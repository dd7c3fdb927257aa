"""Keys and bytes of stores that lie elsewhere: whatever fsspec opens, a directory or one zip file, read by byte ranges."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path
from typing import Any, cast

import fsspec

from eozip.errors import FormatError
from eozip.store.files import LOCAL_HEADER, ZIP_FAULTS, StoreFiles

_BLOCK = 1 << 16  # bytes that are fetched at once of a zip file's directory


def is_url(store: object) -> bool:
    """Whether a name is one that fsspec resolves, and no path of this machine."""
    return isinstance(store, str) and ("://" in store or "::" in store)


def open_files(store: str | os.PathLike[str], **storage_options: Any) -> StoreFiles:
    """The keys of a store, wherever it lies.

    Args:
        store: a path, or a URL that fsspec knows, such as s3://bucket/scene.zarr.
        storage_options: for fsspec.

    Raises:
        FormatError: there is no store.
    """
    return _FsspecFiles(str(store), **storage_options) if is_url(store) else StoreFiles(Path(store))


class _FsspecFiles(StoreFiles):
    """As `StoreFiles`, by fsspec; nothing is written.

    Args:
        url: of a directory or a zip file.
        storage_options: for fsspec.

    Raises:
        FormatError: there is nothing that can be read.
    """

    def __init__(self, url: str, **storage_options: Any) -> None:
        self.path = cast(Path, url)  # in messages
        self.bytes_read = 0
        self._unpacked = "", b""
        self._lock = threading.Lock()
        self._zip = None
        self._sizes: dict[str, int | None] = {}
        self._starts: dict[str, int] = {}
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, **storage_options)
            if self._root.lower().endswith(".zip"):
                self._file = self._fs.open(self._root, "rb", block_size=_BLOCK)
                self._zip = zipfile.ZipFile(self._file)
        except (*ZIP_FAULTS, ImportError, KeyError) as error:
            raise FormatError(f"expected a store, got {url}: {error}") from error

    def names(self) -> list[str]:
        """Every key, sorted."""
        if self._zip is not None:
            return sorted(set(self._zip.namelist()))
        root = self._root.rstrip("/") + "/"
        return sorted(str(name).removeprefix(root) for name in self._fs.find(self._root))

    def state(self) -> bytes:
        """Nothing: what is elsewhere is never written."""
        return b""

    def size(self, key: str) -> int | None:
        """Bytes of one key, or None where the store has no such key."""
        if self._zip is not None:
            return super().size(key)
        if key not in self._sizes:
            try:
                self._sizes[key] = int(self._fs.info(f"{self._root}/{key}")["size"])
            except (FileNotFoundError, KeyError, TypeError):
                self._sizes[key] = None
        return self._sizes[key]

    def get(self, key: str) -> bytes | None:
        """The bytes of one key, or None where the store has no such key."""
        if self._zip is not None:
            if super().size(key) is None:
                return None
            with self._lock:
                return self._counted(self._entry(key))
        try:
            return self._counted(bytes(self._fs.cat_file(f"{self._root}/{key}")))
        except (FileNotFoundError, KeyError):
            return None

    def read(self, key: str, start: int, stop: int) -> bytes:
        """Bytes of a key there is, from `start` up to `stop`."""
        if self._zip is None:
            return self._counted(bytes(self._fs.cat_file(f"{self._root}/{key}", start=start, end=stop)))
        entry = self._zip.getinfo(key)
        if entry.compress_type != zipfile.ZIP_STORED:
            with self._lock:
                return self._counted(self._entry(key)[start:stop])
        base = self._start(entry)
        end = base + min(stop, entry.file_size)
        return self._counted(
            bytes(self._fs.cat_file(self._root, start=base + start, end=max(base + start, end)))
        )

    def total_bytes(self) -> int:
        """Bytes of everything; 0 where a directory cannot be listed."""
        try:
            if self._zip is not None:
                return int(self._fs.info(self._root)["size"])
            return sum(int(one["size"] or 0) for one in self._fs.find(self._root, detail=True).values())
        except (OSError, NotImplementedError, KeyError, TypeError):
            return 0

    def _start(self, entry: zipfile.ZipInfo) -> int:
        """Where the data of an entry begin."""
        if entry.filename not in self._starts:
            at = entry.header_offset
            head = bytes(self._fs.cat_file(self._root, start=at, end=at + LOCAL_HEADER))
            if head[:4] != b"PK\x03\x04" or len(head) < LOCAL_HEADER:
                raise FormatError(
                    f"{self.path}, entry {entry.filename}: expected a zip entry, got {head[:4]!r}"
                )
            name, extra = (int.from_bytes(head[i : i + 2], "little") for i in (26, 28))
            self._starts[entry.filename] = at + LOCAL_HEADER + name + extra
        return self._starts[entry.filename]
