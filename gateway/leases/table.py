"""The table of leases: which guest has which address and name. It has no clock, sockets or files.

Theory of operation
-------------------
A lease belongs to a MAC address *and* a port. The port is certain; the MAC address is a claim. So a guest
cannot renew, release or decline the lease of another port. A second port that claims a MAC address in use
gets another address.

``lease`` has the states. The same MAC address gets a *kept* address again, through any port. New guests get
addresses without a lease first; if there is none, a kept one: of the port that has most of them, the one that
was kept for longest. So a guest that asks with ever new MAC addresses, and lets go, takes only its own. An
address that a VM uses without a lease (``gateway.seen``) is offered to another one only if no other is left.

The address of a new guest is computed from its MAC address, so it is the same after a restart that has lost
the table.

**A share for each port.** A port always gets a first address while there is one. It may get another one while
it has no more than a fourth of the free ones (dynamic thresholds of Choudhury and Hahne). Declined addresses
count as their port's.

    /24: .3 to .253 can be leased. One guest asks with a thousand MAC addresses: it gets 51 of the 251, the
    next such guest 41. 251 guests with a port each come and go: 251 leases are kept, and the next guest gets
    the address of the first.

**Names.** A lease may have a name. No two leases in use have the same name. A name goes with its lease.

Bound: ``MOST_LEASES``; beyond it the lease that was kept for longest is forgotten, even if addresses are
free.

``now`` is monotonic time in seconds. Addresses are numbers, MAC addresses 6 bytes.
"""

import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from gateway.leases.lease import LASTS, LEASE_S, NEXT, Lease, LeaseState
from gateway.ports import Port

GREED = 0.25
MOST_LEASES = 65_536
"""64 for each possible port; some 30 MB when the table is full."""


