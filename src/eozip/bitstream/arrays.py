"""The arrays of a chunk whose bands lie on several grids: laid flat for sums over all samples, or in one section.

Of a chunk with one array nothing changes: it is its own flat form, and its section is that array's alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eozip.errors import FormatError

_LENGTH = 4  # bytes of the length before each part


def flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays [T, C, h, w] as one: the only one, or all samples of each date in a row, [T, 1, 1, N]."""
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate([a.reshape(len(a), 1, 1, -1) for a in arrays], axis=3)


def parts(samples: np.ndarray, shapes: Sequence[tuple[int, int, int, int]]) -> list[np.ndarray]:
    """The inverse of `flat`."""
    if len(shapes) == 1:
        return [samples]
    ends = np.cumsum([c * h * w for _, c, h, w in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(samples, ends, axis=3), shapes, strict=True)]


def joined(sections: Sequence[bytes]) -> bytes:
    """One section that holds those of several arrays; empty if they all are."""
    if len(sections) == 1 or not any(sections):
        return sections[0]
    return b"".join(len(one).to_bytes(_LENGTH, "little") + one for one in sections)


def split(section: bytes, count: int) -> list[bytes]:
    """The inverse of `joined`.

    Raises:
        FormatError: bytes that `joined` does not write.
    """
    if count == 1 or not section:
        return [section] * count
    found, at = [], 0
    for _ in range(count):
        size = int.from_bytes(section[at : at + _LENGTH], "little")
        at += _LENGTH + size
        if at > len(section):
            raise FormatError("groups: a section is shorter than its parts; the data are damaged")
        found.append(section[at - size : at])
    if at != len(section):
        raise FormatError("groups: a section is longer than its parts; the data are damaged")
    return found
