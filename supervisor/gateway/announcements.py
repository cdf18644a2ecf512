"""What the supervisor tells the gateway without being asked: ports, resolvers, and addresses that VMs use.

A new gateway process is told everything (``begin``), a present one what has changed: ports at once, the rest
once a second (``tell``). The gateway cannot open a file and sees no other VM's worker, so it could not find
out by itself.

**Addresses.** The worker of a port notes the last questions of its VM for neighbours (ARP) in its stats
page. Each has the address with which the VM asks. The VM has it by DHCP or by hand. A message has the
addresses of at most ``PORTS_EACH`` ports.

    port 4 asks as 192.168.127.50 for the first time    a second later: in_use [[4, 11, [3232268082]]]
"""

from collections.abc import Callable, Iterable

from forwarder.messages import Command
from forwarder.names import PortId, PortRecord
from forwarder.socket_address import Servers
from supervisor.gateway.resolvers import Resolvers

PORTS_EACH = 32
"""Each with sixteen addresses at most: some 6 kB."""

InUse = Callable[[], Iterable[tuple[PortId, tuple[int, ...]]]]
"""Returns the IPv4 addresses with which VMs ask, of ports that have asked since the last call."""


class Announcements:
    """What the gateway has been told."""

    def __init__(
        self, say: Callable[[Command], None], in_use: InUse, present: Callable[[], list[list[int]]]
    ) -> None:
        """``present`` returns number and attachment of every port."""
        self._say = say
        self._in_use = in_use
        self._present = present
        self.resolvers = Resolvers()
        self._told_resolvers: Servers | None = None
        self._addresses: dict[PortId, tuple[int, ...]] = {}

    def begin(self) -> None:
        """Tell a new gateway everything."""
        self._say(Command("ports", {"ports": self._present()}))
        self._told_resolvers = None
        self._tell_addresses(self._addresses)
        self.tell()

    def tell(self) -> None:
        """Tell the gateway what has changed."""
        servers = self.resolvers.servers()
        if servers != self._told_resolvers:
            self._told_resolvers = servers
            addresses = [list(each) for each in servers.addresses]
            self._say(Command("resolvers", {"servers": addresses, "by_tcp": servers.by_tcp}))
        news = [(port, found) for port, found in self._in_use() if found != self._addresses.get(port, ())]
        self._addresses |= dict(news)
        self._tell_addresses([port for port, _ in news])

    def joined(self, record: PortRecord) -> None:
        """Tell it that a port has joined."""
        self._say(Command("joined", {"port": record.port, "born": record.born}))

    def left(self, record: PortRecord) -> None:
        """Tell it that a port has left."""
        self._addresses.pop(record.id, None)
        self._say(Command("left", {"port": record.port, "born": record.born}))

    def _tell_addresses(self, ports: Iterable[PortId]) -> None:
        rows = [[port.port, port.born, list(self._addresses[port])] for port in ports]
        for first in range(0, len(rows), PORTS_EACH):
            self._say(Command("in_use", {"ports": rows[first : first + PORTS_EACH]}))
