"""Sentences about results, made from report.json: what was gained and, as plainly, where a baseline wins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType
from typing import Any

from eozip_lab.evaluate.html_report.data import AT, Report

Rates = Mapping[str, Mapping[str, Any]]
"""Contender > dB (or DN) as text > {"mean": bpppb or None, "places": {place: bpppb or None}}."""


_Begins = Mapping[str, tuple[float, float]]
"""Contender > dB that its coarsest setting reaches on every place, and its mean bpppb there."""


def verdicts(rates: Rates, own: Sequence[str], begins: _Begins = MappingProxyType({})) -> list[str]:
    """One sentence for every PSNR of the table: who needs the fewest bits, and by how much.

    Args:
        rates: mean bpppb over places at each PSNR.
        own: contenders that are codecs of eozip; the others are baselines.
        begins: where the curves begin: what begins above a PSNR is better there than was asked for.
    """
    return [verdict(rates, own, db, begins) for db in next(iter(rates.values()), {})]


def verdict(rates: Rates, own: Sequence[str], db: str, begins: _Begins = MappingProxyType({})) -> str:
    """Best codec of eozip against best baseline at one PSNR (`db` as in the table)."""
    above = {name: at for name, at in begins.items() if name in own and at[0] > float(db)}
    theirs = best(rates, [name for name in rates if name not in own], db)
    if best(rates, own, db) is None and above:
        return _begins_above(f"At {db} dB", above, theirs)
    return _verdict(rates, own, db, f"At {db} dB")


def beginnings(points: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """As `_Begins`, of the points of report.json; exact points have no PSNR and are left out."""
    coarsest: dict[str, dict[str, tuple[float, float]]] = {}
    for point in (point for point in points if point["psnr"] is not None):
        here = coarsest.setdefault(point["method"], {})
        at = point["psnr"], point["bpppb"]
        here[point["place"]] = min(here.get(point["place"], at), at)
    return {
        name: (min(db for db, _ in places.values()), fmean(rate for _, rate in places.values()))
        for name, places in coarsest.items()
    }


def _begins_above(where: str, above: _Begins, theirs: tuple[str, float] | None) -> str:
    name, (db, rate) = min(above.items(), key=lambda one: one[1][1])
    start = (
        f"{where} no codec of eozip was measured: the coarsest setting of {name} reaches {db:.1f} dB or more"
    )
    if theirs is None:
        return f"{start}, with {rate:.4f} bpppb; no baseline was measured there on every place either."
    if rate <= theirs[1]:
        return f"{start}, with {rate:.4f} bpppb, fewer bits than the best baseline needs, {_rated(theirs)}."
    return f"{start}, with {rate:.4f} bpppb; the best baseline needs {theirs[1]:.4f} ({theirs[0]})."


def bound_verdicts(bounded: Rates, own: Sequence[str]) -> list[str]:
    """As `verdicts`, for largest errors in DN that both a codec of eozip and a baseline keep on every place.

    Args:
        bounded: `summary.at_bound` of report.json.
        own: see `verdicts`.
    """
    found = sorted({bound for row in bounded.values() for bound in row}, key=float)
    others = [name for name in bounded if name not in own]
    shared = [bound for bound in found if best(bounded, own, bound) and best(bounded, others, bound)]
    return [_verdict(bounded, own, bound, _bound_words(bound)) for bound in shared]


def _bound_words(bound: str) -> str:
    return "With every pixel exact" if bound == "0" else f"With no error over {bound} DN"


def _verdict(rates: Rates, own: Sequence[str], key: str, where: str) -> str:
    mine = best(rates, own, key)
    theirs = best(rates, [name for name in rates if name not in own], key)
    if mine is None and theirs is None:
        return f"{where}: reached by no contender on every place."
    if mine is None:
        return f"{where} the baseline {_rated(theirs)} wins: no codec of eozip reaches it on every place."
    if theirs is None:
        return f"{where} {_rated(mine)} stands alone: no baseline reaches it on every place."
    return _compared(mine, theirs, where)


def best(rates: Rates, names: Sequence[str], db: str) -> tuple[str, float] | None:
    """The contender with the lowest mean rate at a PSNR, and that rate; None if none reaches it."""
    found = [(rates[name][db]["mean"], name) for name in names if db in rates.get(name, {})]
    reached = [(mean, name) for mean, name in found if mean is not None]
    return min(reached)[::-1] if reached else None


def place_losses(rates: Rates, own: Sequence[str], begins: _Begins = MappingProxyType({})) -> list[str]:
    """A sentence for every place and PSNR at which a baseline needs fewer bits than every codec of eozip.

    A PSNR below all that was measured of the codecs (`begins`, as for `verdicts`) is none that they do not reach.
    """
    dbs = next(iter(rates.values()), {})
    places = {place: None for row in rates.values() for cell in row.values() for place in cell["places"]}
    lowest = min((begins[name][0] for name in own if name in begins), default=-math.inf)
    reachable = [db for db in dbs if float(db) >= lowest]
    found = [_place_loss(rates, own, db, place) for place in places for db in reachable]
    return [sentence for sentence in found if sentence]


def _place_loss(rates: Rates, own: Sequence[str], db: str, place: str) -> str | None:
    here = {name: {db: {"mean": row[db]["places"].get(place)}} for name, row in rates.items()}
    mine = best(here, own, db)
    theirs = best(here, [name for name in here if name not in own], db)
    if theirs is None or (mine is not None and mine[1] <= theirs[1]):
        return None
    against = "no codec of eozip reaches it" if mine is None else f"against {_rated(mine)}"
    return f"{place}, {db} dB: the baseline {_rated(theirs)} wins, {against}."


def _compared(mine: tuple[str, float], theirs: tuple[str, float], where: str) -> str:
    if mine[1] == theirs[1]:
        return f"{where} {_rated(mine)} and the baseline {_rated(theirs)} need the same bits."
    winner, loser, word = (
        (mine, theirs, "the best baseline") if mine[1] < theirs[1] else (theirs, mine, "the best of eozip")
    )
    who = "" if winner is mine else "the baseline "
    won = " wins and" if who else ""
    saved = percent(1 - winner[1] / loser[1])
    return f"{where} {who}{_rated(winner)}{won} needs {saved} fewer bits than {word}, {_rated(loser)}."


def percent(share: float) -> str:
    """Such as `27 %`; small shares keep a digit."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.5 else f"{value:.1f} %"


