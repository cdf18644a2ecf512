"""Reassemble fragmented datagrams of guests (RFC 791 3.2, RFC 8200 4.5): a pure table.

Fragments come in any order, more than once, or never. A fragment that overlaps another one, or lies behind
the datagram's end, ends the whole datagram (RFC 5722). An incomplete datagram is given up after ``WAIT_S``.

Bounds: ``MOST_BYTES`` in all; each owner (a port) has its share. An owner beyond its share loses its oldest
datagram. So a guest that sends only first fragments fills only its own share.

``now`` is monotonic time in seconds, and never goes back.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from gateway.fair_share import Shares
from gateway.ip.packets import IP4, Fragment, Packet

WAIT_S = 15.0
"""Half of Linux's time: on one LAN fragments follow each other within a millisecond."""

MOST_BYTES = 8 << 20
LONGEST = {4: 65535 - IP4.size, 6: 65535}
"""Bytes of a whole packet behind its header, by IP version: IPv4 counts the header, too (RFC 791 3.1)."""

MOST_PIECES = 256
"""Fragments of one datagram, at most: each is compared with all others. The longest datagram still fits, in
IPv4 fragments of 256 bytes."""

_OF_A_PIECE = 256
"""Bytes that a fragment counts besides its payload: thousands of small ones use memory, too."""


class _Key(NamedTuple):
    sender: Hashable
    source: bytes
    destination: bytes
    number: int
    ident: int


class _Partial:
    """An incomplete datagram."""

    __slots__ = ("began", "cost", "end", "owner", "pieces")

    def __init__(self, owner: Hashable, now: float) -> None:
        self.owner = owner
        self.began = now
        self.cost = 0
        self.end: int | None = None
        self.pieces: dict[int, bytes] = {}

    def fits(self, fragment: Fragment, size: int, longest: int) -> bool:
        """Whether a fragment contradicts none of the others, nor lies behind the ``longest`` packet's end."""
        begin, end = fragment.offset, fragment.offset + size
        if end > longest or not size or (fragment.more and size % 8) or len(self.pieces) >= MOST_PIECES:
            return False
        if self.end is not None and (end > self.end or (not fragment.more and end != self.end)):
            return False
        if not fragment.more and any(at + len(data) > end for at, data in self.pieces.items()):
            return False
        return all(end <= at or begin >= at + len(data) for at, data in self.pieces.items())

    def whole(self) -> bytes | None:
        """Return the whole packet, if it is complete."""
        if self.end is None or sum(map(len, self.pieces.values())) < self.end:
            return None
        return b"".join(self.pieces[at] for at in sorted(self.pieces))


class Reassembly:
    """The table."""

    def __init__(self) -> None:
        self._shares = Shares(MOST_BYTES)
        self._partials: OrderedDict[_Key, _Partial] = OrderedDict()
        self._owners: dict[Hashable, OrderedDict[_Key, None]] = {}
        self.dropped = 0
        """Fragments given up since this was last set to 0."""

    def __len__(self) -> int:
        return len(self._partials)

    def add(self, packet: Packet, sender: Hashable, owner: Hashable, now: float) -> Packet | None:
        """Take a fragment, and return the packet that it completes, or None.

        ``sender`` distinguishes guests with the same address.
        """
        fragment = packet.fragment
        assert fragment is not None
        key = _Key(sender, packet.source, packet.destination, packet.number, fragment.ident)
        partial = self._partials.get(key)
        if partial is None:
            partial = self._partials[key] = _Partial(owner, now)
            self._owners.setdefault(owner, OrderedDict())[key] = None
        data = bytes(packet.body)
        if partial.pieces.get(fragment.offset) == data:
            return None  # the same fragment again
        if not partial.fits(fragment, len(data), LONGEST[packet.version]):
            self._give_up(key, and_this=True)
            return None
        cost = len(data) + _OF_A_PIECE
        if not self._take(partial.owner, key, cost):
            self._give_up(key, and_this=True)
            return None
        partial.cost += cost
        partial.pieces[fragment.offset] = data
        if not fragment.more:
            partial.end = fragment.offset + len(data)
        whole = partial.whole()
        if whole is None:
            return None
        self._remove(key)
        return packet._replace(body=whole, fragment=None)

    def expire(self, now: float) -> None:
        """Give up datagrams that have waited too long."""
        while (end := self.deadline()) is not None and end <= now:
            self._give_up(next(iter(self._partials)))

    def deadline(self) -> float | None:
        """Return when to call ``expire``."""
        first = next(iter(self._partials.values()), None)
        return None if first is None else first.began + WAIT_S

    def _take(self, owner: Hashable, key: _Key, cost: int) -> bool:
        """Make room for ``cost`` bytes by giving up the owner's oldest datagrams."""
        while not self._shares.take(owner, cost):
            oldest = next(iter(self._owners[owner]))
            if oldest == key:
                return False
            self._give_up(oldest)
        return True

    def _give_up(self, key: _Key, *, and_this: bool = False) -> None:
        self.dropped += len(self._partials[key].pieces) + and_this
        self._remove(key)

    def _remove(self, key: _Key) -> None:
        partial = self._partials.pop(key)
        if partial.cost:
            self._shares.give_back(partial.owner, partial.cost)
        mine = self._owners[partial.owner]
        del mine[key]
        if not mine:
            del self._owners[partial.owner]
