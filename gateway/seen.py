"""The addresses that VMs use, leased or not: a pure table.

A VM that was given its address by hand asks for no lease, so the table of leases does not know it. But it
asks for its neighbours (ARP), and each worker notes the last sixteen questions of its own VM. The supervisor
reads them, and tells the gateway once a second what is new. ``Leases`` offers an address that one VM uses to
no other one (RFC 2131 2.2 wants a probe instead, and each guest would wait for it).

An address in here is a claim, as every word of a guest. So it only narrows the choice: if no other
address is left, a claimed one is offered.

    db, port 4, asks as 192.168.127.50    web, port 5, wants a lease of .50: it is offered another one
                                          db itself asks by DHCP: it may have .50
"""

from collections.abc import Hashable, Iterable


class Seen:
    """Which port uses which addresses, as numbers."""

    def __init__(self) -> None:
        self._by_port: dict[Hashable, frozenset[int]] = {}
        self._users: dict[int, set[Hashable]] = {}

    def note(self, port: Hashable, addresses: Iterable[int]) -> None:
        """Note that ``port`` uses these addresses, and no others."""
        self.forget(port)
        self._by_port[port] = frozenset(addresses)
        for address in self._by_port[port]:
            self._users.setdefault(address, set()).add(port)

    def is_used(self, address: int, asker: Hashable) -> bool:
        """Whether another port than ``asker`` uses an address."""
        return any(port != asker for port in self._users.get(address, ()))

    def forget(self, port: Hashable) -> None:
        """Forget a port that has left."""
        for address in self._by_port.pop(port, ()):
            users = self._users[address]
            users.discard(port)
            if not users:
                del self._users[address]
