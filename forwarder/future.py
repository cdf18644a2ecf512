"""A future for single-threaded loops: a result that comes later, and one callback that takes it.

Exactly one result is set, and the callback is called at most once. A caller that gives up waiting forgets the
object; the caller itself has to notice a result that comes too late.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Future(Generic[T]):
    """One result."""

    def __init__(self) -> None:
        self._results: list[T] = []
        self._callback: Callable[[T], None] | None = None

    def set_result(self, result: T) -> None:
        """Set the result, and pass it to the callback if there is one."""
        self._results.append(result)
        if self._callback is not None:
            self._callback(result)

    def add_done_callback(self, take: Callable[[T], None]) -> None:
        """Call ``take`` with the result, at once if it is set already."""
        self._callback = take
        for result in self._results:
            take(result)

    def map(self, make: Callable[[T], U]) -> "Future[U]":
        """Return a future whose result is ``make`` of this one's."""
        other: Future[U] = Future()
        self.add_done_callback(lambda result: other.set_result(make(result)))
        return other

    def then(self, begin: Callable[[T], "Future[U]"]) -> "Future[U]":
        """Return a future whose result is that of what ``begin`` begins with this one's."""
        other: Future[U] = Future()
        self.add_done_callback(lambda result: begin(result).add_done_callback(other.set_result))
        return other


def known(result: T) -> Future[T]:
    """Return a future whose result is set already."""
    future: Future[T] = Future()
    future.set_result(result)
    return future


def gather(futures: Sequence[Future[T]]) -> Future[list[T]]:
    """Return a future whose result is the list of theirs, in their order, when the last has come."""
    every: Future[list[T]] = Future()
    results: dict[int, T] = {}

    def take(index: int, result: T) -> None:
        results[index] = result
        if len(results) == len(futures):
            every.set_result([results[number] for number in range(len(futures))])

    if not futures:
        every.set_result([])
    for index, future in enumerate(futures):
        future.add_done_callback(partial(take, index))
    return every
