"""Keys and bytes below a folder, on this machine or on an object store (s3://, gs://, az://, whatever fsspec knows).

A key appears whole or not at all: here by a rename, there because an upload does. What must not be replaced is created
(`Keys.create`): by a hard link here, by a conditional write (If-None-Match: *) there. What a store refuses for a moment
(429, 5xx, a broken connection) is tried again with growing pauses; what it refuses for good is an error with advice.
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from eozip.arguments import READ_ONLY, Place
from eozip.errors import InputError, OutputError
from eozip.outputs import flush, flush_folder, locked

Result = TypeVar("Result")

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_PACKAGES |= dict.fromkeys(READ_ONLY, "aiohttp")
_FROM_THE_END = ("s3", "s3a", "gs", "gcs", "memory", *READ_ONLY)  # whose ranges may be counted from the end
TRIES = 7
"""How often a request is made: with pauses of up to 0.2, 0.4, ... 6.4 seconds between them."""
_PAUSE = 0.2
_FOLDER_TRIES = 100  # of writing into a folder that others remove whenever it is empty
_GAP = 1 << 16  # bytes between two ranges that are cheaper to read than another request
_FOR_A_MOMENT = re.compile(
    r"429|\b50[0234]\b|SlowDown|Slow ?Down|TooManyRequests|ServiceUnavailable|Service Unavailable|InternalError|"
    r"Throttl|RequestTimeout|ServerBusy|reached max retries|timed out|Connection (?:reset|closed|aborted)|"
    r"Server disconnected",
    re.IGNORECASE,
)
_SKEWED = re.compile("RequestTimeTooSkewed|RequestExpired", re.IGNORECASE)
_RIGHTS = re.compile(
    r"AccessDenied|Forbidden|\b403\b|\b401\b|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|"
    r"Unable to locate credentials|NoCredentials|AllAccessDisabled",
    re.IGNORECASE,
)
_NO_BUCKET = re.compile("NoSuchBucket|bucket does not exist", re.IGNORECASE)
_PATIENCE = 1.0  # seconds for which a lock is asked for that somebody may only be looking at
LEASE = 20.0
"""Seconds for which a lease is watched: if its holder did not renew it meanwhile, it is dead. No two clocks are compared."""


class Keys(Protocol):
    """Bytes by key below one folder. Keys are paths with slashes."""

    where: Place

    def get(self, key: str) -> bytes | None:
        """All bytes of a key; None where there is none."""
        ...

    def sizes(self, below: str = "") -> dict[str, int]:
        """Bytes of every key that begins so, in the order of their names."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write a key, or replace it; others see all of it or nothing."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write a key that is not there; whether it was not, or had these very bytes."""
        ...

    def remove(self, keys: Sequence[str]) -> None:
        """Remove keys, and folders that are empty without them; those that are not there are no error."""
        ...


def keys_of(where: Place) -> Keys:
    """The keys below a folder, here or elsewhere; nothing is asked or made yet."""
    return LocalKeys(where) if isinstance(where, Path) else RemoteKeys(where)


class LocalKeys:
    """Files below a folder; what is being written lies in `.eozip-part` within it."""

    PART = ".eozip-part"

    def __init__(self, where: Path) -> None:
        self.where: Place = where
        self._root = where

    def get(self, key: str) -> bytes | None:
        try:
            return (self._root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, below: str = "") -> dict[str, int]:
        top = self._root / below.rpartition("/")[0]
        found = {}
        for folder, _, names in os.walk(top):
            for name in names:
                path = Path(folder, name)
                key = path.relative_to(self._root).as_posix()
                if key.startswith(below) and not key.startswith(self.PART):
                    with suppress(FileNotFoundError):
                        found[key] = path.stat().st_size
        return dict(sorted(found.items()))

    def put(self, key: str, data: bytes) -> None:
        self._write(key, data, os.replace)

    def create(self, key: str, data: bytes) -> bool:
        try:
            self._write(key, data, os.link)
        except FileExistsError:
            return self.get(key) == data
        return True

    def _write(self, key: str, data: bytes, move: Callable[[Path, Path], None]) -> None:
        """Writes a temporary file and gives it its name; again where others just removed a folder that was empty."""
        target = self._root / key
        try:
            for _ in range(_FOLDER_TRIES):
                with suppress(FileNotFoundError):
                    self._write_once(target, data, move)
                    return
            self._write_once(target, data, move)
        except FileExistsError:
            raise
        except OSError as error:
            raise OutputError(
                f"cannot write {target}: {error.strerror or error}; free disk space or check permissions, then run again"
            ) from error

    def _write_once(self, target: Path, data: bytes, move: Callable[[Path, Path], None]) -> None:
        part = self._root / self.PART / secrets.token_hex(8)
        try:
            _make_folder(part.parent)
            part.write_bytes(data)
            flush(part)
            _make_folder(target.parent)
            move(part, target)
            flush_folder(target.parent)
        finally:
            part.unlink(missing_ok=True)
            with suppress(OSError):  # others may be writing too
                part.parent.rmdir()

    def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            (self._root / key).unlink(missing_ok=True)
        for folder in sorted({str(Path(key).parent) for key in keys}, key=len, reverse=True):
            self._remove_empty(Path(folder))

    def _remove_empty(self, folder: Path) -> None:
        with suppress(OSError):  # not empty
            while folder != Path("."):
                (self._root / folder).rmdir()
                folder = folder.parent

    def clear_parts(self) -> None:
        """Remove what writers left that were killed; of those that live the next write fails."""
        shutil.rmtree(self._root / self.PART, ignore_errors=True)


def _make_folder(folder: Path) -> None:
    """Makes a folder, or leaves it.

    Raises:
        NotADirectoryError: a file has its name.
        FileNotFoundError: others removed it, or one above it, just now.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        if folder.is_file():
            raise NotADirectoryError(f"{folder} is a file") from error
        raise FileNotFoundError(f"{folder} was removed just now") from error


