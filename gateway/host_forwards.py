"""Forwards as operators know them: added with a listener that the supervisor makes, removed, remembered.

A forward is begun (its place in the table is kept), its listener is asked for, and then it is carried by the
relay, or given up with a line that says why. Each change is remembered for the next gateway before it is
answered.

The host may have changed since a forward was added: its address is gone for now (a VPN), another program has
its port, or the directory of its socket was deleted. A gateway that follows another one serves all the same.
Such a forward is *awaited*: it is tried again every ``RETRY_S``, and remembered as the others are.
"""

import time
from collections.abc import Callable
from contextlib import suppress

from forwarder.errors import LocalError
from forwarder.future import Future, known
from gateway.api.carry_over import OF_THE_START, By, CarryOver
from gateway.listeners import Listener, Listeners, Outcome
from gateway.relay.forwards import Forward, canonical
from gateway.relay.relay import Relay

RETRY_S = 5.0
"""Time between two tries: up to a thousand forwards, of some 20 microseconds each."""

Added = Forward | LocalError
"""A forward with its real port, or why it cannot be had."""


class HostForwards:
    """The forwards of one gateway."""

    def __init__(
        self,
        relay: Relay,
        listeners: Listeners,
        carried: CarryOver,
        log: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._relay = relay
        self._listeners = listeners
        self._carried = carried
        self._log = log
        self._clock = clock
        self._awaited: dict[str, Forward] = {}
        """Those that the host cannot give now, by where it is to listen."""
        self._try_at: float | None = None

    def all(self) -> list[Forward]:
        """Return all forwards in force, in the order in which they were added."""
        return self._relay.forwards()

    def wanted(self) -> list[Forward]:
        """Return all forwards, then those that are awaited."""
        return [*self.all(), *self._awaited.values()]

    def texts(self) -> list[str]:
        """Return them as they are written."""
        return [str(forward) for forward in self.all()]

    def begin(self, forward: Forward) -> Future[Added]:
        """Begin to forward, without remembering it."""
        try:
            self._relay.begin(forward)
        except LocalError as error:
            return known(error)
        return self._listeners.at(forward).map(lambda listener: self._carry(forward, listener))

    def begin_again(self, text: str) -> Future[Added]:
        """Forward again what an earlier gateway forwarded; what cannot be had is said, and awaited."""
        try:
            forward = Forward.parse(text)
        except LocalError as error:
            self._log("warning", f"what was added at run time is not forwarded again: {error}")
            return known(error)
        return self.begin(forward).map(lambda added: self._await(forward, added))

    def add(self, forward: Forward, by: By) -> Future[Added]:
        """Begin to forward, for good. Raises LocalError, like a result that is one: nothing has changed."""
        self._carried.check("forward", [*self.wanted(), forward._replace(port=65535)])
        return self.begin(forward).map(lambda added: self._remember(added, by))

    def remove(self, forward: Forward, by: By) -> None:
        """End a forward. Raises LocalError if there is no such forward."""
        if self._awaited.get(forward.near) == forward:
            del self._awaited[forward.near]
        else:
            self._relay.remove(forward)
        self.remember(by)

    def find(self, text: str) -> Forward:
        """Return the forward that ``text`` names, whole or by where the host listens. Raises LocalError."""
        names = {text, canonical(text)}
        with suppress(LocalError):
            names.add(str(Forward.parse(text)))
        for forward in self.wanted():
            if not names.isdisjoint((str(forward), forward.near)):
                return forward
        raise LocalError(f"there is no forward {text}; `supervisor forward list` shows all")

    def remember(self, by: By = OF_THE_START) -> None:
        """Have the next gateway begin with the forwards of now."""
        self._carried.change("forward", self.wanted(), by)

    def deleted(self, listener: int) -> None:
        """Listen anew: the file of that listener was deleted. Its connections go on."""
        forward = self._relay.forward_of(listener)
        if forward is not None:
            self._relay.remove(forward)
            self._awaited[forward.near] = forward
            self._try_at = self._clock()

    def deadline(self) -> float | None:
        """When to call ``tick``, in monotonic seconds; None while nothing is awaited."""
        return self._try_at

    def tick(self, now: float) -> None:
        """Try again what the host could not give."""
        self._try_at = now + RETRY_S if self._awaited else None
        for forward in list(self._awaited.values()):
            self.begin(forward).map(lambda added, forward=forward: self._tried(forward, added))  # type: ignore[misc]

    def _carry(self, forward: Forward, listener: Outcome) -> Added:
        if not isinstance(listener, Listener):
            self._relay.give_up(forward)
            return listener
        try:
            return self._relay.add(forward, listener)
        except LocalError as error:
            return error

    def _remember(self, added: Added, by: By) -> Added:
        if isinstance(added, Forward):
            self._awaited.pop(added.near, None)
            self.remember(by)
        return added

    def _await(self, forward: Forward, added: Added) -> Added:
        if isinstance(added, LocalError):
            self._log("warning", f"{forward} is not forwarded again until that is possible: {added}")
            self._awaited[forward.near] = forward
            self._try_at = self._clock() + RETRY_S
        return added

    def _tried(self, forward: Forward, added: Added) -> None:
        if not isinstance(added, Forward):
            return
        if self._awaited.get(forward.near) != forward:  # removed meanwhile
            self._relay.remove(added)
            return
        del self._awaited[forward.near]
        self._log("info", f"{added} is forwarded again")
