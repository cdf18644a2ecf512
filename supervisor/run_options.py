"""Everything that ``supervisor run`` can be told, checked, from whatever source it came."""

from collections.abc import Mapping
from typing import NamedTuple

from supervisor.attach.addresses import Attachment

CELLS = ("auto", "required")
"""What ``--cell`` can be."""


class RunOptions(NamedTuple):
    """How one switch is to run."""

    runtime_dir: str
    name: str = "bulkhead"
    """What the operator calls this switch; shown, never interpreted."""
    attachments: tuple[Attachment, ...] = ()
    pid_file: str | None = None
    pcap: str | None = None
    """Where to write what passes the gateway."""
    log_level: str = "info"
    log_format: str = "text"
    cell: str = "auto"
    """``auto``: workers have what of their cell the kernel allows; ``required``: none serves without all of
    it."""
    gateway: Mapping[str, object] | None = None
    """What the gateway is told, by the keys of ``gateway_options``; None: there is to be none."""
