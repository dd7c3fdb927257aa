"""The keys of a store and their bytes: a directory or one zip file, read without zarr and written whole or not at all.

A Zarr store is a set of keys with bytes. A writer puts them key by key under a temporary name beside the target, which is
renamed when complete, so that a full disk or an interrupt never leaves half a store under the final name. Zip entries of
streams are stored without compression: they are compressed already, and readers can then fetch byte ranges.

On an object store nothing has a temporary name: a key appears whole, and without the group's document (`zarr.json`) there is
no store. That one is created last, by a conditional write, and one writer at a time holds a lease.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from eozip.arguments import Place, RemotePath
from eozip.errors import FormatError, InputError, OutputError
from eozip.keys import Lease, RemoteKeys, leased, token_of
from eozip.outputs import flush, flush_folder, locked, publish, put_back, resolved, temporary
from eozip.store.files import GROUP, KEY, LEASED, SELF, Container, RemoteFiles, StoreFiles, is_zip_name

_MARK, _PIXELS = b"eozip", re.compile(r"reflectance/c/|levels/\d+/reflectance/c/")
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # a fixed date: the same input gives the same bytes


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
        """Look whether every key is still there.

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
        entry.compress_type = zipfile.ZIP_DEFLATED if key.endswith(GROUP) else zipfile.ZIP_STORED
        self._zip.writestr(entry, data)
        self.keys.append(key)
        self._size += entry.compress_size

    def close(self) -> None:
        self._zip.close()

    def check(self) -> None:
        """Look whether the file is still there.

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


def writing(target: Place, overwrite: bool = False) -> AbstractContextManager[Container]:
    """Open a container for `target` and give it its name when the block ends without an error.

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
        return _remote_writing(target, overwrite)
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
    """Hold the lock of a store, so that what is read in the block is what `updating` replaces.

    Args:
        store: a `.zarr` directory or `.zarr.zip` file; a link stands for what it names.

    Yields:
        its own path.

    Raises:
        FormatError: there is no store.
        OutputError: another program is changing it, or a link leads out of it.
    """
    if isinstance(store, RemotePath):
        return _remote_changing(store)
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
    """Add keys to a store, or replace them; they become part of it when the block ends without an error.

    A zip file is copied with its changes and renamed. In a directory each new file replaces its key by a rename, in
    the order of `put`: what readers rely on must be put last, and earlier keys must suit old and new readers.

    Args:
        target: a store, locked by `changing`.
        state: its `StoreFiles.state` when it was read.

    Raises:
        OutputError: the disk refused, or somebody changed the store without asking for the lock.
    """
    if isinstance(target, RemotePath):
        return _remote_updating(target, state)
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
    """Refuse a target that is misnamed, or that exists while `overwrite` is off, or is no store of eozip.

    Raises:
        OutputError: see above.
    """
    if isinstance(target, RemotePath):
        _check_remote_target(target, overwrite)
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


# --- on an object store ---


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
        """Write a shard, or keep another key for `commit`."""
        if _PIXELS.match(key):
            self._store.put(key, data)
        else:
            self._waiting[key] = data
        self.keys.append(key)

    def close(self) -> None:
        """Nothing is held open."""

    def check(self) -> None:
        """Look whether nobody else took over.

        Raises:
            OutputError: somebody did.
        """
        self._lease.check()

    def commit(self) -> None:
        """Write what waited.

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
        """Remove the keys that were not there before."""
        self._store.remove([key for key in self.keys if key not in self._before])


@contextmanager
def _remote_writing(target: RemotePath, overwrite: bool) -> Iterator[Container]:
    """See `eozip.store.container.writing`. A store that is replaced is removed first."""
    _check_remote_target(target, overwrite)
    keys = RemoteKeys(target)
    with leased(keys, LEASED) as lease:
        _check_remote_target(target, overwrite)
        old = [key for key in keys.sizes() if key != LEASED]
        keys.remove([GROUP] if GROUP in old else [])  # first of all: half a store is none
        keys.remove([key for key in old if key != GROUP])
        with _undoing(_RemoteContainer(keys, lease)) as container:
            yield container


@contextmanager
def _remote_changing(store: RemotePath) -> Iterator[Place]:
    """See `eozip.store.container.changing`."""
    _check_name(store)
    if RemoteFiles(store).get(GROUP) is None:
        raise FormatError(f"expected a store, got {store}, which has no {GROUP}; check the URL")
    with leased(RemoteKeys(store), LEASED):
        yield store


@contextmanager
def _remote_updating(target: RemotePath, state: bytes) -> Iterator[Container]:
    """See `eozip.store.container.updating`: shards are replaced as they come, which suits readers of the dates before."""
    keys = RemoteKeys(target)
    lease = Lease(keys, LEASED, _held_by(keys))
    with _undoing(_RemoteContainer(keys, lease, state)) as container:
        yield container


def _held_by(keys: RemoteKeys) -> str:
    """The token of the lease that this process took in `_remote_changing`."""
    return token_of(keys.get(LEASED)) or ""


@contextmanager
def _undoing(container: _RemoteContainer) -> Iterator[_RemoteContainer]:
    with ExitStack() as undo:
        undo.callback(container.undo)
        yield container
        container.commit()
        undo.pop_all()


def _check_remote_target(target: RemotePath, overwrite: bool) -> None:
    """See `eozip.store.container.check_target`."""
    _check_name(target)
    keys = RemoteKeys(target)
    if keys.get(GROUP) is None and not overwrite:
        others = [key for key in keys.sizes() if not (KEY.fullmatch(key) or key == LEASED)]
        if others:
            raise OutputError(f"{target} holds {others[0]}, which is no part of a store; choose another name")
        return
    if not overwrite:
        raise OutputError(
            f"{target} exists already; choose another name, or pass --overwrite (overwrite=True)"
        )
    found = list(keys.sizes())
    others = [key for key in found if not (KEY.fullmatch(key) or key == LEASED)]
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
