"""`python -m eozip_lab`: the commands of the workbench where eozip is not installed but only lies on the path."""

from __future__ import annotations

import click

from eozip.cli import ErrorsAsMessages
from eozip_lab.commands.evaluate import evaluate
from eozip_lab.commands.evaluate_inpainting import evaluate_inpainting
from eozip_lab.commands.evaluate_tasks import evaluate_tasks
from eozip_lab.commands.simulate import simulate
from eozip_lab.commands.train import train


@click.group(cls=ErrorsAsMessages, name="eozip_lab")
def cli() -> None:
    """Evaluate, train and simulate."""


for command in (evaluate, evaluate_inpainting, evaluate_tasks, simulate, train):
    cli.add_command(command)

if __name__ == "__main__":
    cli()
