"""Ask the switch's console from threads of the page's process.

``Asker`` is a connection for one thread; it connects again after a failure. All requests of viewers share one
``Desk``: one thread asks one question after the other, and keeps each answer for ``FRESH_S``. So a hundred
viewers cost the switch little more than one.

Example: Prometheus and two browsers want ``stats`` in the same second: the switch is asked once.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from forwarder.errors import LocalError
from supervisor.console.client import Client
from supervisor.console.weighing import Weighing

TIMEOUT_S = 2.0
"""A supervisor answers in milliseconds; after this time the page shows that the switch does not answer."""
FRESH_S = 1.0
MOST_WAITING = 32
"""Most waiting requests, so that they do not pile up if the switch hangs."""

T = TypeVar("T")


class Asker:
    """A connection to the console of one switch, for one thread."""

    def __init__(self, runtime_dir: str) -> None:
        self._runtime_dir = runtime_dir
        self._client: Client | None = None

    def __call__(self, name: str, /, **arguments: object) -> Any:
        """Return the result of a command. Raises LocalError; the next call connects again."""
        if self._client is None:
            self._client = Client(self._runtime_dir, TIMEOUT_S)
        try:
            return self._client.ask(name, **arguments)
        except LocalError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None


class Desk:
    """Ask the questions of requests, one after the other; used by the event loop only."""

    def __init__(self, ask: Asker) -> None:
        self._ask = ask
        self._thread = ThreadPoolExecutor(1, "desk")
        self._waiting = 0
        self._fresh: dict[tuple[str, bool], tuple[float, Any]] = {}
        self._weighing = Weighing()

    async def answer(self, question: str, job: Callable[[Asker], Any] | None = None) -> Any:
        """Return the answer to a question, at most a second old. Raises LocalError.

        ``job`` asks the question, if it has arguments.
        """
        key = question, job is None

        def fresh(ask: Asker) -> Any:
            at, known = self._fresh.get(key, (float("-inf"), None))
            if time.monotonic() - at >= FRESH_S:
                known = job(ask) if job is not None else ask(question)
                self._fresh[key] = time.monotonic(), known
            return known

        return await self.do(fresh)

    async def stats(self) -> Any:
        """Return ``stats`` for Prometheus, at most a second old (``weighing``). Raises LocalError."""
        return await self.answer("stats", self._weighing.stats)

    async def do(self, job: Callable[[Asker], T]) -> T:
        """Run ``job`` in the thread and return its result. Raises LocalError."""
        if self._waiting >= MOST_WAITING:
            raise LocalError("too many requests wait for the switch; try again")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, job, self._ask)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Ask no more; a question under way ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)