@dataclass
class RemoteKeys:
    """Objects below a URL.

    Attributes:
        where: the URL; also one of several parts, such as zip::s3://bucket/a.zip, for reading.
        options: for fsspec.
        requests: how many were made, those that were tried again counted once.
    """

    where: Place
    options: Mapping[str, Any] = field(default_factory=dict)
    requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        import fsspec  # slow to import; only for object stores

        scheme = str(self.where).partition("://")[0]
        try:
            # listings that are kept grow old: others write here too
            return fsspec.core.url_to_fs(str(self.where), **{"use_listings_cache": False, **self.options})
        except ImportError as error:
            package = _PACKAGES.get(scheme, "")
            extra = f" (pip install {package})" if package else ""
            raise InputError(
                f"{self.where}: needs the package {package or 'that fsspec asks for'}{extra}: {error}"
            ) from error
        except ValueError as error:
            raise InputError(
                f"{self.where}: expected a URL that fsspec knows, such as s3://bucket/name, got {scheme}:// ({error})"
            ) from error

    def _path(self, key: str) -> str:
        return f"{self._opened[1].rstrip('/')}/{key}" if key else self._opened[1]

    def get(self, key: str) -> bytes | None:
        return self._found(lambda fs: fs.cat_file(self._path(key), start=0), key, reading=True)

    def read(self, key: str, start: int, stop: int) -> bytes:
        """Bytes of a key from `start` up to `stop`.

        Raises:
            InputError: there is no such key any more.
        """
        if stop <= start:
            return b""
        data = self._found(lambda fs: fs.cat_file(self._path(key), start=start, end=stop), key, reading=True)
        if data is None:
            raise InputError(f"{self.where}/{key}: it was removed while it was read; run again")
        # servers that know no ranges send everything
        return data[start:stop] if len(data) > stop - start else data

    def tail(self, key: str, count: int) -> bytes | None:
        """The last bytes of a key; None where there is none. One request where the store takes ranges from the end."""
        if str(self.where).partition("://")[0] in _FROM_THE_END:
            data = self._found(lambda fs: fs.cat_file(self._path(key), start=-count), key, reading=True)
            return data if data is None else data[-count:]  # some servers know no ranges
        size = self.size(key)
        return None if size is None else self.read(key, max(0, size - count), size)

    def ranges(self, key: str, wanted: Sequence[tuple[int, int]]) -> Callable[[int, int], bytes]:
        """A reader of ranges that are fetched at once: those that lie close together by one request."""
        fetched = [(start, self.read(key, start, stop)) for start, stop in coalesced(wanted)]

        def read(start: int, stop: int) -> bytes:
            for first, data in fetched:
                if first <= start and stop <= first + len(data):
                    return data[start - first : stop - first]
            return self.read(key, start, stop)

        return read

    def size(self, key: str) -> int | None:
        """Bytes of a key, of the URL itself where it is ""; None where there is none."""
        return self._found(lambda fs: int(fs.info(self._path(key))["size"]), key, reading=True)

    def sizes(self, below: str = "") -> dict[str, int]:
        folder = below.rpartition("/")[0]

        def find(fs: Any) -> dict[str, Any]:
            fs.invalidate_cache()
            found: dict[str, Any] = fs.find(self._path(folder), detail=True)
            return found

        listed = self._found(find, folder, reading=True) or {}
        start = len(self._path("x")) - 1
        found = {path[start:]: int(info["size"] or 0) for path, info in listed.items()}
        return {key: size for key, size in sorted(found.items()) if key and key.startswith(below)}

    def put(self, key: str, data: bytes) -> None:
        self._asked(lambda fs: fs.pipe_file(self._path(key), data), key, reading=False)

    def create(self, key: str, data: bytes) -> bool:
        try:
            self._asked(lambda fs: fs.pipe_file(self._path(key), data, mode="create"), key, reading=False)
        except FileExistsError:  # of our own, perhaps, where an answer was lost and the request made again
            return self.get(key) == data
        return True

    def remove(self, keys: Sequence[str]) -> None:
        paths = [self._path(key) for key in keys]

        def delete(fs: Any) -> None:
            for path in paths:
                with suppress(FileNotFoundError):
                    fs.rm_file(path)

        if paths:
            self._asked(delete, keys[0], reading=False)

    def _found(self, ask: Callable[[Any], Result], key: str, *, reading: bool) -> Result | None:
        try:
            return self._asked(ask, key, reading=reading)
        except FileNotFoundError:
            return None

    def _asked(self, ask: Callable[[Any], Result], key: str, *, reading: bool) -> Result:
        """Asks, again and again where the store refuses for a moment; everything else gets a name.

        Raises:
            FileNotFoundError, FileExistsError: as the store says.
            OutputError: it cannot be written; InputError: it cannot be read.
        """
        fs = self._opened[0]
        with self._lock:
            self.requests += 1
        for attempt in range(TRIES):
            try:
                return ask(fs)
            except _refusals() as error:
                known = _known(error)
                if known is not None and (reading or isinstance(known, FileExistsError)):
                    raise known from error
                if attempt == TRIES - 1 or not _is_momentary(error):
                    raise self._named(error, key, reading) from error
            time.sleep(_PAUSE * 2**attempt * random.uniform(0.5, 1))
        raise RuntimeError("unreachable")

    def _named(self, error: Exception, key: str, reading: bool) -> OSError | InputError:
        what, text = ("read" if reading else "write"), _told(error)
        where = f"{self.where}/{key}" if key else str(self.where)
        if _SKEWED.search(text):
            advice = (
                "this machine's clock differs from the store's by more than it accepts; set the clock (NTP)"
            )
        elif isinstance(error, PermissionError) or _RIGHTS.search(text):
            advice = f"the store gives no right to {what} there: check the credentials, and the policy of the bucket"
        elif _NO_BUCKET.search(text) or (not reading and isinstance(error, FileNotFoundError)):
            advice = "there is no such bucket; make it first"
        elif _is_momentary(error):
            advice = f"the store did not answer in {TRIES} tries; run again later"
        else:
            advice = "check the URL, the endpoint and the network, then run again"
        message = f"cannot {what} {where}: {text}; {advice}"
        return InputError(message) if reading else OutputError(message)


