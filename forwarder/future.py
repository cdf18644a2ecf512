"""An answer that is on its way, for loops in which nobody may wait: ask now, say what is to be done with it.

Exactly one answer comes, from whoever was asked, and it is taken at most once. Who gives up waiting forgets
the object; whether an answer comes too late is known by the one who asked.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Later(Generic[T]):
    """One answer."""

    def __init__(self) -> None:
        self._answers: list[T] = []
        self._then: Callable[[T], None] | None = None

    def settle(self, answer: T) -> None:
        """Give the answer."""
        self._answers.append(answer)
        if self._then is not None:
            self._then(answer)

    def then(self, take: Callable[[T], None]) -> None:
        """Call ``take`` with the answer, at once if it is there."""
        self._then = take
        for answer in self._answers:
            take(answer)

    def made(self, make: Callable[[T], U]) -> "Later[U]":
        """Return an answer made of this one."""
        other: Later[U] = Later()
        self.then(lambda answer: other.settle(make(answer)))
        return other
