"""The options of ``supervisor run`` after checking, from flags or file."""

from collections.abc import Mapping
from typing import NamedTuple

from forwarder.errors import LocalError
from supervisor.attach.addresses import Attachment

CELLS = ("auto", "required")
"""Values of ``--cell``."""
MOST_NAME = 63
"""Characters of a switch's name, as of a label of a host's name."""


class RunOptions(NamedTuple):
    """How one switch is to run."""

    runtime_dir: str
    name: str = "bulkhead"
    """The operator's name of this switch; only shown."""
    attachments: tuple[Attachment, ...] = ()
    pid_file: str | None = None
    pcap: str | None = None
    """Where to write what passes the gateway."""
    notification: str | None = None
    """URL of the socket of a program that wants gvproxy's notifications."""
    log_level: str = "info"
    log_format: str = "text"
    cell: str = "auto"
    """``auto``: workers use the parts of their cell that the kernel allows; ``required``: no worker serves
    without all of them."""
    gateway: Mapping[str, object] | None = None
    """Options of the gateway, by the keys of ``gateway.options``; None if the switch has no gateway."""

    def checked(self) -> "RunOptions":
        """Return these options. Raises LocalError if the switch cannot have that name."""
        if not 0 < len(self.name) <= MOST_NAME or not self.name.isprintable():
            raise LocalError(
                f"{self.name!r} cannot name a switch; use 1 to {MOST_NAME} letters, digits and signs"
            )
        return self