_ERRORS = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "gcsfs.retry": ("HttpError",),
}
_ERRORS |= {"azure.core.exceptions": ("AzureError",)}


def _refusals() -> tuple[type[Exception], ...]:
    """What fsspec and the clients below it raise: their own errors too, of those that are loaded."""
    loaded = ((sys.modules.get(module), names) for module, names in _ERRORS.items())
    own = [
        getattr(module, name) for module, names in loaded if module for name in names if hasattr(module, name)
    ]
    return (OSError, RuntimeError, TimeoutError, ValueError, *own)


def _known(error: Exception) -> OSError | None:
    """Answers that are none of trouble: there is nothing, or something already."""
    text = _told(error)
    if isinstance(error, FileExistsError) or re.search(
        r"PreconditionFailed|ConditionalRequestConflict", text
    ):
        return FileExistsError(text)
    if isinstance(error, FileNotFoundError) and not _NO_BUCKET.search(text):
        return FileNotFoundError(text)
    return None


def _is_momentary(error: Exception) -> bool:
    is_network = isinstance(error, ConnectionError | TimeoutError) or (
        isinstance(error, OSError) and error.errno in (errno.EBUSY, errno.EIO, errno.ETIMEDOUT)
    )
    return is_network or bool(_FOR_A_MOMENT.search(_told(error)))


