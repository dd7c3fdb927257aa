"""The command line: `eozip` and `rio eozip`.

Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 3 verification failed, 4 done without dates that
--skip-bad left out, or archived without items that were set aside, 130 interrupted. Each command is imported when it is
called, and its libraries inside it, so that
`eozip --help` is quick.
"""

from __future__ import annotations

import importlib
import signal
import sys
from importlib.metadata import entry_points
from types import FrameType

import click

from eozip.cli.common import shown
from eozip.errors import EozipError

__all__ = ["cli", "main"]

COMMANDS = {
    "encode": "eozip.cli.encode:encode",
    "append": "eozip.cli.append:append",
    "decode": "eozip.cli.decode:decode",
    "archive": "eozip.cli.archive:archive",
    "info": "eozip.cli.info:info",
    "verify": "eozip.cli.verify:verify",
    "picture": "eozip.cli.picture:picture",
    "serve": "eozip.cli.serve:serve",
    "choose": "eozip.cli.choose:choose",
    "inpaint": "eozip.cli.inpaint:inpaint",
    "models": "eozip.cli.models:models",
}

EXTRAS = {"torch": "torch", "matplotlib": "evaluate", "imagecodecs": "evaluate", "av": "evaluate"}
"""Packages that few commands need, and the extra of eozip that brings each."""

OTHERS = "eozip.commands"
"""Entry point group of commands from elsewhere: those of the workbench, `eozip_lab`, are found by it."""


class ErrorsAsMessages(click.Group):
    """Errors raised on purpose become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly when the reader of a pipe has gone
        except (EozipError, OSError) as error:
            raise click.ClickException(shown(str(error))) from error
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
            raise click.ClickException(
                f"this needs {error.name}, which is not installed: pip install 'eozip[{EXTRAS[error.name]}]'"
            ) from error
        except KeyboardInterrupt:
            click.echo("Interrupted; nothing half-written was left under the output's name.", err=True)
            ctx.exit(130)


class LazyGroup(ErrorsAsMessages):
    """Commands by name, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(entry_points(group=OTHERS).names)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, _, name = COMMANDS[cmd_name].partition(":")
            return getattr(importlib.import_module(module), name)
        found = entry_points(group=OTHERS, name=cmd_name)
        return next(iter(found)).load() if found else None


@click.group(cls=LazyGroup, name="eozip", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="eozip")
def cli() -> None:
    """Learned compression for Earth-observation imagery: GeoTIFF in, Zarr v3 out, and back."""


def main() -> None:
    """Entry point of the console script."""
    # a polite kill and a closed terminal unwind like an interrupt, so that temporary files go
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _exit_on_signal)
    cli()


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
