"""Decide whether a VM is stalled: frames wait for it, and it has read none for a while.

Pure: written and waiting bytes go in with ``now``, a verdict comes out. A VM that reads slowly is not
stalled, and neither is an idle VM, since no frames wait for it.
"""

STALL_S = 3.0
"""Longer than a guest needs to restart its network driver, shorter than the patience of a person."""


class StallWatch:
    """Watches one VM."""

    def __init__(self, now: float) -> None:
        self.stalled = False
        self._written = 0
        self._moved_at = now

    def observe(self, written: int, queued: int, now: float) -> bool:
        """Note the bytes written so far and waiting; return whether ``stalled`` has changed."""
        if written != self._written or queued == 0:
            self._written = written
            self._moved_at = now
        stalled = now - self._moved_at >= STALL_S
        changed = stalled != self.stalled
        self.stalled = stalled
        return changed

    def deadline(self, queued: int) -> float:
        """When to check again; infinity while nothing waits and the VM is not stalled."""
        return self._moved_at + STALL_S if queued and not self.stalled else float("inf")
