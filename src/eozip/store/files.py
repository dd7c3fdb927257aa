"""Keys and bytes of a store: what reads them from a folder or a zip file without zarr, and what a writer of them fulfils."""

from __future__ import annotations

import hashlib
import lzma
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

from eozip.arguments import Place
from eozip.errors import FormatError, LimitError

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
