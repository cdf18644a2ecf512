"""The command line: one click group. A command's module is imported when the command is used, or helped with.

Exit codes: 0 done, 1 failed (one line on stderr says what and what to do), 2 wrong usage.
"""

import errno
import os
import sys
from importlib import import_module
from typing import cast

import click

from forwarder._core import LAYOUT
from forwarder.errors import BulkheadError, UsageError
from forwarder.names import PROTOCOL_VERSION
from forwarder.version import VERSION


class Misused(click.ClickException):
    """Wrong usage whose one line says everything; the help page is not shown."""

    exit_code = 2


COMMANDS = {
    "attach": "operate:attach",
    "capture": "capture:capture",
    "demo": "operate:demo",
    "detach": "operate:detach",
    "events": "events:events",
    "explain": "explain:explain",
    "forward": "forward:forward",
    "help": "words:help_",
    "leases": "operate:leases",
    "list": "list:list_",
    "macs": "operate:macs",
    "run": "run:run",
    "set": "operate:set_",
    "show": "operate:show",
    "stats": "operate:stats",
    "status": "operate:status",
    "stop": "operate:stop",
    "top": "operate:top",
    "web": "web:web",
}
"""Every command: its module in this folder, and its name in there."""
OUTPUT_FAILS = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""How writing to standard output fails."""


class Group(click.Group):
    """A group whose commands are imported when they are used, and fail with one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        return cast(click.Command, getattr(import_module(f"supervisor.cli.{module}"), name))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse what no message to a switch can hold."""
        for each in args:
            if not each.isprintable() and any("\ud800" <= sign <= "\udfff" for sign in each):
                raise click.UsageError(f"{each!r} is not UTF-8 text")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; turn our own errors into one line."""
        try:
            done = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BulkheadError as error:
            raise (Misused if isinstance(error, UsageError) else click.ClickException)(str(error)) from None
        except OSError as error:
            if error.errno not in OUTPUT_FAILS:
                raise
            # No more can be written, not even what is still buffered.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if error.errno == errno.EPIPE:  # its reader has closed it, and wants to hear no more
                sys.exit(1)
            raise click.ClickException(f"cannot write to standard output: {error.strerror}") from None
        return done


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
