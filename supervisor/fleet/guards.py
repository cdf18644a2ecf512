"""What guards go by, and what they have refused: between the gateway, which knows, and the workers.

Theory of operation. A guard refuses an address that belongs to another port. Which port has which address the
gateway says, its own ones and those that it has leased; each worker is told all of them at each change, and a
worker that is new or back before anything else. So a message that gets lost is made good by the next, and a
worker whose supervisor has died goes on with what it knows. The gateway tells of changes once a second at
most, so a crowd that comes at once is a few messages for each worker.

Workers report what their guard has refused for the first time. A taken-over worker may report what it likes:
one line a second at most.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from forwarder.messages import MAX_OWNERS, Guarded, Owners
from forwarder.names import PortRecord, format_mac
from supervisor.base.logs import Throttle
from supervisor.fleet.channels import WorkerChannel, WorkerChannels

MAPPED = bytes(10) + b"\xff\xff"

SAID = {
    "group": "a frame from a group's address",
    "pause": "a PAUSE frame",
    "router": "a router advertisement or redirect",
    "server": "a DHCP answer",
    "address": "another port's address",
    "hidden": "a frame whose headers hide what it says",
}
"""What each kind of refusal is of, in a sentence."""


class Guards:
    """The guards of all ports."""

    def __init__(self, channels: WorkerChannels) -> None:
        self._channels = channels
        self._owners = Owners(())
        self._throttle = Throttle()

    def own(self, owners: Mapping[str, int]) -> None:
        """Have these addresses belong to these ports, and no others."""
        packed = tuple(sorted((_packed(address), port) for address, port in owners.items()))
        if len(packed) > MAX_OWNERS:
            self._throttle.warning("many", f"of {len(packed)} addresses guards know {MAX_OWNERS}")
        if packed[:MAX_OWNERS] != self._owners.owners:
            self._owners = Owners(packed[:MAX_OWNERS])
            for worker in self._channels.holders():
                self.greet(worker)

    def greet(self, worker: WorkerChannel) -> None:
        """Tell a worker that has a port now."""
        self._channels.send(worker, self._owners)

    def report(self, port: PortRecord, guarded: Guarded) -> None:
        """Say what a guard has refused."""
        what = SAID.get(guarded.kind, "something")
        claimed = guarded.address[-4:] if guarded.address.startswith(MAPPED) else guarded.address
        if any(claimed):
            what += f", {ip_address(claimed)}"
        self._throttle.warning(
            f"guarded {port.port}",
            f"port {port.port} ({port.name}): its guard drops {what}, sent from "
            f"{format_mac(guarded.source)}; `supervisor stats` counts what follows as guarded",
            "guard",
            port=port.port,
            name=port.name,
            mac=format_mac(guarded.source),
            reason=guarded.kind,
        )


def _packed(address: str) -> bytes:
    found: IPv4Address | IPv6Address = ip_address(address)
    return MAPPED + found.packed if found.version == 4 else found.packed
