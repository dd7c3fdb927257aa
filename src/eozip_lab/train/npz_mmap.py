"""Arrays of .npz files without reading them: uncompressed members are mapped, pages come and go by use."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np

from eozip.errors import InputError

_LOCAL_HEADER = 30  # bytes; file name and extra field follow (ZIP specification, 4.3.7)
_LIMIT = 8 << 30  # bytes of one compressed member, which has to be read whole


def stored_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an .npz by name; mapped where stored, read where compressed.

    Raises:
        InputError: not an .npz of plain arrays, or a compressed array beyond the limit.
    """
    try:
        with zipfile.ZipFile(path) as zf:
            members = [m for m in zf.infolist() if m.filename.endswith(".npy")]
            return {m.filename.removesuffix(".npy"): _array(path, zf, m) for m in members}
    except (zipfile.BadZipFile, ValueError, EOFError, struct.error) as error:
        raise InputError(f"{path}: expected an .npz of plain arrays, got {error}") from error


def _array(path: Path, zf: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type != zipfile.ZIP_STORED:
        return _read(path, zf, member)
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
        file.seek(member.header_offset + _LOCAL_HEADER + name + extra)
        shape, fortran, dtype = _header(file)
        order = "F" if fortran else "C"
        return np.memmap(path, dtype, "r", offset=file.tell(), shape=shape, order=order)


def _header(file: object) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or not shape or 0 in shape:
        raise ValueError(f"an array of dtype {dtype} and shape {shape}")
    return shape, fortran, dtype


def _read(path: Path, zf: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.file_size > _LIMIT:
        raise InputError(
            f"{path}: {member.filename} is compressed and unpacks to {member.file_size >> 30} GiB; expected "
            f"at most {_LIMIT >> 30}. Save it with numpy.savez, which lets it be mapped"
        )
    with zf.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