def _told(error: BaseException) -> str:
    """What an error says, and what lies behind it."""
    cause = error.__cause__ or error.__context__
    own = str(error) or type(error).__name__
    return own if cause is None or str(cause) in own else f"{own} ({str(cause) or type(cause).__name__})"


def coalesced(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, those joined between which fewer bytes lie than a request is worth."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start - joined[-1][1] <= _GAP:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined


@dataclass
class Lease:
    """A key that says who is writing below a folder.

    Attributes:
        keys: the folder.
        key: of the lease.
        token: of this writer.
    """

    keys: Keys
    key: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    _beats: int = 0

    def body(self) -> bytes:
        """What the key holds at this moment: it changes with every renewal."""
        return json.dumps({"token": self.token, "beat": self._beats}).encode()

    def renew(self) -> None:
        """Write the key again.

        Raises:
            OutputError: somebody else holds it by now.
        """
        self.check()
        self._beats += 1
        self.keys.put(self.key, self.body())

    def check(self) -> None:
        """Look whether this writer still holds it.

        Raises:
            OutputError: it does not.
        """
        if token_of(self.keys.get(self.key)) != self.token:
            raise OutputError(
                f"{self.keys.where}: expected to be its only writer, but another eozip took over, as this one had not "
                "answered for long; let one of them run, then run again"
            )


def token_of(data: bytes | None) -> str | None:
    """Whose a lease is; None of none, and of what is no lease."""
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        found: Mapping[str, Any] = json.loads(data or b"{}")
        return found.get("token")
    return None


@contextmanager
def leased(keys: Keys, key: str, watch: float | None = None) -> Iterator[Lease]:
    """Hold the lease of a folder while the block runs; it is renewed from another thread.

    Raises:
        OutputError: somebody else holds it and renews it.
    """
    lease, seconds = Lease(keys, key), LEASE if watch is None else watch
    _take(lease, seconds)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(seconds / 4):
            with suppress(OutputError, InputError, OSError):  # the next check says so, where it matters
                lease.renew()

    thread = threading.Thread(target=beat, name="eozip-lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        stop.set()
        thread.join()
        if token_of(keys.get(key)) == lease.token:
            keys.remove([key])


def _take(lease: Lease, watch: float) -> None:
    """Creates the key; where there is one that nobody renews, takes its place."""
    if lease.keys.create(lease.key, lease.body()):
        return
    before, waited = lease.keys.get(lease.key), 0.0
    while waited < watch:
        time.sleep(min(1.0, watch / 10))
        waited += min(1.0, watch / 10)
        now = lease.keys.get(lease.key)
        if now is None:
            break
        if now != before:
            raise OutputError(
                f"{lease.keys.where} is being written by another eozip; wait until that has ended, then run again"
            )
    lease.keys.remove([lease.key])
    if not lease.keys.create(lease.key, lease.body()):
        raise OutputError(
            f"{lease.keys.where}: another eozip came first; wait until it has ended, then run again"
        )


@contextmanager
def only_writer(where: Place, key: str) -> Iterator[str]:
    """Make sure that nobody else writes below a folder by this key: the kernel's lock here, a lease elsewhere.

    Yields:
        a token that the key holds while the block runs.
    """
    keys = keys_of(where)
    if isinstance(where, Path):
        token = secrets.token_hex(8)
        path = where / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with locked(path, _PATIENCE):
            path.write_text(json.dumps({"token": token}))
            try:
                yield token
            finally:
                path.unlink(missing_ok=True)
        return
    with leased(keys, key) as lease:
        yield lease.token
