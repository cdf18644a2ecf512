"""The names of guests: the addresses of a name, and the name of an address.

A guest's name goes with its lease; a fixed lease may name a guest that has not asked for it. Its IPv6 address
is its own choice. A guest that forms it from its MAC address shows that before it uses it, by duplicate
address detection; then its name has this address, too. Only what came through the port of its lease counts:
any guest can write any MAC address.

    a guest 52:54:00:00:00:01 leases .2 as "web", and tries fd…:5054:00ff:fe00:0001
    web is 192.168.127.2 and fd…:5054:00ff:fe00:0001; both have the name web
"""

from collections import OrderedDict
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from gateway.lan.announce import interface_id, mac_of
from gateway.lan.frames import Trial
from gateway.leases.lease import LeaseState
from gateway.leases.table import Leases
from gateway.ports import Port, Ports
from gateway.relay.policy import Address

MOST_SELF_MADE = 64
"""Addresses of one port: as many as it has leases, if all ports have equally many."""


class Guests:
    """The guests of one LAN by name and address."""

    def __init__(self, leases: Leases, fixed: Mapping[str, Address], ports: Ports, prefix: bytes) -> None:
        """Take the table; ``fixed``: addresses of named fixed leases; ``prefix``: 8 bytes of the LAN's."""
        self._leases = leases
        self._fixed = fixed
        self._ports = ports
        self._prefix = prefix
        self._self_made: dict[Port, OrderedDict[bytes, None]] = {}
        """MAC addresses from which the guest of a port forms IPv6 addresses, the oldest first."""
        ports.when_left(self._forget)

    def tried(self, heard: Trial, port: Port, _: float) -> None:
        """Note that a guest forms its IPv6 address from its MAC address, if it does."""
        if heard.address == self._prefix + interface_id(heard.mac):
            mine = self._self_made.setdefault(port, OrderedDict())
            mine[heard.mac] = None
            mine.move_to_end(heard.mac)
            if len(mine) > MOST_SELF_MADE:
                mine.popitem(last=False)

    def addresses(self, name: str) -> tuple[Address, ...]:
        """Return the addresses of the guest with that name."""
        lease = self._leases.named(name)
        if lease is None:
            return (self._fixed[name],) if name in self._fixed else ()
        own = IPv6Address(self._prefix + interface_id(lease.mac))
        return IPv4Address(lease.address), *([own] if self._is_self_made(lease.mac, lease.port) else [])

    def name(self, address: Address) -> str:
        """Return the name of the guest with that address; "" if there is none."""
        if isinstance(address, IPv6Address):
            mac = mac_of(address.packed[8:])
            port = self._ports.of(mac)
            lease = self._leases.of(mac, port) if port is not None and self._is_self_made(mac, port) else None
        else:
            lease = self._leases.at(int(address))
        if lease is not None and lease.state is LeaseState.BOUND:
            return lease.name
        return next((name for name, each in self._fixed.items() if each == address), "")

    def _is_self_made(self, mac: bytes, port: Port) -> bool:
        return mac in self._self_made.get(port, ())

    def _forget(self, port: Port) -> None:
        self._self_made.pop(port, None)