class Leases:
    """The table."""

    def __init__(self, first: int, last: int, fixed: Mapping[bytes, int]) -> None:
        """Lease ``first`` to ``last``.

        MAC addresses in ``fixed`` get their own address, in the pool or not.
        """
        self.changed: Callable[[Lease], object] = lambda _: None
        """Called with each lease that has become bound or kept, or has a new name."""
        self.ended: Callable[[Lease, str], object] = lambda _, __: None
        """Called with each bound lease that ends, and why: one of ``news.ENDS``."""
        self.is_used: Callable[[int, Port], bool] = lambda _, __: False
        """Whether another port than this one uses an address, with or without a lease."""
        self._first, self._last = first, last
        self._fixed = dict(fixed)
        self._taken = frozenset(fixed.values())
        self._size = last - first + 1 - sum(first <= each <= last for each in self._taken)
        self._by_address: dict[int, Lease] = {}
        self._by_mac: dict[bytes, list[Lease]] = {}
        self._queues: dict[LeaseState, OrderedDict[Lease, None]] = {
            state: OrderedDict() for state in LeaseState
        }
        """Leases by state, the first to end first: all leases of a state last equally long."""
        self._by_name: dict[str, Lease] = {}
        self._used: dict[Port, OrderedDict[Lease, None]] = {}
        """The offered, bound and declined leases of each port."""
        self._in_use = 0
        self._kept: dict[Port, OrderedDict[Lease, None]] = {}
        """The kept leases of each port, the one that was kept for longest first."""

    def __len__(self) -> int:
        return len(self._by_address)

    def __iter__(self) -> Iterator[Lease]:
        """Yield all leases: kept ones first, the oldest in front; then the others by their end."""
        for state in (LeaseState.KEPT, LeaseState.OFFERED, LeaseState.BOUND):
            yield from list(self._queues[state])

    def at(self, address: int) -> Lease | None:
        """Return the lease of an address, if there is one."""
        lease = self._by_address.get(address)
        return None if lease is None or lease.state is LeaseState.DECLINED else lease

    def of(self, mac: bytes, port: Port) -> Lease | None:
        """Return the lease that a guest has, or would get again."""
        mine = self._by_mac.get(mac, ())
        same = [lease for lease in mine if lease.port == port]
        return next(iter(same or [lease for lease in mine if lease.state is LeaseState.KEPT]), None)

    def port_before(self, mac: bytes, port: Port) -> Port | None:
        """Return another port that uses a lease of this MAC address, if this port uses none."""
        ports = [lease.port for lease in self._by_mac.get(mac, ()) if lease.state in LASTS]
        return None if port in ports else next(iter(ports), None)

    def offer(self, mac: bytes, port: Port, asked: int, now: float) -> Lease | None:
        """Return a lease for a guest that asks for ``asked`` (0: any address); None if it gets no address."""
        self.expire(now)
        lease = self.of(mac, port)
        if lease is not None and self._is_lost(lease, port):
            self._forget(lease)
            lease = None
        lease = lease or self._new(mac, port, asked)
        if lease is None or not self._may_have(lease, port):
            return None
        self._to(lease, "offer", now, port)
        return lease

    def bind(self, mac: bytes, port: Port, address: int, now: float) -> Lease | None:
        """Return the lease of ``address`` for a guest that claims it; None if it is not the guest's."""
        self.expire(now)
        lease = self.of(mac, port)
        if lease is None and self._may_enter(mac, port, address):
            lease = self._enter(mac, port, address)  # from a table that was lost, and the address is free
        if lease is None or lease.address != address or not self._may_have(lease, port):
            return None
        if self._is_lost(lease, port):
            return None
        self._to(lease, "bind", now, port)
        return lease

    def release(self, mac: bytes, port: Port, address: int, now: float, why: str = "released") -> None:
        """Take an address back that its guest releases. An address of another guest is ignored."""
        lease = self._mine(mac, port, address)
        if lease is not None:
            self._let_go(lease, now, why)

    def decline(self, mac: bytes, port: Port, address: int, now: float) -> bool:
        """Do not give out an address for a while: its guest has found another station with it."""
        lease = self._mine(mac, port, address)
        if lease is None or lease.mac in self._fixed:
            return False
        self._to(lease, "decline", now)
        self._by_mac[mac].remove(lease)
        self._unname(lease)  # the guest takes its name to its next address
        return True

    def left(self, port: Port, now: float) -> None:
        """Keep the leases of a port that has gone."""
        for lease in list(self._used.get(port, ())):
            if lease.state is LeaseState.DECLINED:
                self._forget(lease)
            else:
                self._let_go(lease, now, "left")

    def call(self, lease: Lease, name: str) -> bool:
        """Give a lease a name; return False if another lease in use has it."""
        if lease.name == name:
            return True
        holder = self._by_name.get(name)
        if holder is not None and holder is not lease:
            if holder.state in LASTS:
                return False
            holder.name = ""
        self._by_name.pop(lease.name, None)
        lease.name = name
        self._by_name[name] = lease
        if lease.state is LeaseState.BOUND:
            self.changed(lease)
        return True

    def named(self, name: str) -> Lease | None:
        """Return the lease in use that has a name."""
        lease = self._by_name.get(name)
        return lease if lease is not None and lease.state is LeaseState.BOUND else None

    def restore(self, lease: Lease, state: LeaseState, ends: float) -> None:
        """Put in a lease of an earlier table, unless its address is not free."""
        fixed = self._fixed.get(lease.mac)
        fits = self._is_free(lease.address) if fixed is None else lease.address == fixed
        if not fits or lease.address in self._by_address or state not in (LeaseState.BOUND, LeaseState.KEPT):
            return
        name, lease.name = lease.name, ""
        self._insert(lease)
        if name:
            self.call(lease, name)
        if state is LeaseState.BOUND:
            self._to(lease, "bind", ends - LEASE_S)

    def expire(self, now: float) -> None:
        """Keep leases whose time is over, and forget old declined ones."""
        for state in LASTS:
            queue = self._queues[state]
            while queue and (lease := next(iter(queue))).ends <= now:
                if state is LeaseState.DECLINED:
                    self._forget(lease)
                else:
                    self._let_go(lease, now, "expired")

    def _new(self, mac: bytes, port: Port, asked: int) -> Lease | None:
        """Return a lease for a new guest; None if there is no address for it."""
        fixed = self._fixed.get(mac)
        if fixed is not None and fixed not in self._by_address:
            return self._enter(mac, port, fixed)
        if not self._is_fair(port):
            return None
        if self._is_free(asked) and not self.is_used(asked, port):
            return self._enter(mac, port, asked)
        address = self._choose(mac, lambda each: not self.is_used(each, port)) or self._choose(mac, _any)
        if address in self._by_address:
            self._forget(self._by_address[address])
        return self._enter(mac, port, address) if address else None

    def _choose(self, mac: bytes, fits: Callable[[int], bool]) -> int:
        """Return an address that ``fits``: without a lease, or else of a kept one; 0: there is none."""
        return self._unused(mac, fits) or self._kept_longest(fits)

    def _kept_longest(self, fits: Callable[[int], bool]) -> int:
        """Return the address kept for longest, of a port that keeps most; 0: there is none that ``fits``."""
        most = max(self._kept.values(), key=len, default=OrderedDict[Lease, None]())
        kept = chain(most if len(most) > 1 else (), self._queues[LeaseState.KEPT])
        return next((each.address for each in kept if each.mac not in self._fixed and fits(each.address)), 0)

    def _unused(self, mac: bytes, fits: Callable[[int], bool]) -> int:
        """Return an address that no lease has, and that ``fits``; 0: there is none."""
        size = self._last - self._first + 1
        if len(self._by_address) >= min(size + len(self._taken), MOST_LEASES):
            return 0
        start = zlib.crc32(mac) % size
        for step in range(size):
            address = self._first + (start + step) % size
            if self._is_free(address) and fits(address):
                return address
        return 0

    def _is_free(self, address: int) -> bool:
        in_pool = self._first <= address <= self._last
        return in_pool and address not in self._by_address and address not in self._taken

    def _may_enter(self, mac: bytes, port: Port, address: int) -> bool:
        """Whether a guest without a lease may have this address."""
        is_there = self._is_free(address) and not self.is_used(address, port)
        has_room = len(self._by_address) < MOST_LEASES and self._is_fair(port)
        return is_there and has_room and mac not in self._fixed

    def _is_lost(self, lease: Lease, port: Port) -> bool:
        """Whether another VM has begun to use the address of a kept lease."""
        is_kept = lease.state is LeaseState.KEPT and lease.mac not in self._fixed
        return is_kept and self.is_used(lease.address, port)

    def _may_have(self, lease: Lease, port: Port) -> bool:
        """Whether a port may have one more lease, if this lease is not its own already."""
        has_it = lease.port == port and lease.state in LASTS
        return has_it or lease.mac in self._fixed or self._is_fair(port)

    def _is_fair(self, port: Port) -> bool:
        return len(self._used.get(port, ())) <= GREED * max(0, self._size - self._in_use)

    def _mine(self, mac: bytes, port: Port, address: int) -> Lease | None:
        lease = self.at(address)
        is_mine = lease is not None and (lease.mac, lease.port) == (mac, port) and lease.state in LASTS
        return lease if is_mine else None

    def _enter(self, mac: bytes, port: Port, address: int) -> Lease:
        lease = Lease(mac, port, address)
        self._insert(lease)
        return lease

    def _insert(self, lease: Lease) -> None:
        self._by_address[lease.address] = lease
        self._by_mac.setdefault(lease.mac, []).append(lease)
        self._queues[lease.state][lease] = None
        self._kept.setdefault(lease.port, OrderedDict())[lease] = None

    def _let_go(self, lease: Lease, now: float, why: str) -> None:
        was_bound = lease.state is LeaseState.BOUND
        self._to(lease, "let go", now)
        if was_bound:
            self.ended(lease, why)

    def _to(self, lease: Lease, event: str, now: float, port: Port | None = None) -> None:
        """Let an event happen to a lease; ``port`` has it from then on, if one is given."""
        state = NEXT[lease.state, event]
        if state is LeaseState.BOUND and event == "offer":
            return  # an offer renews nothing
        self._leave_state(lease)
        lease.port = port or lease.port
        lease.state = state
        lease.ends = now + LASTS.get(state, 0.0)
        self._queues[state][lease] = None
        if state in LASTS:
            self._used.setdefault(lease.port, OrderedDict())[lease] = None
            self._in_use += 1
        elif state is LeaseState.KEPT:
            self._kept.setdefault(lease.port, OrderedDict())[lease] = None
        if state in (LeaseState.BOUND, LeaseState.KEPT):
            self.changed(lease)

    def _leave_state(self, lease: Lease) -> None:
        del self._queues[lease.state][lease]
        if lease.state is LeaseState.KEPT:
            _remove(self._kept, lease)
        else:
            _remove(self._used, lease)
            self._in_use -= 1

    def _forget(self, lease: Lease) -> None:
        self._leave_state(lease)
        self._unname(lease)
        del self._by_address[lease.address]
        mine = self._by_mac.get(lease.mac, [])
        if lease in mine:
            mine.remove(lease)
        if not mine:
            self._by_mac.pop(lease.mac, None)

    def _unname(self, lease: Lease) -> None:
        if self._by_name.get(lease.name) is lease:
            del self._by_name[lease.name]
        lease.name = ""


def _remove(leases: dict[Port, OrderedDict[Lease, None]], lease: Lease) -> None:
    """Take a lease out of those of its port."""
    mine = leases[lease.port]
    del mine[lease]
    if not mine:
        del leases[lease.port]


def _any(_: int) -> bool:
    return True
