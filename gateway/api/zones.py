"""The zones of a running gateway; a change is applied as a whole or not at all."""

from collections.abc import Callable

from forwarder.errors import LocalError
from gateway.api.carry_over import By
from gateway.api.names import Zone, added

All = tuple[Zone, ...]


class Zones:
    """The table of zones."""

    def __init__(self, zones: All, check: Callable[[All], None], changed: Callable[[All, By], None]) -> None:
        """Begin with ``zones``; ``check`` raises LocalError for bad ones, ``changed`` hears of changes."""
        self._zones = zones
        self._check = check
        self._changed = changed

    def all(self) -> All:
        """Return the zones in force, in the order in which they are asked."""
        return self._zones

    def add(self, zone: Zone, by: By) -> None:
        """Put a zone into force. Raises LocalError; nothing has changed then."""
        try:
            zones = added(self._zones, zone)
        except ValueError as error:
            raise LocalError(str(error)) from None
        self._check(zones)
        self._zones = zones
        self._changed(zones, by)
