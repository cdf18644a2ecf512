"""The table of ports, to look up; only the registry, which is one, changes it.

The other parts of the supervisor keep numbers of ports and ask here for what a port is now.
"""

from collections.abc import Iterator

from forwarder.errors import LocalError
from forwarder.names import Identity, Policy
from supervisor.ports.lifecycle import PortState
from supervisor.ports.port import Port
from supervisor.ports.settings import pin_clash


class PortTable:
    """All ports of one switch."""

    def __init__(self) -> None:
        self._ports: dict[int, Port] = {}

    def __len__(self) -> int:
        return len(self._ports)

    def __iter__(self) -> Iterator[Port]:
        """All ports by number."""
        return iter([self._ports[number] for number in sorted(self._ports)])

    def get(self, number: int) -> Port | None:
        """Return the port with that number, or None."""
        return self._ports.get(number)

    def known(self, number: int) -> Port:
        """Return the port with that number. Raises LocalError if there is none."""
        port = self._ports.get(number)
        if port is None:
            raise LocalError(f"there is no port {number}; `supervisor status` lists the ports")
        return port

    def name_of(self, number: int) -> str:
        """Return the name of the port with that number; "" if there is none."""
        port = self._ports.get(number)
        return "" if port is None else port.record.name

    def names(self) -> set[str]:
        """Return the names of all ports."""
        return {port.record.name for port in self._ports.values()}

    def live(self, number: int, epoch: int) -> bool:
        """Whether this worker of the port forwards: only then does a ring towards it make sense."""
        port = self._ports.get(number)
        return port is not None and port.state is PortState.LIVE and port.record.epoch == epoch

    def pending(self, number: int) -> bool:
        """Whether the port waits for a worker."""
        port = self._ports.get(number)
        return port is not None and port.state is PortState.PENDING

    def forwards(self, number: int) -> bool:
        """Whether the port has a worker that forwards."""
        port = self._ports.get(number)
        return port is not None and port.state is PortState.LIVE

    def older(self, number: int) -> int:
        """Return the last epoch of the ports that were there before a present port."""
        return self._ports[number].older

    def serves(self, number: int, epoch: int, identity: Identity) -> bool:
        """Whether this process is the port's worker, with this epoch."""
        port = self._ports.get(number)
        return port is not None and port.record.epoch == epoch and port.identity == identity

    def pin_taken(self, policy: Policy, number: int = 0) -> str:
        """Return which address of ``policy`` a port other than ``number`` has pinned; "" if none has."""
        return pin_clash(policy.pinned, [port.record for port in self if port.record.port != number])
