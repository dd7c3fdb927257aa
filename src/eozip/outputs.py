"""Outputs appear under their names whole, once, and never in place of what somebody else put there.

Whatever is written goes into a temporary file or folder beside its target, `.NAME.PID-XXXXXXXX.part`, and is renamed when
it is complete and on the disk. A lock on the temporary tells others that its writer lives; what dead writers left behind is
removed by the next one in the same folder. Locks are the kernel's (`flock`): they end with the process that holds them. On
systems and file systems without them nothing is locked, and nothing that somebody else left behind is removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eozip.errors import OutputError

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

_PART = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}\.part")
_YOUNG = 60.0  # seconds in which a part without a lock may be one whose writer is just about to lock it
_NAME_BYTES = 200  # of the target's name within the temporary's, as file systems allow 255
_HERE = -100  # AT_FDCWD
_NO_REPLACE, _EXCHANGE = 1, 2
_NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOLCK)


def resolved(target: Path) -> Path:
    """The file or folder that a link stands for, so that an output replaces that and not the link.

    Raises:
        OutputError: the links lead in a circle.
    """
    try:
        return target.resolve() if target.is_symlink() else target
    except (OSError, RuntimeError) as error:
        raise OutputError(
            f"{target}: expected a name to write to, got links in a circle; remove them"
        ) from error


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Give what the disk refuses the name of the output.

    Raises:
        OutputError: instead of any other OSError.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}; nothing was left there"
        ) from error


@contextmanager
def temporary(target: Path, *, folder: bool) -> Iterator[Path]:
    """Make an empty file or folder beside a target; it is gone at the end unless `publish` gave it its name.

    Args:
        target: where the output belongs, not a link.
        folder: whether it is a folder.

    Raises:
        OSError: the folder does not exist or cannot be written to.
    """
    _clear_dead(target.parent)
    name = os.fsdecode(os.fsencode(target.name)[:_NAME_BYTES])
    part = target.with_name(f".{name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    if folder:
        part.mkdir()
    else:
        part.touch(exist_ok=False)
    try:
        with locked(part):
            yield part
    finally:
        remove(part)


def publish(part: Path, target: Path, *, overwrite: bool) -> None:
    """Give a finished output its name, after all of it has reached the disk.

    Args:
        part: made by `temporary`.
        target: in the same folder. With `overwrite`, a file is replaced by a file at once; anything else changes places
            with `part`, so that there is never nothing under the name. (Where the system cannot do that, the old one is
            kept as `.NAME.old` for the moment between two renames, and put back if the second fails.)
        overwrite: whether what is there may be replaced.

    Raises:
        OutputError: there is something under the name that may not be replaced.
    """
    flush(part)
    if not (overwrite and os.path.lexists(target)):
        _onto_nothing(part, target)
    elif part.is_dir() or target.is_dir():
        _change_places(part, target)
    else:
        os.replace(part, target)
    _flush_one(target.parent)


@contextmanager
def locked(path: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file or folder; no other program that asks for it gets it meanwhile.

    Args:
        path: the file or folder.
        patience: seconds for which it is asked for: others may look for a moment whether it is held.

    Raises:
        OutputError: another program holds it, or the file was replaced by another just now.
        FileNotFoundError: there is no such file.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        until = time.monotonic() + patience
        while not _lock(handle):
            if time.monotonic() >= until:
                raise OutputError(
                    f"{path} is being written by another eozip; wait until that has ended, then run again"
                )
            time.sleep(0.02)
        if not _same(os.fstat(handle), path):
            raise OutputError(f"{path} was replaced by another program meanwhile; run again")
        yield
    finally:
        os.close(handle)


def flush(path: Path) -> None:
    """Wait until a file, or a folder with everything in it, is on the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            _flush_one(Path(folder, name))
        _flush_one(Path(folder))
    if path.is_file():
        _flush_one(path)


def flush_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    _flush_one(path)


def remove(path: Path) -> None:
    """Remove a file or a folder with everything in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def put_back(target: Path) -> None:
    """Give an output its name again that a killed `publish` left aside."""
    old = _aside(target)
    if old.exists() and not os.path.lexists(target):
        _onto_nothing(old, target)


def _lock(handle: int) -> bool:
    """Whether nobody else has the lock; True too where there are no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    return True


def _same(status: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(status, path.stat())
    except FileNotFoundError:
        return False


def _clear_dead(folder: Path) -> None:
    """Removes what writers left that were killed."""
    with contextlib.suppress(OSError):  # a folder that cannot be listed has nothing that we could remove
        for part in folder.iterdir():
            match = _PART.fullmatch(part.name)
            if match and _is_dead(part, int(match[1])):
                remove(part)


def _is_dead(part: Path, writer: int) -> bool:
    if fcntl is None:
        return False
    try:
        handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return not _runs(writer) or time.time() - os.fstat(handle).st_mtime > _YOUNG
    except OSError:  # locked, or no locks here
        return False
    finally:
        os.close(handle)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def _onto_nothing(part: Path, target: Path) -> None:
    """Renames if nothing is under the new name."""
    try:
        if not _rename(part, target, _NO_REPLACE):
            _claim(part, target)
    except FileExistsError as error:
        raise OutputError(
            f"{target} exists already, and was not there before; nothing was replaced: choose another name, or pass "
            "--overwrite (overwrite=True)"
        ) from error


def _claim(part: Path, target: Path) -> None:
    """Takes the name with an empty file or folder, which fails if there is one, and then replaces that."""
    is_folder = part.is_dir()
    if is_folder:
        target.mkdir()
    else:
        target.touch(exist_ok=False)
    with contextlib.ExitStack() as undo:
        undo.callback(target.rmdir if is_folder else target.unlink)
        os.replace(part, target)
        undo.pop_all()


def _change_places(part: Path, target: Path) -> None:
    if _rename(part, target, _EXCHANGE):
        return
    old = _aside(target)
    remove(old)  # of a run that was killed after its new output was in place
    os.rename(target, old)
    with contextlib.ExitStack() as undo:
        undo.callback(os.rename, old, target)
        os.rename(part, target)
        undo.pop_all()
    remove(old)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _rename(source: Path, target: Path, flags: int) -> bool:
    """renameat2 of Linux; False where the system or the file system has no such thing."""
    library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "renameat2"):
        return False
    if library.renameat2(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_SUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(target))


def _flush_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:  # some systems cannot flush folders
            raise
    finally:
        os.close(handle)
