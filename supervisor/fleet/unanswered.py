"""Find workers that do not answer their vhost-user VM, which may freeze the whole VM.

Theory of operation. QEMU waits for its back-end's answers with its main lock held, so a worker that hangs
freezes the whole guest. The supervisor has a duplicate of each VM's socket and can see unread bytes in it. A
living worker reads a message within a turn. So a worker is ended if it leaves bytes unread for ``HUNG_S``
while its loop does not turn (by its stats page). Its successor finds the message in the socket.

Pure: observations go in with ``now`` (monotonic seconds). The socket of a silent VM is checked only once a
beat, when the loop is awake anyway.

     unread    the loop has turned since    then
     no        -                            nothing to wait for
     yes       yes                          wait from now on
     yes       no, for HUNG_S               hung
"""

from forwarder.names import Incarnation

HUNG_S = 1.0
"""Longer than a busy machine delays a process, shorter than a person would call a crash."""

LOOK_S = 0.25
"""Time between two checks while bytes are unread."""


class Unanswered:
    """For each worker: since when bytes of its VM are unread."""

    def __init__(self) -> None:
        self._since: dict[Incarnation, float] = {}
        self._look_at = 0.0

    def due(self, now: float) -> bool:
        """Whether to check all sockets now."""
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_S
        return True

    def deadline(self) -> float:
        """When to check, if bytes are unread."""
        return self._look_at if self._since else float("inf")

    def seen(self, served: Incarnation, *, unread: bool, turned_at: float, now: float) -> bool:
        """Note an observation of one worker; return whether it hangs."""
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
        """Forget a worker that is gone."""
        self._since.pop(served, None)
