"""Turn refused traffic of VMs, and MAC addresses that change ports, into a few events.

Theory of operation. Workers count refused frames; they do not report each one. A worker answers each beat of
the supervisor with a heartbeat, and its stats page is read here at that time. A counter that has grown since
the last beat begins an *episode*, which is one event. When the counter has not grown for ``QUIET_S``, a
second event ends it, with the total. However many frames a VM sends, it makes two events.

    beat 1: spoofed 0    beat 2: 310, event ``spoof``    beat 3: 700    10 s of quiet: ``spoof-end``, 700

If VMs behind two ports use the same address, it moves to and fro between them, and each gets a part of the
other's frames. The MAC tables of ports that had frames since the last beat are read, ``SCANS`` of them in a
second. A port's page shows the addresses that its VM used last, and the present port of those that it used
before. An address that no VM used before is ``mac-new``. Its first move is ``mac-moved``. A second one within
``QUIET_S`` makes it ``mac-flapping``; then there is no further event until that address has been quiet, which
is ``mac-flapping-end`` if it stays where it is. The addresses of a port that was taken over are not new
(``inherit``): the supervisor before has named them.

Pure: the contents of a page go in with ``now`` (monotonic seconds).
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from forwarder.names import PortRecord, format_mac
from supervisor.base.logs import say

QUIET_S = 10.0
SCANS = 32
"""Tables read in a second. One takes some 10 us, so all take less than a thousandth of a core."""
FRESH_S = 2
"""An address that was used within this time counts as used since the last beat."""
SHARE = 64
"""Addresses followed for each port; a VM that invents more takes no room of the others."""

EPISODES = {
    "spoofed": ("spoof", "sends from addresses that are pinned elsewhere, or not to it"),
    "storm": ("storm", "sends more broadcast, multicast or unknown unicast than its limit"),
    "over_rate": ("asks", "asks the gateway for more names, leases or connections than its share"),
    "mac_limit": ("limit", "uses more source addresses than it may have"),
    "isolated": ("isolated", "sends to ports that it may not reach"),
}
"""Counters that make events: each with its event and the words for the log."""

TRAFFIC = ("rx_frames", "tx_frames")
"""Counters that grow when an address may have been learned."""


class Page(Protocol):
    """The part of a port's stats page that is read here."""

    def counters(self) -> Mapping[str, int]:
        """All counters by name."""

    def macs(self, port: int) -> Iterable[tuple[bytes, int, bool]]:
        """Addresses behind a port: (address, seconds since seen, pinned)."""

    def port_of(self, mac: bytes) -> tuple[int, int]:
        """Return the port that last sent from ``mac``, 0 if unknown, and its attachment."""


class _Episode:
    """One growing counter."""

    def __init__(self, before: int, now: float) -> None:
        self.before = before
        self.began = now
        self.grew_at = now


class _Place:
    """The port of an address, and whether it flaps."""

    __slots__ = ("flapping", "moved_at", "port")

    def __init__(self, port: int) -> None:
        self.port = port
        self.moved_at = float("-inf")
        self.flapping = False


