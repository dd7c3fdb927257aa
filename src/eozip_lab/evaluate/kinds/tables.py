"""Tables of what was measured by kind, the worst first; every number from the points."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from eozip_lab.evaluate.baselines.videos import SLOWEST
from eozip_lab.evaluate.kinds.contenders import OWN, default_of
from eozip_lab.evaluate.kinds.measure import Found, Point
from eozip_lab.evaluate.tables import markdown

DECIBELS = (36.0, 40.0, 44.0, 48.0)
AT = 40.0  # dB at which sets are ordered
Cells = tuple[list[str], list[list[str]]]  # heading and rows of a table


def page(found: Sequence[Found]) -> str:
    """All tables as Markdown."""
    return "\n".join(
        [
            "# By kind of data\n",
            "Open data that no codec was trained on; bits of all bytes over samples that an instrument measured (of cubes: "
            "all of them); PSNR over all of these together, peak 10,000 DN. The best other codec is sought at each PSNR.\n",
            "## Equal PSNR: bits over those of the best other codec, the worst first\n",
            equal_psnr(found),
            means(found),
            "## Equal bytes: dB at the bytes with which eozip has 40 dB, and what the best other codec has there\n",
            equal_bytes(found),
            "## The same pixels in fewer bands and smaller stacks\n",
            compared(found),
            f"## Every contender: bits per sample at {AT:g} dB\n",
            everyone(found),
        ]
    )


def equal_psnr(found: Sequence[Found]) -> str:
    """Ratios at each PSNR, and where one group alone has 40 dB."""
    return markdown(*psnr_cells(found))


def psnr_cells(found: Sequence[Found]) -> Cells:
    """Heading and rows of `equal_psnr`."""
    groups = _groups(found)
    head = ["data", "kind", "codec", f"best other at {AT:g} dB", *(f"{db:g} dB" for db in DECIBELS)]
    head += [f"{m} m at {AT:g} dB" for m in groups]
    rows = [
        [
            one.listed.name,
            one.listed.kind,
            ours(one),
            best(one, AT) or "-",
            *(_ratio_cell(ratio(one, db)) for db in DECIBELS),
            *(_ratio_cell(ratio(one, AT, [m]) if m in one.samples else None) for m in groups),
        ]
        for one in ordered(found)
    ]
    return head, rows


def equal_bytes(found: Sequence[Found]) -> str:
    """dB of ours and of the best other codec, over everything and by group."""
    return markdown(*bytes_cells(found))


def bytes_cells(found: Sequence[Found]) -> Cells:
    """Heading and rows of `equal_bytes`."""
    groups = _groups(found)
    head = ["data", "bits per sample", "best other", "all: eozip", "other"]
    head += [text for m in groups for text in (f"{m} m: eozip", "other")]
    rows = []
    for one in ordered(found):
        rate = one.bits_at(ours(one), AT)
        if rate is None:
            continue
        other = most(one, rate)
        cells = [_db_cell(one, name, rate, ()) for name in (ours(one), other)]
        for m in groups:
            cells += [
                _db_cell(one, name, rate, [m]) if m in one.samples else "" for name in (ours(one), other)
            ]
        rows.append([one.listed.name, f"{rate:.4f}", other or "-", *cells])
    return head, rows


def compared(found: Sequence[Found]) -> str:
    """Sets of the same pixels as another set, each codec of eozip."""
    by_name = {one.listed.name: one for one in found}
    rows = []
    for one in found:
        other = by_name.get(one.listed.against or "")
        if other is None:
            continue
        for name in [name for name in OWN if name in one.points and name in other.points]:
            cells = [_ratio_cell(against(one, other, name, db)) for db in DECIBELS]
            asked = "" if one.listed.limit is None else f"{one.listed.limit:g}"
            what = {"rate": "bits per sample", "bytes": "bytes"}[one.listed.compare]
            rows.append([one.listed.name, other.listed.name, name, what, *cells, asked])
    head = ["data", "over", "codec", "what", *(f"{db:g} dB" for db in DECIBELS), "asked: at most"]
    return markdown(head, rows)


def everyone(found: Sequence[Found]) -> str:
    """A row a set, a column a contender."""
    return markdown(*everyone_cells(found))


def everyone_cells(found: Sequence[Found]) -> Cells:
    """Heading and rows of `everyone`."""
    sets = ordered(found)
    names = list(dict.fromkeys(name for one in sets for name in one.points))
    rows = [
        [one.listed.name, *("-" if (bits := one.bits_at(n, AT)) is None else f"{bits:.4f}" for n in names)]
        for one in sets
    ]
    return ["data", *names], rows


def losses(found: Sequence[Found]) -> list[str]:
    """A sentence for each set and PSNR at which another codec needs fewer bits, or alone gets there."""
    told = []
    for one in ordered(found):
        for db in DECIBELS:
            other, share = best(one, db), ratio(one, db)
            if other is None or (share is not None and share <= 1):
                continue
            need = "has no such point" if share is None else f"needs {share:.2f} of its bits"
            told.append(f"{one.listed.name}, {db:g} dB: {other} is best, {ours(one)} {need}.")
    return told


def means(found: Sequence[Found]) -> str:
    """A sentence of the bits of ours over those of the best other, and of our other codecs; geometric means over sets."""
    shares = [share for one in ordered(found) if (share := ratio(one, AT)) is not None]
    told = [f"over the best other codec {_mean(shares):.2f} on {len(shares)} sets"] if shares else []
    for name in OWN[1:]:
        bits = [
            (mine, usual)
            for one in ordered(found)
            if name != ours(one) and (mine := one.bits_at(name, AT)) and (usual := one.bits_at(ours(one), AT))
        ]
        if bits:
            over = _mean([mine / usual for mine, usual in bits])
            told.append(f"{name} over the codec named {over:.2f} on {len(bits)}")
    return (
        f"Geometric means at {AT:g} dB: {'; '.join(told)}. {_slowest(found)}".rstrip() + "\n" if told else ""
    )


def _slowest(found: Sequence[Found]) -> str:
    """A sentence of what AV1 gains by its slowest preset, and how much longer it takes for that."""
    pairs = [
        (one.points[name], usual, slow / quick)
        for one in ordered(found)
        for name in one.points
        if SLOWEST in name
        and (usual := one.points.get(name.replace(SLOWEST, "")))
        and (slow := one.bits_at(name, AT))
        and (quick := one.bits_at(name.replace(SLOWEST, ""), AT))
    ]
    if not pairs:
        return ""
    less, times = _mean([share for _, _, share in pairs]), _times([(slow, usual) for slow, usual, _ in pairs])
    told = (
        f"By its slowest preset AV1 needs {less:.2f} of the bits that it has by preset 2 on {len(pairs)} sets"
    )
    return f"{told}, in {times:.0f} times the CPU time." if times else f"{told}."


def _times(pairs: Sequence[tuple[Sequence[Point], Sequence[Point]]]) -> float | None:
    """CPU seconds of the first over those of the second at the settings both have; None where there are none."""
    alike = [
        (slow.cpu_seconds, quick.cpu_seconds)
        for first, second in pairs
        for slow in first
        for quick in second
        if slow.setting == quick.setting
    ]
    quickly = sum(quick for _, quick in alike)
    return sum(slow for slow, _ in alike) / quickly if quickly else None


def _mean(shares: Sequence[float]) -> float:
    return math.prod(shares) ** (1 / len(shares))


def ordered(found: Sequence[Found]) -> list[Found]:
    """The sets that others code too, the worst ratio at 40 dB first; those without one before all."""

    def badness(one: Found) -> float:
        share = ratio(one, AT)
        return float("inf") if share is None else share

    both = (one for one in found if _others(one) and set(OWN) & set(one.points))
    return sorted(both, key=badness, reverse=True)


def ours(one: Found) -> str:
    """The default codec of so many dates, of those measured."""
    usual = default_of(one.dates)
    return usual if usual in one.points else next((name for name in OWN if name in one.points), usual)


def best(one: Found, db: float, metres: Collection[int] = ()) -> str | None:
    """The other codec with the fewest bits; None where none gets there."""
    rates = {name: bits for name in _others(one) if (bits := one.bits_at(name, db, metres)) is not None}
    return min(rates, key=lambda name: rates[name], default=None)


def most(one: Found, rate: float) -> str | None:
    """The other codec with the highest PSNR at so many bits."""
    psnrs = {name: db for name in _others(one) if (db := one.psnr_at(name, rate)) is not None}
    return max(psnrs, key=lambda name: psnrs[name], default=None)


def ratio(one: Found, db: float, metres: Collection[int] = (), name: str | None = None) -> float | None:
    """Bits of ours, or of a codec named, over those of the best other; None where either does not get there."""
    other = best(one, db, metres)
    mine = one.bits_at(name or ours(one), db, metres)
    theirs = None if other is None else one.bits_at(other, db, metres)
    return None if mine is None or theirs is None else mine / theirs


def against(one: Found, other: Found, name: str, db: float) -> float | None:
    """Of the same codec on two sets: bits per sample, or bytes where what both have is at equal PSNR."""
    if one.listed.compare == "rate":
        mine, theirs = one.bits_at(name, db), other.bits_at(name, db)
        return None if mine is None or theirs is None else mine / theirs
    shared = sorted(set(one.samples) & set(other.samples))
    mine, theirs = one.bits_at(name, db, shared), other.bits_at(name, db, shared)
    if mine is None or theirs is None:
        return None
    return mine * sum(one.samples.values()) / (theirs * sum(other.samples.values()))


def _others(one: Found) -> list[str]:
    return [name for name in one.points if name not in OWN]


def _groups(found: Sequence[Found]) -> list[int]:
    """Resolutions of the sets that others code too."""
    return sorted({m for one in ordered(found) for m in one.samples})


def _ratio_cell(share: float | None) -> str:
    return "-" if share is None else f"{share:.2f}"


def _db_cell(one: Found, name: str | None, rate: float, metres: Collection[int]) -> str:
    db = None if name is None else one.psnr_at(name, rate, metres)
    return "-" if db is None else f"{db:.2f}"
