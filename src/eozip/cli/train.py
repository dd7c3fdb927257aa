"""`eozip train RECIPE`."""

from __future__ import annotations

from pathlib import Path

import click

from eozip.cli.common import threads_option, use_threads


@click.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Stop after so many minutes.")
@click.option("--steps", type=click.IntRange(min=1), help="Stop after so many steps.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for checkpoints, curves and weights.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out.")
@click.option("--seed", type=int, help="Seed of data order and initial weights; default: the recipe's.")
@threads_option
def train(
    recipe: Path,
    minutes: float | None,
    steps: int | None,
    out: Path | None,
    resume: bool,
    seed: int | None,
    threads: int | None,
) -> None:
    """Train a codec from a recipe (TOML)."""
    from eozip.train import loop

    use_threads(threads)
    loop.run(recipe, minutes=minutes, steps=steps, out=out, resume=resume, seed=seed)
