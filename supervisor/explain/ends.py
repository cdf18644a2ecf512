"""The facts that ``explain`` uses, the two ends, and the result of a check."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

Json = dict[str, Any]

RECENT_S = 60.0
"""Older facts do not explain a fault of now."""
LATELY_S = 5.0
"""For what happens now: a rate, or that a VM does nothing."""


class Facts(NamedTuple):
    """The answers of the console."""

    status: Json
    stats: Json
    macs: list[Json]
    leases: list[Json]
    sent: list[Json]
    """``source``, ``target``, ``frames``, ``age_s``, ``longest``: what ports sent to each other."""
    questions: list[Json]
    """``port``, ``sender``, ``target``, ``times``, ``age_s``, ``vlan``: neighbours that each VM asked for."""
    recent: Json
    """``stats`` of the last ``RECENT_S``."""
    lately: Json
    """``stats`` of the last ``LATELY_S``."""
    unread: dict[int, int]
    """By port: bytes of the kernel's for its VM that the VM did not read during all questions."""
    events: list[Json]
    gateway: Json | None
    """``policy`` of the gateway; None if there is none, or it does not answer."""
    forwards: list[str]
    """All forwards of the gateway, as ``forward list`` shows them."""
    reached: Json
    """The result of a connection from this host to the far end: ``way`` and ``why``; {} if none was tried."""
    names: Mapping[str, Json]
    """For each name that was looked up at this host: ``address``, or ``why`` it is not known."""
    now: float
    """Seconds since 1970, as events have them."""


class End(NamedTuple):
    """One end: the operator's A or B."""

    said: str
    row: Json | None
    """The port's row in ``status``; None if it is not a port."""
    address: str | None = None
    """The IP address, if the operator gave one."""
    outside: bool = False
    """Whether it is the host, or an address that only the gateway reaches."""
    missing: str = ""
    """Why there is no such end; "" if there is."""

    @property
    def name(self) -> str:
        """Its name in a sentence."""
        return self.said if self.row is None else str(self.row["name"])


class Finding(NamedTuple):
    """The result of a check."""

    check: str
    stops: bool
    text: str


Check = Callable[[End, End, Facts], Iterable[tuple[bool, str]]]
"""From the two ends and the facts to the findings: whether each stops them, and its sentence."""


def rows_of(a: End, b: End) -> list[Json]:
    """Return the ports of both ends, as ``status`` has them."""
    return [end.row for end in (a, b) if end.row is not None]


def port_of(end: End, facts: Facts) -> Json | None:
    """Return the port that frames for an end go to: the gateway's port for the host and the outside."""
    if end.outside:
        return next(filter(is_gateway, facts.status["ports"]), None)
    return end.row


def is_gateway(row: Json) -> bool:
    """Whether a row of ``status`` is the gateway's port, whatever its name is."""
    return bool(row["transport"] == "gateway")
