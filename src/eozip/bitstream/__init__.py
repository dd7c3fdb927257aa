"""The bytes of one chunk: its layout, and the parts that are coded exactly. No torch.

format      header, sections, checksums (docs/bitstream.md)
nodata_mask  the nodata mask and single out-of-range pixels
lossless    arrays of integers, exactly
residual    corrections in steps, near-lossless pixels
integers    coded lists of integers
arrays      arrays of several groups of bands, as one
"""

from __future__ import annotations

from eozip.bitstream.arrays import MAX_FACTOR, MAX_GROUPS, Group, groups_problem, shapes_of
from eozip.bitstream.format import (
    MAGIC,
    MAX_BANDS,
    MAX_DATES,
    MAX_SAMPLES,
    MAX_SECTIONS,
    MAX_SIDE,
    Chunk,
    Header,
    Layout,
    fits,
    frame_check,
    header_size,
    is_band_name,
    pack,
    packed_size,
    read_header,
    read_layout,
    samples_problem,
    size_problem,
    unpack,
)

__all__ = [
    "MAGIC",
    "MAX_BANDS",
    "MAX_DATES",
    "MAX_FACTOR",
    "MAX_GROUPS",
    "MAX_SAMPLES",
    "MAX_SECTIONS",
    "MAX_SIDE",
    "Chunk",
    "Group",
    "Header",
    "Layout",
    "fits",
    "frame_check",
    "groups_problem",
    "header_size",
    "is_band_name",
    "pack",
    "packed_size",
    "read_header",
    "read_layout",
    "samples_problem",
    "shapes_of",
    "size_problem",
    "unpack",
]
