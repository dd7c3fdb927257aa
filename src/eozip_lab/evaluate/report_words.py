"""Sentences about results, each made from the numbers it states; they say as readily that a baseline wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Rates = Mapping[str, Mapping[str, Any]]
"""Contender > dB (or DN) as text > {"mean": bpppb or None, "places": {place: bpppb or None}}."""


def verdicts(rates: Rates, own: Sequence[str]) -> list[str]:
    """One sentence for every PSNR of the table: who needs the fewest bits, and by how much.

    Args:
        rates: mean bpppb over places at each PSNR.
        own: contenders that are codecs of eozip; the others are baselines.
    """
    return [verdict(rates, own, db) for db in next(iter(rates.values()), {})]


def verdict(rates: Rates, own: Sequence[str], db: str) -> str:
    """Best codec of eozip against best baseline at one PSNR (`db` as in the table)."""
    return _verdict(rates, own, db, f"At {db} dB")


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


def place_losses(rates: Rates, own: Sequence[str]) -> list[str]:
    """A sentence for every place and PSNR at which a baseline needs fewer bits than every codec of eozip."""
    dbs = next(iter(rates.values()), {})
    places = {place: None for row in rates.values() for cell in row.values() for place in cell["places"]}
    found = [_place_loss(rates, own, db, place) for place in places for db in dbs]
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
