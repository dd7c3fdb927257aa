"""Every error that eozip raises on purpose.

    EozipError
    ├── InputError         the pixels or arguments given (also a ValueError)
    ├── FormatError        bytes that are not a valid eozip stream (also a ValueError)
    │   ├── LimitError         a declared size beyond the limits, refused before allocation
    │   ├── ChecksumError      bytes changed after they were written
    │   └── DesyncError        decoded symbols differ from the encoded ones: a frame is lost, and said so
    ├── WeightsError       weights missing, of another hash, or with wrong tensors
    ├── UnknownCodecError  a codec name that is not registered
    ├── ClusterError       workers that are missing, gone, or of another eozip
    └── OutputError        the output exists, or cannot be written

A message says what was expected, what was got, and what to do.
"""

from __future__ import annotations

__all__ = [
    "ChecksumError",
    "ClusterError",
    "DesyncError",
    "EozipError",
    "FormatError",
    "InputError",
    "LimitError",
    "OutputError",
    "UnknownCodecError",
    "WeightsError",
]


class EozipError(Exception):
    """Base of every error raised on purpose by eozip."""


class InputError(EozipError, ValueError):
    """Pixels or arguments that cannot be used as given."""


class FormatError(EozipError, ValueError):
    """Bytes that are not a valid eozip stream."""


class LimitError(FormatError):
    """A declared size beyond the limits; nothing was allocated."""


class ChecksumError(FormatError):
    """A checksum that does not match its bytes."""


class DesyncError(FormatError):
    """Decoded symbols that differ from the encoded ones (names the frame)."""


class WeightsError(EozipError):
    """Weights that are missing, of another hash, or hold wrong tensors."""


class UnknownCodecError(EozipError, KeyError):
    """A codec name that is not registered."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ClusterError(EozipError):
    """A Dask cluster that does not answer, went away, or whose workers have another eozip."""


class OutputError(EozipError, OSError):
    """An output that exists already or cannot be written."""
