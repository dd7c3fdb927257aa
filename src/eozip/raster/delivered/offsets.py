"""Radiometric offsets: what each source says of them, and a stop where two contradict each other.

Sentinel-2 products of processing baseline 04.00 and later hold DN = reflectance * 10000 + 1000. The date of acquisition
does not tell the baseline: Collection 1 reprocessed old dates. Pixels are never asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from eozip.errors import InputError

_ADDED = 1000.0  # DN, from baseline 04.00 on
_SINCE = datetime(2022, 1, 25)  # every product processed from this day on is of baseline 04.00 or later
_FIRST = (4, 0)
_NEAR = 0.5  # DN: tags of 32 bits say 1000.00004 for 1000
_BASELINE = re.compile(r"(?<![A-Z0-9])N(\d\d)(\d\d)(?![0-9])")
DECIDE = (
    "Say which: --offset 1000 if the DN are as ESA delivers them (baseline 04.00 and later), --offset 0 if it was taken "
    "off"
)


@dataclass(frozen=True)
class Told:
    """What one source says.

    Attributes:
        dn: DN added to the offset-free DN.
        by: the source, in words.
    """

    dn: float
    by: str


def agreed(told: Sequence[Told], name: str, default: Told) -> Told:
    """The offset that all sources say.

    Args:
        told: sources; the first gives the value.
        name: of the product, for the message.
        default: what holds where no source says anything.

    Raises:
        InputError: two sources that contradict each other; both are shown.
    """
    if not told:
        return default
    first = told[0]
    for other in told[1:]:
        if abs(other.dn - first.dn) > _NEAR:
            raise InputError(
                f"{name}: radiometric offset unclear: {first.by} says {first.dn:g} DN, but {other.by} says {other.dn:g} DN. "
                f"{DECIDE}"
            )
    return Told(first.dn, "; ".join(dict.fromkeys(one.by for one in told)))


def version(text: str | None) -> tuple[int, int] | None:
    """A baseline as numbers: "05.11" > (5, 11); None where it is none. Compared as text, "15" would be before "4"."""
    found = re.fullmatch(r"\s*(\d+)[.](\d+)\s*", text or "")
    return (int(found.group(1)), int(found.group(2))) if found else None


def baseline_in(text: str) -> str | None:
    """The baseline in a product's id, "S2B_MSIL2A_20220126T101311_N0400_R022_..." > "04.00"; None without one."""
    found = _BASELINE.search(text)
    return f"{found.group(1)}.{found.group(2)}" if found else None


def by_baseline(text: str | None, by: str) -> list[Told]:
    """What a baseline says; nothing where there is none."""
    number = version(text)
    return [] if number is None else [Told(_ADDED if number >= _FIRST else 0.0, f"{by} {text}")]


def by_tags(scale: float, offset: float, by: str) -> list[Told]:
    """What scale and offset of physical = DN * scale + offset say; nothing where they are 1 and 0, which no one wrote."""
    if scale in (0, 1) and offset == 0:
        return []
    if scale == 0 or not all(map(math.isfinite, (scale, offset, offset / scale))):
        raise InputError(
            f"{by}: scale {scale}, offset {offset}, of which none follows; give the radiometric offset with --offset "
            "(offset= in Python)"
        )
    dn = -offset / scale
    return [Told(float(round(dn)) if abs(dn - round(dn)) <= 0.01 else round(dn, 6), by)]


def check_date(date: datetime | None, name: str) -> None:
    """Refuses Sentinel-2 files as delivered whose date says that an offset is in, and of which nothing else tells.

    Raises:
        InputError: acquired when every product had the offset.
    """
    if date is not None and date >= _SINCE:
        raise InputError(
            f"{name}: radiometric offset unclear: its date, {date:%Y-%m-%d}, says 1000 DN (products processed since "
            f"{_SINCE:%Y-%m-%d} are of baseline 04.00 and later), but no tag and no metadata of the files says so. {DECIDE} "
            "(Earth Search's COGs, Sentinel Hub, Theia, sen2r)"
        )
