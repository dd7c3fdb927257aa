"""`eozip train RECIPE`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eozip.cli.common import json_option, print_json

if TYPE_CHECKING:
    from eozip.train.loop import Outcome

INTERRUPTED = 130


@click.command()
@click.argument("recipe")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Stop after so many minutes.")
@click.option("--steps", type=click.IntRange(min=1), help="Stop after so many steps.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run; default: runs/RECIPE.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@click.option("--other-recipe", is_flag=True, help="Let --resume go on with a recipe that has changed.")
@click.option("--device", help="cpu, cuda, cuda:1; default: CUDA where there is any.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of torch.")
@click.option("--seed", type=click.IntRange(min=0), help="Replaces the recipe's.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="A pack of data to use instead of the recipe's."
)
@json_option
@click.pass_context
def train(ctx: click.Context, recipe: str, as_json: bool, **options: Any) -> None:
    """Train a codec from RECIPE: a TOML file, or the name of a shipped recipe.

    Leaves checkpoint, log, curve and weights in --out. Ctrl-C stops after the current step and keeps the
    checkpoint; --resume goes on from it.
    """
    from eozip.train import loop

    outcome = loop.run(recipe, progress=not as_json, **options)
    if as_json:
        print_json(_facts(outcome))
    else:
        click.echo(_text(outcome))
    if not outcome.finished:
        ctx.exit(INTERRUPTED)


def _facts(outcome: Outcome) -> dict[str, Any]:
    facts = asdict(outcome)
    return {key: str(value) if isinstance(value, Path) else value for key, value in facts.items()}


def _text(outcome: Outcome) -> str:
    done = f"{outcome.out}: {outcome.steps} steps, {outcome.seconds / 60:.1f} min"
    end = f"weights in {outcome.weights}" if outcome.finished else "interrupted; --resume goes on"
    return f"{done}, {outcome.skipped} skipped; {end}"