def _rated(found: tuple[str, float]) -> str:
    return f"{found[0]} ({found[1]:.4f} bpppb)"


_MOST_BITS = 1.1  # times the bits of the codec that a baseline may take and still win in quality
_COSTS = ("encode_mpx_cpu_s", "decode_mpx_cpu_s", "peak_rss_bytes")  # whatever the bits
_FEW = 5  # places below which an interval is not worth much

# Field of a point > what it is called, and whether more is better.
_COMPARED = {
    "spectral_angle": ("spectral angle", False),
    "ndvi_error": ("NDVI error", False),
    "ndwi_error": ("NDWI error", False),
    "class_change": ("share of pixels of another class", False),
    "max_error": ("largest error", False),
    "ssim": ("SSIM", True),
    "ms_ssim": ("MS-SSIM", True),
    "encode_mpx_cpu_s": ("encoding speed, MPx per CPU second", True),
    "decode_mpx_cpu_s": ("decoding speed, MPx per CPU second", True),
    "peak_rss_bytes": ("peak memory, bytes", False),
}


def ratio_sentences(report: Report, db: str = AT) -> list[str]:
    """For the first codec against every baseline: bits needed at one PSNR, with the interval over places."""
    pairs = [
        pair
        for pair in report.data["summary"]["pairs"]
        if pair["method"] in report.codecs[:1] and pair["reference"] in report.baselines
    ]
    return [_ratio(pair["method"], pair["reference"], pair["ratio_at_psnr"].get(db), db) for pair in pairs]


def few_places(report: Report) -> list[str]:
    """A warning where intervals rest on too few places to say much."""
    count = len(report.places)
    if count >= _FEW or not report.data["summary"]["pairs"]:
        return []
    return [
        f"Intervals over {count} places say little: of fewer than {_FEW} they span hardly more than the places."
    ]


def metric_losses(report: Report) -> list[str]:
    """A sentence for each metric in which, at 40 dB on some place, the best baseline beats the best codec of eozip.

    In quality that is a win only with about as many bits: with more of them any method gets better.
    """
    found = [_metric_loss(report, field) for field in _COMPARED]
    return [sentence for sentence in found if sentence]


def reach_sentences(report: Report) -> list[str]:
    """Baselines that go on to a PSNR, or to exactness, that no codec of eozip reaches on every place."""
    ours = max((_reach(report, method) for method in report.codecs), default=-math.inf)
    further = {name: db for name in report.baselines if (db := _reach(report, name)) > ours}
    if not further or ours == -math.inf:
        return []
    listed = ", ".join(f"{name} ({_db(db)})" for name, db in further.items())
    return [
        f"Above {_db(ours)}, the most that a codec of eozip reaches on every place, only baselines go on: {listed}."
    ]


