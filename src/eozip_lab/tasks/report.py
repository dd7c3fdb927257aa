"""Results of tasks as Markdown: the worst first, what hurts and what helps, every task at every rate, worst failures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eozip.errors import InputError
from eozip_lab.evaluate.provenance import as_json, write_text
from eozip_lab.evaluate.tables import markdown
from eozip_lab.tasks.gallery import write_strips
from eozip_lab.tasks.run import SCHEMA, Found
from eozip_lab.tasks.table import TASKS

BEGIN = "<!-- tasks: written by eozip evaluate-tasks, do not edit -->"
END = "<!-- end of tasks -->"
NAME, FOLDER = "tasks.json", "tasks"
GALLERY = (
    "The chips, each of another place, on which eozip's codec lost most against original pixels, and what the classical "
    "coding that does best made of them with as many bytes. White was kept, red was lost, by the measure named."
)
_MUCH = 0.9  # of what original pixels give: less is told among what hurts


def write(found: Found, out: Path) -> Path:
    """Write tasks.json, tasks.md and tasks/*.webp; tasks that this run did not do stay as an earlier one left them.

    Returns:
        the Markdown file.

    Raises:
        OutputError: cannot be written.
        InputError: an earlier tasks.json is none of ours.
    """
    path = out / NAME
    write_strips(found.gallery, out / FOLDER)
    document = json.loads(as_json(found.document | {"gallery": [one.facts() for one in found.gallery]}))
    document = _in_order(_merged(path, document))
    write_text(path, json.dumps(document, indent=None, separators=(",", ":")) + "\n")
    write_text(out / "tasks.md", text(document))
    return out / "tasks.md"


def load(path: Path) -> dict[str, Any]:
    """What an earlier run wrote.

    Raises:
        InputError: no file of ours.
    """
    try:
        document = json.loads(path.read_text())
        if document["schema"] != SCHEMA:
            raise ValueError(document["schema"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected the results of `eozip evaluate-tasks` ({SCHEMA}), got {error!r}; run it first"
        ) from error
    return document


def update_readme(readme: Path, document: Mapping[str, Any]) -> None:
    """Replace what stands between the markers.

    Raises:
        InputError: not one pair of markers.
    """
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise InputError(f"{readme}: expected {BEGIN!r} and behind it {END!r}, each once; put them there")
    write_text(readme, f"{before}{BEGIN}\n{short(document)}{END}{after}")


def _merged(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    """With the tasks of an earlier run that this one did not do, measured at the same qualities."""
    if document["few"] or not path.exists():
        return document
    try:
        earlier = json.loads(path.read_text())
        kept = [
            task for task in earlier["tasks"] if task["name"] not in {t["name"] for t in document["tasks"]}
        ]
        same = earlier["schema"] == document["schema"] and earlier["qualities"] == document["qualities"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected the results of evaluate-tasks; choose another folder") from error
    if not same or not kept:
        return document
    names = {task["name"] for task in kept}
    skipped = [s for s in document["skipped"] if s["task"] not in names]
    return document | {
        "tasks": kept + document["tasks"],
        "skipped": skipped,
        "gallery": [one for one in earlier.get("gallery", ()) if one["task"] in names] + document["gallery"],
        "earlier": earlier["made"],
    }


def _in_order(document: dict[str, Any]) -> dict[str, Any]:
    order = [task.name for task in TASKS]
    known = [task for task in document["tasks"] if task["name"] in order]
    return document | {"tasks": sorted(known, key=lambda task: order.index(task["name"]))}


def text(document: Mapping[str, Any]) -> str:
    """All of tasks.md."""
    parts = ["# What compression does to the work that follows\n", preface(document), short(document)]
    parts += ["## Where it hurts and where it helps\n", "".join(_verdicts(document, document["qualities"]))]
    parts += _worst(document.get("gallery", ()))
    parts += [_section(task) for task in document["tasks"]]
    if document["skipped"]:
        parts += ["## Left out\n", *(f"- {s['task']}: {s['why']}\n" for s in document["skipped"])]
    parts += _missing(document)
    return "\n".join(parts)


def _absent(document: Mapping[str, Any]) -> list[str]:
    """The tasks that no run into this folder did."""
    done = {task["name"] for task in document["tasks"]} | {one["task"] for one in document["skipped"]}
    return [task.name for task in TASKS if task.name not in done]


def _missing(document: Mapping[str, Any]) -> list[str]:
    absent = _absent(document)
    if not absent:
        return []
    return [
        f"## Not run yet\n\n{', '.join(absent)}: `eozip evaluate-tasks ... --tasks '{','.join(absent)}'` adds them.\n"
    ]


def preface(document: Mapping[str, Any]) -> str:
    """What was done, and by which command."""
    made = document["made"]
    few = "**A trial run with few chips: these figures say nothing.** " if document["few"] else ""
    return (
        f"{few}Each task is done on original and on decoded pixels. Every method has as many bytes for each chip as "
        f"`{document['reference']}` at the quality named (its setting is searched; `bytes` says how near it came). In "
        "brackets: 95 % intervals by bootstrap over places, 2,000 resamplings; differences are of the same places. Places "
        "that the weights of eozip's codecs never saw are counted as unseen, and their figures stand behind the slash.\n\n"
        f"Made by `{made['command']}`, commit {made['commit']}, {made['when'][:10]}, "
        f"{document['cpu_seconds'] / 60:.0f} minutes of CPU.\n"
    )


def short(document: Mapping[str, Any]) -> str:
    """The table that the README has, and the sentences that intervals allow."""
    told = "".join(verdicts(document))
    told += f"- Not run yet: {', '.join(_absent(document))}\n" if _absent(document) else ""
    return markdown(*headlines(document)) + ("\n" + told if told else "")


def verdicts(document: Mapping[str, Any]) -> list[str]:
    """Sentences at the highest rate; see `_verdicts`."""
    return list(_verdicts(document, document["qualities"][-1:]))


def headlines(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows: each task's headline at two rates, where eozip fares worst first."""
    head = [
        "task, measure",
        "unharmed",
        "raw bytes / bytes",
        "eozip",
        "best classical, same bytes",
        "difference",
    ]
    lines = sorted(_headlines(document), key=lambda line: -line[0])
    return head, [cells for _, cells in lines]


def _headlines(document: Mapping[str, Any]) -> Iterator[tuple[float, list[str]]]:
    for task in document["tasks"]:
        measure, rows = task["measures"][0], _by_key(task)
        for quality in document["qualities"][1:3] or document["qualities"]:
            ours = _ours(task, quality, rows)
            if ours is None or "over_best" not in ours or measure["name"] not in ours["over_best"]:
                continue
            against = ours["over_best"][measure["name"]]
            theirs = rows[against["baseline"], quality]["scores"][measure["name"]]
            whole = task["original"].get(measure["name"], {}).get("value")
            mine = ours["scores"][measure["name"]]
            cells = [
                f"{task['name']}: {measure['name']}",
                _value(whole, measure),
                f"{16 / ours['bpppb']:.0f}",
                f"{_score(mine, measure)} (`{ours['method']}`)",
                f"{_score(theirs, measure)} (`{against['baseline']}`)",
                _score(against["difference"], measure, signed=True),
            ]
            yield _missed(mine["value"], measure) / max(_missed(theirs["value"], measure), 1e-9), cells


def _missed(value: float | None, measure: Mapping[str, Any]) -> float:
    """How far from perfect."""
    return 1 - (value or 0.0) if measure["more"] else value or 0.0


def _ours(task: Mapping[str, Any], quality: float, rows: Mapping[Any, Any]) -> Mapping[str, Any] | None:
    """The default codec's row: of series that for series."""
    name = task["codecs"][1] if "tec-tt-small" in task["codecs"][1:2] else task["codecs"][0]
    return rows.get((name, quality))


def _by_key(task: Mapping[str, Any]) -> dict[tuple[str, float | None], Mapping[str, Any]]:
    return {(row["method"], row["quality"]): row for row in task["rows"]}


def _verdicts(document: Mapping[str, Any], qualities: Sequence[float]) -> Iterator[str]:
    """Sentences from intervals alone: behind a baseline, behind the originals, ahead of the originals."""
    for task in document["tasks"]:
        for measure in task["measures"]:
            yield from _verdict(task, measure, qualities)


def _verdict(
    task: Mapping[str, Any], measure: Mapping[str, Any], qualities: Sequence[float]
) -> Iterator[str]:
    rows = _by_key(task)
    better = 1 if measure["more"] else -1
    for quality in qualities:
        ours = _ours(task, quality, rows)
        if ours is None:
            continue
        where = f"{task['name']}, {measure['name']}, 1 : {16 / ours['bpppb']:.0f}, `{ours['method']}`"
        gap = ours.get("over_best", {}).get(measure["name"])
        if gap and _sure(gap["difference"], -better):
            yield f"- **Behind `{gap['baseline']}`**: {where}: {_score(gap['difference'], measure, signed=True)}\n"
        left = ours["scores"][measure["name"]]
        if not measure["truth"] and measure["more"] and left["high"] is not None and left["high"] < _MUCH:
            yield f"- Hurts: {where}: {_score(left, measure)} of what original pixels give\n"
        change = ours.get("over_original", {}).get(measure["name"])
        if change and _sure(change, -better):
            yield f"- Hurts: {where}: {_score(change, measure, signed=True)} against original pixels\n"
        if change and _sure(change, better):
            yield f"- **Helps**: {where}: {_score(change, measure, signed=True)} against original pixels\n"


def _sure(difference: Mapping[str, Any], sign: int) -> bool:
    ends = difference["low"], difference["high"]
    return None not in ends and all(end * sign > 0 for end in ends)


def _worst(gallery: Sequence[Mapping[str, Any]]) -> list[str]:
    if not gallery:
        return []
    parts = ["## The worst failures\n", f"{GALLERY}\n"]
    for subject, shown in by_subject(gallery).items():
        parts.append(f"### {subject}\n")
        parts += [f"![{one['measure']}]({FOLDER}/{one['file']})\n\n{caption(one)}\n" for one in shown]
    return parts


def by_subject(gallery: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Pictures by what they are of: subjects that have a name of their own come before whole tasks."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for one in sorted(gallery, key=lambda one: one["subject"] == one["task"]):
        found.setdefault(one["subject"], []).append(one)
    return found


def caption(one: Mapping[str, Any]) -> str:
    """What a picture shows, row by row."""
    made = [
        f"`{row['method']}` {row['value'] * one['scale']:.3g} with {row['bytes']:,} bytes"
        for row in one["rows"]
    ]
    titles = " | ".join(one["panels"])
    return (
        f"{one['measure']} on {one['chip']} at quality {one['quality']:g}, row by row: {'; '.join(made)}; original pixels "
        f"{one['original'] * one['scale']:.3g}. Columns: {titles}."
    )


def _section(task: Mapping[str, Any]) -> str:
    parts = [f"## {task['name']}\n", f"{task['title']}. {_data(task)}\n"]
    parts.append("".join(f"- {m['name']}: {m['what']}\n" for m in task["measures"]))
    qualities = list(dict.fromkeys(row["quality"] for row in task["rows"]))
    for quality in qualities:
        rows = [row for row in task["rows"] if row["quality"] == quality]
        parts.append(_table(task, rows, quality))
    return "\n".join(parts)


def _data(task: Mapping[str, Any]) -> str:
    bands = " or ".join(map(str, task["bands"]))
    return (
        f"{task['chips']} chips of {bands} bands, {task['places']} places or blocks; unseen: {task['held']}."
    )


def _table(task: Mapping[str, Any], rows: list[Mapping[str, Any]], quality: float | None) -> str:
    names = [m["name"] for m in task["measures"]]
    head = [
        "" if quality is None else f"quality {quality:g}",
        *(() if quality is None else ("bytes", "dB")),
        *names,
    ]
    first = rows[0].get("bytes")
    lines = []
    if task["original"] and quality is not None:
        whole = [_score(task["original"][m["name"]], m) for m in task["measures"]]
        lines.append(["original pixels", f"{16 / rows[0]['bpppb']:.0f} x", "", *whole])
    for row in rows:
        sizes = [] if quality is None else [f"{row['bytes'] / first:.2f}", f"{row['psnr']:.1f}"]
        cells = [_score(row["scores"][m["name"]], m) + _unseen(task, row, m) for m in task["measures"]]
        name = f"**{row['method']}**" if row["method"] in task["codecs"] else row["method"]
        lines.append([name, *sizes, *cells])
    return markdown(head, lines)


def _unseen(task: Mapping[str, Any], row: Mapping[str, Any], measure: Mapping[str, Any]) -> str:
    value = row["held"].get(measure["name"])
    return "" if value is None or task["held"] == task["chips"] else f" / {_value(value, measure)}"


def _score(score: Mapping[str, Any], measure: Mapping[str, Any], signed: bool = False) -> str:
    value = _value(score["value"], measure, signed)
    if score["low"] is None:
        return value
    return f"{value} [{_value(score['low'], measure, signed)}, {_value(score['high'], measure, signed)}]"


def _value(value: float | None, measure: Mapping[str, Any], signed: bool = False) -> str:
    if value is None:
        return "-"
    shown = value * measure["scale"]
    digits = (
        2 if abs(shown) < 10 or (measure["scale"] == 100 and abs(shown) > 99 and abs(shown) != 100) else 1
    )
    return f"{shown:+.{digits}f}" if signed else f"{shown:.{digits}f}"
