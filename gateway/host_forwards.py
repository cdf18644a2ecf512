"""Forwards as operators know them: added with a listener that the supervisor makes, removed, remembered.

A forward is begun (its place in the table is kept), its listener is asked for, and then it is carried by the
relay, or given up with a line that says why. Each change is remembered for the next gateway before it is
answered.
"""

from collections.abc import Callable
from contextlib import suppress

from forwarder.errors import LocalError
from forwarder.future import Future
from gateway.api.carry_over import OF_THE_START, By, Memory
from gateway.listeners import Listener, Listeners, Outcome
from gateway.relay.forwards import Forward, canonical
from gateway.relay.relay import Relay

Added = Forward | LocalError
"""A forward with its real port, or why it cannot be had."""


class HostForwards:
    """The forwards of one gateway."""

    def __init__(
        self, relay: Relay, listeners: Listeners, memory: Memory, log: Callable[[str, str], None]
    ) -> None:
        self._relay = relay
        self._listeners = listeners
        self._memory = memory
        self._log = log

    def all(self) -> list[Forward]:
        """Return all forwards, in the order in which they were added."""
        return self._relay.forwards()

    def texts(self) -> list[str]:
        """Return them as they are written."""
        return [str(forward) for forward in self.all()]

    def begin(self, forward: Forward) -> Future[Added]:
        """Begin to forward, without remembering it."""
        try:
            self._relay.begin(forward)
        except LocalError as error:
            return _refused(error)
        return self._listeners.at(forward).map(lambda listener: self._carry(forward, listener))

    def begin_again(self, text: str) -> Future[Added]:
        """Forward again what was added while an earlier gateway ran; what cannot be had is said."""
        try:
            added = self.begin(Forward.parse(text))
        except LocalError as error:
            added = _refused(error)
        return added.map(self._say_lost)

    def add(self, forward: Forward, by: By) -> Future[Added]:
        """Begin to forward, for good. Raises LocalError, like a result that is one: nothing has changed."""
        self._memory.check("forward", [*self.all(), forward._replace(port=65535)])
        return self.begin(forward).map(lambda added: self._remember(added, by))

    def remove(self, forward: Forward, by: By) -> None:
        """End a forward. Raises LocalError if there is no such forward."""
        self._relay.remove(forward)
        self.remember(by)

    def find(self, text: str) -> Forward:
        """Return the forward that ``text`` names, whole or by where the host listens. Raises LocalError."""
        names = {text, canonical(text)}
        with suppress(LocalError):
            names.add(str(Forward.parse(text)))
        for forward in self.all():
            if not names.isdisjoint((str(forward), forward.near)):
                return forward
        raise LocalError(f"there is no forward {text}; `supervisor forward list` shows all")

    def remember(self, by: By = OF_THE_START) -> None:
        """Have the next gateway begin with the forwards of now."""
        self._memory.change("forward", self.all(), by)

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
            self.remember(by)
        return added

    def _say_lost(self, added: Added) -> Added:
        if isinstance(added, LocalError):
            self._log("warning", f"what was added at run time is not forwarded again: {added}")
        return added


def _refused(error: LocalError) -> Future[Added]:
    future: Future[Added] = Future()
    future.set_result(error)
    return future
