"""Pinned addresses in the worker's MAC table: no VM may use one but that of the port that it is pinned to."""

from collections.abc import Callable
from contextlib import suppress

from forwarder._core import Engine
from forwarder.names import PortRecord, format_mac


class Pins:
    """The pins of all ports."""

    def __init__(
        self, engine: Engine, ports: Callable[[], list[PortRecord]], say: Callable[[str], None]
    ) -> None:
        """Take what tells all ports that are known, our own among them, and what logs a line."""
        self._engine = engine
        self._ports = ports
        self._say = say

    def set(self, record: PortRecord) -> None:
        """Pin exactly these addresses to the port, whoever was thought to have them: the last word counts.

        One view of the table can show an address at its new port before it shows that the old one lost it.
        """
        pinned = set(record.policy.pinned)
        for other in self._ports() if pinned else ():
            if other.port != record.port and not pinned.isdisjoint(other.policy.pinned):
                left = [mac for mac in other.policy.pinned if mac not in pinned]
                self._pin_what_fits(other.port, left)
        self._pin_what_fits(record.port, list(record.policy.pinned))

    def _pin_what_fits(self, port: int, macs: list[bytes]) -> None:
        """Pin addresses, leaving out what the MAC table has no room for, and say so.

        A bucket has five entries, so among thousands of pinned addresses a sixth one may have to stay out. If
        it is another port's, that port's worker enforces it all the same; here it is like any unpinned one.
        """
        try:
            self._engine.pin(port, macs)
            return
        except ValueError:
            kept: list[bytes] = []
        for mac in macs:
            with suppress(ValueError):
                self._engine.pin(port, [*kept, mac])
                kept.append(mac)
        self._engine.pin(port, kept)
        left_out = ", ".join(format_mac(mac) for mac in macs if mac not in kept)
        self._say(f"no room to pin {left_out} to port {port}; pin fewer")