def gaps(report: Report) -> list[str]:
    """What was asked for and is not in the numbers: methods left out, and points that raised an error."""
    left_out = [m for m in report.data["methods"] if not m["available"]]
    failed = [
        f"{f['method']} at {f['setting']} on {f['place']} failed: {f['error']}"
        for f in report.data["failures"]
    ]
    return [f"{m['id']} was left out: {m['reason']}" for m in left_out] + failed


def _ratio(method: str, reference: str, found: dict | None, db: str) -> str:
    if found is None or found["ratio"] is None:
        return f"At {db} dB {method} and {reference} have no place in common: no ratio."
    start = f"At {db} dB {method} needs {found['ratio']:.3f} of the bits of {reference}"
    if found["low"] is None:
        return f"{start}, on {found['places']} of {found['of']} places: too few for an interval."
    interval = (
        f"95 % interval {found['low']:.3f} to {found['high']:.3f}, {found['places']} of {found['of']} places"
    )
    undecided = found["low"] <= 1 <= found["high"]
    return f"{start} ({interval})" + ("; neither is shown to be better." if undecided else ".")


@dataclass(frozen=True)
class _Loss:
    """A baseline's metric on one place beside the best codec's; `clear`: the larger over the smaller."""

    place: str
    baseline: str
    theirs: float
    codec: str
    mine: float

    @property
    def clear(self) -> float:
        low, high = sorted((abs(self.theirs), abs(self.mine)))
        return high / low if low > 0 else math.inf


def _metric_loss(report: Report, field: str) -> str | None:
    what = _COMPARED[field][0]
    losses = [loss for place in report.places if (loss := _loss(report, field, place))]
    if not losses:
        return None
    worst = max(losses, key=lambda loss: loss.clear)
    where = f"on {len(losses)} of {len(report.places)} places, most clearly {worst.baseline} on {worst.place}"
    values = f"{worst.theirs:.4g} against {worst.mine:.4g} of {worst.codec}"
    return f"At {AT} dB a baseline wins in {what} {where}: {values}{_bits(report, worst)}."


def _loss(report: Report, field: str, place: str) -> _Loss | None:
    more = _COMPARED[field][1]
    mine = _best_at(report, report.codecs, field, place, more)
    others = report.baselines if mine is None or field in _COSTS else _frugal(report, mine[0], place)
    theirs = _best_at(report, others, field, place, more)
    if mine is None or theirs is None or (mine[1] >= theirs[1] if more else mine[1] <= theirs[1]):
        return None
    return _Loss(place, theirs[0], theirs[1], mine[0], mine[1])


def _frugal(report: Report, codec: str, place: str) -> list[str]:
    """Baselines that need about as many bits as a codec on one place, or fewer."""
    return [name for name in report.baselines if _bits_ratio(report, name, codec, place) <= _MOST_BITS]


def _best_at(
    report: Report, names: Sequence[str], field: str, place: str, more: bool
) -> tuple[str, float] | None:
    values = [(report.at("summary", "at_psnr", AT, name, place, field), name) for name in names]
    found = [(value, name) for value, name in values if value is not None]
    return (max(found) if more else min(found))[::-1] if found else None


def _bits(report: Report, loss: _Loss) -> str:
    """How many bits the baseline takes there, beside the codec's."""
    ratio = _bits_ratio(report, loss.baseline, loss.codec, loss.place)
    if ratio == math.inf:
        return ""
    return f", with {percent(abs(ratio - 1))} {'more' if ratio > 1 else 'fewer'} bits"


def _bits_ratio(report: Report, baseline: str, codec: str, place: str) -> float:
    """Bits of a baseline over a codec's at one PSNR; infinite where one is not known."""
    theirs, mine = (
        report.at("summary", "rates_at_psnr", name, AT, "places", place) for name in (baseline, codec)
    )
    return math.inf if theirs is None or mine is None else theirs / mine


def _reach(report: Report, method: str) -> float:
    """Highest PSNR in dB that the method reaches on every place; infinite if it is exact on every place."""
    return min(_reach_on(report, method, place) for place in report.places)


def _reach_on(report: Report, method: str, place: str) -> float:
    found = [p["psnr"] for p in report.data["points"] if p["method"] == method and p["place"] == place]
    return math.inf if None in found else max(found, default=-math.inf)


def _db(value: float) -> str:
    return "exact" if value == math.inf else f"{value:.1f} dB"
