"""Pinned addresses in the worker's MAC table: only the VM of the pinned port may use one."""

from collections.abc import Callable
from contextlib import suppress

from forwarder._core import Engine
from forwarder.names import PortRecord, format_mac


class Pins:
    """The pins of all ports."""

    def __init__(
        self, engine: Engine, ports: Callable[[], list[PortRecord]], say: Callable[[str], None]
    ) -> None:
        """``ports`` returns all known ports with our own; ``say`` logs a line."""
        self._engine = engine
        self._ports = ports
        self._say = say

    def set(self, record: PortRecord) -> None:
        """Pin exactly these addresses to the port, also if another port has them: the last change counts.

        Changes come one by one: an address may come to its new port before it leaves its old one.
        """
        pinned = set(record.policy.pinned)
        for other in self._ports() if pinned else ():
            if other.port != record.port and not pinned.isdisjoint(other.policy.pinned):
                left = [mac for mac in other.policy.pinned if mac not in pinned]
                self._pin_what_fits(other.port, left)
        self._pin_what_fits(record.port, list(record.policy.pinned))

    def _pin_what_fits(self, port: int, macs: list[bytes]) -> None:
        """Pin addresses, leaving out what the MAC table has no room for, and say so.

        A bucket has five entries, so among thousands of pinned addresses a sixth one may not fit. If it is
        another port's, that port's worker still enforces it; here it counts as unpinned.
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
