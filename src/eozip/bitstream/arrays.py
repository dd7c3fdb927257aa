"""The arrays of a chunk whose bands lie on several grids: their shapes; laid flat for sums over all samples; in one section.

Of a chunk with one array nothing changes: it is its own flat form, and its section is that array's alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eozip.errors import FormatError

MAX_GROUPS = 8
MAX_FACTOR = 64  # cells of the finest grid along a cell of the coarsest
_LENGTH = 4  # bytes of the length before each part


@dataclass(frozen=True)
class Group:
    """Bands on a grid of their own.

    Attributes:
        resolution: metres (or any whole unit) a cell.
        bands: how many there are.
    """

    resolution: int
    bands: int


def shapes_of(
    shape: tuple[int, int, int, int], groups: Sequence[Group]
) -> tuple[tuple[int, int, int, int], ...]:
    """Tell the shapes of the groups' arrays.

    Args:
        shape: T, C, H, W of all bands on the finest grid.
        groups: finest first; none: all bands lie on one grid.

    Returns:
        T, C, h, w of each group's own array.
    """
    if not groups:
        return (shape,)
    dates, _, height, width = shape
    factors = [group.resolution // groups[0].resolution for group in groups]
    return tuple(
        (dates, g.bands, -(-height // factor), -(-width // factor))
        for g, factor in zip(groups, factors, strict=True)
    )


def groups_problem(groups: Sequence[Group], bands: int) -> str | None:
    """What is wrong with the groups of a chunk of so many bands; None if nothing is."""
    if len(groups) > MAX_GROUPS:
        return f"{len(groups)} groups of bands, allowed are {MAX_GROUPS}"
    resolutions = [group.resolution for group in groups]
    if (
        not groups
        or not all(1 <= r < 1 << 16 for r in resolutions)
        or sorted(set(resolutions)) != resolutions
    ):
        return f"resolutions {resolutions}, expected rising whole numbers from 1 to 65535"
    if any(r % resolutions[0] or r > MAX_FACTOR * resolutions[0] for r in resolutions):
        return (
            f"resolutions {resolutions}, expected multiples of the finest, of at most {MAX_FACTOR} times it"
        )
    if sum(g.bands for g in groups) != bands or not all(g.bands for g in groups):
        return f"groups of {[g.bands for g in groups]} bands, expected {bands} in all and none without"
    return None


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
