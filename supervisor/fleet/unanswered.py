"""Workers that leave a VM of vhost-user without an answer, which may hold up all of that VM.

Theory of operation. QEMU waits for its back-end's answers with its main lock held, so a worker that hangs
freezes the guest and not only its network. The supervisor has a duplicate of each VM's socket and can see
what lies unread in it. A worker that is alive takes a message out within a turn. So one that leaves bytes
unread for ``HUNG_S`` and whose loop does not turn meanwhile (by its statistics page) is ended; its successor
finds the message where it is.

Pure: what is seen goes in with ``now`` (monotonic seconds). Nothing is looked at for a VM that says nothing
but once a beat, when the loop is awake anyway.

     unread    the loop has turned since    then
     no        -                            nothing to wait for
     yes       yes                          wait from now on
     yes       no, for HUNG_S               hung
"""

from forwarder.names import Incarnation

HUNG_S = 1.0
"""Longer than a busy machine keeps a process from running, shorter than a person takes for a crash."""

LOOK_S = 0.25
"""How often to look while something lies unread."""


class Unanswered:
    """Since when what a VM said has been lying there, for each worker."""

    def __init__(self) -> None:
        self._since: dict[Incarnation, float] = {}
        self._look_at = 0.0

    def due(self, now: float) -> bool:
        """Whether to look at all sockets now."""
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_S
        return True

    def deadline(self) -> float:
        """When to look, if something lies unread."""
        return self._look_at if self._since else float("inf")

    def seen(self, served: Incarnation, *, unread: bool, turned_at: float, now: float) -> bool:
        """Take what was seen of one worker; whether it hangs."""
        if not unread:
            self._since.pop(served, None)
            return False
        since = self._since.setdefault(served, now)
        if turned_at > since:
            since = self._since[served] = now
        if now - since < HUNG_S:
            return False
        del self._since[served]
        return True

    def forget(self, served: Incarnation) -> None:
        """Its worker is gone."""
        self._since.pop(served, None)
