"""The interfaces of commands: the supervisor and its parts."""

from collections.abc import Iterable
from typing import Protocol

from forwarder.future import Future
from forwarder.messages import Reply
from forwarder.names import Policy
from supervisor.attach.kept import KeptAttachments
from supervisor.attach.listeners import Listeners
from supervisor.base.events import EventLog
from supervisor.console.arguments import Arguments
from supervisor.console.readings import Switch
from supervisor.console.sampler import Sampler
from supervisor.ports.in_force import Missing
from supervisor.ports.registry import Registry
from supervisor.ports.view import PortView


class Owner(Protocol):
    """The supervisor, as far as commands need it."""

    @property
    def name(self) -> str:
        """The operator's name of this switch."""

    @property
    def events(self) -> EventLog:
        """What has happened."""

    def summary(self) -> Switch:
        """Return the fields that begin every answer."""

    def stop(self) -> None:
        """Begin to end."""


class Owners(Protocol):
    """The owners of the addresses of the LAN."""

    def by_port(self) -> dict[int, list[str]]:
        """Return the addresses of each port."""


class Inquiries(Protocol):
    """What is known of a gateway, as far as commands need it."""

    def figures(self) -> Future[Arguments | None]:
        """Return a future of its state and counters; None if there is no gateway."""

    def summary(self) -> Arguments | None:
        """Return its state; None if there is no gateway."""


class Gateway(Protocol):
    """The gateway, as far as commands need it; there may be none."""

    def ask(self, name: str, arguments: Arguments) -> Future[Reply]:
        """Pass a command on. Raises LocalError if no gateway can answer."""

    @property
    def inquiries(self) -> Inquiries:
        """Its state and figures."""

    @property
    def owners(self) -> Owners:
        """The owners of the addresses of the LAN."""


class Ports(Protocol):
    """The ports and what belongs to them, as far as commands need it."""

    @property
    def registry(self) -> Registry:
        """The records."""

    @property
    def listeners(self) -> Listeners:
        """The listeners and TAP devices."""

    @property
    def kept(self) -> KeptAttachments:
        """The attachments made at run time."""

    @property
    def sampler(self) -> Sampler:
        """What was counted."""

    @property
    def gateway(self) -> Gateway:
        """The gateway; it may be off."""

    def views(self) -> Iterable[PortView]:
        """Return a view of every port."""

    def unread(self) -> list[tuple[int, int]]:
        """Return (port, bytes) of the sockets that their VMs have not read empty."""

    def detach(self, number: int) -> None:
        """Disconnect a VM. Raises LocalError."""

    def set_policy(self, number: int, policy: Policy) -> Future[Missing]:
        """Change settings of a port; return a future that says whether they are in force.

        Raises LocalError; nothing has changed then.
        """
