"""What VMs do that their ports do not let them, and addresses that change ports, as events.

Theory of operation. Workers count what they refuse; nobody is told of a single frame. A worker answers each
beat of the supervisor with a heartbeat, and only then is its page looked at here, so nothing is sampled
besides. A counter that has grown since the last beat begins an *episode*, which is one event; it ends with
another one, with the total, when a counter has not grown for ``QUIET_S``. However many frames a VM sends, it
makes two events.

    beat 1: spoofed 0    beat 2: 310, event ``spoof``    beat 3: 700    10 s of quiet: ``spoof-end``, 700

An address that VMs behind two ports use goes to and fro between them, and takes half of the other's frames.
The tables of ports that had frames since the last beat are read, ``SCANS`` of them in a second. The page of a
port says which addresses its VM has used last, and where each of those that it used before is now. The first
change of an address is ``mac-moved``, a second one within ``QUIET_S`` makes it ``mac-flapping``, and nothing
more is said before that address has been quiet. A VM that has been moved says so once.

Pure: what a page says goes in with ``now`` (monotonic seconds).
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from forwarder.names import PortRecord, format_mac
from supervisor.base.logs import say

QUIET_S = 10.0
SCANS = 32
"""Tables that are read in a second. One takes some 10 us, so that is less than a thousandth of a core."""
FRESH_S = 2
"""How long ago an address may have been used to count as used since the last beat."""
SHARE = 64
"""Addresses that are followed for each port; a VM that makes up more takes no room of the others."""

EPISODES = {
    "spoofed": ("spoof", "sends from addresses that are pinned elsewhere, or not to it"),
    "storm": ("storm", "sends more broadcast, multicast or unknown unicast than its limit"),
    "mac_limit": ("limit", "uses more source addresses than it may have"),
    "isolated": ("isolated", "sends to ports that it may not reach"),
}
"""Counters that are told, each with its event and what the VM does."""

TRAFFIC = ("rx_frames", "tx_frames")
"""Counters that have grown where an address may have been learned."""


class Page(Protocol):
    """What is read of a port's statistics page."""

    def counters(self) -> Mapping[str, int]:
        """All counters by name."""

    def macs(self, port: int) -> Iterable[tuple[bytes, int, bool]]:
        """Addresses behind a port: (address, seconds since seen, pinned)."""

    def port_of(self, mac: bytes) -> int:
        """Return the port from which a frame of ``mac`` came last; 0: not known."""


class _Episode:
    """One counter that grows."""

    def __init__(self, before: int, now: float) -> None:
        self.before = before
        self.began = now
        self.grew_at = now


class _Place:
    """Where an address is, and whether it goes to and fro."""

    __slots__ = ("flapping", "moved_at", "port")

    def __init__(self, port: int) -> None:
        self.port = port
        self.moved_at = float("-inf")
        self.flapping = False


class Misuse:
    """The episodes of all ports, and where addresses are."""

    def __init__(self) -> None:
        self._counted: dict[int, dict[str, int]] = {}
        self._episodes: dict[tuple[int, str], _Episode] = {}
        self._names: dict[int, str] = {}
        self._places: dict[bytes, _Place] = {}
        self._behind: dict[int, set[bytes]] = {}
        """The addresses in ``_places``, by port."""
        self._scans = 0
        self._second = 0.0

    def look(self, port: PortRecord, page: Page, now: float) -> None:
        """Compare what a port's page says with the last time."""
        counters = page.counters()
        counted = {name: counters[name] for name in (*EPISODES, *TRAFFIC)}
        last = self._counted.get(port.port, counted | dict.fromkeys(TRAFFIC, 0))
        self._counted[port.port] = counted
        self._names[port.port] = port.name
        for counter in EPISODES:
            self._follow(port, counter, last[counter], counted[counter], now)
        if any(counted[name] != last[name] for name in TRAFFIC) and self._may_scan(now):
            for mac in tuple(self._behind.get(port.port, ())):
                self._see(page.port_of(mac), mac, now)
            for mac, age, _ in page.macs(port.port):
                if age <= FRESH_S:
                    self._see(port.port, mac, now)

    def forget(self, port: int) -> None:
        """Forget a port that is gone."""
        self._counted.pop(port, None)
        self._names.pop(port, None)
        for counter in EPISODES:
            self._episodes.pop((port, counter), None)
        for mac in self._behind.pop(port, ()):
            del self._places[mac]

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
            text = f"{label}: what is counted as {counter} has ended; {frames:,} frames in {seconds:g} s"
            say(f"{event}-end", text, **who, frames=frames, seconds=seconds)

    def _see(self, port: int, mac: bytes, now: float) -> None:
        """Note behind which port an address was seen last; 0: nobody knows."""
        place = self._places.get(mac)
        if place is None:
            behind = self._behind.setdefault(port, set())
            if len(behind) < SHARE:
                behind.add(mac)
                self._places[mac] = _Place(port)
            return
        quiet = now - place.moved_at >= QUIET_S
        if port in (0, place.port):
            place.flapping = place.flapping and not quiet
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
