"""`eozip evaluate-tasks FOLDER... --out FOLDER`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from eozip.cli.common import CommaList, json_option, print_json, tell, threads_option, use_threads
from eozip_lab import tasks as tasking
from eozip_lab.commands.evaluate import Numbers


@click.command("evaluate-tasks")
@click.argument(
    "data",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER...",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of tasks.md and tasks.json."
)
@click.option(
    "--tasks", type=CommaList(), help="Tasks, by comma; default: all. Others' results in --out stay."
)
@click.option("--qualities", type=Numbers(), help="Of tec-elic-small, whose bytes every method gets.")
@click.option("--codecs", type=CommaList(), help="Codecs, by comma, instead of the tasks' own.")
@click.option("--baselines", type=CommaList(), help="Baselines, by comma, instead of the tasks' own.")
@click.option("--quick", is_flag=True, help="Few chips, one rate: whether it works, not what it is worth.")
@click.option(
    "--readme",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Write the short table between the markers of this file, too.",
)
@threads_option
@json_option
def evaluate_tasks(
    data: tuple[Path, ...],
    out: Path,
    quick: bool,
    readme: Path | None,
    threads: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure what compression does to clouds, water, seasons, classes, change and events.

    FOLDERs hold the data, or folders that do: the shared data, and where its stacks were unpacked. A task whose data or
    package is absent is left out and named.
    """
    use_threads(threads)
    qualities = {"qualities": _qualities(options["qualities"])} if options["qualities"] else {}
    lists = {name: tuple(map(str, options[name] or ())) for name in ("tasks", "codecs", "baselines")}
    plan = tasking.Plan(data, few=quick, **lists, **qualities)
    for found in tasking.run_tasks(
        plan, (lambda what: None) if as_json else (lambda what: tell(what, err=True))
    ):
        page = tasking.write(found, out)
    if readme is not None:
        tasking.update_readme(readme, json.loads((out / "tasks.json").read_text()))
    skipped = {s["task"]: s["why"] for s in found.document["skipped"]}
    if as_json:
        names = [task["name"] for task in found.document["tasks"]]
        print_json({"report": str(page), "tasks": names, "skipped": skipped})
        return
    for task, why in skipped.items():
        tell(f"{task}: left out: {why}", err=True)
    tell(str(page))


def _qualities(values: list[float]) -> tuple[float, ...]:
    if not all(0 <= value <= 100 for value in values):
        raise click.BadParameter(f"expected qualities of 0 to 100, got {values}", param_hint="--qualities")
    return tuple(sorted(set(values)))
