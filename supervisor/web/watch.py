"""What the switch says, asked once a second for all viewers together.

Theory of operation. A thread asks the console and hands each answer to the event loop. However many viewers
there are, the switch is asked one round of questions a second; without viewers it is asked nothing. A
console that does not answer becomes an answer with an ``error``, and the thread asks again: so the page
goes on while the switch is away, and shows it when it is back.

Example: with three browsers and Prometheus every 15 s the switch answers ``status``, ``stats`` and ``macs``
once a second. Ten seconds after the last of them has gone, it is asked no more.

``Watch`` belongs to the event loop; ``_ask`` alone runs in the thread.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from forwarder.errors import BulkheadError
from supervisor.console.client import Client

Answer = dict[str, Any]

INTERVAL_S = 1.0
LINGER_S = 10.0
"""How long after the last interest the switch is still asked, so that a page that reloads finds an answer."""
TIMEOUT_S = 2.0
"""A supervisor answers in milliseconds; a page that waits longer had better say so."""
QUESTIONS = ("status", "stats", "macs")
MOST_WAITING = 2
"""Answers that wait for a viewer; a viewer that reads more slowly misses some."""


def ask(runtime_dir: str) -> Answer:
    """Return one round of answers by question, and ``error``: None, or the reason why there are none."""
    try:
        with Client(runtime_dir, TIMEOUT_S) as client:
            return {question: client.ask(question) for question in QUESTIONS} | {"error": None}
    except BulkheadError as error:
        return {"error": str(error)}


class Watch:
    """The latest answer, and those who wait for the next."""

    def __init__(self, question: Callable[[], Answer]) -> None:
        self._question = question
        self._queues: set[asyncio.Queue[Answer]] = set()
        self._latest: Answer | None = None
        self._wanted_until = 0.0
        self._task: asyncio.Task[None] | None = None

    async def latest(self) -> Answer:
        """Return an answer that is at most about a second old."""
        self._want()
        if self._latest is not None:
            return self._latest
        async for answer in self.answers():
            return answer
        raise AssertionError("answers end with their reader only")

    async def answers(self) -> AsyncIterator[Answer]:
        """Yield each new answer. A reader that is slow misses some, and holds up no other reader."""
        queue: asyncio.Queue[Answer] = asyncio.Queue(MOST_WAITING)
        self._queues.add(queue)
        self._want()
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _want(self) -> None:
        self._wanted_until = time.monotonic() + LINGER_S
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._queues or time.monotonic() < self._wanted_until:
                due = time.monotonic() + INTERVAL_S
                self._latest = await asyncio.to_thread(self._question) | {"at": time.time()}
                for queue in self._queues:
                    if not queue.full():
                        queue.put_nowait(self._latest)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        finally:
            self._latest = None
