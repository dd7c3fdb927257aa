"""`eozip train RECIPE`, and what belongs to it: packs of data, profiles, cards."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eozip.cli.common import bytes_text, json_option, print_json, tell
from eozip_lab import train as training

if TYPE_CHECKING:
    from eozip_lab.train.profile import Profile
    from eozip_lab.train.sitting import Outcome

_INTERRUPTED = 130
_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("recipe")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Stop after so many minutes.")
@click.option("--steps", type=click.IntRange(min=1), help="Stop after so many steps.")
@click.option("--out", type=_PATH, help="Folder of the run; default: runs/RECIPE.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@click.option("--other-recipe", is_flag=True, help="Let --resume go on with a recipe that has changed.")
@click.option("--device", help="cpu, cuda, cuda:1; default: CUDA where there is any.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of torch.")
@click.option("--seed", type=click.IntRange(min=0), help="Replaces the recipe's.")
@click.option("--data", type=_PATH, help="A pack of data to use instead of the recipe's.")
@click.option(
    "--pack", "packed", type=_PATH, metavar="OUT", help="Pack the recipe's data into one file instead."
)
@click.option(
    "--limit-mib",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Largest size of that file.",
)
@click.option("--profile", "profiled", is_flag=True, help="Time a few steps by part instead; keeps nothing.")
@click.option(
    "--card",
    "weights",
    type=_PATH,
    metavar="WEIGHTS",
    help="Measure a folder of weights on the recipe's places instead; renews its card.md and worst.png.",
)
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    recipe: str,
    as_json: bool,
    packed: Path | None,
    limit_mib: float,
    profiled: bool,
    weights: Path | None,
    **options: Any,
) -> None:
    """Train a codec from RECIPE: a TOML file, or the name of a shipped recipe.

    Leaves checkpoint, log, curve and weights in --out. Ctrl-C stops after the current step and keeps the
    checkpoint; --resume goes on from it.
    """
    if sum((packed is not None, profiled, weights is not None)) > 1:
        raise click.UsageError("--pack, --profile and --card are different things to do; give one of them.")
    if packed is not None or profiled or weights is not None:
        _refuse_pyramid(recipe)
    if packed is not None:
        _pack(recipe, packed, limit_mib, options["seed"] or 0, as_json)
    elif profiled:
        _profile(recipe, options, as_json)
    elif weights is not None:
        _card(recipe, weights, options["data"], as_json)
    else:
        _train(ctx, recipe, options, as_json)


def _train(ctx: click.Context, recipe: str, options: dict[str, Any], as_json: bool) -> None:
    _check_options(recipe, options)
    outcome = training.run(recipe, progress=not as_json, **options)
    if as_json:
        print_json(_facts(outcome))
    else:
        tell(_text(outcome))
    if not outcome.finished:
        ctx.exit(_INTERRUPTED)


def _check_options(recipe: str, options: dict[str, Any]) -> None:
    """Refuses options that are not for a recipe's kind."""
    is_other = options["device"] not in (None, "cpu") or options["data"] is not None
    if training.kind_named(recipe) == training.KIND and is_other:
        raise click.UsageError(
            f"{training.KIND} is trained on the CPU, on the recipe's data: leave out --device and --data."
        )


def _refuse_pyramid(recipe: str) -> None:
    """--pack, --profile and --card are for networks with validation places."""
    if training.kind_named(recipe) == training.KIND:
        raise click.UsageError(
            f"{training.KIND} can be trained, but not packed, profiled or measured; see `eozip evaluate`."
        )


def _pack(recipe: str, out: Path, limit_mib: float, seed: int, as_json: bool) -> None:
    if not as_json:
        tell("packing: ordering and compressing tiles takes minutes", err=True)
    done = training.pack(recipe, out, limit_mib, seed)
    if as_json:
        print_json({**asdict(done), "path": str(done.path)})
    else:
        tell(f"{out}: {done.tiles} of {done.candidates} tiles, {bytes_text(done.bytes)}")


def _profile(recipe: str, options: dict[str, Any], as_json: bool) -> None:
    chosen = {key: options[key] for key in ("steps", "device", "threads", "data")}
    found = training.profile.profile(recipe, **chosen)
    if as_json:
        print_json(training.profile.facts(found))
    else:
        tell(_profile_text(found))


def _card(recipe: str, weights: Path, data: Path | None, as_json: bool) -> None:
    card = training.renew(weights, recipe, data)
    if as_json:
        print_json({"card": str(card)})
    else:
        tell(f"{card}: measured anew")


def _facts(outcome: Outcome) -> dict[str, Any]:
    facts = asdict(outcome)
    return {key: str(value) if isinstance(value, Path) else value for key, value in facts.items()}


def _text(outcome: Outcome) -> str:
    done = f"{outcome.out}: {outcome.steps} steps, {outcome.seconds / 60:.1f} min"
    end = f"weights in {outcome.weights}" if outcome.finished else "interrupted; --resume goes on"
    return f"{done}, {outcome.skipped} skipped; {end}"


def _profile_text(found: Profile) -> str:
    lines = [
        f"{found.kind} on {found.device}: {1000 * found.seconds:.0f} ms a step, "
        f"{found.crops_per_second:.1f} crops per second ({found.crops} crops in {found.steps} steps)",
        *(
            f"  {part:24} {1000 * value:9.1f} ms {100 * value / found.seconds:5.1f} %"
            for part, value in found.parts.items()
        ),
        f"  {found.gflop_per_crop:.2f} GFLOP a crop; {100 * found.share:.0f} % of the {found.peak_gflops:.0f} GFLOP/s "
        "that a large matrix product reaches here",
    ]
    return "\n".join(lines)