class Misuse:
    """The episodes of all ports, and the ports of addresses."""

    def __init__(self) -> None:
        self._counted: dict[int, dict[str, int]] = {}
        self._episodes: dict[tuple[int, str], _Episode] = {}
        self._names: dict[int, str] = {}
        self._places: dict[bytes, _Place] = {}
        self._behind: dict[int, set[bytes]] = {}
        """The addresses in ``_places``, by port."""
        self._inherited: set[int] = set()
        """Ports that were taken over and whose addresses have not been read yet."""
        self._scans = 0
        self._second = 0.0

    def inherit(self, port: int) -> None:
        """Note that a port was taken over: its addresses are not new."""
        self._inherited.add(port)

    def look(self, port: PortRecord, page: Page, now: float) -> None:
        """Compare a port's page with its state of last time."""
        counters = page.counters()
        counted = {name: counters[name] for name in (*EPISODES, *TRAFFIC)}
        last = self._counted.get(port.port, counted | dict.fromkeys(TRAFFIC, 0))
        self._names[port.port] = port.name
        for counter in EPISODES:
            self._follow(port, counter, last[counter], counted[counter], now)
        if any(counted[name] != last[name] for name in TRAFFIC):
            if self._may_scan(now):
                self._scan(port.port, page, now)
            else:
                counted |= {name: last[name] for name in TRAFFIC}  # so the next beat tries again
        self._counted[port.port] = counted

    def forget(self, port: int) -> None:
        """Forget a port that is gone."""
        self._counted.pop(port, None)
        self._names.pop(port, None)
        self._inherited.discard(port)
        for counter in EPISODES:
            self._episodes.pop((port, counter), None)
        for mac in self._behind.pop(port, ()):
            del self._places[mac]

    def _scan(self, port: int, page: Page, now: float) -> None:
        for mac in tuple(self._behind.get(port, ())):
            self._see(page.port_of(mac)[0], mac, now)
        for mac, age, _ in page.macs(port):
            if age <= FRESH_S or mac not in self._places:
                self._see(port, mac, now)
        self._inherited.discard(port)

    def _may_scan(self, now: float) -> bool:
        if now - self._second >= 1.0:
            self._second, self._scans = now, 0
        self._scans += 1
        return self._scans <= SCANS

    def _follow(self, port: PortRecord, counter: str, last: int, count: int, now: float) -> None:
        event, does = EPISODES[counter]
        episode = self._episodes.get((port.port, counter))
        who: dict[str, Any] = {"port": port.port, "name": port.name}
        label = f"port {port.port} ({port.name})"
        if count > last and episode is None:
            self._episodes[port.port, counter] = _Episode(last, now)
            text = f"{label}: {does}; {count - last:,} frames were dropped, counted as {counter}"
            say(event, text, "warning", **who, frames=count - last)
        elif count > last and episode is not None:
            episode.grew_at = now
        elif episode is not None and now - episode.grew_at >= QUIET_S:
            del self._episodes[port.port, counter]
            frames, seconds = count - episode.before, round(episode.grew_at - episode.began, 1)
            text = f"{label}: no more frames are counted as {counter}; there were {frames:,} in {seconds:g} s"
            say(f"{event}-end", text, **who, frames=frames, seconds=seconds)

    def _see(self, port: int, mac: bytes, now: float) -> None:
        """Note the port of an address; 0 if unknown."""
        place = self._places.get(mac)
        if place is None:
            behind = self._behind.setdefault(port, set())
            if len(behind) < SHARE:
                behind.add(mac)
                self._places[mac] = _Place(port)
                if port not in self._inherited:
                    self._say_new(port, mac)
            return
        quiet = now - place.moved_at >= QUIET_S
        if port in (0, place.port):
            if place.flapping and quiet:
                place.flapping = False
                self._say_settled(place.port, mac)
            return
        before = place.port
        place.port, place.moved_at = port, now
        self._behind[before].discard(mac)
        self._behind.setdefault(port, set()).add(mac)
        address, name = format_mac(mac), self._names.get(port)
        fields: dict[str, Any] = {"port": port, "name": name, "mac": address, "former_port": before}
        if quiet:
            place.flapping = False
            say("mac-moved", f"{address} is at port {port} now, not at port {before}", **fields)
        elif not place.flapping:
            place.flapping = True
            text = f"{address} goes to and fro between ports {before} and {port}: two VMs use one address"
            say("mac-flapping", text, "warning", **fields)

    def _say_new(self, port: int, mac: bytes) -> None:
        name = self._names.get(port)
        address = format_mac(mac)
        say("mac-new", f"port {port} ({name}): first frame from {address}", port=port, name=name, mac=address)

    def _say_settled(self, port: int, mac: bytes) -> None:
        address, name = format_mac(mac), self._names.get(port)
        text = f"{address} has stayed at port {port} for {QUIET_S:.0f} s: one VM uses it now"
        say("mac-flapping-end", text, port=port, name=name, mac=address)
