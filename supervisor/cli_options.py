"""Options that more than one command has, and the parameter types that check them while parsing."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from forwarder.errors import LocalError
from supervisor import runtime_dir
from supervisor.addresses import Attachment, parse_listen, parse_tap

F = TypeVar("F", bound=Callable[..., Any])

LISTEN_HELP = {
    "qemu": "Take VMs of QEMU's `-netdev stream` and `-netdev socket`, many.",
    "bess": "Take VMs of User-Mode Linux (`transport=bess`), many.",
    "vfkit": "Take one VM of vfkit, krunkit, libkrun or QEMU's `-netdev dgram`.",
}
METAVARS = {
    "qemu": "unix://PATH|tcp://HOST:PORT",
    "bess": "unixpacket://PATH",
    "vfkit": "unixgram://PATH",
}


class AttachmentType(click.ParamType[Attachment]):
    """A listener's URL, or the name of a TAP device."""

    name = "address"

    def __init__(self, transport: str) -> None:
        self._transport = transport

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Attachment:
        """Parse; what is wrong is wrong usage."""
        try:
            if self._transport == "tap":
                return Attachment(parse_tap(value))
            return Attachment(parse_listen(self._transport, value))
        except LocalError as error:
            self.fail(str(error), param, ctx)


def runtime_dir_option(command: F) -> F:
    """Add ``--runtime-dir``."""
    return click.option(
        "--runtime-dir",
        metavar="DIR",
        help="The switch's directory.  [default: $XDG_RUNTIME_DIR/bulkhead, else /tmp/bulkhead-UID]",
    )(command)


def attachment_options(command: F) -> F:
    """Add ``--listen-…`` and ``--tap``, each as often as wanted."""
    for transport in ("tap", "vfkit", "bess", "qemu"):
        flag = "--tap" if transport == "tap" else f"--listen-{transport}"
        command = click.option(
            flag,
            transport,
            type=AttachmentType(transport),
            multiple=True,
            metavar=METAVARS.get(transport, "NAME[,netns=NAME]"),
            help=LISTEN_HELP.get(transport, "Make a TAP device a port (needs CAP_NET_ADMIN)."),
        )(command)
    return command


def directory(given: str | None) -> str:
    """Return the runtime directory to use."""
    return given or runtime_dir.default()
