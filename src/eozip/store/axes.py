"""Notices arrays whose bands or axes are not those of the codec they came with.

xarray hands the codec of an opened array on to every copy (`ds.sel(band=[...]).to_zarr(...)`), and zarr tells a codec
neither the names of an array's axes nor its bands. A copy with other bands, or with the bands elsewhere, would be coded as
what it is not, at a much lower quality and without a word. But the codec has decoded the pixels that it is now asked to
encode: so it remembers some of them, and looks whether their bands are where they were.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from eozip.errors import InputError

_EVERY = (
    61  # of the pixels: chosen by the sum of their bands, which is the same in any order and at any place
)
_MOST_PIXELS = 256  # of a chunk
_MOST_REMEMBERED = 1 << 16
_LEAST_MOVED = 3
HINT = "to save decoded pixels, drop the encoding first: ds.drop_encoding().to_zarr(...); to copy a store, copy its files"


@dataclass
class Seen:
    """What one codec has decoded so far; threads may share it.

    Attributes:
        spectra: pixels by their sorted bands.
        bands: bool [C], bands in which anything but the fill value was seen; None: nothing was decoded yet.
        dates: most dates in one chunk.
        extents: (axis, length) of chunks that hold fill values behind `length`.
    """

    spectra: dict[bytes, bytes] = field(default_factory=dict)
    bands: np.ndarray | None = None
    dates: int = 0
    extents: set[tuple[int, int]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __deepcopy__(self, memo: object) -> Seen:
        return self

    def __reduce__(self) -> tuple[type[Seen], tuple[()]]:
        return Seen, ()  # another process has decoded nothing yet

    def add(self, dn: np.ndarray, fill: int) -> None:
        """Remembers a chunk that was decoded, [T, C, h, w]."""
        used = dn != fill
        with self.lock:
            bands = used.any(axis=(0, 2, 3))
            self.bands = bands if self.bands is None or len(self.bands) != len(bands) else self.bands | bands
            self.dates = max(self.dates, _extent(used, 0))
            self.extents |= {(axis, _extent(used, axis)) for axis in (2, 3)}
            if len(self.spectra) > _MOST_REMEMBERED:
                self.spectra.clear()
            self.spectra.update((key, spectrum) for key, spectrum in _spectra(dn))

    def check(self, dn: np.ndarray, fill: int) -> None:
        """Looks at a chunk that is to be encoded, [T, C, h, w].

        Raises:
            InputError: some bands are missing, other axes are where the bands were, or bands have changed places.
        """
        used = dn != fill
        if self.bands is None or not used.any():
            return
        bands, have = len(self.bands), used.any(axis=(0, 2, 3))
        if len(have) != bands or (self.bands & ~have).any():
            raise InputError(
                f"expected an array [time, band, y, x] of all {bands} bands, as it was opened, got values in {have.sum()} "
                f"of {len(have)}: it has fewer bands, or its axes are in another order; {HINT}"
            )
        for axis in (2, 3):
            length = _extent(used, axis)
            is_other = length == bands or length == self.dates > 1
            if is_other and length < dn.shape[axis] and (axis, length) not in self.extents:
                raise InputError(
                    f"expected an array [time, band, y, x], as it was opened, got one that ends after {length} along axis "
                    f"{axis}, as bands or dates do; {HINT}"
                )
        self._check_order(dn)

    def _check_order(self, dn: np.ndarray) -> None:
        with self.lock:
            known = [(self.spectra[key], spectrum) for key, spectrum in _spectra(dn) if key in self.spectra]
        moved = sum(was != now for was, now in known)
        if moved >= _LEAST_MOVED and 2 * moved > len(known):
            raise InputError(
                f"expected the bands in the order in which they were opened, got {moved} of {len(known)} known pixels with "
                f"their bands in another order; {HINT}"
            )


def _extent(used: np.ndarray, axis: int) -> int:
    """Where the last value along an axis is that is not fill, plus 1."""
    along = used.any(axis=tuple(i for i in range(used.ndim) if i != axis))
    return int(np.max(np.flatnonzero(along), initial=-1)) + 1


def _spectra(dn: np.ndarray) -> list[tuple[bytes, bytes]]:
    """Some pixels of a chunk: their bands sorted, and in their order. Which ones depends on the pixels alone."""
    sums = dn.sum(axis=1, dtype=np.int64)
    chosen = np.argwhere((sums % _EVERY == 0) & (dn.max(axis=1) != dn.min(axis=1)))[:_MOST_PIXELS]
    spectra = dn[chosen[:, 0], :, chosen[:, 1], chosen[:, 2]]
    return [(np.sort(one).tobytes(), one.tobytes()) for one in spectra]
