"""Pass the owners of addresses from the gateway to the guards of workers, and log the guards' refusals.

Theory of operation. A guard refuses an address that belongs to another port. The gateway reports its own
addresses and the leased ones with their ports. Each worker gets all of them at each change; a new or
returning worker gets them first. So the next message makes up for a lost one, and a worker whose supervisor
has died goes on with its last list. The gateway reports changes once a second at most, so a crowd of new VMs
costs a few messages for each worker.

Workers report the first refusal of each kind. A hostile worker can cause one line a second at most.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from forwarder.messages import MAX_OWNERS, OWNER, Guarded, Owners
from forwarder.names import PortRecord, format_mac
from supervisor.base.logs import Throttle
from supervisor.pool.channels import WorkerChannel, WorkerChannels

MAPPED = bytes(10) + b"\xff\xff"

SOURCES = "sources"
"""At the gateway's port, of frames to it; the others are of frames from a port."""

SAID = {
    "group": "a frame from an address that no station has",
    "pause": "a PAUSE frame",
    "router": "a router advertisement or redirect",
    "server": "a DHCP answer",
    "address": "another port's address",
    "hidden": "a frame whose headers hide its contents",
    SOURCES: "a frame from one more IP address than its sender's port may use",
}
"""Each kind of refusal, for the log line."""


class Guards:
    """The guards of all ports."""

    def __init__(self, channels: WorkerChannels) -> None:
        self._channels = channels
        self._owners = Owners(b"")
        self._throttle = Throttle()

    def own(self, owners: Mapping[str, int]) -> None:
        """Set the owners: these addresses, and no others, belong to these ports."""
        rows = sorted(OWNER.pack(_packed(address), port) for address, port in owners.items())
        if len(rows) > MAX_OWNERS:
            self._throttle.warning("many", f"guards know only {MAX_OWNERS} of {len(rows)} addresses")
        packed = b"".join(rows[:MAX_OWNERS])
        if packed != self._owners.owners:
            self._owners = Owners(packed)
            for worker in self._channels.holders():
                self.greet(worker)

    def greet(self, worker: WorkerChannel) -> None:
        """Send the owners to a worker that has just got a port."""
        self._channels.send(worker, self._owners)

    def report(self, port: PortRecord, guarded: Guarded) -> None:
        """Log a guard's refusal."""
        what = SAID.get(guarded.kind, "something")
        claimed = guarded.address[-4:] if guarded.address.startswith(MAPPED) else guarded.address
        if any(claimed):
            what += f", {ip_address(claimed)}"
        does, counter = ("drops", SOURCES) if guarded.kind == SOURCES else ("its guard drops", "guarded")
        self._throttle.warning(
            f"guarded {port.port}",
            f"port {port.port} ({port.name}): {does} {what}, sent from "
            f"{format_mac(guarded.source)}; `supervisor stats` counts further ones as {counter}",
            "guard",
            port=port.port,
            name=port.name,
            mac=format_mac(guarded.source),
            reason=guarded.kind,
        )


def _packed(address: str) -> bytes:
    found: IPv4Address | IPv6Address = ip_address(address)
    return MAPPED + found.packed if found.version == 4 else found.packed
