"""What commands need of the supervisor and of its parts, as protocols."""

from collections.abc import Iterable
from typing import Protocol

from forwarder.future import Future
from forwarder.messages import Reply
from forwarder.names import Policy
from supervisor.attach.kept import KeptAttachments
from supervisor.attach.listeners import Listeners
from supervisor.base.events import EventLog
from supervisor.console.arguments import Arguments
from supervisor.console.sampler import Sampler
from supervisor.console.stats import Switch
from supervisor.ports.registry import Registry
from supervisor.ports.view import PortView


class Owner(Protocol):
    """The supervisor, as far as commands need it."""

    @property
    def name(self) -> str:
        """What the operator calls this switch."""

    @property
    def events(self) -> EventLog:
        """What has happened."""

    def summary(self) -> Switch:
        """Return the head of every answer."""

    def stop(self) -> None:
        """Begin to end."""


class Owners(Protocol):
    """Whose the addresses of the LAN are."""

    def by_port(self) -> dict[int, list[str]]:
        """Return the addresses of each port."""


class Gateway(Protocol):
    """The gateway, as far as commands need it; there may be none."""

    def ask(self, name: str, arguments: Arguments) -> Future[Reply]:
        """Pass a command on. Raises LocalError if there is no gateway that could answer."""

    def figures(self) -> Future[Arguments | None]:
        """Return its state and what it has counted, soon; None: there is no gateway."""

    def summary(self) -> Arguments | None:
        """Return its state; None: there is no gateway."""

    @property
    def owners(self) -> Owners:
        """Whose the addresses of the LAN are."""


class Ports(Protocol):
    """The ports and what belongs to them, as far as commands need it."""

    @property
    def registry(self) -> Registry:
        """The records."""

    @property
    def listeners(self) -> Listeners:
        """What VMs can attach to."""

    @property
    def kept(self) -> KeptAttachments:
        """What was attached at run time."""

    @property
    def sampler(self) -> Sampler:
        """What was counted."""

    @property
    def gateway(self) -> Gateway:
        """The gateway, or what says that there is none."""

    def views(self) -> Iterable[PortView]:
        """Return every port as it is shown."""

    def detach(self, number: int) -> None:
        """Disconnect a VM. Raises LocalError."""

    def set_policy(self, number: int, policy: Policy) -> Future[bool]:
        """Set what applies to a port from now on; return whether its worker has it in force.

        Raises LocalError, and nothing has changed.
        """
