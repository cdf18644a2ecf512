"""The zones of a running gateway, and how they change: one change at a time, in the order asked for.

A change is made by somebody else (dnsmasq starts again with it) and takes a moment, in which more may be
asked for. They wait, since each begins with the zones that the one before it left; what fails changes
nothing. What bounds those that wait is who may ask: the HTTP server's connections, with one each.
"""

from collections import deque
from collections.abc import Callable
from functools import partial

from forwarder.errors import LocalError
from forwarder.future import Future
from forwarder.wire import Reply
from gateway.api.names import Zone, added

All = tuple[Zone, ...]


class Zones:
    """The table of zones."""

    def __init__(
        self,
        zones: All,
        check: Callable[[All], None],
        apply: Callable[[All], Future[Reply]],
        changed: Callable[[All], None],
    ) -> None:
        """Begin with ``zones``.

        ``check`` raises LocalError if zones cannot be; ``apply`` puts them into force, ``changed``: they are.
        """
        self._zones = zones
        self._check = check
        self._apply = apply
        self._changed = changed
        self._wanted: deque[tuple[Zone, Future[Reply]]] = deque()

    def all(self) -> All:
        """Return the zones in force, in the order in which they are asked."""
        return self._zones

    def add(self, zone: Zone) -> Future[Reply]:
        """Add a zone; the answer comes when it is in force, or not to be."""
        future: Future[Reply] = Future()
        self._wanted.append((zone, future))
        if len(self._wanted) == 1:
            self._next()
        return future

    def _next(self) -> None:
        zone, _ = self._wanted[0]
        try:
            zones = added(self._zones, zone)
            self._check(zones)
        except (ValueError, LocalError) as error:
            self._done(self._zones, Reply(False, str(error)))
        else:
            self._apply(zones).add_done_callback(partial(self._done, zones))

    def _done(self, zones: All, reply: Reply) -> None:
        _, future = self._wanted.popleft()
        if reply.ok:
            self._zones = zones
            self._changed(zones)
        if self._wanted:
            self._next()
        future.set_result(reply)
