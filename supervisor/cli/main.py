"""The command line: one click group. Heavy modules are imported only by the commands that need them.

Exit codes: 0 done, 1 failed (one line on stderr says what and what to do), 2 wrong usage.
"""

import os
import sys

import click

from forwarder._core import LAYOUT
from forwarder.errors import BulkheadError, UsageError
from forwarder.names import PROTOCOL_VERSION
from forwarder.version import VERSION


class Misused(click.ClickException):
    """Wrong usage whose one line says everything; the help page is not shown."""

    exit_code = 2


class Group(click.Group):
    """A group whose commands fail with one line."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; turn our own errors into one line."""
        try:
            return super().invoke(ctx)
        except BulkheadError as error:
            raise (Misused if isinstance(error, UsageError) else click.ClickException)(str(error)) from None
        except BrokenPipeError:
            # The reader of our output has closed it, so no more can be written.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(
    VERSION,
    prog_name="bulkhead",
    message=f"%(prog)s %(version)s (protocol {PROTOCOL_VERSION}, layout {LAYOUT})",
)
def main() -> None:
    """Bulkhead: an Ethernet switch for virtual machines in which one stuck VM cannot slow another."""


def _add_commands() -> None:
    from supervisor.cli.capture import capture  # noqa: PLC0415 - they need `main` to be there
    from supervisor.cli.events import events  # noqa: PLC0415
    from supervisor.cli.explain import explain  # noqa: PLC0415
    from supervisor.cli.forward import forward  # noqa: PLC0415
    from supervisor.cli.list import list_  # noqa: PLC0415
    from supervisor.cli.operate import COMMANDS  # noqa: PLC0415
    from supervisor.cli.run import run  # noqa: PLC0415
    from supervisor.cli.web import web  # noqa: PLC0415
    from supervisor.cli.words import help_  # noqa: PLC0415

    for command in (run, *COMMANDS, explain, events, forward, capture, web, list_, help_):
        main.add_command(command)


_add_commands()
