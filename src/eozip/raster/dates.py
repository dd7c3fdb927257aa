"""When a file was acquired, as its name or its tags tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

_IN_NAME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)([-_.]?)([01]\d)\2([0-3]\d)"  # 20250415, 2025-04-15
    r"(?:[T_-]([0-2]\d)[:-]?([0-5]\d)[:-]?([0-5]\d))?(?!\d)"  # T101559
)
_TAGS = (
    "TIFFTAG_DATETIME",
    "DATETIME",
    "ACQUISITION_DATETIME",
    "ACQUISITION_DATE",
    "SENSING_TIME",
    "PRODUCT_START_TIME",
    "DATE_ACQUIRED",
)


def date_of(name: str, tags: Mapping[str, str]) -> datetime | None:
    """Acquisition time (UTC, no tzinfo), or None where nothing tells.

    The first date in the file's name comes first (a Sentinel-2 product's sensing time), since
    TIFFTAG_DATETIME is by the standard the time of the file; a tag of the same day adds the time of day.

    Args:
        name: file name.
        tags: GDAL's default metadata.
    """
    named = _from_name(name)
    tagged = _from_tags(tags)
    if named is not None and (tagged is None or tagged.date() != named.date()):
        return named
    return tagged


def _from_name(name: str) -> datetime | None:
    for match in _IN_NAME.finditer(name):
        year, month, day, hour, minute, second = (int(part or 0) for part in match.group(1, 3, 4, 5, 6, 7))
        try:
            return datetime(year, month, day, hour, minute, second)
        except ValueError:
            continue
    return None


def _from_tags(tags: Mapping[str, str]) -> datetime | None:
    upper = {key.upper(): value for key, value in tags.items()}
    for key in _TAGS:
        found = _parsed(upper.get(key, ""))
        if found is not None:
            return found
    return None


def _parsed(text: str) -> datetime | None:
    # The TIFF standard writes dates as 2025:04:15; the rest is ISO 8601.
    iso = re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text.strip())
    try:
        found = datetime.fromisoformat(iso)
    except ValueError:
        return None
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)
