"""The orthonormal 2 x 2 Haar transform, on floats for encoders and on integers for pictures that must agree everywhere.

    block average * 2   ll = (a + b + c + d) / 2          a b
    vertical            lh = (a + b - c - d) / 2          c d
    horizontal          hl = (a - b + c - d) / 2
    diagonal            hh = (a - b - c + d) / 2

A picture of odd height or width repeats its last row or column; details of the repeated part are not coded.
"""

from __future__ import annotations

import numpy as np

from eozip.codecs.pyramid.native import call, library

# weights of `interpolated`, in 2**-_BITS: the best ones of 4 series, about
_NEAR, _FAR, _CORNERS, _BITS = 11, 2, 2, 6
_STEEPEST = 1 << 20  # difference that counts
_FARTHEST = 1 << 28
_BEYOND = (1 << 31) - 1  # of no pixel
LEAST_SIDE = 4  # a picture is halved until one side is at most this long


def half(size: int) -> int:
    """Length of an axis after one step."""
    return (size + 1) // 2


def sizes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of the picture at every level that has details, finest first."""
    found = []
    while min(shape) > LEAST_SIDE:
        found.append(shape)
        shape = (half(shape[0]), half(shape[1]))
    return found


def analyse(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One step down.

    Args:
        x: float [..., H, W].

    Returns:
        float [..., h, w], twice the block averages, and float [..., 3, h, w], vertical, horizontal and diagonal details,
        with h = ceil(H / 2), w = ceil(W / 2).
    """
    pad = [(0, 0)] * (x.ndim - 2) + [(0, x.shape[-2] % 2), (0, x.shape[-1] % 2)]
    x = np.pad(x, pad, mode="edge") if x.shape[-2] % 2 or x.shape[-1] % 2 else x
    upper, lower = x[..., 0::2, :], x[..., 1::2, :]
    total, vertical = upper + lower, upper - lower
    details = [
        vertical[..., 0::2] + vertical[..., 1::2],
        total[..., 0::2] - total[..., 1::2],
        vertical[..., 0::2] - vertical[..., 1::2],
    ]
    return (total[..., 0::2] + total[..., 1::2]) / 2, np.stack(details, -3) / 2


def interpolated(ll: np.ndarray) -> np.ndarray:
    """The details that a picture lets expect of the one above it: int32 [..., h, w] -> int32 [..., 3, h, w].

    Five taps along an axis, and the four corners of a cell for the diagonal; the border is repeated.
    """
    h, w = ll.shape[-2:]
    kernel = library()
    if kernel is not None and ll.dtype == np.int32:
        out = np.empty((*ll.shape[:-2], 3, h, w), np.int32)
        call(kernel, "eozip_interpolated", np.ascontiguousarray(ll), ll[..., 0, 0].size, h, w, out)
        return out
    around = [(0, 0)] * (ll.ndim - 2) + [(2, 2), (2, 2)]
    padded = np.pad(ll.clip(-_FARTHEST, _FARTHEST), around, mode="edge")

    def at(y: int, x: int) -> np.ndarray:
        return padded[..., 2 + y : 2 + y + h, 2 + x : 2 + x + w]

    out = np.empty((*ll.shape[:-2], 3, h, w), np.int32)
    for k, (y, x) in enumerate(((1, 0), (0, 1))):
        near, far = at(-y, -x) - at(y, x), at(-2 * y, -2 * x) - at(2 * y, 2 * x)
        np.subtract(
            _NEAR * near.clip(-_STEEPEST, _STEEPEST),
            _FAR * far.clip(-_STEEPEST, _STEEPEST),
            out=out[..., k, :, :],
        )
    twist = at(-1, -1) - at(-1, 1) - at(1, -1) + at(1, 1)
    np.multiply(twist.clip(-_STEEPEST, _STEEPEST), _CORNERS, out=out[..., 2, :, :])
    out += 1 << _BITS - 1
    return np.right_shift(out, _BITS, out=out)


def remainders(x: np.ndarray) -> np.ndarray:
    """What the details of a picture are beside those that its halved picture lets expect.

    int32 [..., H, W] -> int32 [..., 3, h, w].
    """
    kernel = library()
    if kernel is not None and x.dtype == np.int32:
        height, width = x.shape[-2:]
        out = np.empty((*x.shape[:-2], 3, half(height), half(width)), np.int32)
        call(kernel, "eozip_remainders", np.ascontiguousarray(x), x[..., 0, 0].size, height, width, out)
        return out
    a, b, c, d = _cells(x)
    vertical, total = a - c, a + c
    lower, upper = b - d, b + d
    details = np.stack([vertical + lower, total - upper, vertical - lower], -3) >> 1
    return details - interpolated((total + upper) >> 1)


def _cells(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Upper left, upper right, lower left and lower right of each 2 x 2."""
    x = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, x.shape[-2] % 2), (0, x.shape[-1] % 2)], mode="edge")
    return x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2]


def synthesise(
    ll: np.ndarray, details: np.ndarray, shape: tuple[int, int], most: int = _BEYOND
) -> np.ndarray:
    """One step up on integers: the inverse of `analyse` to within half a unit.

    Args:
        ll: int32 [..., h, w].
        details: int32 [..., 3, h, w].
        shape: H, W of the picture.
        most: magnitude that pixels are held within.

    Returns:
        int32 [..., H, W]; halves are rounded up.
    """
    kernel = library()
    if kernel is not None and ll.dtype == details.dtype == np.int32:
        out = np.empty((*ll.shape[:-2], *shape), np.int32)
        given = (np.ascontiguousarray(ll), np.ascontiguousarray(details))
        call(kernel, "eozip_synthesised", *given, ll[..., 0, 0].size, *shape, most, out)
        return out
    lh, hl, hh = (details[..., k, :, :] for k in range(3))
    out = np.empty((*ll.shape[:-2], 2 * ll.shape[-2], 2 * ll.shape[-1]), np.int32)
    upper, lower = ll + lh + 1, ll - lh + 1  # the 1 rounds: (v + 1) >> 1
    across, down = hl + hh, hl - hh
    np.right_shift(upper + across, 1, out=out[..., 0::2, 0::2])
    np.right_shift(upper - across, 1, out=out[..., 0::2, 1::2])
    np.right_shift(lower + down, 1, out=out[..., 1::2, 0::2])
    np.right_shift(lower - down, 1, out=out[..., 1::2, 1::2])
    return out[..., : shape[0], : shape[1]].clip(-most, most)


def coded(shape: tuple[int, int]) -> np.ndarray:
    """bool [3, h, w]: which details of a picture of this height and width are coded."""
    height, width = shape
    mask = np.ones((3, half(height), half(width)), bool)
    if height % 2:
        mask[[0, 2], -1] = False
    if width % 2:
        mask[1:, :, -1] = False
    return mask
