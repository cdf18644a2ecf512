"""Frames that full rings lost, by the port that they were for, kept up to date source by source.

A frame for which a ring had no room is counted by its source, and looked for at its destination. Adding up
all sources for each destination would be 62,500 sums a second with 250 ports; so only what a source has
counted since the last look is added.

    port 1 says (2, born 7): 100 frames, later 130    towards(2, 7) is 100, later 130
"""

from collections.abc import Iterable

Key = tuple[int, int]
"""A port's number and when it was born."""


class Losses:
    """What each port has lost towards each other one."""

    def __init__(self) -> None:
        self._said: dict[int, dict[Key, int]] = {}
        self._sums: dict[Key, int] = {}

    def told(self, source: int, rows: Iterable[tuple[int, int, int, int]]) -> None:
        """Take what a source has counted by now, as a page's ``losses`` gives it."""
        self.depart(source)
        said = {(peer, born): frames for peer, born, frames, _ in rows if frames}
        for key, frames in said.items():
            self._sums[key] = self._sums.get(key, 0) + frames
        self._said[source] = said

    def depart(self, source: int) -> None:
        """Forget what a source has counted, which has left."""
        for key, frames in self._said.pop(source, {}).items():
            left = self._sums[key] - frames
            if left:
                self._sums[key] = left
            else:
                del self._sums[key]

    def towards(self, port: int, born: int) -> int:
        """Return the frames that living sources have lost towards a port."""
        return self._sums.get((port, born), 0)
