"""Sentences about results, each made from the numbers it states; they say as readily that a baseline wins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import Any

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
