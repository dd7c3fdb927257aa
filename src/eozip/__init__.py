"""Learned compression for Earth-observation imagery: numpy in, bytes out, numpy back.

Importing this imports no torch; codecs and weights load on first use.
"""

from __future__ import annotations

from typing import Any

from eozip.api import Info, Report, check, decode, encode, encode_report, inspect, psnr

__version__ = "0.1.0"

__all__ = ["Info", "Report", "check", "decode", "encode", "encode_report", "inspect", "load", "psnr"]


def load(path_or_id: str, **options: Any) -> Any:
    """Loads a model: see `eozip.hub.load` for arguments and errors. Imports torch."""
    from eozip.hub import load as hub_load

    return hub_load(path_or_id, **options)
