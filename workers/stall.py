"""When a VM counts as stalled: frames wait for it and none has moved for a while.

Pure: what the engine has written and what waits go in with ``now``, a verdict comes out. A VM that reads
slowly moves, so it is not stalled; one that is idle has nothing waiting, so neither is that.
"""

STALL_S = 3.0
"""Longer than a guest needs to restart its network driver, shorter than a person waits."""


class StallWatch:
    """Watches one VM."""

    def __init__(self, now: float) -> None:
        self.stalled = False
        self._written = 0
        self._moved_at = now

    def observe(self, written: int, queued: int, now: float) -> bool:
        """Take bytes written so far and bytes waiting; return whether ``stalled`` has changed."""
        if written != self._written or queued == 0:
            self._written = written
            self._moved_at = now
        stalled = now - self._moved_at >= STALL_S
        changed = stalled != self.stalled
        self.stalled = stalled
        return changed

    def deadline(self, queued: int) -> float:
        """When to look again; infinity while nothing waits and nothing is stalled."""
        return self._moved_at + STALL_S if queued and not self.stalled else float("inf")
