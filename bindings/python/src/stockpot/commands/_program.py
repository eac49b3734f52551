"""The program around the commands: messages, and exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from ..errors import StockpotError

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


class Program(click.Group):
    """A group whose failures all look alike, whoever found them."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit with its status."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        try:
            status = super().main(args, prog_name, complete_var, False, **extra)
            sys.stdout.flush()
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "stockpot"
            sentence = error.format_message().rstrip(".?")
            print_error(f"{sentence[:1].lower()}{sentence[1:]}; try '{command} --help'")
            sys.exit(2)
        except click.ClickException as error:
            print_error(error.format_message())
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            print_error("interrupted")
            sys.exit(INTERRUPTED)
        except StockpotError as error:
            print_error(str(error))
            sys.exit(1)
        except BrokenPipeError:
            # The reader has gone (head, less): nothing more can be said, and Python must not try at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (OSError, MemoryError) as error:
            print_error(str(error) or type(error).__name__)
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)


def print_error(message: str) -> None:
    click.echo(f"error: {message}", err=True)


def print_note(message: str) -> None:
    click.echo(f"note: {message}", err=True)


def print_warning(message: str) -> None:
    click.echo(f"warning: {message}", err=True)
