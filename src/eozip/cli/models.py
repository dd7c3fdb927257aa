"""`eozip models` and `eozip models pull ID`."""

from __future__ import annotations

from dataclasses import asdict

import click

from eozip import codecs
from eozip.cli.common import json_option, print_json, tell
from eozip.codecs import registry
from eozip.own import VARIABLE, places


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List the codecs and published weights; `models pull ID` downloads one."""
    if ctx.invoked_subcommand is None:
        _list(as_json)


def _list(as_json: bool) -> None:
    from eozip import hub  # slow to import

    infos = hub.list_models()
    try:
        own, is_searched = codecs.own_codecs(), True
    except ModuleNotFoundError as fault:
        if fault.name != "torch":
            raise
        own, is_searched = [], not places()  # who has named no folder misses nothing
    if as_json:
        listed = {name: str(path) for name, path in own}
        models = [asdict(info) for info in infos]
        print_json({"codecs": list(registry.names()), "own": listed, "models": models})
        return
    tell("Codecs for encode --codec:")
    tell("\n".join(f"  {name}" for name in registry.names()))
    if own:
        tell(f"Your own ({VARIABLE}; any path of weights will do for --codec as well):")
        tell("\n".join(f"  {name:45} {path}" for name, path in own))
    if not is_searched:
        tell(f"Your own (in {VARIABLE}) need torch to be read: pip install 'eozip[torch]'")
    tell("Weights (shipped, or published: `eozip models pull ID@lambda-N`):")
    for info in infos:
        rates = " ".join(name.removeprefix("lambda-") for name in info.checkpoints)
        tell(
            f"  {info.id:45} {info.kind:10} {info.sensor:8} "
            + ("shipped" if info.shipped else f"lambda {rates}")
        )


@models.command()
@click.argument("name", metavar="ID")
@click.option(
    "--lmbda",
    metavar="RATE",
    help="Rate of a published repository, where ID does not end in @lambda-N; the nearest there is, else a default.",
)
@json_option
def pull(name: str, lmbda: str | None, as_json: bool) -> None:
    """Download published weights into the local cache of huggingface_hub."""
    from eozip import hub  # slow to import

    path = hub.pull(name, lmbda)
    if as_json:
        print_json({"id": name, "path": str(path)})
    else:
        tell(str(path))
