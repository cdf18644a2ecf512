"""Hear a bell as a worker does: by edges, since a bell is always readable."""

from __future__ import annotations

import select


class BellListener:
    """Listens to one bell; a context."""

    def __init__(self, bell: int) -> None:
        self._epoll = select.epoll()
        self._epoll.register(bell, select.EPOLLIN | select.EPOLLET)
        self._epoll.poll(0)

    def __enter__(self) -> BellListener:
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()

    def rang(self) -> bool:
        """Whether the bell has been rung since the last call."""
        return bool(self._epoll.poll(0))
